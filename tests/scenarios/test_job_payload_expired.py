"""The queue still names the job, but its payload is gone: expired, evicted, deleted."""

from core.jobs import Lane
from storage.redis.delay_queue import queue_name
from tests.scenarios.scenario import Scenario
from tests.storage.redis.tools import client_of


async def test_an_order_whose_job_lost_its_payload_is_asked_about_all_the_same(scenario: Scenario) -> None:
    async with scenario.frozen_workers():
        order = await scenario.place()
        await scenario.pay(order, "lost")
        async with client_of(scenario.stack.redis.url) as redis:
            queued = await redis.zrange(queue_name(Lane.QUERIES), 0, -1)
            assert await redis.delete(*(f"arq:job:{name.decode()}" for name in queued)) > 0

    await scenario.until("paid", order)
