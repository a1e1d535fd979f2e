"""Taskiq on a Redis stream, acknowledged after the run; what is delayed goes through its scheduler, in one process."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from taskiq import TaskiqScheduler
from taskiq.api import run_receiver_task, run_scheduler_task
from taskiq_redis import ListRedisScheduleSource, RedisStreamBroker

from bench.peers.queue.plan import Plan, Records, for_each, run_role

MAX_TASKS = 1000
READ = 500
SCHEDULE_S = timedelta(seconds=0.5)
CONNECTIONS = 100
"""Without a bound its scheduler opens more than a Redis accepts."""


def _broker(plan: Plan) -> RedisStreamBroker:
    return RedisStreamBroker(
        plan.redis_url,
        max_connection_pool_size=CONNECTIONS,
        consumer_id="0",
        xread_count=READ,
        unacknowledged_lock_timeout=5.0,
    )


async def _work(plan: Plan, records: Records) -> None:
    broker = _broker(plan)

    async def run(number: int) -> None:
        records.add(number)

    broker.register_task(run, task_name="run")
    await broker.startup()
    parts = [run_receiver_task(broker, max_async_tasks=MAX_TASKS, max_prefetch=READ)]
    if plan.begin_at:
        source = ListRedisScheduleSource(plan.redis_url, max_connection_pool_size=CONNECTIONS, buffer_size=READ)
        parts.append(
            run_scheduler_task(TaskiqScheduler(broker, [source]), interval=SCHEDULE_S, loop_interval=SCHEDULE_S)
        )
    await asyncio.gather(*parts)


async def _produce(plan: Plan) -> None:
    broker = _broker(plan)
    source = ListRedisScheduleSource(plan.redis_url, max_connection_pool_size=CONNECTIONS)

    async def run(number: int) -> None:
        """Run in the worker."""

    task = broker.register_task(run, task_name="run")
    await broker.startup()

    async def enqueue(number: int) -> None:
        if due_at := plan.due_at(number):
            await task.schedule_by_time(source, datetime.fromtimestamp(due_at, UTC), number)
        else:
            await task.kiq(number)

    await for_each(range(plan.jobs), enqueue)
    await broker.shutdown()


if __name__ == "__main__":
    run_role(_work, _produce)
