"""Callback, query, refresh, return and close meet at one order: one lock for all of them, or one is lost."""

import asyncio

from simulator.shoppers.shop import ShopOrder
from tests.scenarios.scenario import Scenario


async def test_everything_at_once_pays_every_order_once(scenario: Scenario) -> None:
    orders = await scenario.place_many(6)
    for order in orders:
        await scenario.pay(order, "lost")

    await asyncio.gather(*(_storm(scenario, order) for order in orders))

    await scenario.until("paid", *orders)
    for order in orders:
        assert [event.kind for event in await scenario.events(order)].count("paid") == 1


async def _storm(scenario: Scenario, order: ShopOrder) -> None:
    """None of it may fail, whichever comes first; the close alone is refused, for there is money."""
    async with asyncio.TaskGroup() as group:
        closing = group.create_task(scenario.close(order))
        returning = group.create_task(scenario.return_from_channel(order))
        asking = [group.create_task(scenario.post(f"/v1/orders/{order.order_no}/refresh", api=api)) for api in (0, 1)]
        calling = [group.create_task(scenario.request_callback(order)) for _ in range(3)]
    assert closing.result().status_code in (202, 409)
    assert returning.result().status_code == 200
    assert {task.result().status_code for task in asking} == {200}
    assert {task.result() for task in calling} == {200}
