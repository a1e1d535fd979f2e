"""Orders expire while their channel tells nothing: none of them may be closed on the clock's word alone."""

from simulator.shoppers.shop import ShopOrder
from tests.scenarios.scenario import Scenario
from tests.servers import eventually


async def test_orders_that_expire_during_an_outage_end_as_the_channel_says_after_it(scenario: Scenario) -> None:
    orders = await scenario.place_many(8, expires_in_s=6)
    paid, unpaid = orders[:4], orders[4:]
    await scenario.faults(html_error=1.0)
    for order in paid:
        await scenario.pay(order, "lost")
    await eventually(lambda: _asked_after_expiry(scenario, orders))
    assert {await scenario.status(order) for order in orders} == {"paying"}

    await scenario.faults()

    await scenario.until("paid", *paid)
    await scenario.until("closed", *unpaid)
    for order in unpaid:
        assert (await scenario.ledger_payment(order)).status == "closed"
        kinds = [event.kind for event in await scenario.events(order)]
        assert kinds.index("payment_closed") < kinds.index("closed")


async def _asked_after_expiry(scenario: Scenario, orders: list[ShopOrder]) -> bool:
    """Whether the deadline of each has been tried in vain."""
    sql = "SELECT count(DISTINCT order_no) FROM observations WHERE order_no = ANY($1::text[]) AND by = 'close'"
    return bool(await scenario.db.fetchval(sql, [order.order_no for order in orders]) == len(orders))
