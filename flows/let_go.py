"""The end of a wait: notifications whose endpoint was resumed, and those that a person sends again in bulk.

They are let go a few at a time, `NOTIFY_RESEND_PER_S`, by one worker for all: a merchant that is back is not flooded.
"""

from __future__ import annotations

from math import ceil

import structlog

from core import jobs
from flows.commit import arm_jobs
from runtime.resources import Resources
from storage.postgres import endpoints

LET_GO_S = 2.0
"""Interval of the duty. It is due so long after its end, and looked for as often, so every second look finds it."""

TURN_S = 2 * LET_GO_S

log = structlog.get_logger()


async def let_go_held(resources: Resources) -> None:
    """The duty: what is held and not paused any more is due, one after another until the next turn."""
    per_s = resources.settings.notify_resend_per_s
    rows = await endpoints.let_go(resources.db, limit=ceil(per_s * TURN_S), gap_s=1 / per_s)
    if rows:
        log.info("notifications_let_go", count=len(rows))
        await arm_jobs(resources, [jobs.push_notification(*row) for row in rows])
