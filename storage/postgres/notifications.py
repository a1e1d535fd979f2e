"""The outbox: notifications to the merchant, written in the statement that changed the order, kept until delivered.

Every delivery sends the same id and the same bytes, and what came of it is added to the row by the statement that ends
it. A notification that is not delivered within the attempts is a dead letter. A person can send any of them again; what
was delivered stays so meanwhile. Verbs and clock: `leases`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from operator import itemgetter
from typing import NamedTuple

import msgspec

from core.deliveries import ATTEMPTS_KEPT, Attempt
from core.errors import RowLocked
from storage.postgres.database import Database
from storage.postgres.gathered import Gathered, columns, if_unlocked
from storage.postgres.leases import (
    DUE,
    FREE,
    NOW,
    Claim,
    DueRow,
    claim_many_statement,
    due_in_s,
    gathered_claims,
    take_over_statement,
    walk,
    walk_statement,
)

PARKED = "parked"
"""The last status of a notification that waits for its host. It is due again without that, should all forget it."""

PARKED_MAX = 10_000

TIMED_OUT = "timed_out"
"""The last status of a notification that had no answer in time."""

HELD_S = 86_400.0
"""A notification that is held is due after this time, should nobody let it go before."""


class Outgoing(msgspec.Struct, frozen=True, kw_only=True):
    """A notification leased to us for one delivery. `is_paused`: nothing may be sent to its endpoint. `is_manual`: a
    person has sent it again.
    """

    id: str
    order_no: str
    version: int
    type: str
    url: str
    body: bytes
    attempt: int
    arm_no: int
    is_paused: bool = False
    is_manual: bool = False
    grace_s: float = 0.0


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A notification that was given up."""

    id: str
    order_no: str
    type: str
    url: str
    attempt: int
    created_at: datetime
    dead_at: datetime
    last_status: str | None


ENDPOINT = "split_part(split_part(url, '?', 1), '#', 1)"
"""`core.deliveries.endpoint_of` in SQL, as the index of held notifications has it."""

# One row by its key, whether or not it is there: an EXISTS would be planned as a hash of the whole table, too.
IS_PAUSED = f"(SELECT p.paused_at FROM paused_endpoints p WHERE p.endpoint = {ENDPOINT}) IS NOT NULL"
"""Whether a person has paused the endpoint of a row."""

_COLUMNS = f"""id, order_no, version, type, url, body, attempt, arm_no, {IS_PAUSED} AS is_paused,
       resending_since IS NOT NULL AS is_manual"""
_OPEN = "delivered_at IS NULL AND superseded_at IS NULL AND dead_at IS NULL"
_IS_OPEN = "coalesce(delivered_at, superseded_at, dead_at) IS NULL"
"""The same for one row, which is found by its key: `leases`."""
IS_SENDABLE = f"({_IS_OPEN} OR coalesce(resending_since > coalesce(superseded_at, '-infinity'), false))"
"""Open, or sent again by a person who knew where it stood."""
_DEAD = "dead_at IS NOT NULL AND delivered_at IS NULL AND superseded_at IS NULL"

_CLAIM = f"""
UPDATE notifications
   SET leased_until = clock_timestamp() + make_interval(secs => $3), leased_by = $4, held_at = NULL
 WHERE id = (SELECT id FROM notifications WHERE id = $1 AND arm_no = $2 AND {IS_SENDABLE} AND {FREE} AND {DUE}
              FOR UPDATE)
RETURNING {_COLUMNS}"""

_CLAIM_MANY = claim_many_statement(
    "notifications", "id", _COLUMNS, is_open=IS_SENDABLE, lease=", leased_by = $4, held_at = NULL"
)

