"""The buyer pays twice, at two channels, at the same moment: one payment pays the order, the other is a case."""

import asyncio
from functools import partial

from simulator.shoppers.shop import ShopOrder
from tests.scenarios.scenario import Scene, number_of
from tests.servers import eventually


async def test_two_payments_at_the_same_moment_are_one_paid_order_and_one_case(scene: Scene) -> None:
    """The loser of the race decides again, on what the winner has left."""
    orders = await asyncio.gather(*(_with_two_payments(scene) for _ in range(12)))
    for order in orders:
        for nth in (1, 2):
            await scene.pay(order, "lost", nth=nth)

    answers = await asyncio.gather(*(scene.call_back(order, nth=nth) for order in orders for nth in (1, 2)))

    assert set(answers) == {200}
    for order in orders:
        await eventually(partial(_has_both, scene, order))
        cases = await scene.cases(number_of(order, 1)) + await scene.cases(number_of(order, 2))
        assert cases == ["double_payment"]
        await eventually(partial(scene.effect_of, order))


async def test_when_one_payment_is_paid_the_other_is_closed_at_its_channel(scene: Scene) -> None:
    order = await _with_two_payments(scene)

    await scene.pay(order, "none", nth=2)

    await scene.until("paid", order)
    await eventually(lambda: _is_closed(scene, number_of(order, 1)))


async def _with_two_payments(scene: Scene) -> ShopOrder:
    order = await scene.place("sandbox")
    order = await scene.pay_elsewhere(order, "sandbox-b")
    await scene.put_off(order)
    return order


async def _has_both(scene: Scene, order: ShopOrder) -> bool:
    kinds = [event.kind for event in await scene.events(order)]
    return [kind for kind in kinds if kind in ("paid", "double_payment")] == ["paid", "double_payment"]


async def _is_closed(scene: Scene, number: str) -> bool:
    there = {row.out_trade_no: row.status for row in (await scene.ledger()).payments}
    here = await scene.db.fetchval("SELECT status FROM payments WHERE out_trade_no = $1", number)
    return (there[number], here) == ("closed", "closed")
