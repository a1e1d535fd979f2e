"""The row is saved, its job is not, and the request that comes again is a duplicate: the order would wait for ever."""

from tests.scenarios.scenario import Scene


async def test_an_order_placed_twice_while_redis_is_down_is_queried_without_redis(scene: Scene) -> None:
    async with scene.no_redis():
        order = await scene.place()
        again = await scene.place(order_no=order.order_no)
        assert again.payments == order.payments
        await scene.pay(order, "lost")

        await scene.until("paid", order)

        assert await scene.paid_by(order) == "sweep"
