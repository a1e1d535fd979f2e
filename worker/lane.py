"""The arq worker of one lane. Unlike stock arq it survives the loss of its connection, claims what is due by Redis's
clock and not by its own, loses no job that it cannot run, and gives back its leases when it stops.

It names no key and holds no Lua: those are in `storage.redis.delay_queue`. A job that raises is not run again from
here: its row in Postgres is still due, and the sweep finds it. arq's logger prints arguments at INFO: keep it at
WARNING.
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

from core.errors import RedisUnavailable
from core.jobs import Lane
from storage.redis.client import RedisLink, is_wrong_type, redis_errors
from storage.redis.delay_queue import DelayQueue, health_key, queue_name
from storage.redis.job_payload import EXPIRES_EXTRA_MS, decode_job, encode_job

POLL_DELAY_S = 0.05
JOB_TIMEOUT_S = 20.0
TRIES_MAX = 1_000_000
"""Attempts are counted in Postgres. arq also counts a crash, a deploy and a time-out, and drops a job past its
maximum."""

LOOK_MAX = 2000
"""Due jobs to look at in one claim. Running ones stand at the head, so this is twice the fleet's `max_jobs`."""

HEALTH_INTERVAL_S = 10.0
BROKEN_GAP_S = 1.0
"""Pause after a turn that met a bug of ours."""

FINISH_S = 1.0
"""Time for an ended job to remove itself from Redis when the worker stops: one round trip."""

log = structlog.get_logger()

JobFunction = Callable[..., Awaitable[None]]
"""Called with arq's context (`job_id` and the values of `ctx`) and the arguments of the job."""


class LaneWorker(Worker):
    """Worker of one lane until `stop_claiming`; then call `drain`. It handles no signals."""

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
        may_claim: Callable[[], bool] = lambda: True,
    ) -> None:
        """`may_claim`: whether new jobs may be started now."""
        super().__init__(
            [_guarded(name, function, job_timeout_s) for name, function in functions.items()],
            queue_name=queue_name(lane),
            redis_pool=redis,
            handle_signals=False,
            max_jobs=max_jobs,
            job_timeout=job_timeout_s + 1,  # later than the timeout of `_guarded`
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
        self._may_claim = may_claim
        self.process = process
        self._queue = DelayQueue(redis)
        self._link = RedisLink("lane", lane=lane)
        self._stopping = asyncio.Event()
        self._claiming = asyncio.Lock()
        self._finishing: set[asyncio.Task[Any]] = set()
        self._healthy_until = 0.0

    # -- running

    async def run_forever(self) -> None:
        """Claim and start jobs until `stop_claiming`, and reconnect after every loss of the connection."""
        while not self._stopping.is_set():
            try:
                await self.run_once()
            except RedisUnavailable as error:
                gap_s = self._link.lost(error)
            except Exception as error:  # noqa: BLE001 -- a bug of ours must not end the lane
                log.error("lane_broke", lane=self._lane, error=type(error).__name__, where=_where(error))
                gap_s = BROKEN_GAP_S
            else:
                self._link.up()
                gap_s = POLL_DELAY_S
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), gap_s)

    async def run_once(self) -> int:
        """Start due jobs up to `max_jobs` running ones; return the number started."""
        self._forget_ended()
        started = 0
        async with self._claiming:
            free = self.max_jobs - len(self.tasks)
            if free > 0 and not self._stopping.is_set() and self._may_claim():
                started = await self._claim(free)
        await self.record_health()
        return started

    async def _poll_iteration(self) -> None:
        """One turn of arq's own main loop: stock `Worker.async_run` works too, but ends with the connection."""
        await self.run_once()

    async def _claim(self, free: int) -> int:
        lease_ms = round(self.in_progress_timeout_s * 1000)
        claimed = await self._queue.claim(
            self._lane, free, owner=self.process, lease_ms=lease_ms, look_max=self.queue_read_limit
        )
        # After a flush a job that this process runs is due again, without its lease: it is ours already.
        new = [job for job in claimed if not self._is_running(job.id)]
        for job in new:
            self.tasks[job.id] = asyncio.create_task(self.run_job(job.id, job.due_ms))
        return len(new)

    def _is_running(self, job_id: str) -> bool:
        task = self.tasks.get(job_id)
        return task is not None and not task.done()

    async def record_health(self) -> None:
        """Write arq's health record, by a monotonic clock, and a second one for the lane, which `arq --check` reads."""
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
        """Run it as arq does. A lost connection ends this job alone: its lease ends and it is claimed again."""
        try:
            with redis_errors():
                await super().run_job(job_id, score)
        except RedisUnavailable as error:
            log.warning("job_left", lane=self._lane, job_id=job_id, error=type(error.__cause__).__name__)
            if is_wrong_type(error):  # it would be claimed for ever
                with suppress(RedisUnavailable):
                    await self._park(job_id, "unreadable")

    async def finish_job(self, *args: Any) -> None:
        """Finish it as arq does, in a task of its own that cancelling does not reach: `drain` waits for it."""
        task = asyncio.current_task()
        assert task is not None
        self._finishing.add(task)
        try:
            await super().finish_job(*args)
        finally:
            self._finishing.discard(task)

    async def finish_failed_job(self, job_id: str, result_data: bytes | None) -> None:
        """Park a job that arq could not start (no payload, unreadable, unknown function) instead of deleting it."""
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
        """Start no more jobs."""
        self._stopping.set()

    async def drain(self, timeout_s: float) -> int:
        """Let running jobs end for `timeout_s`, cancel the rest, and end every lease; return the number cancelled.

        Another worker runs the cancelled jobs at once.
        """
        self.stop_claiming()
        async with self._claiming:  # a claim in flight gets its answer, and its jobs are among the tasks
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
        with suppress(RedisUnavailable):  # then the jobs are claimed again when their leases end
            await self._queue.give_back(self._lane, owner=self.process, look_max=self.queue_read_limit)
            with redis_errors():
                await self.pool.delete(self.health_check_key)
        log.info("lane_drained", lane=self._lane, cancelled=len(left))
        return len(left)


def _guarded(name: str, function: JobFunction, timeout_s: float) -> Function:
    """Wrap a job so that it never raises: arq would log the message, which may hold secrets."""

    async def run(ctx: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await function(ctx, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 -- one job must not end the others
            place = {"error": type(error).__name__, "where": _where(error)}
            log.error("job_failed", job=name, job_id=ctx["job_id"], **place)

    return func(run, name=name)


def _where(error: BaseException) -> str:
    """Module and line in which it was raised, instead of its message."""
    *_, (frame, line) = walk_tb(error.__traceback__)
    return f"{frame.f_globals.get('__name__')}:{line}"
