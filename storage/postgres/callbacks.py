"""The inbox: every genuine callback about money with its raw bytes, handled until it is done (`inbox` stores it). One
about a payment that stays unknown for a day is a case, or counted and dropped. The raw bytes are sealed.

`handled_at` is set only after the work is done, so a repeat after a failed handling is work and not a duplicate. Verbs
and clock: `leases`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from uuid import UUID

import msgspec
from msgspec.structs import replace

from core.lifecycle import Message
from core.order import CaseReason
from core.sentences import encode_phrase
from storage.postgres.database import Database
from storage.postgres.inbox import COLUMNS, StoredCallback, read_evidence, stored_callback
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


class CallbackCount(msgspec.Struct, frozen=True, kw_only=True):
    """The number of an account's callbacks that were acknowledged and not kept, for one reason, since the beginning."""

    account: str
    reason: str
    count: int


_OPEN = "handled_at IS NULL AND dead_at IS NULL"
_IS_OPEN = "coalesce(handled_at, dead_at) IS NULL"
"""The same for one row, which is found by its key: `leases`."""

_CLAIM = f"""
UPDATE callbacks
   SET leased_until = clock_timestamp() + make_interval(secs => $3), leased_by = $4
 WHERE id = (SELECT id FROM callbacks WHERE id = $1::uuid AND arm_no = $2 AND {_IS_OPEN} AND {FREE} AND {DUE}
              FOR UPDATE)
RETURNING {COLUMNS}"""

_CLAIM_MANY = claim_many_statement("callbacks", "id", COLUMNS, is_open=_IS_OPEN, key_type="uuid")

_CLAIM_OVERDUE = f"""
WITH overdue AS (
    SELECT id FROM callbacks
     WHERE {_OPEN} AND due_at <= {NOW} - make_interval(secs => $1) AND {FREE}
     ORDER BY due_at
     LIMIT $2
       FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE callbacks
       SET leased_until = clock_timestamp() + make_interval(secs => $3), leased_by = $4
     WHERE id = ANY(ARRAY(SELECT id FROM overdue))
    RETURNING *
)
SELECT {COLUMNS} FROM claimed ORDER BY due_at"""

_RESCHEDULE = f"""
UPDATE callbacks
   SET attempt = $3, arm_no = arm_no + 1, due_at = clock_timestamp() + make_interval(secs => $4),
       leased_until = NULL, outcome = $5
 WHERE id = $1::uuid AND arm_no = $2 AND {_IS_OPEN}
RETURNING arm_no"""

_FINISH = """
UPDATE callbacks SET handled_at = clock_timestamp(), outcome = $2, leased_until = NULL
 WHERE id = $1::uuid AND handled_at IS NULL"""

_GIVE_UP = f"""
WITH dead AS (
    UPDATE callbacks SET dead_at = clock_timestamp(), leased_until = NULL, outcome = $2
     WHERE id = $1::uuid AND {_IS_OPEN}
    RETURNING channel_account, out_trade_no
)
INSERT INTO cases (order_no, channel_account, out_trade_no, reason, detail, phrase)
SELECT (SELECT order_no FROM payments p
         WHERE p.channel_account = dead.channel_account AND p.out_trade_no = dead.out_trade_no),
       channel_account, out_trade_no, $3, $4, $5
  FROM dead
ON CONFLICT DO NOTHING"""

_FIND_MESSAGES = """
SELECT c.evidence::text, c.received_at
  FROM unnest($2::text[]) AS named(out_trade_no)
 CROSS JOIN LATERAL (
       SELECT * FROM callbacks
        WHERE callbacks.channel_account = $1 AND callbacks.out_trade_no = named.out_trade_no OFFSET 0) AS c
 WHERE c.id <> $3::uuid"""

_COUNT = """
INSERT INTO callback_counts AS c (channel_account, reason, count, last_at)
{counted}
ON CONFLICT (channel_account, reason) DO UPDATE SET count = c.count + 1, last_at = excluded.last_at"""
_COUNT_ONE = _COUNT.format(counted="VALUES ($1, $2, 1, clock_timestamp())")

_DROP = f"""
WITH dropped AS (
    DELETE FROM callbacks WHERE id = $1::uuid AND arm_no = $2 AND {_IS_OPEN} RETURNING channel_account
){_COUNT.format(counted="SELECT channel_account, 'unknown', 1, clock_timestamp() FROM dropped")}"""

