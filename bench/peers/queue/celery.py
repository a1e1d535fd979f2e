"""Celery on Redis: prefork with one process, acknowledged after the run, no results, no events, a long prefetch."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

from celery import Celery

from bench.peers.queue.plan import Records, read_plan

PREFETCH = 1000
PLAN = read_plan()

app = Celery("bench", broker=PLAN.redis_url)
app.conf.update(
    task_acks_late=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=PREFETCH,
    worker_send_task_events=False,
    worker_redirect_stdouts=False,
    broker_transport_options={"visibility_timeout": 3600},
    broker_connection_retry_on_startup=True,
)
_opened: list[Records] = []


def _run(number: int) -> None:
    if not _opened:  # in the process that was forked
        _opened.append(Records(PLAN.records))
    _opened[0].add(number)


task = app.task(_run, name="run")


def _produce() -> None:
    with app.producer_pool.acquire(block=True) as producer:
        for number in range(PLAN.jobs):
            due_at = PLAN.due_at(number)
            eta = datetime.fromtimestamp(due_at, UTC) if due_at else None
            task.apply_async((number,), eta=eta, producer=producer)


if __name__ == "__main__":
    if sys.argv[1] == "produce":
        _produce()
    else:
        quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=ERROR")
        app.worker_main(["worker", "--pool=prefork", "--concurrency=1", *quiet])
