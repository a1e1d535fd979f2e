"""A notification whose first job was lost: a retry that only looks at what has failed once never sends it."""

from core.jobs import Lane
from storage.redis.delay_queue import queue_name
from tests.scenarios.scenario import Scenario
from tests.servers import eventually
from tests.storage.redis.tools import client_of


async def test_a_notification_without_a_job_is_sent(scenario: Scenario) -> None:
    order = await scenario.place()
    async with scenario.frozen_workers():
        await scenario.pay(order, "none")
        await scenario.until("paid", order)
        async with client_of(scenario.stack.redis.url) as redis:
            lost = await redis.zrange(queue_name(Lane.NOTIFICATIONS), 0, -1)
            await redis.delete(queue_name(Lane.NOTIFICATIONS), *(f"arq:job:{name.decode()}" for name in lost))
        assert lost

    await eventually(lambda: scenario.was_notified(order, "order.paid"))

    assert len(await scenario.deliveries(order)) == 1
