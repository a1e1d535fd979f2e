"""The named steps of an order's life, as functions where they are used: between two of them a process can die.

A world wraps these functions before its processes start, so a step costs nothing anywhere else. Calls of stores are
points too, by the names of `tests.simulation.calls`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from enum import StrEnum
from functools import wraps
from typing import Any, NamedTuple

from tests.kill_steps import place_of
from tests.simulation.processes import loop_of_world

STEPS: Mapping[str, str] = {
    "read_body": "api.http.request.Body.read",
    "verify": "flows.callback.verify_callback",
    "store_callback": "flows.callback.insert_callback",
    "park_callback": "flows.callback.park_callback",
    "receive_callback": "api.callbacks.receive_callback",
    "answer": "tests.simulation.network._call",
    "create": "flows.create.call_channel",
    "ask": "flows.ask.call_channel",
    "capture": "flows.capture.call_channel",
    "close_at_channel": "flows.close.call_channel",
    "refund_at_channel": "flows.refund.call_channel",
    "call_channel": "channels.transport.Transport.call",
    "commit": "storage.postgres.door.transition._commit",
    "publish": "storage.redis.delay_queue.FollowUps._send",
    "query_job": "worker.jobs.query_scheduled",
    "close_job": "worker.jobs.close_scheduled",
    "refund_job": "worker.jobs.refund_scheduled",
    "compensate_job": "worker.jobs.compensate",
    "push_job": "worker.jobs.push",
    "end_job": "storage.redis.job_claims.JobClaims.end",
    "deliver": "flows.notify.Notifier.deliver",
    "mark_delivered": "storage.postgres.notifications.finish",
    "sweep_row": "flows.sweep._work",
    "mark_rearmed": "storage.redis.delay_queue.DelayQueue.mark_rearmed",
    "move_parked": "flows.parked._move",
    "drain": "worker.lane.LaneWorker.drain",
    "compare_rows": "flows.reconcile.rows.RowComparer.compare",
    "save_rows": "flows.reconcile.run.save",
    "finish_run": "flows.reconcile.run.finish",
}

ANSWER = "answer"
"""After it the response is on its way, and its process dies: the one step whose result leaves the process."""


class Course(StrEnum):
    """The course of an order's life."""

    CALLBACK = "callback"
    QUERY = "query"
    """No callback comes."""

    COMPENSATION = "compensation"
    """The channel answers no query while the callback is handled."""

    SWEEP = "sweep"
    """No callback comes, and the jobs of three orders are lost."""

    FLUSHED = "flushed"
    """No callback comes, and Redis is flushed."""

    PARKED = "parked"
    """Postgres is down when the callback comes."""

    CLOSED = "closed"
    """Nobody pays, and the order's time ends."""

    ENDED = "ended"
    """Nobody pays, and the merchant ends the order."""

    REFUND = "refund"
    STOPPED = "stopped"
    """No callback comes, and the worker is stopped while it queries."""

    RECONCILED = "reconciled"
    """No callback and no query: the channel's statement alone has the payment."""


class Row(NamedTuple):
    """A step by its words, the course in which it is reached, and its points there."""

    words: str
    course: Course
    pattern: str


_C, _Q = Course.CALLBACK, Course.QUERY

