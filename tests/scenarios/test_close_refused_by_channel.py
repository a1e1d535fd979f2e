"""The channel does not close the payment: then the order is not closed here either."""

from simulator.shoppers.shop import ShopOrder
from tests.scenarios.scenario import Scenario, number_of
from tests.servers import eventually


async def test_an_order_paid_at_the_channel_cannot_be_closed_and_becomes_paid(scenario: Scenario) -> None:
    order = await scenario.place()
    await scenario.put_off(order)
    await scenario.pay(order, "lost")

    async with scenario.no_workers():  # one that takes the deadline first would leave 202 to the request
        response = await scenario.close(order)

    assert response.status_code == 409
    assert response.json()["type"].endswith("/order_paid")
    assert await scenario.status(order) == "paid"


async def test_while_the_channel_does_not_close_it_the_order_stays_open(scenario: Scenario) -> None:
    order = await scenario.place()
    await scenario.faults(affected=["close"], answered_5xx=1.0)

    response = await scenario.close(order)

    assert (response.status_code, response.json()["status"]) == (202, "paying")
    await eventually(lambda: _was_closed_times(scenario, order, 2))
    assert await scenario.status(order) == "paying"
    await scenario.faults()
    await scenario.until("closed", order)
    assert (await scenario.ledger_payment(order)).status == "closed"


async def test_an_order_whose_close_was_never_answered_is_asked_about_before_it_ends(scenario: Scenario) -> None:
    """The channel has closed it, and its answer is lost: only the query tells."""
    order = await scenario.place()
    await scenario.faults(close_answer_lost=1.0)

    await scenario.close(order)

    await scenario.until("closed", order)
    assert (await scenario.ledger_payment(order)).status == "closed"


async def test_a_close_that_falls_together_with_a_query_is_not_left_to_it_again_and_again(scenario: Scenario) -> None:
    """From then on both have the same gaps: n² units. The deadline must not find somebody else asking for ever."""
    order = await scenario.place()
    await scenario.faults(affected=["close"], answered_5xx=1.0)
    assert (await scenario.close(order)).status_code == 202
    await scenario.faults()

    await scenario.until("closed", order)


async def _was_closed_times(scenario: Scenario, order: ShopOrder, times: int) -> bool:
    """Return whether the channel got this number of close calls for this order."""
    calls = [(call.kind, call.number) for call in await scenario.calls()]
    return calls.count(("close", number_of(order))) >= times
