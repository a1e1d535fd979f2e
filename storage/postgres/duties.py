"""Duties: periodic work that one process does for all of them, by name, and when each is due.

A lease ends by itself, as those of `leases` do, and also when its process is no longer in `processes`: nobody has to
take it over. A process without a row there gets no lease.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from storage.postgres.database import Database


class LeasedDuty(msgspec.Struct, frozen=True, kw_only=True):
    """A duty leased to us. `leased_at` is the token of the lease; `left_by` is the process that did not end it."""

    leased_at: datetime
    left_by: str | None


# What the process itself still holds is free too: it does one thing at a time under a name, so an answer was lost. A
# time further ahead than the interval was written under a longer one, or before the clock was set back.
_CLAIM = """
WITH own AS (
    SELECT clock_timestamp() AS leased_at, clock_timestamp() + make_interval(secs => $4) AS leased_until
      FROM processes WHERE name = $2
), made AS (
    INSERT INTO duties (name, leased_at, leased_until, leased_by)
    SELECT $1, leased_at, leased_until, $2 FROM own WHERE NOT EXISTS (SELECT FROM duties WHERE name = $1)
    ON CONFLICT DO NOTHING
    RETURNING leased_at, NULL::text AS left_by
), due AS (
    SELECT d.name, CASE WHEN d.leased_at IS NOT NULL THEN d.leased_by END AS left_by
      FROM duties d
     WHERE d.name = $1
       AND (d.due_at <= clock_timestamp() OR d.due_at > clock_timestamp() + make_interval(secs => $3))
       AND (d.leased_at IS NULL OR d.leased_until <= clock_timestamp() OR d.leased_by = $2
            OR NOT EXISTS (SELECT FROM processes p WHERE p.name = d.leased_by))
       FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE duties d
       SET leased_at = own.leased_at, leased_until = own.leased_until, leased_by = $2
      FROM due, own
     WHERE d.name = due.name
    RETURNING d.leased_at, due.left_by
)
SELECT leased_at, left_by FROM made UNION ALL SELECT leased_at, left_by FROM claimed"""

_RESCHEDULE = """
UPDATE duties
   SET due_at = clock_timestamp() + make_interval(secs => $3), leased_at = NULL, leased_until = NULL
 WHERE name = $1 AND leased_at = $2"""


async def claim(db: Database, name: str, *, interval_s: float, lease_s: float) -> LeasedDuty | None:
    """Lease a duty that is due; None if it is not due, another process has it, or this one has not beaten yet."""
    row = await db.fetchrow(_CLAIM, name, db.process, interval_s, lease_s)
    return None if row is None else LeasedDuty(**dict(row))


async def reschedule(db: Database, name: str, leased: LeasedDuty, *, delay_s: float) -> None:
    """Due again in `delay_s` seconds, for any process; nothing if another one has taken it over."""
    await db.execute(_RESCHEDULE, name, leased.leased_at, delay_s)
