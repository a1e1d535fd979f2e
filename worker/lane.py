"""The worker of one lane: it claims due jobs many at a time, runs each as a task, and tells Redis their ends many at a
time. A job makes no round trip of its own here, so neither slow round trips nor busy connections leave one behind.

It names no key and holds no Lua: those are in `storage.redis.job_claims`. A job that raises is not run again from
here: its row in Postgres is still due, and the sweep finds it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from traceback import walk_tb
from typing import Any

import structlog
from arq.worker import Retry
from redis.asyncio import Redis

from core.errors import RedisUnavailable
from core.jobs import Lane
from storage.redis.client import RedisLink, redis_errors
from storage.redis.delay_queue import BATCH_MAX, health_key, queue_name
from storage.redis.job_claims import Claimed, Ending, JobClaims, Turn, Way, is_text
from storage.redis.job_payload import Payload, read_payload

POLL_DELAY_S = 0.05
"""The longest sleep between two claims: a job that was armed meanwhile may be due at once."""

TURN_S = 0.01
"""The shortest one: jobs that are due within it are claimed together."""

JOB_TIMEOUT_S = 20.0
LEASE_EXTRA_S = 11.0
"""Time from a job's time-out to the end of its lease, for its end to reach Redis."""

HEALTH_INTERVAL_S = 10.0
BROKEN_GAP_S = 1.0
"""Pause after a turn that met a bug of ours."""

FINISH_S = 1.0
"""Time for the last ends to reach Redis when the worker stops."""

log = structlog.get_logger()

JobFunction = Callable[..., Awaitable[None]]
"""Called with the values of `ctx`, `job_id` and `job_try`, and the arguments of the job."""


class Running:
    """A job and its task. `job` is the latest claim: after a flush a running job may be armed and claimed again."""

    __slots__ = ("is_aborted", "job", "task")

    def __init__(self, job: Claimed, task: asyncio.Task[Ending]) -> None:
        self.job = job
        self.task = task
        self.is_aborted = False


