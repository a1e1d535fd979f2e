"""Redis loses all it had: what was armed there is armed again, or found by the sweep."""

import asyncio

from core.jobs import Lane, query_payment
from core.order import PaymentKey
from simulator.shoppers.shop import ShopOrder
from storage.redis.delay_queue import job_id, queue_name
from tests.scenarios.scenario import Scene, number_of
from tests.servers import eventually
from tests.storage.redis.tools import client_of


async def test_orders_survive_a_flush_while_they_are_placed_and_paid(scene: Scene) -> None:
    async def shop() -> ShopOrder:
        order = await scene.place()
        await scene.pay(order, "lost")
        return order

    placing = [asyncio.create_task(shop()) for _ in range(20)]
    for task in placing[:3]:
        await task
        await scene.stack.flush_redis()

    await scene.until("paid", *(await asyncio.gather(*placing)))


async def test_what_is_due_soon_is_armed_again_after_a_flush(scene: Scene) -> None:
    order = await scene.place()
    await scene.make_due(order, ago_s=-2.5)
    await scene.stack.flush_redis()

    await eventually(lambda: _is_armed(scene, order))


async def test_callbacks_are_acknowledged_and_handled_right_after_a_flush(scene: Scene) -> None:
    order = await scene.place()
    await scene.put_off(order)
    await scene.pay(order, "lost")
    await scene.stack.flush_redis()

    assert await scene.call_back(order) == 200

    await scene.until("paid", order)


async def _is_armed(scene: Scene, order: ShopOrder) -> bool:
    key = PaymentKey("sandbox", number_of(order))
    arm_no = await scene.db.fetchval("SELECT arm_no FROM pending WHERE out_trade_no = $1", key.out_trade_no)
    async with client_of(scene.stack.redis.url) as redis:
        score = await redis.zscore(queue_name(Lane.QUERIES), job_id(query_payment(key, arm_no)))
    return score is not None
