"""SAQ on Redis, with many workers' slots and results that are not kept."""

from __future__ import annotations

from typing import Any

from saq import Worker
from saq.queue.redis import RedisQueue

from bench.peers.queue.plan import Plan, Records, for_each, run_role

CONCURRENCY = 200
"""Each slot waits on a connection of its own."""


def _queue(plan: Plan) -> Any:  # noqa: ANN401 -- the library is in another environment
    return RedisQueue.from_url(plan.redis_url, name="bench", max_concurrent_ops=CONCURRENCY)


async def _work(plan: Plan, records: Records) -> None:
    async def run(_: dict[str, Any], *, number: int) -> None:
        records.add(number)

    await Worker(_queue(plan), [("run", run)], concurrency=CONCURRENCY).start()


async def _produce(plan: Plan) -> None:
    queue = _queue(plan)

    async def enqueue(number: int) -> None:
        due_at = plan.due_at(number) or 0  # to SAQ's script 0.0 is not "at once", and nobody would enqueue it
        await queue.enqueue("run", key=f"bench-{number}", number=number, ttl=-1, scheduled=due_at)

    await for_each(range(plan.jobs), enqueue)
    await queue.disconnect()


if __name__ == "__main__":
    run_role(_work, _produce)
