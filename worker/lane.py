"""The worker of one lane: it claims due jobs many at a time, runs each as a task, and tells Redis their ends many at a
time. A job makes no round trip of its own here, so neither slow round trips nor busy connections leave one behind.

It names no key and holds no Lua: those are in `storage.redis.job_claims`. A job that raises is not run again from
here: its row in Postgres is still due, and the sweep finds it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import structlog
from redis.asyncio import Redis

from core.errors import RedisUnavailable
from core.jobs import Lane
from storage.redis.client import RedisLink, redis_errors
from storage.redis.delay_queue import BATCH_MAX, NUDGED_S, health_key, queue_name
from storage.redis.job_claims import Ending, JobClaims, Turn, Unended, Way
from storage.redis.nudges import Nudges
from worker.running import JobFunction, RunningJobs, log_bug

POLL_DELAY_S = 0.05
"""The longest sleep of a lane that hears no nudges, and the shortest time from a claim to one for which a nudge asks:
under load each claim has many jobs."""

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
        nudges: Nudges | None = None,
    ) -> None:
        """`may_claim`: whether new jobs may be started now. `nudges`: those that this process hears."""
        lease_ms = round(1000 * (job_timeout_s + LEASE_EXTRA_S))
        self.process = process
        self.max_jobs = max_jobs
        self._jobs = RunningJobs(lane, functions, ctx or {}, timeout_s=job_timeout_s, end=self._end)
        self.running = self._jobs.by_id
        self._redis = redis
        self._lane = lane
        self._may_claim = may_claim
        self._claims = JobClaims(redis, queue_name(lane), process=process, lease_ms=lease_ms)
        self._link = RedisLink("lane", lane=lane)
        self._stopping = asyncio.Event()
        self._nudge = asyncio.Event()
        self._nudges = nudges
        self._claimed_at = 0.0
        if nudges is not None:
            nudges.add(queue_name(lane), self.nudge)
        self._claiming = asyncio.Lock()
        self._gap_s = POLL_DELAY_S
        self._is_more_due = False
        self._ended: list[Ending] = []
        self._finisher: asyncio.Task[None] | None = None
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
                log_bug(self._lane, error)
                await _wait(self._stopping, BROKEN_GAP_S)
            else:
                self._link.up()
                await _wait(self._nudge, self._gap_s)

    async def run_once(self) -> int:
        """Start due jobs up to `max_jobs` running ones; return the number started."""
        self._nudge.clear()
        self._gap_s, self._is_more_due, started = self._sleep_s(), True, 0
        self._claimed_at = asyncio.get_running_loop().time()
        async with self._claiming:
            if self._free() > 0 and not self._stopping.is_set() and self._may_claim():
                started = await self._claim(min(self._free(), BATCH_MAX))
        await self.record_health()
        return started

    def nudge(self) -> None:
        """Claim soon: a job was armed that may be due."""
        loop = asyncio.get_running_loop()
        loop.call_at(max(loop.time(), self._claimed_at + POLL_DELAY_S), self._nudge.set)

    def _sleep_s(self) -> float:
        """The longest sleep: a job that is armed meanwhile may be due at once."""
        return NUDGED_S if self._nudges is not None and self._nudges.is_listening else POLL_DELAY_S

    def _free(self) -> int:
        """Return the number of jobs that may be claimed. None while more ends wait for Redis."""
        return self.max_jobs - len(self.running) if len(self._ended) <= self.max_jobs else 0

    async def _claim(self, count: int) -> int:
        turn = await self._claims.claim(count)
        started = await self._begin_unless_aborted(turn) if turn.aborted else self._jobs.begin(turn.jobs)
        self._is_more_due = len(turn.jobs) == count
        if not self._is_more_due:
            self._gap_s = min(max(turn.next_due_s, TURN_S), self._sleep_s())
        elif self._free() > 0:
            self._gap_s = 0.0
        return started

    async def _begin_unless_aborted(self, turn: Turn) -> int:
        """Begin jobs but those that somebody asked to abort. Their rows are still due, and the sweep finds them."""
        ids = [job_id for job_id in turn.aborted if job_id in self.running]
        for job_id in ids:
            self._jobs.abort(job_id)
        aborted = [job for job in turn.jobs if job.id in turn.aborted and job.id not in self.running]
        for job in aborted:
            self._end(Ending(job, Way.FINISH))
        started = self._jobs.begin(job for job in turn.jobs if job not in aborted)
        ids += [job.id for job in aborted]
        for job_id in ids:
            log.warning("job_aborted", lane=self._lane, job_id=job_id)
        if ids:
            await self._claims.forget_aborts(ids)
        return started

    # -- ends

    def _end(self, ending: Ending) -> None:
        self._ended.append(ending)
        if self._finisher is None:
            self._finisher = asyncio.create_task(self._finish())
        if self._is_more_due and len(self.running) <= self.max_jobs * 3 // 4:
            self._nudge.set()

    async def _finish(self) -> None:
        """Tell Redis the ends of all jobs that ended meanwhile, in one call after another, until none is left."""
        while self._ended:
            batch = self._ended[:BATCH_MAX]
            try:
                unended = await self._claims.end(batch)
            except RedisUnavailable as error:
                await asyncio.sleep(self._link.lost(error))
            except Exception as error:  # noqa: BLE001 -- as above
                log_bug(self._lane, error)
                await asyncio.sleep(BROKEN_GAP_S)
            else:
                del self._ended[: len(batch)]
                if self._is_more_due:
                    self._nudge.set()
                self._log_unusual(batch, unended)
        self._finisher = None  # no await since the list was empty

    def _log_unusual(self, batch: Sequence[Ending], unended: Unended) -> None:
        for ending in batch:
            if ending.job.id in unended.lost:
                log.warning("job_left", lane=self._lane, job_id=ending.job.id)
            elif ending.way is Way.PARK:
                event = "job_expired" if ending.job.id in unended.expired else "job_parked"
                log.error(event, lane=self._lane, job_id=ending.job.id, reason=ending.reason)

    # -- health

    async def record_health(self) -> None:
        """Write arq's health record, by a monotonic clock, and a second one for the lane, which `arq --check` reads."""
        now = asyncio.get_running_loop().time()
        if now < self._healthy_until:
            return
        text = " ".join(f"j_{name}={count}" for name, count in self._jobs.counts.items())
        with redis_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                for key in (health_key(self._lane, self.process), health_key(self._lane)):
                    pipe.set(key, f"{text} j_ongoing={len(self.running)}", px=round(2500 * HEALTH_INTERVAL_S))
                await pipe.execute()
        self._healthy_until = now + HEALTH_INTERVAL_S

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


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()
