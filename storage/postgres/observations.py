"""Observations that changed no order: written by the door, kept in one partition for each day.

Partitions are made ahead and dropped whole when they are old. What was written before its day's partition was there is
in the default partition: it is moved into one when that day is over.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta

import asyncpg

from storage.postgres.database import Database
from storage.postgres.orders import find_now

DAYS_AHEAD = 3
MOVE_TIMEOUT_S = 300.0
"""Nobody writes to the days that are moved, so nobody waits for it."""

# DDL locks the table against every order's statement, and waits for its readers (a dump, for hours): after two seconds
# it is given up, and the next turn tries again. The functions of 0021_audit.sql run it with the rights of the tables'
# owner, who may be another than the application's role.
_MAKE = "SELECT make_observations($1)"
_MOVE = "SELECT move_observations($1)"
_DROP = "SELECT drop_observations($1)"
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
        await db.execute(_DROP, datetime.strptime(name[-8:], "%Y%m%d").date())  # noqa: DTZ007 - a date alone
    return made, len(old)


_FASTER = (asyncpg.DuplicateTableError, asyncpg.UniqueViolationError, asyncpg.InvalidObjectDefinitionError)
"""Errors of Postgres when another process has made, or is making, the same table."""


async def _make(db: Database, day: date) -> int:
    try:
        await db.execute(_MAKE, day)
    except (asyncpg.CheckViolationError, *_FASTER):
        return 0  # rows of that day are in the default partition already, or another process was faster
    return 1


async def _move(db: Database, day: date) -> int:
    """Make the partition of a day from its rows in the default one, in one transaction."""
    try:
        await db.execute(_MOVE, day, timeout_s=MOVE_TIMEOUT_S)
    except (asyncpg.CheckViolationError, *_FASTER):
        return 0  # a row arrived meanwhile, or another process was faster
    return 1


def _name(day: date) -> str:
    return f"observations_{day:%Y%m%d}"
