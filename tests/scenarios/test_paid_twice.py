"""The buyer pays twice, at two channels, at the same moment: one payment pays the order, the other is a case."""

import asyncio
from functools import partial

from simulator.shoppers.shop import ShopOrder
from tests.scenarios.scenario import Scenario, number_of
from tests.servers import eventually


async def test_two_payments_at_the_same_moment_are_one_paid_order_and_one_case(scenario: Scenario) -> None:
    """The loser of the race decides again, on what the winner has left."""
    orders = await asyncio.gather(*(_with_two_payments(scenario) for _ in range(12)))
    for order in orders:
        for nth in (1, 2):
            await scenario.pay(order, "lost", nth=nth)

    responses = await asyncio.gather(*(scenario.request_callback(order, nth=nth) for order in orders for nth in (1, 2)))

    assert set(responses) == {200}
    for order in orders:
        await eventually(partial(_has_both, scenario, order))
        cases = await scenario.cases(number_of(order, 1)) + await scenario.cases(number_of(order, 2))
        assert cases == ["double_payment"]
        await eventually(partial(scenario.effect_of, order))


async def test_when_one_payment_is_paid_the_other_is_closed_at_its_channel(scenario: Scenario) -> None:
    order = await _with_two_payments(scenario)

    await scenario.pay(order, "none", nth=2)

    await scenario.until("paid", order)
    await eventually(lambda: _is_closed(scenario, number_of(order, 1)))


async def _with_two_payments(scenario: Scenario) -> ShopOrder:
    order = await scenario.place("sandbox")
    order = await scenario.add_payment(order, "sandbox-b")
    await scenario.put_off(order)
    return order


async def _has_both(scenario: Scenario, order: ShopOrder) -> bool:
    kinds = [event.kind for event in await scenario.events(order)]
    return [kind for kind in kinds if kind in ("paid", "double_payment")] == ["paid", "double_payment"]


async def _is_closed(scenario: Scenario, number: str) -> bool:
    ledger_status = {row.out_trade_no: row.status for row in (await scenario.ledger()).payments}
    here = await scenario.db.fetchval("SELECT status FROM payments WHERE out_trade_no = $1", number)
    return (ledger_status[number], here) == ("closed", "closed")
