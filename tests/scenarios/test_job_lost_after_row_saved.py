"""The row is saved, its job is not, and the request that comes again is a duplicate: the order would wait for ever."""

from tests.scenarios.scenario import Scenario


async def test_an_order_placed_twice_while_redis_is_down_is_queried_without_redis(scenario: Scenario) -> None:
    async with scenario.no_redis():
        order = await scenario.place()
        again = await scenario.place(order_no=order.order_no)
        assert again.payments == order.payments
        await scenario.pay(order, "lost")

        await scenario.until("paid", order)

        assert await scenario.paid_by(order) == "sweep"
