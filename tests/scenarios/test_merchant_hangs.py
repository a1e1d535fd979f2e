"""One merchant's endpoint hangs: what others have to hear must not wait for it, and its own events are kept."""

from simulator.shoppers.shop import ShopOrder
from tests.scenarios.faulty_proxy import CrookedProxy, Way
from tests.scenarios.scenario import Scene
from tests.servers import eventually


async def test_others_are_told_while_one_endpoint_hangs_and_it_hears_everything_later(scene: Scene) -> None:
    async with CrookedProxy() as endpoint:
        endpoint.in_front_of(scene.stack.merchant_url)
        await endpoint.go(Way.BLACK_HOLE)
        # another name of the same address, for what is bounded is bounded by host
        hanging = await scene.place_many(20, notify_url=f"http://127.1:{endpoint.port}/notifications")
        for order in hanging:
            await scene.pay(order, "lost")
        await scene.until("paid", *hanging)
        await eventually(lambda: endpoint.calls > 0)

        others = await scene.place_many(5)
        for order in others:
            await scene.pay(order, "lost")
        await eventually(lambda: _have_all_heard(scene, others))
        assert [order for order in hanging if await scene.effect_of(order)] == []

        await endpoint.go(Way.STRAIGHT)
        await eventually(lambda: _have_all_heard(scene, hanging), 30)


async def test_an_endpoint_that_hangs_after_the_effect_hears_the_same_id_and_body_again(scene: Scene) -> None:
    await scene.merchant_faults(hang=1.0, hang_s=30)
    order = await scene.place()
    await scene.pay(order, "lost")
    await eventually(lambda: scene.deliveries(order))
    await scene.merchant_faults()

    await eventually(lambda: scene.was_told(order, "order.paid"))

    told = await scene.deliveries(order)
    assert len(told) >= 2
    assert len({(delivery.webhook_id, delivery.body_sha256) for delivery in told}) == 1


async def _have_all_heard(scene: Scene, orders: list[ShopOrder]) -> bool:
    return all([await scene.was_told(order, "order.paid") for order in orders])
