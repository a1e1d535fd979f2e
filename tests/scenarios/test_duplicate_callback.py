"""The same callback again: answered with anything but success it comes for a day, and it must have one effect."""

import asyncio

from tests.scenarios.scenario import Scenario, number_of
from tests.servers import eventually


async def test_ten_copies_at_once_are_all_acknowledged_and_pay_once(scenario: Scenario) -> None:
    order = await scenario.place()
    await scenario.put_off(order)
    await scenario.pay(order, "lost")

    responses = await asyncio.gather(*(scenario.request_callback(order) for _ in range(10)))

    assert responses == [200] * 10
    await scenario.until("paid", order)
    assert [event.kind for event in await scenario.events(order)].count("paid") == 1
    [stored] = await scenario.callbacks(number_of(order))
    assert stored["copies"] == 10
    await eventually(lambda: scenario.deliveries(order))
    assert len(await scenario.deliveries(order)) == 1


async def test_a_copy_for_an_order_paid_long_ago_is_acknowledged_and_changes_nothing(scenario: Scenario) -> None:
    order = await scenario.place()
    await scenario.pay(order, "none")
    await scenario.until("paid", order)
    before = await scenario.events(order)

    assert await scenario.request_callback(order) == 200

    assert await scenario.events(order) == before


async def test_callbacks_of_many_orders_in_reverse_pay_each_once(scenario: Scenario) -> None:
    orders = await scenario.place_many(8)
    await scenario.put_off(*orders)
    for order in orders:
        await scenario.pay(order, "lost")

    responses = await asyncio.gather(*(scenario.request_callback(order) for order in reversed(orders)))

    assert set(responses) == {200}
    await scenario.until("paid", *orders)
