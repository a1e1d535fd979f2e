"""What was seen without changing anything: made by the door with its decisions, kept in one partition for each day.

Partitions are made ahead and dropped whole when they are old, so nothing is ever deleted row by row.
"""

from __future__ import annotations

from datetime import date, timedelta

import asyncpg

from storage.database import Database
from storage.orders import find_now

DAYS_AHEAD = 3
_PARTITIONS = """
SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
 WHERE i.inhparent = 'observations'::regclass AND c.relname ~ '^observations_[0-9]{8}$'"""


async def keep_partitions(db: Database, *, keep_days: int) -> tuple[int, int]:
    """Make the partitions of today and the next days, drop those older than `keep_days`; (made, dropped)."""
    today = (await find_now(db)).date()
    there = {row["relname"] for row in await db.fetch(_PARTITIONS)}
    made = 0
    for ahead in range(DAYS_AHEAD + 1):
        day = today + timedelta(days=ahead)
        if _name(day) not in there:
            made += await _make(db, day)
    old = sorted(name for name in there if name < _name(today - timedelta(days=keep_days)))
    for name in old:
        await db.execute(f'DROP TABLE IF EXISTS "{name}"')
    return made, len(old)


async def _make(db: Database, day: date) -> int:
    # Names and bounds are made of a date alone: DDL takes no parameters.
    sql = f"""CREATE TABLE IF NOT EXISTS {_name(day)} PARTITION OF observations
              FOR VALUES FROM ('{day}T00:00:00Z') TO ('{day + timedelta(days=1)}T00:00:00Z')"""
    try:
        await db.execute(sql)
    except (asyncpg.CheckViolationError, asyncpg.InvalidObjectDefinitionError, asyncpg.DuplicateTableError):
        return 0  # rows of that day are in the default partition already, or another process was faster
    return 1


def _name(day: date) -> str:
    return f"observations_{day:%Y%m%d}"
