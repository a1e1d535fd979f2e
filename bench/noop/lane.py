"""The lane of delayed queries: our worker and our delay queue, with the limits of production."""

from __future__ import annotations

from typing import Any

from bench.peers.queue.plan import Plan, Records, run_role
from core.jobs import Job, JobName, Lane
from core.settings import Settings
from storage.redis.address import redis_address
from storage.redis.client import JobRedis, open_job_redis
from storage.redis.delay_queue import DelayQueue
from worker.lane import LaneWorker

HORIZON_S = 3600.0


def _open(plan: Plan) -> JobRedis:
    return open_job_redis(redis_address(Settings(redis_url=plan.redis_url)))


async def _work(plan: Plan, records: Records) -> None:
    async def query_payment(_: dict[str, Any], number: int) -> None:
        records.add(number)

    settings = Settings()
    worker = LaneWorker(
        _open(plan),
        Lane.QUERIES,
        {JobName.QUERY_PAYMENT: query_payment},
        process="bench",
        max_jobs=settings.max_jobs,
    )
    await worker.run_forever()


async def _produce(plan: Plan) -> None:
    redis = _open(plan)
    queue = DelayQueue(redis, horizon_s=HORIZON_S)
    for numbers in plan.chunks():
        await queue.arm([_job(plan, number) for number in numbers])
    await redis.aclose()


def _job(plan: Plan, number: int) -> Job:
    return Job(
        lane=Lane.QUERIES,
        name=JobName.QUERY_PAYMENT,
        id=f"q:bench:{number}:1",
        args=(number,),
        delay_s=plan.delay_s(number),
    )


if __name__ == "__main__":
    run_role(_work, _produce)
