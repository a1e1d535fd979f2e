"""The callback never comes: the most common way to lose an order."""

import time

from tests.scenarios.scenario import Scene
from tests.servers import eventually


async def test_every_lost_callback_is_recovered_by_the_delayed_query(scene: Scene) -> None:
    orders = await scene.place_many(20)
    for order in orders:
        await scene.pay(order, "lost")

    await scene.until("paid", *orders)

    assert {await scene.paid_by(order) for order in orders} == {"query"}


async def test_a_callback_that_was_never_made_is_recovered_and_the_merchant_told_once(scene: Scene) -> None:
    order = await scene.place()
    await scene.pay(order, "event_never_generated")

    await scene.until("paid", order)
    await eventually(lambda: scene.deliveries(order))

    [delivery] = await scene.deliveries(order)
    assert (delivery.type, delivery.answered) == ("order.paid", "200")


async def test_who_comes_back_from_the_channel_sees_paid_at_once(scene: Scene) -> None:
    """Within three seconds, although no query is due for an hour."""
    order = await scene.place()
    await scene.put_off(order)
    await scene.pay(order, "lost")
    began = time.monotonic()

    page = await scene.come_back(order)

    assert time.monotonic() - began < 3.0
    assert 'data-status="paid"' in page.text
    assert await scene.paid_by(order) == "refresh"
