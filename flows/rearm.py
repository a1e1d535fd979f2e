"""Reminding Redis of what Postgres remembers: after every commit, ahead of time, and everything after a flush.

Redis being away is no fault here: what is not armed is found by the sweep.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import structlog

from core import jobs
from core.errors import RedisUnavailable
from core.jobs import Job
from core.order import PendingKind
from runtime.resources import Resources
from storage.postgres import callbacks, notifications, pending, refunds
from storage.postgres.door import Armed, Committed

REARM_LOCK_S = 60.0
ARM_TIMEOUT_S = 1.0
"""A Redis that hangs keeps nobody waiting who has an order or a callback to answer: what is not armed is swept."""

log = structlog.get_logger()


def job_of(armed: Armed) -> Job:
    """The job that serves a pending row."""
    if armed.kind is PendingKind.DEADLINE:
        return jobs.close_order(armed.order_no, armed.arm_no, armed.delay_s)
    return jobs.query_payment(armed.key, armed.arm_no, armed.delay_s)


async def after_commit(resources: Resources, committed: Committed) -> None:
    """Arm what the commit scheduled, cancel what it resolved, tell the pages: best effort, three round trips."""
    scheduled = [job_of(armed) for armed in committed.armed]
    if committed.notification_id is not None:
        scheduled.append(jobs.push_notification(committed.notification_id, 1))
    scheduled += [jobs.refund_payment(refund_no, 1) for refund_no in committed.refund_nos]
    await arm_jobs(resources, scheduled)
    await cancel_jobs(resources, [job_of(gone) for gone in committed.cancelled])
    change = committed.decision.change
    if change is not None and committed.version is not None:
        log_change(committed)
        await resources.changes.publish([(change.order.order_no, committed.version)])


async def arm_jobs(resources: Resources, scheduled: Iterable[Job]) -> None:
    """Enqueue, or leave it to the sweep when Redis is away."""
    try:
        async with asyncio.timeout(ARM_TIMEOUT_S):
            await resources.queue.arm(list(scheduled))
    except (RedisUnavailable, TimeoutError):
        log.warning("jobs_not_armed", reason="redis_unavailable")


async def cancel_jobs(resources: Resources, resolved: Iterable[Job]) -> None:
    """Remove jobs that have nothing left to do; one that stays finds that out by itself."""
    try:
        async with asyncio.timeout(ARM_TIMEOUT_S):
            await resources.queue.cancel(list(resolved))
    except (RedisUnavailable, TimeoutError):
        log.debug("jobs_not_cancelled", reason="redis_unavailable")


async def rearm_after_flush(resources: Resources) -> int:
    """Notice that Redis was flushed, and arm everything again that is due within the horizon; how many were new.

    The epoch is marked as armed only at the end, so a walk that dies is begun again by whoever looks next.
    """
    epoch = await resources.queue.epoch()
    if epoch.armed or not await resources.queue.claim_rearm(REARM_LOCK_S):
        return 0
    count = await arm_window(resources, from_s=None, until_s=resources.settings.arm_horizon_s)
    await resources.queue.mark_rearmed(epoch)
    log.info("redis_rearmed", epoch=epoch.id, count=count)
    return count


async def arm_window(resources: Resources, *, from_s: float | None, until_s: float) -> int:
    """Arm what is due between these seconds from now and is not armed already. Returns how many were new."""
    count = 0
    async for armed in pending.walk_due(resources.db, from_s=from_s, until_s=until_s):
        count += await resources.queue.arm([job_of(row) for row in armed])
    for walk_due, job in (
        (callbacks.walk_due, jobs.compensate_callback),
        (refunds.walk_due, jobs.refund_payment),
        (notifications.walk_due, jobs.push_notification),
    ):
        async for rows in walk_due(resources.db, until_s=until_s):
            count += await resources.queue.arm([job(*row) for row in rows])
    return count


def log_change(committed: Committed) -> None:
    """One line for every decision that changed an order."""
    change = committed.decision.change
    if change is None:
        return
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
