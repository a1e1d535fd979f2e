"""Running jobs of a lane: a task each, and how each of them ends.

Their time-outs share one timer, because jobs that begin together are late together: a timer for each cost as much as
its job did without.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from traceback import walk_tb
from typing import Any

import structlog
from arq.worker import Retry

from core.jobs import Lane
from runtime.metrics import jobs_of
from storage.redis.job_claims import Claimed, Ending, Way, is_text
from storage.redis.job_payload import Payload, read_payload

log = structlog.get_logger()

JobFunction = Callable[..., Awaitable[None]]
"""Called with the values of `ctx`, `job_id` and `job_try`, and the arguments of the job."""

_How = tuple[Way, int, str]
"""The fields of an `Ending` after its job."""

_FINISHED: _How = (Way.FINISH, 0, "")
_GIVEN_BACK: _How = (Way.GIVE_BACK, 0, "")


class Running:
    """A job and its task. `job` is the latest claim: after a flush a running job may be armed and claimed again."""

    __slots__ = ("is_aborted", "is_late", "job", "late_at", "task")

    def __init__(self, job: Claimed, late_at: float, task: asyncio.Task[_How]) -> None:
        self.job = job
        self.late_at = late_at
        self.task = task
        self.is_aborted = self.is_late = False


class RunningJobs:
    """Jobs of one lane that have begun, oldest first. `end` is called with the end of each."""

    def __init__(
        self,
        lane: Lane,
        functions: Mapping[str, JobFunction],
        ctx: Mapping[str, Any],
        *,
        timeout_s: float,
        end: Callable[[Ending], None],
    ) -> None:
        self.by_id: dict[str, Running] = {}
        self.counts = dict.fromkeys(("complete", "failed", "retried"), 0)
        self._metrics = {name: jobs_of(lane.value, name) for name in (*self.counts, "parked")}
        self._lane = lane
        self._functions = functions
        self._ctx = dict(ctx)
        self._timeout_s = timeout_s
        self._end = end
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, jobs: Iterable[Claimed]) -> int:
        """Begin jobs that were claimed together; return their number. For one that runs already that claim is noted."""
        loop = asyncio.get_running_loop()
        late_at, count = loop.time() + self._timeout_s, len(self.by_id)
        for job in jobs:
            running = self.by_id.get(job.id)
            if running is not None:  # armed and claimed again after a flush: its end ends this claim
                running.job = job
                continue
            self.by_id[job.id] = running = Running(job, late_at, loop.create_task(self._run(job)))
            running.task.add_done_callback(partial(self._on_done, running))
        if self.by_id and self._timer is None:
            self._timer = loop.call_at(late_at, self._cancel_late)
        return len(self.by_id) - count

    def abort(self, job_id: str) -> None:
        """Cancel a running job, which is not run again."""
        running = self.by_id[job_id]
        running.is_aborted = True
        running.task.cancel()

    def _cancel_late(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        for running in self.by_id.values():
            if running.late_at > loop.time():  # and so are all that began after it
                self._timer = loop.call_at(running.late_at, self._cancel_late)
                return
            if not running.is_late:
                running.is_late = True
                running.task.cancel()

    async def _run(self, job: Claimed) -> _How:
        """Run it. No exception leaves here: a message may hold secrets."""
        payload = _read(job)
        function = self._functions.get(payload.f) if payload else None
        if payload is None or function is None:
            self._count("parked")
            return Way.PARK, 0, f"function {payload.f!r} not found" if payload else "unreadable"
        ctx = {**self._ctx, "job_id": job.id, "job_try": job.tries + 1}
        try:
            await function(ctx, *payload.a, **payload.k)
        except Retry as retry:
            self._count("retried")
            return (Way.DEFER, retry.defer_score, "") if retry.defer_score else _GIVEN_BACK
        except Exception as error:  # noqa: BLE001 -- one job must not end the others
            self._failed(job, type(error).__name__, error)
        else:
            self._count("complete")
        return _FINISHED

    def _on_done(self, running: Running, task: asyncio.Task[_How]) -> None:
        del self.by_id[running.job.id]
        self._end(Ending(running.job, *self._how(running, task)))

    def _how(self, running: Running, task: asyncio.Task[_How]) -> _How:
        """The end of a task. A cancelled job is run again, an aborted and a late one is not."""
        try:
            return task.result()
        except asyncio.CancelledError as error:
            if running.is_late:
                self._failed(running.job, TimeoutError.__name__, error)
            return _FINISHED if running.is_late or running.is_aborted else _GIVEN_BACK
        except Exception as error:  # noqa: BLE001 -- a bug of ours must not end the lane
            log_bug(self._lane, error)
            return _FINISHED

    def _count(self, result: str) -> None:
        self._metrics[result].inc()
        if result in self.counts:  # arq's health record has no others
            self.counts[result] += 1

    def _failed(self, job: Claimed, name: str, error: BaseException) -> None:
        self._count("failed")
        payload = _read(job)
        log.error("job_failed", job=payload and payload.f, job_id=job.id, error=name, where=_where(error))


def log_bug(lane: Lane, error: BaseException) -> None:
    """Log what must not end the lane."""
    log.error("lane_broke", lane=lane, error=type(error).__name__, where=_where(error))


def _read(job: Claimed) -> Payload | None:
    """Return what the job is to run; None if nobody can read that."""
    if job.payload is None or not is_text(job.id):
        return None
    try:
        return read_payload(job.payload)
    except (ValueError, RecursionError):
        return None


def _where(error: BaseException) -> str:
    """Module and line in which it was raised, instead of its message."""
    *_, (frame, line) = walk_tb(error.__traceback__)
    return f"{frame.f_globals.get('__name__')}:{line}"
