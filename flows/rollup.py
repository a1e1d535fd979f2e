"""Roll-ups: the buckets that are due are computed, and the longer ones that they fall into; hours in which no worker
ran are filled from what is kept; and what this process counted is written down, to be a part of them.
"""

from __future__ import annotations

from secrets import token_hex

import structlog

from core.rollups import (
    Step,
    Tally,
    batch_of,
    bucket_of,
    due_buckets,
    filled_since,
    first_of_minutes,
    hours_to_fill,
    new_counts,
    stale,
)
from core.settings import Settings
from runtime.resources import Resources, Tallies
from storage.postgres import rollups
from storage.postgres.database import Database
from storage.postgres.orders import find_now

INTERVAL_S = 60.0
"""Interval at which the current bucket is computed again, and at which each process writes what it counted."""

BATCH = 48
"""Buckets of one run: four hours, when there were no workers for long."""

FILL_BATCH = 24
"""Hours of one run that are filled from the tables, when there were none for days."""

log = structlog.get_logger()


async def roll_up(resources: Resources) -> bool:
    """Compute the buckets that are due, newest first, and then hours that are lacking. True: there are more, which are
    due at once.
    """
    db = resources.db
    now = await find_now(db)
    first_order_at, first_at = await rollups.find_first(db)
    fill_since = filled_since(now, first_order_at, kept_days=_kept_days(resources.settings))
    since = min(fill_since, bucket_of(first_of_minutes(now), Step.DAY))
    due = due_buckets(
        await rollups.find_computed(db, Step.MINUTES, first_of_minutes(now), now), now, first_at=first_at or now
    )
    for start in (batch := batch_of(due, BATCH)):
        await rollups.compute(db, start)
    minutes = await rollups.find_computed(db, Step.MINUTES, first_of_minutes(now), now)
    hours = await rollups.find_computed(db, Step.HOUR, since, now)
    for start in stale(minutes, hours, Step.HOUR):
        await rollups.sum_up(db, Step.HOUR, start)
    left = len(due) - len(batch)
    if not left:
        lacking = hours_to_fill(hours, fill_since, now)
        for start in lacking[:FILL_BATCH]:
            await rollups.fill_hour(db, start)
        left = max(0, len(lacking) - FILL_BATCH)
    hours = await rollups.find_computed(db, Step.HOUR, since, now)
    for start in stale(hours, await rollups.find_computed(db, Step.DAY, since, now), Step.DAY):
        await rollups.sum_up(db, Step.DAY, start)
    if left:
        log.info("rollups_behind", count=left)
        return True
    await rollups.delete_old(db)
    return False


def _kept_days(settings: Settings) -> int:
    """Days for which orders, callbacks and notifications are all kept."""
    return min(settings.callbacks_keep_days, settings.notifications_keep_days)


class TallyWriter:
    """Writes what this process counted since the last time. A writing whose answer was lost is repeated as it was."""

    def __init__(self, db: Database, tallies: Tallies) -> None:
        self._db = db
        self._tallies = tallies
        self._source = token_hex(8)
        self._number = 0
        self._written: dict[Tally, int] = {}
        self._under_way: dict[Tally, int] | None = None

    async def write_once(self) -> int:
        """Write what is new; returns the number of accounts and endpoints. Raises DatabaseUnavailable."""
        if self._under_way is None:
            self._under_way = dict(self._tallies)
        new = new_counts(self._under_way, self._written)
        if new:
            await rollups.add_tallies(self._db, self._source, self._number, new)
            self._number += 1
        self._written, self._under_way = self._under_way, None
        return len(new)
