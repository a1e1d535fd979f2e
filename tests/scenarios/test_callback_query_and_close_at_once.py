"""Callback, query, refresh, return and close meet at one order: one lock for all of them, or one is lost."""

import asyncio

from simulator.shop import ShopOrder
from tests.scenarios.scene import Scene


async def test_everything_at_once_pays_every_order_once(scene: Scene) -> None:
    orders = await scene.place_many(6)
    for order in orders:
        await scene.pay(order, "lost")

    await asyncio.gather(*(_storm(scene, order) for order in orders))

    await scene.until("paid", *orders)
    for order in orders:
        assert [event.kind for event in await scene.events(order)].count("paid") == 1


async def _storm(scene: Scene, order: ShopOrder) -> None:
    """None of it may fail, whichever comes first; the close alone is refused, for there is money."""
    closing = scene.close(order)
    asking = [scene.post(f"/v1/orders/{order.order_no}/refresh", api=api) for api in (0, 1)]
    calling = [scene.call_back(order) for _ in range(3)]
    closed, returned, *answers = await asyncio.gather(closing, scene.come_back(order), *asking, *calling)
    assert closed.status_code in (202, 409), closed.text
    assert returned.status_code == 200
    assert {answer if isinstance(answer, int) else answer.status_code for answer in answers} == {200}
