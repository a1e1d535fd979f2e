"""One lane's arq worker, with what stock arq lacks: it outlives a break of its Redis connection, takes what is due by
Redis's clock and not by its own, loses no job it cannot run, and gives back what it holds when it is told to stop.

It names no key and holds no Lua: that is `storage.redis.delay_queue`. A job that raises is not run again from here: its
row in Postgres is still due, and the sweep finds it. arq's own logger prints arguments at INFO: keep it at WARNING.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from traceback import walk_tb
from typing import Any

import msgspec
import structlog
from arq.connections import ArqRedis
from arq.worker import Function, Worker, func
from redis.exceptions import ResponseError

from core.errors import RedisUnavailable
from core.jobs import Lane
from storage.redis.client import redis_errors
from storage.redis.delay_queue import DelayQueue, health_key, queue_name
from storage.redis.job_payload import EXPIRES_EXTRA_MS, decode_job, encode_job
from storage.redis.link import RedisLink

POLL_DELAY_S = 0.05
JOB_TIMEOUT_S = 20.0
TRIES_MAX = 1_000_000
"""Attempts are counted in Postgres. To arq a crash, a deploy and a time-out are tries as well, and it drops what is
past its maximum."""

LOOK_MAX = 2000
"""Due jobs to look at for one that nobody runs: running ones stand at the head, so twice the fleet's `max_jobs`."""

HEALTH_INTERVAL_S = 10.0
FINISH_S = 1.0
"""What a job that has ended may take to tell Redis, when the worker stops: one round trip."""

log = structlog.get_logger()

JobFunction = Callable[..., Awaitable[None]]
"""Called with arq's context (`job_id` and what was given as `ctx`) and the arguments of the job."""


