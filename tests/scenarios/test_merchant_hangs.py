"""One merchant's endpoint hangs: what others have to hear must not wait for it, and its own events are kept."""

from simulator.shoppers.shop import ShopOrder
from tests.scenarios.faulty_proxy import FaultyProxy, ProxyFault
from tests.scenarios.scenario import Scenario
from tests.servers import eventually


async def test_others_are_notified_while_one_endpoint_hangs_and_it_is_notified_later(scenario: Scenario) -> None:
    async with FaultyProxy() as endpoint:
        endpoint.forward_to(scenario.stack.merchant_url)
        await endpoint.set_fault(ProxyFault.BLACK_HOLE)
        # another name of the same address, for what is bounded is bounded by host
        hanging = await scenario.place_many(20, notify_url=f"http://127.1:{endpoint.port}/notifications")
        for order in hanging:
            await scenario.pay(order, "lost")
        await scenario.until("paid", *hanging)
        await eventually(lambda: endpoint.calls > 0)

        others = await scenario.place_many(5)
        for order in others:
            await scenario.pay(order, "lost")
        await eventually(lambda: _have_all_heard(scenario, others))
        assert [order for order in hanging if await scenario.effect_of(order)] == []

        await endpoint.set_fault(ProxyFault.NO_FAULT)
        await eventually(lambda: _have_all_heard(scenario, hanging))


async def test_an_endpoint_that_hangs_after_the_effect_hears_the_same_id_and_body_again(scenario: Scenario) -> None:
    await scenario.merchant_faults(hang=1.0, hang_s=30)
    order = await scenario.place()
    await scenario.pay(order, "lost")
    await eventually(lambda: scenario.deliveries(order))
    await scenario.merchant_faults()

    await eventually(lambda: scenario.was_notified(order, "order.paid"))

    deliveries = await scenario.deliveries(order)
    assert len(deliveries) >= 2
    assert len({(delivery.webhook_id, delivery.body_sha256) for delivery in deliveries}) == 1


async def _have_all_heard(scenario: Scenario, orders: list[ShopOrder]) -> bool:
    return all([await scenario.was_notified(order, "order.paid") for order in orders])
