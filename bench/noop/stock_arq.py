"""Stock arq of the version that nodrop locks, with the settings that make it fast."""

from __future__ import annotations

from typing import Any, cast

import msgspec
from arq.connections import RedisSettings, create_pool
from arq.worker import Worker, func

from bench.peers.queue.plan import Plan, Records, for_each, run_role

MAX_JOBS = 1000
encode, decode = msgspec.json.encode, msgspec.json.decode


async def _work(plan: Plan, records: Records) -> None:
    async def run(_: dict[str, Any], number: int) -> None:
        records.add(number)

    worker = Worker(
        [func(cast("Any", run), name="run")],
        redis_settings=RedisSettings.from_dsn(plan.redis_url),
        max_jobs=MAX_JOBS,
        poll_delay=0.05,
        queue_read_limit=2 * MAX_JOBS,
        job_timeout=20,
        keep_result=0,
        max_tries=1_000_000,
        log_results=False,
        job_serializer=encode,
        job_deserializer=decode,
    )
    await worker.async_run()


async def _produce(plan: Plan) -> None:
    redis = await create_pool(RedisSettings.from_dsn(plan.redis_url), job_serializer=encode, job_deserializer=decode)

    async def enqueue(number: int) -> None:
        await redis.enqueue_job("run", number, _job_id=f"bench-{number}", _defer_by=plan.delay_s(number))

    await for_each(range(plan.jobs), enqueue)
    await redis.aclose()


if __name__ == "__main__":
    run_role(_work, _produce)
