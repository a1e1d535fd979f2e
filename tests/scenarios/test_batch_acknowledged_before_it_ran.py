"""Workers die with a batch in their hands: what was claimed and not finished must not count as done."""

from simulator.shop import ShopOrder
from tests.scenarios.scene import Scene
from tests.servers import eventually


async def test_queries_that_were_under_way_when_the_workers_died_are_made_again(scene: Scene) -> None:
    orders = await scene.place_many(10)
    for order in orders:
        await scene.put_off(order)
    before = {order.order_no: len(await scene.asked(order)) for order in orders}
    await scene.faults(affected=["query"], slow=1.0, slow_s=1.8)
    for order in orders:
        await scene.pay(order, "lost")
        await scene.make_due(order)
    await eventually(lambda: _are_all_asked(scene, orders, before))

    async with scene.no_workers():
        assert "paying" in {await scene.status(order) for order in orders}
        await scene.faults()

    await scene.until("paid", *orders)


async def _are_all_asked(scene: Scene, orders: list[ShopOrder], before: dict[str, int]) -> bool:
    return all([len(await scene.asked(order)) > before[order.order_no] for order in orders])
