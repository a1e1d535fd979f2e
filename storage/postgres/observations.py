"""Observations that changed no order: written by the door, kept in one partition for each day.

Partitions are made ahead and dropped whole when they are old. What was written before its day's partition was there is
in the default partition: it is moved into one when that day is over.
"""

from __future__ import annotations

from datetime import date, timedelta

import asyncpg

from storage.postgres.database import Database
from storage.postgres.orders import find_now

DAYS_AHEAD = 3
MOVE_TIMEOUT_S = 300.0
"""Nobody writes to the days that are moved, so nobody waits for it."""

# DDL here locks the table against every order's statement, and waits for its readers (a dump, for hours): after this
# wait it is given up, and the next turn tries again. One string is one transaction, for a pooler too.
_SOON = "SET LOCAL lock_timeout = '2s'; "

# The lock that a drop takes anyway, taken before the partition is looked up by name: of two processes that drop it, the
# second could otherwise find it without its parent.
_ALONE = f"{_SOON}LOCK TABLE observations IN ACCESS EXCLUSIVE MODE; "
_PARTITIONS = """
SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
 WHERE i.inhparent = 'observations'::regclass AND c.relname ~ '^observations_[0-9]{8}$'"""

_DAYS_IN_DEFAULT = "SELECT DISTINCT (at AT TIME ZONE 'UTC')::date AS day FROM observations_default ORDER BY 1"


async def keep_partitions(db: Database, *, keep_days: int) -> tuple[int, int]:
    """Make the partitions of today and the next days, and of days in the default partition; drop those older than
    `keep_days`; (made, dropped).

    Raises:
        DatabaseUnavailable: also when the table was in use.
    """
    today = (await find_now(db)).date()
    # Today's rows still arrive: moving them would hold up every order.
    strays = [row["day"] for row in await db.fetch(_DAYS_IN_DEFAULT) if row["day"] != today]
    made = sum([await _move(db, day) for day in strays])
    there = {row["relname"] for row in await db.fetch(_PARTITIONS)}
    for ahead in range(DAYS_AHEAD + 1):
        day = today + timedelta(days=ahead)
        if _name(day) not in there:
            made += await _make(db, day)
    old = sorted(name for name in there if name < _name(today - timedelta(days=keep_days)))
    for name in old:
        await db.execute(f'{_ALONE}DROP TABLE IF EXISTS "{name}"')
    return made, len(old)


_FASTER = (asyncpg.DuplicateTableError, asyncpg.UniqueViolationError, asyncpg.InvalidObjectDefinitionError)
"""Errors of Postgres when another process has made, or is making, the same table."""


async def _make(db: Database, day: date) -> int:
    # Names and bounds are made of a date alone: DDL takes no parameters.
    sql = f"{_SOON}CREATE TABLE {_name(day)} PARTITION OF observations {_values(day)}"
    try:
        await db.execute(sql)
    except (asyncpg.CheckViolationError, *_FASTER):
        return 0  # rows of that day are in the default partition already, or another process was faster
    return 1


async def _move(db: Database, day: date) -> int:
    """Make the partition of a day from its rows in the default one, in one transaction."""
    # Rows of the day leave before the partition is attached: Postgres refuses it while the default one has any.
    sql = f"""{_SOON}LOCK TABLE observations IN SHARE UPDATE EXCLUSIVE MODE;
              CREATE TABLE {_name(day)} (LIKE observations INCLUDING DEFAULTS);
              WITH moved AS (DELETE FROM observations_default WHERE {_bounds(day)} RETURNING *)
              INSERT INTO {_name(day)} SELECT * FROM moved;
              ALTER TABLE observations ATTACH PARTITION {_name(day)} {_values(day)}"""
    try:
        await db.execute(sql, timeout_s=MOVE_TIMEOUT_S)
    except (asyncpg.CheckViolationError, *_FASTER):
        return 0  # a row arrived meanwhile, or another process was faster
    return 1


def _name(day: date) -> str:
    return f"observations_{day:%Y%m%d}"


def _values(day: date) -> str:
    return f"FOR VALUES FROM ('{day}T00:00:00Z') TO ('{day + timedelta(days=1)}T00:00:00Z')"


def _bounds(day: date) -> str:
    return f"at >= '{day}T00:00:00Z' AND at < '{day + timedelta(days=1)}T00:00:00Z'"