_OVERDUE = f"""
WITH overdue AS (
    SELECT id FROM notifications
     WHERE {{is_open}} AND due_at <= {NOW} - make_interval(secs => $1) AND {FREE}
     ORDER BY due_at
     LIMIT $2
       FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE notifications
       SET leased_until = clock_timestamp() + make_interval(secs => $3), leased_by = $4, held_at = NULL
     WHERE id = ANY(ARRAY(SELECT id FROM overdue))
    RETURNING *
)
SELECT {_COLUMNS} FROM claimed ORDER BY due_at"""
_CLAIM_OVERDUE = _OVERDUE.format(is_open=_OPEN)
_CLAIM_OVERDUE_RESENT = _OVERDUE.format(is_open=f"resending_since IS NOT NULL AND {IS_SENDABLE}")

# The record of an attempt is JSON; without one the attempts stay as they are.
_ATTEMPTS = f"""CASE WHEN {{record}} IS NULL THEN attempts
            ELSE coalesce(CASE WHEN jsonb_array_length(attempts) < {ATTEMPTS_KEPT} THEN attempts ELSE attempts - 0 END,
                          '[]') || {{record}}::jsonb END"""

_RESCHEDULE = f"""
UPDATE notifications
   SET attempt = $3, arm_no = arm_no + 1, due_at = clock_timestamp() + make_interval(secs => $4),
       leased_until = NULL, last_status = $5, attempts = {_ATTEMPTS.format(record="$6::text")}
 WHERE id = $1 AND arm_no = $2 AND {IS_SENDABLE}
RETURNING arm_no"""

_HOLD = f"""
UPDATE notifications
   SET arm_no = arm_no + 1, due_at = clock_timestamp() + make_interval(secs => {HELD_S}), leased_until = NULL,
       held_at = clock_timestamp()
 WHERE id = $1 AND arm_no = $2 AND {IS_SENDABLE}"""

# A delivery counts under any arm number; one that a person asked for under its own alone, for its row was delivered
# before.
_UNHEARD = "(delivered_at IS NULL OR (resending_since IS NOT NULL AND arm_no = {arm_no}))"
_DELIVERED = f"""delivered_at = coalesce(delivered_at, clock_timestamp()), resending_since = NULL, leased_until = NULL,
       attempts = {_ATTEMPTS}"""

_FINISH = f"""
UPDATE notifications SET {_DELIVERED.format(record="$4::text")}, last_status = $2
 WHERE id = (SELECT id FROM notifications WHERE id = $1 AND {_UNHEARD.format(arm_no="$3")} FOR UPDATE)"""
_FINISH_UNLOCKED = if_unlocked(_FINISH)

_FINISH_MANY = f"""
WITH wanted AS MATERIALIZED (
    SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::text[]) WITH ORDINALITY
               AS w(id, status, of_arm_no, record, n)
), finished AS (
    UPDATE notifications t SET {_DELIVERED.format(record="open.record")}, last_status = open.status
      FROM (SELECT w.n, w.status, w.record, one.id FROM wanted w
             CROSS JOIN LATERAL (
                   SELECT id FROM notifications WHERE id = w.id AND {_UNHEARD.format(arm_no="w.of_arm_no")}
                      FOR UPDATE SKIP LOCKED) AS one) AS open
     WHERE t.id BETWEEN open.id AND open.id
    RETURNING open.n
)
SELECT f.n IS NOT NULL AS is_done,
       f.n IS NULL AND EXISTS (
           SELECT FROM notifications
            WHERE id BETWEEN w.id AND w.id AND {_UNHEARD.format(arm_no="w.of_arm_no")}) AS is_locked
  FROM wanted w LEFT JOIN finished f ON f.n = w.n
 ORDER BY w.n"""

# What was delivered or superseded before a person sent it again stays that.
_GIVE_UP = f"""
UPDATE notifications
   SET dead_at = CASE WHEN coalesce(delivered_at, superseded_at) IS NULL THEN clock_timestamp() ELSE dead_at END,
       resending_since = NULL, leased_until = NULL, last_status = $3, attempts = {_ATTEMPTS.format(record="$4::text")}
 WHERE id = $1 AND arm_no = $2 AND {IS_SENDABLE}
RETURNING coalesce(delivered_at, superseded_at) IS NULL"""

