"""Arm Redis again from Postgres: ahead of time, and everything after a flush."""

from __future__ import annotations

from functools import partial

import structlog

from core import jobs
from flows.commit import job_of
from flows.duties import Duty, do_if_due
from runtime.identity import check_identity
from runtime.loop import NOT_DUE
from runtime.resources import Resources
from storage.postgres import callbacks, notifications, pending, refunds

log = structlog.get_logger()


async def rearm_if_flushed(resources: Resources) -> object:
    """If Redis was flushed, one worker arms everything again: a duty that is due whenever there is a new epoch."""
    if (await resources.queue.epoch()).armed:
        return NOT_DUE
    return await do_if_due(resources, Duty("rearm", 0.0, partial(rearm_after_flush, resources)))


async def rearm_after_flush(resources: Resources) -> int:
    """If Redis was flushed, arm everything again that is due within the horizon. Returns how many jobs were new.

    The epoch is marked as armed only at the end, so a walk that dies is begun again by whoever looks next.
    """
    epoch = await resources.queue.epoch()
    if epoch.armed:
        return 0
    await check_identity(resources.db, resources.redis)
    count = await arm_window(resources, from_s=None, until_s=resources.settings.arm_horizon_s)
    await resources.queue.mark_rearmed(epoch)
    log.info("redis_rearmed", epoch=epoch.id, count=count)
    return count


async def arm_window(resources: Resources, *, from_s: float | None, until_s: float) -> int:
    """Arm what is due between these seconds from now and is not armed already. Returns how many jobs were new."""
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
