"""Two workers get the same work at the same moment: the channel is asked once, and the order moves once."""

from core.jobs import Job, JobName, Lane
from simulator.shoppers.shop import ShopOrder
from storage.redis.delay_queue import DelayQueue
from tests.scenarios.scenario import Scene, number_of
from tests.servers import eventually
from tests.storage.redis.tools import client_of

COPIES = 40


async def test_forty_copies_of_one_query_ask_the_channel_once(scene: Scene) -> None:
    order = await scene.place()
    await scene.put_off(order)
    before = len(await scene.asked(order))
    await scene.pay(order, "lost")
    await scene.faults(affected=["query"], slow=1.0, slow_s=0.5)
    async with scene.frozen_workers():
        await _enqueue_copies(scene, order)

    await scene.until("paid", order)
    await eventually(lambda: _queue_is_empty(scene))

    assert len(await scene.asked(order)) == before + 1
    assert [event.kind for event in await scene.events(order)].count("paid") == 1


async def test_copies_of_a_query_about_an_unpaid_order_use_up_one_attempt(scene: Scene) -> None:
    order = await scene.place()
    await scene.make_due(order, ago_s=-3600, attempt=5)
    async with scene.frozen_workers():
        await _enqueue_copies(scene, order)

    await eventually(lambda: _queue_is_empty(scene))

    assert await scene.db.fetchval("SELECT attempt FROM pending WHERE out_trade_no = $1", number_of(order)) == 6


async def _enqueue_copies(scene: Scene, order: ShopOrder) -> None:
    number = number_of(order)
    arm_no = await scene.db.fetchval("SELECT arm_no FROM pending WHERE out_trade_no = $1", number)
    copies = [
        Job(lane=Lane.QUERIES, name=JobName.QUERY_PAYMENT, id=f"q:copy:{copy}", args=("sandbox", number, arm_no))
        for copy in range(COPIES)
    ]
    async with client_of(scene.stack.redis.url) as redis:
        assert await DelayQueue(redis).arm(copies) == COPIES


async def _queue_is_empty(scene: Scene) -> bool:
    async with client_of(scene.stack.redis.url) as redis:
        return (await DelayQueue(redis).depth(Lane.QUERIES)).due == 0