class LaneWorker(Worker):
    """Runs the jobs of one lane until `stop_claiming`; then `drain` it. Signals are its owner's business."""

    def __init__(
        self,
        redis: ArqRedis,
        lane: Lane,
        functions: Mapping[str, JobFunction],
        *,
        process: str,
        max_jobs: int = 500,
        job_timeout_s: float = JOB_TIMEOUT_S,
        ctx: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            [_guarded(name, function, job_timeout_s) for name, function in functions.items()],
            queue_name=queue_name(lane),
            redis_pool=redis,
            handle_signals=False,
            max_jobs=max_jobs,
            job_timeout=job_timeout_s + 1,  # the guard's comes first
            keep_result=0,
            poll_delay=POLL_DELAY_S,
            queue_read_limit=max(2 * max_jobs, LOOK_MAX),
            max_tries=TRIES_MAX,
            health_check_interval=HEALTH_INTERVAL_S,
            health_check_key=health_key(lane, process),
            ctx=dict(ctx or {}),
            job_serializer=encode_job,
            job_deserializer=decode_job,
            expires_extra_ms=EXPIRES_EXTRA_MS,
            log_results=False,
        )
        self._lane = lane
        self.process = process
        self._queue = DelayQueue(redis)
        self._link = RedisLink("lane", lane=lane)
        self._stopping = asyncio.Event()
        self._claiming = asyncio.Lock()
        self._finishing: set[asyncio.Task[Any]] = set()
        self._healthy_until = 0.0

    # -- running

    async def run_forever(self) -> None:
        """Claim and start jobs until `stop_claiming`, through every break of the connection."""
        while not self._stopping.is_set():
            try:
                await self.run_once()
            except RedisUnavailable as error:
                gap_s = self._link.lost(error)
            else:
                self._link.up()
                gap_s = POLL_DELAY_S
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), gap_s)

    async def run_once(self) -> int:
        """Start what is due as far as there is room; return how many."""
        self._forget_ended()
        started = 0
        async with self._claiming:
            free = self.max_jobs - len(self.tasks)
            if free > 0 and not self._stopping.is_set():
                started = await self._claim(free)
        await self.record_health()
        return started

    async def _poll_iteration(self) -> None:
        """What arq's own main loop calls: stock `Worker.async_run` works too, it only ends with the connection."""
        await self.run_once()

    async def _claim(self, free: int) -> int:
        lease_ms = round(self.in_progress_timeout_s * 1000)
        claimed = await self._queue.claim(
            self._lane, free, owner=self.process, lease_ms=lease_ms, look_max=self.queue_read_limit
        )
        for job in claimed:
            self.tasks[job.id] = asyncio.create_task(self.run_job(job.id, job.due_ms))
        return len(claimed)

    async def record_health(self) -> None:
        """As arq does, but by a clock that is never put back, and also under the lane's name, for `arq --check`."""
        now = self.loop.time()
        if now < self._healthy_until:
            return
        text = f"j_complete={self.jobs_complete} j_failed={self.jobs_failed} j_ongoing={len(self.tasks)}"
        with redis_errors():
            async with self.pool.pipeline(transaction=False) as pipe:
                for key in (self.health_check_key, health_key(self._lane)):
                    pipe.set(key, text, px=round(2.5 * HEALTH_INTERVAL_S * 1000))
                await pipe.execute()
        self._healthy_until = now + HEALTH_INTERVAL_S

    # -- one job

    async def run_job(self, job_id: str, score: int) -> None:
        """As arq does, but a break of the connection ends this job alone: its lease runs out and it comes up again."""
        try:
            with redis_errors():
                await super().run_job(job_id, score)
        except RedisUnavailable as error:
            log.warning("job_left", lane=self._lane, job_id=job_id, error=type(error.__cause__).__name__)
            if type(error.__cause__) is ResponseError:  # keys of another kind under its name: it would come up for ever
                with suppress(RedisUnavailable):
                    await self._park(job_id, "unreadable")

    async def finish_job(self, *args: Any) -> None:
        """As arq does. It shields this from being cancelled, in a task of its own: `drain` has to know of it."""
        task = asyncio.current_task()
        assert task is not None
        self._finishing.add(task)
        try:
            await super().finish_job(*args)
        finally:
            self._finishing.discard(task)

    async def finish_failed_job(self, job_id: str, result_data: bytes | None) -> None:
        """Arq calls this for what it could not start, and would delete it: no payload, unreadable, unknown function."""
        result = msgspec.json.decode(result_data) if result_data else {}
        await self._park(job_id, str(result.get("r", "unknown")))

    async def _park(self, job_id: str, reason: str) -> None:
        is_parked = await self._queue.park_job(self._lane, job_id)
        log.error("job_parked" if is_parked else "job_expired", lane=self._lane, job_id=job_id, reason=reason)

    def _forget_ended(self) -> None:
        for job_id, task in list(self.tasks.items()):
            if task.done():
                del self.tasks[job_id]
                if not task.cancelled() and (error := task.exception()):
                    log.error("job_left", lane=self._lane, job_id=job_id, error=type(error).__name__)

    # -- stopping

    def stop_claiming(self) -> None:
        """From now on nothing new is started."""
        self._stopping.set()

    async def drain(self, timeout_s: float) -> int:
        """Let running jobs end for `timeout_s`, cancel the rest, and give back every lease; return how many were left.

        What was cancelled is run by another worker at once, as if it had never begun.
        """
        self.stop_claiming()
        async with self._claiming:  # a claim under way gets its answer, and its jobs are among the tasks
            running = set(self.tasks.values())
        left: set[asyncio.Task[Any]] = set()
        if running:
            _, left = await asyncio.wait(running, timeout=timeout_s)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        if self._finishing:
            await asyncio.wait(self._finishing, timeout=FINISH_S)
        self._forget_ended()
        with suppress(RedisUnavailable):  # then they come up when their leases run out
            await self._queue.give_back(self._lane, owner=self.process, look_max=self.queue_read_limit)
            with redis_errors():
                await self.pool.delete(self.health_check_key)
        log.info("lane_drained", lane=self._lane, cancelled=len(left))
        return len(left)


def _guarded(name: str, function: JobFunction, timeout_s: float) -> Function:
    """The function as arq is to see it: it never raises, for arq would log the message, which may hold anything."""

    async def run(ctx: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await function(ctx, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 -- the edge of every job: one must not end the others
            what = {"error": type(error).__name__, "where": _where(error)}
            log.error("job_failed", job=name, job_id=ctx["job_id"], **what)

    return func(run, name=name)


def _where(error: BaseException) -> str:
    """Module and line in which it was raised, in place of its message."""
    *_, (frame, line) = walk_tb(error.__traceback__)
    return f"{frame.f_globals.get('__name__')}:{line}"