_LIST_DEAD = f"""
SELECT id, order_no, type, url, attempt, created_at, dead_at, last_status
  FROM notifications WHERE {_DEAD}
 ORDER BY dead_at DESC
 LIMIT $1"""

# Rows that are due a moment before the probe are left: another probe is among them.
_PARK = f"""
WITH free AS (
    SELECT id, due_at FROM notifications
     WHERE {_OPEN} AND due_at < clock_timestamp() + make_interval(secs => $2) - interval '1 s' AND url = $1 AND {FREE}
     ORDER BY due_at
     LIMIT {PARKED_MAX}
       FOR UPDATE SKIP LOCKED
), parked AS (
    SELECT id, row_number() OVER (ORDER BY due_at) = 1 AS is_probe FROM free
), postponed AS (
    UPDATE notifications n
       SET arm_no = arm_no + 1, last_status = '{PARKED}',
           due_at = clock_timestamp() + make_interval(secs => CASE WHEN is_probe THEN $2 ELSE $3 END)
      FROM parked p
     WHERE n.id = p.id
    RETURNING n.id, n.arm_no, is_probe
)
SELECT id, arm_no FROM postponed WHERE is_probe"""

_REJOIN = f"""
UPDATE notifications SET last_status = '{PARKED}'
 WHERE id IN (SELECT id FROM notifications
               WHERE {_OPEN} AND url = ANY($1) AND last_status = '{TIMED_OUT}' AND held_at IS NULL AND {FREE}
                 FOR UPDATE SKIP LOCKED)"""

_RESUME = f"""
UPDATE notifications
   SET arm_no = arm_no + 1, due_at = clock_timestamp() - make_interval(secs => $3)
 WHERE id IN (SELECT id FROM notifications
               WHERE {_OPEN} AND url = ANY($1) AND last_status = '{PARKED}' AND held_at IS NULL AND {FREE}
               ORDER BY due_at
               LIMIT $2
                 FOR UPDATE SKIP LOCKED)
RETURNING id, arm_no"""

_TAKE_OVER = take_over_statement("notifications", "id, arm_no", is_open=_OPEN)

_WALK = walk_statement("notifications", ("id",), "id, arm_no", is_open=_OPEN)


async def claim(db: Database, notification_id: str, lease_s: float, *, arm_no: int) -> Outgoing | None:
    """Lease one notification; None when it is delivered, superseded or dead, leased, not due, or armed anew."""
    return await _claim(db, Claim(notification_id, arm_no, lease_s))


async def claim_overdue(db: Database, *, grace_s: float, limit: int, lease_s: float) -> list[Outgoing]:
    """Lease free notifications that have been due for longer than `grace_s`, oldest first."""
    rows = await db.fetch(_CLAIM_OVERDUE, grace_s, limit, lease_s, db.process)
    return [Outgoing(**dict(row), grace_s=grace_s) for row in rows]


async def claim_overdue_resent(db: Database, *, grace_s: float, limit: int, lease_s: float) -> list[Outgoing]:
    """The same for those that a person has sent again, delivered ones among them."""
    rows = await db.fetch(_CLAIM_OVERDUE_RESENT, grace_s, limit, lease_s, db.process)
    return [Outgoing(**dict(row), grace_s=grace_s) for row in rows]


async def reschedule(
    db: Database, outgoing: Outgoing, *, attempt: int, delay_s: float, status: str, record: Attempt | None = None
) -> int | None:
    """Due again in `delay_s` seconds, as `attempt`. `record` is what was tried; None: nothing was.

    Returns the new arm number, None when the notification is not open any more or was scheduled meanwhile.
    """
    due_s = due_in_s(delay_s, outgoing.grace_s, is_postponed=attempt == outgoing.attempt)
    arm_no: int | None = await db.fetchval(
        _RESCHEDULE, outgoing.id, outgoing.arm_no, attempt, due_s, status, _encoded(record)
    )
    return arm_no


