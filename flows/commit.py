"""Commit a decision through the one door, and do what follows the commit: arm and cancel jobs, publish the change.

Redis being away is no fault here: a job that is not armed is found by the sweep.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import structlog

from core import jobs
from core.decision import Change, Decision
from core.errors import RedisUnavailable, TransactionClaimed
from core.jobs import Job
from core.order import OrderState, PendingKind
from runtime.metrics import paid_by
from runtime.resources import Resources
from storage.postgres.door.transition import Committed, Decide, DecideExisting, transition, transition_existing
from storage.postgres.pending import PendingRow
from storage.redis.changes import Change as Published

log = structlog.get_logger()


class DecideOnEvidence(Protocol):
    """The same on evidence of money. `claimed`: another payment has its channel transaction already."""

    def __call__(self, state: OrderState, *, claimed: bool = False) -> Decision: ...


EndCallback = Callable[[Decision], Decision]
"""The decision, with the end of the callback that led to it if its work is done then."""


async def commit_decision(
    resources: Resources, order_no: str, decide: DecideExisting, *, known: OrderState | None = None
) -> Committed:
    """Decide about an existing order and commit; the outcome is `stale` if it does not exist.

    `known` is the order as it was just read, which saves reading it again.

    Raises:
        ConflictsExhausted, DatabaseUnavailable: the outcome is unknown; it is decided again later.
    """
    committed = await transition_existing(resources.db, order_no, decide, known=known)
    await _after_commit(resources, committed)
    return committed


async def commit_evidence(
    resources: Resources,
    order_no: str,
    decide: DecideOnEvidence,
    *,
    known: OrderState | None = None,
    ends: EndCallback | None = None,
) -> Committed:
    """The same with evidence: if another payment has its channel transaction, decide again with `claimed`."""
    if ends is not None:
        decide = partial(_decide_and_end, decide, ends)
    try:
        return await commit_decision(resources, order_no, decide, known=known)
    except TransactionClaimed:
        return await commit_decision(resources, order_no, partial(decide, claimed=True))


def _decide_and_end(
    decide: DecideOnEvidence, ends: EndCallback, state: OrderState, *, claimed: bool = False
) -> Decision:
    return ends(decide(state, claimed=claimed))


async def commit_new(resources: Resources, order_no: str, decide: Decide) -> Committed:
    """Decide about an order that is new as a rule, and commit. Raises as `commit_decision`, and NumberTaken."""
    committed = await transition(resources.db, order_no, decide, is_new=True)
    await _after_commit(resources, committed)
    return committed


async def _after_commit(resources: Resources, committed: Committed) -> None:
    """Arm what was scheduled, cancel what was resolved, publish the change: best effort, one round trip."""
    change = committed.decision.change
    changes: list[Published] = []
    if change is not None and committed.version is not None:
        _log_change(committed, change)
        if change.pays_order:
            paid_by(change.event.by.value).inc()
        if not change.is_new:  # nobody has the page of a new order yet
            changes = [(change.order.order_no, committed.version)]
    scheduled, resolved = _jobs_of(committed)
    await follow_up(resources, arm=scheduled, cancel=resolved, changes=changes)


def _jobs_of(committed: Committed) -> tuple[list[Job], list[Job]]:
    """Jobs to arm and jobs to cancel. A new notification and a new refund have the arm number 1."""
    scheduled = [job_of(armed) for armed in committed.armed]
    if committed.notification_id is not None:
        scheduled.append(jobs.push_notification(committed.notification_id, 1))
    scheduled += [jobs.refund_payment(refund_no, 1) for refund_no in committed.refund_nos]
    return scheduled, [job_of(row) for row in committed.cancelled]


def job_of(armed: PendingRow) -> Job:
    """The job of a pending row."""
    if armed.kind is PendingKind.DEADLINE:
        return jobs.close_order(armed.order_no, armed.arm_no, armed.delay_s)
    return jobs.query_payment(armed.key, armed.arm_no, armed.delay_s)


async def arm_jobs(resources: Resources, scheduled: Sequence[Job]) -> None:
    """Enqueue jobs; while Redis is away the sweep finds their rows."""
    await follow_up(resources, arm=scheduled)


async def follow_up(
    resources: Resources, *, arm: Sequence[Job] = (), cancel: Sequence[Job] = (), changes: Sequence[Published] = ()
) -> None:
    """Enqueue jobs, remove those that have nothing left to do, and wake pages. A job that stays does nothing."""
    try:
        await resources.follow_ups.add(arm=arm, cancel=cancel, changes=changes)
    except RedisUnavailable:
        (log.warning if arm else log.debug)("jobs_not_armed", reason="redis_unavailable")


def _log_change(committed: Committed, change: Change) -> None:
    """One line for every decision that changed an order."""
    event = change.event
    name = f"order_{event.kind}"
    log.info(
        name,
        order_no=change.order.order_no,
        out_trade_no=None if event.key is None else event.key.out_trade_no,
        account=None if event.key is None else event.key.channel_account,
        by=event.by,
        status=change.order.status,
        version=committed.version,
        cases=[case.reason for case in change.cases] or None,
    )