_ASSIGN = "UPDATE callbacks SET out_trade_no = $2 WHERE id = $1::uuid AND out_trade_no <> $2"

_COUNTS = "SELECT channel_account AS account, reason, count FROM callback_counts ORDER BY 1, 2"

_TAKE_OVER = take_over_statement("callbacks", "id::text, arm_no", is_open=_OPEN)

_WALK = walk_statement("callbacks", ("id",), "id, arm_no", is_open=_OPEN)


async def claim(db: Database, callback_id: str, lease_s: float, *, arm_no: int) -> StoredCallback | None:
    """Lease one callback; None when it is handled or given up, leased, not due, or has another arm number."""
    return await _claim(db, Claim(callback_id, arm_no, lease_s))


async def claim_overdue(db: Database, *, grace_s: float, limit: int, lease_s: float) -> list[StoredCallback]:
    """Lease free callbacks that have been due for longer than `grace_s`, oldest first."""
    rows = await db.fetch(_CLAIM_OVERDUE, grace_s, limit, lease_s, db.process)
    return [replace(stored_callback(dict(row)), grace_s=grace_s) for row in rows]


async def reschedule(
    db: Database, callback: StoredCallback, *, attempt: int, delay_s: float, outcome: str
) -> int | None:
    """Due again in `delay_s` seconds, as `attempt`.

    Returns the new arm number, None when the callback is not open any more or was scheduled meanwhile.
    """
    due_s = due_in_s(delay_s, callback.grace_s, is_postponed=attempt == callback.attempt)
    arm_no: int | None = await db.fetchval(_RESCHEDULE, callback.id, callback.arm_no, attempt, due_s, outcome)
    return arm_no


async def finish(db: Database, callback_id: str, outcome: str) -> bool:
    """Mark it handled, under any arm number. False: it was marked before."""
    return await db.execute(_FINISH, callback_id, outcome) == 1


async def give_up(db: Database, callback: StoredCallback, reason: CaseReason, detail: str) -> None:
    """The attempts are used up: a case opens in the same statement. Giving up is not evidence."""
    await db.execute(_GIVE_UP, callback.id, reason.value, reason.value, detail, encode_phrase(detail))


async def find_others(db: Database, callback: StoredCallback, numbers: Iterable[str]) -> tuple[Message, ...]:
    """The other stored callbacks of the account that name the payment by one of these numbers."""
    rows = await db.fetch(_FIND_MESSAGES, callback.channel_account, list(numbers), callback.id)
    return tuple(Message(evidence=read_evidence(row["evidence"]), received_at=row["received_at"]) for row in rows)


async def drop(db: Database, callback: StoredCallback) -> None:
    """Delete it and count it, in one statement: it is another system's."""
    await db.execute(_DROP, callback.id, callback.arm_no)


async def assign(db: Database, callback_id: str, out_trade_no: str) -> None:
    """File it under the number of the payment that another of its ids names: its case is a case of that payment."""
    await db.execute(_ASSIGN, callback_id, out_trade_no)


async def count_callback(db: Database, account: str, reason: str) -> None:
    """Count a genuine callback that is not stored."""
    await db.execute(_COUNT_ONE, account, reason)


async def find_counts(db: Database) -> list[CallbackCount]:
    """Counts of all accounts."""
    return [CallbackCount(**dict(row)) for row in await db.fetch(_COUNTS)]


async def take_over(db: Database, processes: Sequence[str]) -> list[DueRow]:
    """End the leases of these processes, which are gone. Returns the rows under their new arm numbers."""
    return [DueRow(*row) for row in await db.fetch(_TAKE_OVER, list(processes))]


async def walk_due(db: Database, *, from_s: float | None = None, until_s: float) -> AsyncIterator[list[DueRow]]:
    """Open callbacks due between `from_s` (None: ever) and `until_s` seconds from now, in batches."""
    async for rows in walk(db, _WALK, (UUID(int=0),), from_s=from_s, until_s=until_s):
        yield [DueRow(str(row["id"]), row["arm_no"], row["delay_s"]) for row in rows]


_claim = gathered_claims(_CLAIM, _CLAIM_MANY, stored_callback)
