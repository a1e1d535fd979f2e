"""Writing what was noted of refused callbacks, beside the requests. Nothing waits for it, and what cannot be written
soon is dropped: it is for people to look at, and only its numbers are kept.
"""

from __future__ import annotations

from collections import Counter

import structlog

from core.errors import DatabaseUnavailable
from runtime.resources import Resources
from storage.postgres.database import answering_within
from storage.postgres.refused_callbacks import count_refused, insert_refused

WRITE_INTERVAL_S = 2.0
WRITE_S = 3.0

log = structlog.get_logger()


async def write_refusals(resources: Resources) -> int:
    """Write what this process has noted; return the number of rows that were looked at."""
    noted = resources.refusals.take()
    if not noted.counts:
        return 0
    left = noted.counts
    try:
        async with answering_within(WRITE_S):
            await count_refused(resources.db, left)
            left = Counter()
            await insert_refused(resources.db, resources.sealer, noted.rows)
    except DatabaseUnavailable:
        log.warning("refusals_not_written", count=len(noted.rows))
        resources.refusals.put_back(left)
        return 0
    return len(noted.rows)
