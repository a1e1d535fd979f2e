"""Workers die with a batch in their hands: what was claimed and not finished must not count as done."""

from simulator.shoppers.shop import ShopOrder
from tests.scenarios.scenario import Scene, number_of
from tests.servers import eventually


async def test_queries_that_were_under_way_when_the_workers_died_are_made_again(scene: Scene) -> None:
    orders = await scene.place_many(10)
    await scene.put_off(*orders)
    before = len(await scene.calls())
    await scene.faults(affected=["query"], slow=1.0, slow_s=1.8)
    for order in orders:
        await scene.pay(order, "lost")
    await scene.make_due(*orders)
    await eventually(lambda: _are_all_asked(scene, orders, before))

    async with scene.no_workers():
        assert "paying" in {await scene.status(order) for order in orders}
        await scene.faults()

    await scene.until("paid", *orders)


async def _are_all_asked(scene: Scene, orders: list[ShopOrder], before: int) -> bool:
    numbers = {call.number for call in (await scene.calls())[before:]}
    return {number_of(order) for order in orders} <= numbers
