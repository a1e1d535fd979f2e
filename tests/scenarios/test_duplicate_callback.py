"""The same callback again: answered with anything but success it comes for a day, and it must have one effect."""

import asyncio

from tests.scenarios.scenario import Scene, number_of
from tests.servers import eventually


async def test_ten_copies_at_once_are_all_acknowledged_and_pay_once(scene: Scene) -> None:
    order = await scene.place()
    await scene.put_off(order)
    await scene.pay(order, "lost")

    answers = await asyncio.gather(*(scene.call_back(order) for _ in range(10)))

    assert answers == [200] * 10
    await scene.until("paid", order)
    assert [event.kind for event in await scene.events(order)].count("paid") == 1
    [stored] = await scene.callbacks(number_of(order))
    assert stored["copies"] == 10
    await eventually(lambda: scene.deliveries(order))
    assert len(await scene.deliveries(order)) == 1


async def test_a_copy_for_an_order_paid_long_ago_is_acknowledged_and_changes_nothing(scene: Scene) -> None:
    order = await scene.place()
    await scene.pay(order, "none")
    await scene.until("paid", order)
    before = await scene.events(order)

    assert await scene.call_back(order) == 200

    assert await scene.events(order) == before


async def test_callbacks_of_many_orders_in_reverse_pay_each_once(scene: Scene) -> None:
    orders = await scene.place_many(8)
    await scene.put_off(*orders)
    for order in orders:
        await scene.pay(order, "lost")

    answers = await asyncio.gather(*(scene.call_back(order) for order in reversed(orders)))

    assert set(answers) == {200}
    await scene.until("paid", *orders)
