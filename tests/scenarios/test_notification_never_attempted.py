"""A notification whose first job was lost: a retry that only looks at what has failed once never sends it."""

from core.jobs import Lane
from storage.redis.delay_queue import queue_name
from tests.scenarios.scenario import Scene
from tests.servers import eventually
from tests.storage.redis.tools import client_of


async def test_a_notification_without_a_job_is_sent(scene: Scene) -> None:
    order = await scene.place()
    async with scene.frozen_workers():
        await scene.pay(order, "none")
        await scene.until("paid", order)
        async with client_of(scene.stack.redis.url) as redis:
            lost = await redis.zrange(queue_name(Lane.NOTIFICATIONS), 0, -1)
            await redis.delete(queue_name(Lane.NOTIFICATIONS), *(f"arq:job:{name.decode()}" for name in lost))
        assert lost

    await eventually(lambda: scene.was_told(order, "order.paid"))

    assert len(await scene.deliveries(order)) == 1
