"""Duties: periodic work that one worker does for all of them, whichever comes first, under a lease in Postgres.

The lease lasts as long as the process beats: within seconds after its death another worker begins anew. A duty that is
done twice does no harm, so a process that was only slow may end what it began.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import structlog

from runtime.loop import NOT_DUE, RunOnce
from runtime.resources import Resources
from storage.postgres import duties

LOOK_S = 5.0
"""Interval at which each worker looks whether a duty is due and free."""

RETRY_S = 60.0
"""The longest until a duty that failed is tried again, by whichever worker."""

RUN_S_MAX = 3600.0
"""A run that hangs ends with its lease."""

log = structlog.get_logger()


class Duty(NamedTuple):
    """Work that is due again `interval_s` after its end, or at once if `run_once` returns True."""

    name: str
    interval_s: float
    run_once: RunOnce


async def do_if_due(resources: Resources, duty: Duty) -> object:
    """Do the duty if it is due and no other process does it. Returns the result of the run, or `NOT_DUE`.

    A process that is cancelled keeps the lease: it ends, and its lease with it.
    """
    db = resources.db
    leased = await duties.claim(db, duty.name, interval_s=duty.interval_s, lease_s=RUN_S_MAX)
    if leased is None:
        return NOT_DUE
    if leased.left_by is not None:
        log.warning("duty_taken_over", name=duty.name)
    try:
        async with asyncio.timeout(RUN_S_MAX):
            result = await duty.run_once()
    except Exception:
        await duties.reschedule(db, duty.name, leased, delay_s=min(duty.interval_s, RETRY_S))
        raise
    await duties.reschedule(db, duty.name, leased, delay_s=0.0 if result is True else duty.interval_s)
    return result
