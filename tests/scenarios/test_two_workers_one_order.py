"""Two workers get the same work at the same time: the channel gets one query, and the order changes once."""

from core.jobs import Job, JobName, Lane
from simulator.shoppers.shop import ShopOrder
from storage.redis.delay_queue import DelayQueue, queue_name
from tests.scenarios.scenario import Scenario, number_of
from tests.servers import eventually
from tests.storage.redis.tools import client_of

COPIES = 40


async def test_forty_copies_of_one_query_ask_the_channel_once(scenario: Scenario) -> None:
    order = await scenario.place()
    await scenario.put_off(order)
    before = len(await scenario.query_times(order))
    await scenario.pay(order, "lost")
    await scenario.faults(affected=["query"], slow=1.0, slow_s=0.5)
    async with scenario.frozen_workers():
        await _enqueue_copies(scenario, order)

    await scenario.until("paid", order)
    await eventually(lambda: _copies_have_ended(scenario))

    assert len(await scenario.query_times(order)) == before + 1
    assert [event.kind for event in await scenario.events(order)].count("paid") == 1


async def test_copies_of_a_query_about_an_unpaid_order_use_up_one_attempt(scenario: Scenario) -> None:
    order = await scenario.place()
    await scenario.make_due(order, ago_s=-3600, attempt=5)
    async with scenario.frozen_workers():
        await _enqueue_copies(scenario, order)

    await eventually(lambda: _copies_have_ended(scenario))

    assert await scenario.db.fetchval("SELECT attempt FROM pending WHERE out_trade_no = $1", number_of(order)) == 6


async def _enqueue_copies(scenario: Scenario, order: ShopOrder) -> None:
    number = number_of(order)
    sql = "UPDATE pending SET due_at = clock_timestamp() WHERE out_trade_no = $1 RETURNING arm_no"
    arm_no = await scenario.db.fetchval(sql, number)
    copies = [
        Job(lane=Lane.QUERIES, name=JobName.QUERY_PAYMENT, id=f"q:copy:{copy}", args=("sandbox", number, arm_no))
        for copy in range(COPIES)
    ]
    async with client_of(scenario.stack.redis.url) as redis:
        assert await DelayQueue(redis).arm(copies) == COPIES


async def _copies_have_ended(scenario: Scenario) -> bool:
    """None is queued: those that run are, until they end."""
    async with client_of(scenario.stack.redis.url) as redis:
        return not any(b"q:copy:" in name for name in await redis.zrange(queue_name(Lane.QUERIES), 0, -1))