class LaneWorker:
    """Worker of one lane until `stop_claiming`; then call `drain`. It handles no signals."""

    def __init__(
        self,
        redis: Redis,
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
        lease_ms = round(1000 * (job_timeout_s + LEASE_EXTRA_S))
        self.process = process
        self.max_jobs = max_jobs
        self.running: dict[str, Running] = {}
        self._redis = redis
        self._lane = lane
        self._functions = functions
        self._job_timeout_s = job_timeout_s
        self._ctx = dict(ctx or {})
        self._may_claim = may_claim
        self._claims = JobClaims(redis, queue_name(lane), process=process, lease_ms=lease_ms)
        self._link = RedisLink("lane", lane=lane)
        self._stopping = asyncio.Event()
        self._nudge = asyncio.Event()
        self._claiming = asyncio.Lock()
        self._gap_s = POLL_DELAY_S
        self._ended: list[Ending] = []
        self._finisher: asyncio.Task[None] | None = None
        self._counts = dict.fromkeys(("complete", "failed", "retried"), 0)
        self._healthy_until = 0.0

    # -- claiming

    async def run_forever(self) -> None:
        """Claim and start jobs until `stop_claiming`, and reconnect after every loss of the connection."""
        while not self._stopping.is_set():
            try:
                await self.run_once()
            except RedisUnavailable as error:
                await _wait(self._stopping, self._link.lost(error))
            except Exception as error:  # noqa: BLE001 -- a bug of ours must not end the lane
                self._log_bug(error)
                await _wait(self._stopping, BROKEN_GAP_S)
            else:
                self._link.up()
                await _wait(self._nudge, self._gap_s)

    async def run_once(self) -> int:
        """Start due jobs up to `max_jobs` running ones; return the number started."""
        self._nudge.clear()
        self._gap_s, started = POLL_DELAY_S, 0
        async with self._claiming:
            if self._free() > 0 and not self._stopping.is_set() and self._may_claim():
                started = await self._claim(min(self._free(), BATCH_MAX))
        await self.record_health()
        return started

    def _free(self) -> int:
        """Return the number of jobs that may be claimed. None while more ends wait for Redis."""
        return self.max_jobs - len(self.running) if len(self._ended) <= self.max_jobs else 0

    async def _claim(self, count: int) -> int:
        turn = await self._claims.claim(count)
        started = sum([self._start(job, turn) for job in turn.jobs])
        if turn.aborted:
            await self._abort(turn)
        if len(turn.jobs) < count:
            self._gap_s = min(max(turn.next_due_s, TURN_S), POLL_DELAY_S)
        elif self._free() > 0:  # more may be due
            self._gap_s = 0.0
        return started

    def _start(self, job: Claimed, turn: Turn) -> bool:
        running = self.running.get(job.id)
        if running is not None:  # armed and claimed again after a flush: its end ends this claim
            running.job = job
            return False
        if job.id in turn.aborted:
            self._end(Ending(job, Way.FINISH))
            return False
        self.running[job.id] = begun = Running(job, asyncio.create_task(self.run_job(job)))
        begun.task.add_done_callback(lambda _: self._on_done(begun))
        return True

    async def _abort(self, turn: Turn) -> None:
        """Cancel the running jobs that somebody asked to abort. Their rows are still due, and the sweep finds them."""
        ids = [job_id for job_id in turn.aborted if job_id in self.running]
        for job_id in ids:
            self.running[job_id].is_aborted = True
            self.running[job_id].task.cancel()
        ids += [job.id for job in turn.jobs if job.id in turn.aborted and job.id not in self.running]
        for job_id in ids:
            log.warning("job_aborted", lane=self._lane, job_id=job_id)
        if ids:
            await self._claims.forget_aborts(ids)

    # -- one job

    async def run_job(self, job: Claimed) -> Ending:
        """Run it, and return how it ends. It never raises: a message may hold secrets."""
        payload = _read(job)
        function = self._functions.get(payload.f) if payload else None
        if payload is None or function is None:
            return Ending(job, Way.PARK, reason=f"function {payload.f!r} not found" if payload else "unreadable")
        ctx = {**self._ctx, "job_id": job.id, "job_try": job.tries + 1}
        try:
            async with asyncio.timeout(self._job_timeout_s):
                await function(ctx, *payload.a, **payload.k)
        except Retry as retry:
            self._counts["retried"] += 1
            return Ending(job, Way.DEFER if retry.defer_score else Way.GIVE_BACK, retry.defer_score or 0)
        except Exception as error:  # noqa: BLE001 -- one job must not end the others
            self._counts["failed"] += 1
            place = {"error": type(error).__name__, "where": _where(error)}
            log.error("job_failed", job=payload.f, job_id=job.id, **place)
        else:
            self._counts["complete"] += 1
        return Ending(job, Way.FINISH)

    def _on_done(self, running: Running) -> None:
        """Take the end of a task, however it ended. A cancelled job is run again, an aborted one is not."""
        job, task = running.job, running.task
        del self.running[job.id]
        if task.cancelled():
            self._end(Ending(job, Way.FINISH if running.is_aborted else Way.GIVE_BACK))
        elif error := task.exception():
            self._log_bug(error)
            self._end(Ending(job, Way.FINISH))
        else:
            ending = task.result()
            self._end(ending if ending.job is job else Ending(job, ending.way, ending.delay_ms, ending.reason))
        if len(self.running) <= self.max_jobs * 3 // 4:
            self._nudge.set()

    # -- ends

    def _end(self, ending: Ending) -> None:
        self._ended.append(ending)
        if self._finisher is None:
            self._finisher = asyncio.create_task(self._finish())

    async def _finish(self) -> None:
        """Tell Redis the ends of all jobs that ended meanwhile, in one call after another, until none is left."""
        while self._ended:
            batch = self._ended[:BATCH_MAX]
            try:
                unended = await self._claims.end(batch)
            except RedisUnavailable as error:
                await asyncio.sleep(self._link.lost(error))
            except Exception as error:  # noqa: BLE001 -- as above
                self._log_bug(error)
                await asyncio.sleep(BROKEN_GAP_S)
            else:
                del self._ended[: len(batch)]
                self._nudge.set()
                for ending in batch:
                    if ending.job.id in unended.lost:
                        log.warning("job_left", lane=self._lane, job_id=ending.job.id)
                    elif ending.way is Way.PARK:
                        event = "job_expired" if ending.job.id in unended.expired else "job_parked"
                        log.error(event, lane=self._lane, job_id=ending.job.id, reason=ending.reason)
        self._finisher = None  # no await since the list was empty

    # -- health

    async def record_health(self) -> None:
        """Write arq's health record, by a monotonic clock, and a second one for the lane, which `arq --check` reads."""
        now = asyncio.get_running_loop().time()
        if now < self._healthy_until:
            return
        text = " ".join(f"j_{name}={count}" for name, count in self._counts.items())
        with redis_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                for key in (health_key(self._lane, self.process), health_key(self._lane)):
                    pipe.set(key, f"{text} j_ongoing={len(self.running)}", px=round(2500 * HEALTH_INTERVAL_S))
                await pipe.execute()
        self._healthy_until = now + HEALTH_INTERVAL_S

    def _log_bug(self, error: BaseException) -> None:
        log.error("lane_broke", lane=self._lane, error=type(error).__name__, where=_where(error))

    # -- stopping

    def stop_claiming(self) -> None:
        """Start no more jobs."""
        self._stopping.set()
        self._nudge.set()

    async def drain(self, timeout_s: float) -> int:
        """Let running jobs end for `timeout_s`, cancel the rest, and end every lease; return the number cancelled.

        Another worker runs the cancelled jobs at once.
        """
        self.stop_claiming()
        async with self._claiming:  # a claim in flight gets its answer, and its jobs are among the tasks
            tasks = {running.task for running in self.running.values()}
        if tasks:
            _, tasks = await asyncio.wait(tasks, timeout=timeout_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._stop_finishing()
        with suppress(RedisUnavailable):  # then the jobs are claimed again when their leases end
            await self._claims.give_back_unanswered()
            with redis_errors():
                await self._redis.delete(health_key(self._lane, self.process))
        log.info("lane_drained", lane=self._lane, cancelled=len(tasks))
        return len(tasks)

    async def _stop_finishing(self) -> None:
        finisher = self._finisher
        if finisher is not None:
            await asyncio.wait({finisher}, timeout=FINISH_S)
            finisher.cancel()
            await asyncio.gather(finisher, return_exceptions=True)


def _read(job: Claimed) -> Payload | None:
    """Return what the job is to run; None if nobody can read that."""
    if job.payload is None or not is_text(job.id):
        return None
    try:
        return read_payload(job.payload)
    except (ValueError, RecursionError):
        return None


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()


def _where(error: BaseException) -> str:
    """Module and line in which it was raised, instead of its message."""
    *_, (frame, line) = walk_tb(error.__traceback__)
    return f"{frame.f_globals.get('__name__')}:{line}"