ROWS = (
    Row("order: before its commit", _C, "api commit before"),
    Row("order: after its commit, before arming", _C, "api commit after"),
    Row("order: before the channel creates the payment", _C, "api create before"),
    Row("order: after the channel's answer, before the update", _C, "api create after"),
    Row("order: after that commit, before the response", _C, "api commit #2 after"),
    Row("order: after the response", _C, "api answer after"),
    Row("callback: body read", _C, "api read_body #2 after"),
    Row("callback: signature verified", _C, "api verify after"),
    Row("callback: before the inbox row", _C, "api store_callback before"),
    Row("callback: inbox row inserted", _C, "api store_callback after"),
    Row("callback: before the channel is asked", _C, "api ask before"),
    Row("callback: after the channel's answer, before the update", _C, "api ask after"),
    Row("callback: before commit", _C, "api commit #3 before"),
    Row("callback: inside the statement, nothing written", _C, "api door.write #3 before"),
    Row("callback: inside the statement, committed", _C, "api door.write #3 after"),
    Row("callback: after commit, before enqueue", _C, "api commit #3 after"),
    Row("callback: before the publish", _C, "api publish.* before"),
    Row("callback: after the publish, before the acknowledgement", _C, "api receive_callback.* after"),
    Row("callback: after the acknowledgement", _C, "api answer #[23] after"),
    Row("query: job claimed", _Q, "worker query_job before"),
    Row("query: before the channel query", _Q, "worker ask before"),
    Row("query: after the channel's answer, before the update", _Q, "worker ask after"),
    Row("query: before commit", _Q, "worker commit before"),
    Row("query: inside the statement, nothing written", _Q, "worker door.write before"),
    Row("query: inside the statement, committed", _Q, "worker door.write after"),
    Row("query: after commit, before enqueue", _Q, "worker commit after"),
    Row("query: before the publish", _Q, "worker publish before"),
    Row("query: after the publish", _Q, "worker publish after"),
    Row("query: before the job ends", _Q, "worker end_job before"),
    Row("query: after the job has ended", _Q, "worker end_job after"),
    Row("compensation: job claimed", Course.COMPENSATION, "worker compensate_job before"),
    Row("compensation: after the channel's answer", Course.COMPENSATION, "worker ask after"),
    Row("compensation: before commit", Course.COMPENSATION, "worker commit before"),
    Row("compensation: after commit", Course.COMPENSATION, "worker commit after"),
    Row("notification: job claimed", _C, "worker push_job before"),
    Row("notification: before the push", _C, "worker deliver before"),
    Row("notification: after the merchant's 200, before marking", _C, "worker deliver after"),
    Row("notification: after marking", _C, "worker mark_delivered after"),
    Row("sweep: in mid-batch, before a row", Course.SWEEP, "worker sweep_row.* before"),
    Row("sweep: in mid-batch, after a row", Course.SWEEP, "worker sweep_row.* after"),
    Row("flush: armed again, not marked", Course.FLUSHED, "worker mark_rearmed before"),
    Row("flush: marked", Course.FLUSHED, "worker mark_rearmed after"),
    Row("parked callback: before Redis", Course.PARKED, "api park_callback before"),
    Row("parked callback: parked", Course.PARKED, "api park_callback after"),
    Row("parked callback: before the inbox", Course.PARKED, "worker move_parked.* before"),
    Row("parked callback: in the inbox, still parked", Course.PARKED, "worker move_parked.* after"),
    Row("close: job claimed", Course.CLOSED, "worker close_job before"),
    Row("close: before commit", Course.CLOSED, "worker commit before"),
    Row("close: after commit", Course.CLOSED, "worker commit after"),
    Row("close: before the channel's close", Course.ENDED, "(api|worker) close_at_channel before"),
    Row("close: after the channel's close, before ours", Course.ENDED, "(api|worker) close_at_channel after"),
    Row("refund: job claimed", Course.REFUND, "worker refund_job before"),
    Row("refund: before the channel's refund", Course.REFUND, "worker refund_at_channel before"),
    Row("refund: after the channel's answer, before the update", Course.REFUND, "worker refund_at_channel after"),
    Row("shutdown: SIGTERM, jobs still run", Course.STOPPED, "worker drain.* before"),
    Row("shutdown: a lane drained", Course.STOPPED, "worker drain.* after"),
    Row("reconciliation: before the rows are compared", Course.RECONCILED, "worker compare_rows before"),
    Row("reconciliation: payment repaired, rows not saved", Course.RECONCILED, "worker compare_rows after"),
    Row("reconciliation: rows saved, run not finished", Course.RECONCILED, "worker save_rows after"),
    Row("reconciliation: run finished", Course.RECONCILED, "worker finish_run after"),
)
"""The steps that are to be reached at every channel. `#2`: the second time in a life."""


def rows_of(course: Course) -> list[Row]:
    return [row for row in ROWS if row.course is course]


def reached(row: Row, points: Iterable[str]) -> list[str]:
    """Return those of the points that are this step."""
    return [point for point in points if re.fullmatch(row.pattern, point)]


def wrap_steps(may_die: Callable[[str, str], bool]) -> None:
    """Let processes of this world die before and after each step where `may_die(step, "before" | "after")`."""
    for step, place in STEPS.items():
        owner, name = place_of(place)
        setattr(owner, name, _wrapped(step, getattr(owner, name), may_die))


def _wrapped(
    step: str, function: Callable[..., Awaitable[Any]], may_die: Callable[[str, str], bool]
) -> Callable[..., Awaitable[Any]]:
    async def die_if_wanted(moment: str) -> None:
        process = loop_of_world().current_process()
        if process is None or not may_die(step, moment):
            return
        process.crash()
        if (step, moment) != (ANSWER, "after"):
            await asyncio.get_running_loop().create_future()

    @wraps(function)
    async def wrapped(*args: Any, **options: Any) -> Any:
        await die_if_wanted("before")
        result = await function(*args, **options)
        await die_if_wanted("after")
        return result

    return wrapped
