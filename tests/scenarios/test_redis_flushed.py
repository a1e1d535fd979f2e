"""Redis loses all it had: what was armed there is armed again, or found by the sweep."""

import asyncio

from core.jobs import Lane, query_payment
from core.order import PaymentKey
from simulator.shoppers.shop import ShopOrder
from storage.redis.delay_queue import job_id, queue_name
from tests.scenarios.scenario import Scenario, number_of
from tests.servers import eventually
from tests.storage.redis.tools import client_of


async def test_orders_survive_a_flush_while_they_are_placed_and_paid(scenario: Scenario) -> None:
    async def shop() -> ShopOrder:
        order = await scenario.place()
        await scenario.pay(order, "lost")
        return order

    placing = [asyncio.create_task(shop()) for _ in range(20)]
    for task in placing[:3]:
        await task
        await scenario.stack.flush_redis()

    await scenario.until("paid", *(await asyncio.gather(*placing)))


async def test_what_is_due_soon_is_armed_again_after_a_flush(scenario: Scenario) -> None:
    order = await scenario.place()
    await scenario.make_due(order, ago_s=-2.5)
    await scenario.stack.flush_redis()

    await eventually(lambda: _is_armed(scenario, order))


async def test_callbacks_are_acknowledged_and_handled_right_after_a_flush(scenario: Scenario) -> None:
    order = await scenario.place()
    await scenario.put_off(order)
    await scenario.pay(order, "lost")
    await scenario.stack.flush_redis()

    assert await scenario.request_callback(order) == 200

    await scenario.until("paid", order)


async def _is_armed(scenario: Scenario, order: ShopOrder) -> bool:
    key = PaymentKey("sandbox", number_of(order))
    arm_no = await scenario.db.fetchval("SELECT arm_no FROM pending WHERE out_trade_no = $1", key.out_trade_no)
    async with client_of(scenario.stack.redis.url) as redis:
        score = await redis.zscore(queue_name(Lane.QUERIES), job_id(query_payment(key, arm_no)))
    return score is not None
