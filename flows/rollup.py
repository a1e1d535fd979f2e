"""Roll-ups: the buckets that are due are computed, and the longer ones that they fall into; and what this process
counted is written down, to be a part of them.
"""

from __future__ import annotations

from secrets import token_hex

import structlog

from core.rollups import Step, Tally, due_buckets, new_counts, touched
from runtime.resources import Resources, Tallies
from storage.postgres import rollups
from storage.postgres.database import Database

INTERVAL_S = 60.0
"""Interval at which the current bucket is computed again, and at which each process writes what it counted."""

BATCH = 48
"""Buckets of one run: four hours, when there were no workers for long."""

log = structlog.get_logger()


async def roll_up(resources: Resources) -> bool:
    """Compute the buckets that are due, newest first. True: there are more, which are due at once."""
    db = resources.db
    now, computed = await rollups.find_computed(db)
    due = due_buckets(computed, now)
    for start in due[:BATCH]:
        await rollups.compute(db, start)
    for step in (Step.HOUR, Step.DAY):
        for start in touched(due[:BATCH], step):
            await rollups.sum_up(db, step, start)
    if len(due) > BATCH:
        log.info("rollups_behind", count=len(due) - BATCH)
        return True
    await rollups.delete_old(db)
    return False


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