async def hold(db: Database, outgoing: Outgoing) -> None:
    """Keep it until its endpoint is resumed: not due, and with the attempt that it has."""
    await db.execute(_HOLD, outgoing.id, outgoing.arm_no)


async def finish(
    db: Database, notification_id: str, status: str, *, arm_no: int = 0, record: Attempt | None = None
) -> bool:
    """Mark it delivered, under any arm number; if it was delivered before, only the resending under this one.

    False: it was marked before.
    """
    return await _finish(db, _End(notification_id, status, arm_no, _encoded(record)))


async def give_up(db: Database, outgoing: Outgoing, status: str, *, record: Attempt | None = None) -> bool:
    """The attempts are used up: a dead letter, which an operator can send again. Returns whether it is one: what had
    been delivered or superseded before it was sent again is that still.
    """
    return bool(await db.fetchval(_GIVE_UP, outgoing.id, outgoing.arm_no, status, _encoded(record)))


async def list_dead_letters(db: Database, limit: int = 100) -> list[DeadLetter]:
    """Newest first."""
    return [DeadLetter(**dict(row)) for row in await db.fetch(_LIST_DEAD, limit)]


async def park(db: Database, url: str, *, wait_s: float, later_s: float) -> tuple[str, int] | None:
    """Postpone all free notifications for this URL that are due within `wait_s` seconds, as the same attempt.

    The oldest is due in `wait_s` seconds and returned with its arm number, the others are due in `later_s`.
    """
    row = await db.fetchrow(_PARK, url, wait_s, later_s)
    return None if row is None else (row["id"], row["arm_no"])


async def rejoin(db: Database, urls: Sequence[str]) -> None:
    """The host answers again: what it did not answer in time waits no longer than what was parked meanwhile."""
    await db.execute(_REJOIN, list(urls))


async def resume(db: Database, urls: Sequence[str], *, limit: int, grace_s: float) -> list[tuple[str, int]]:
    """The parked notifications for these URLs are due, so that a sweep after `grace_s` finds them too.

    Returns at most `limit` ids with their arm numbers.
    """
    return [(row["id"], row["arm_no"]) for row in await db.fetch(_RESUME, list(urls), limit, grace_s)]


async def take_over(db: Database, processes: Sequence[str]) -> list[DueRow]:
    """End the leases of these processes, which are gone. Returns the rows under their new arm numbers."""
    return [DueRow(*row) for row in await db.fetch(_TAKE_OVER, list(processes))]


async def walk_due(db: Database, *, from_s: float | None = None, until_s: float) -> AsyncIterator[list[DueRow]]:
    """Open notifications due between `from_s` (None: ever) and `until_s` seconds from now, in batches."""
    async for rows in walk(db, _WALK, ("",), from_s=from_s, until_s=until_s):
        yield [DueRow(row["id"], row["arm_no"], row["delay_s"]) for row in rows]


# -- statements for many callers ---------------------------------------------------------------------------------------


class _End(NamedTuple):
    """The end of one delivery, with the record of it as JSON."""

    id: str
    status: str
    arm_no: int
    record: str | None


_encoder = msgspec.json.Encoder()


def _encoded(record: Attempt | None) -> str | None:
    return None if record is None else _encoder.encode(record).decode()


async def _finish_many(db: Database, ends: list[_End]) -> list[bool | Exception]:
    rows = await db.fetch(_FINISH_MANY, *columns(ends))
    return [RowLocked() if row["is_locked"] else row["is_done"] for row in rows]


async def _finish_alone(db: Database, end: _End) -> bool:
    return await db.execute(_FINISH, *end) == 1


async def _finish_lone(db: Database, end: _End) -> bool | Exception:
    return await db.execute(_FINISH_UNLOCKED, *end) == 1 or RowLocked()


_claim = gathered_claims(_CLAIM, _CLAIM_MANY, lambda fields: Outgoing(**fields))
_finish: Gathered[_End, bool] = Gathered(_finish_many, alone=_finish_alone, lone=_finish_lone, key=itemgetter(0))
