"""The inbox: every genuine callback about money with its raw bytes, stored before it is acknowledged, handled until it
is done. One about a payment that stays unknown for a day is a case, or counted and dropped. The raw bytes are sealed.

`handled_at` is set only after the work is done, so a repeat after a failed handling is work and not a duplicate. Verbs
and clock: `leases`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from uuid import UUID

import msgspec
from msgspec.structs import replace

from core.evidence import Evidence
from core.lifecycle import Message
from core.order import CaseReason
from storage.postgres.database import Database, document, storable
from storage.postgres.leases import DUE, FREE, NOW, DueRow, due_in_s, take_over_statement, walk, walk_statement
from storage.sealing import Sealer

_evidence_decoder: msgspec.json.Decoder[Evidence] = msgspec.json.Decoder(Evidence)


class StoredCallback(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the inbox, with what its handling needs.

    `kept_for_s`: for so many seconds a payment is still looked for, by the database's clock; below 0 that time is over.
    """

    id: str
    channel_account: str
    attempt: int
    arm_no: int
    evidence: Evidence
    is_hint: bool
    received_at: datetime
    is_handled: bool
    kept_for_s: float = 0.0
    grace_s: float = 0.0


class CallbackCount(msgspec.Struct, frozen=True, kw_only=True):
    """How many callbacks of an account were acknowledged and not kept, for one reason, since the beginning."""

    account: str
    reason: str
    count: int


_COLUMNS = """id::text, channel_account, attempt, arm_no, evidence::text, is_hint, received_at,
          handled_at IS NOT NULL OR dead_at IS NOT NULL AS is_handled,
          extract(epoch FROM coalesce(kept_until, received_at + interval '1 day') - clock_timestamp())::float8
          AS kept_for_s"""

_OPEN = "handled_at IS NULL AND dead_at IS NULL"

_INSERT = f"""
INSERT INTO callbacks (channel_account, notification_id, body_hash, received_at, headers, body, evidence, out_trade_no,
                       due_at, is_hint, kept_until, sealed_under)
VALUES ($1, $2, $3, coalesce($4, clock_timestamp()), $5::text::jsonb, $6, $7::text::jsonb, $8,
        clock_timestamp() + make_interval(secs => $9), $10, clock_timestamp() + make_interval(secs => $11), $12)
ON CONFLICT (channel_account, notification_id, body_hash) DO UPDATE SET copies = callbacks.copies + 1
RETURNING {_COLUMNS}"""

# A copy of one that was stored before opens no case again: a person may have resolved it meanwhile.
_INSERT_UNREADABLE = f"""
WITH stored AS ({_INSERT}, copies, out_trade_no
), opened AS (
    INSERT INTO cases (order_no, channel_account, out_trade_no, reason, detail)
    SELECT (SELECT order_no FROM payments p
             WHERE p.channel_account = stored.channel_account AND p.out_trade_no = stored.out_trade_no),
           channel_account, out_trade_no, $13, $14
      FROM stored WHERE copies = 1
    ON CONFLICT DO NOTHING
)
SELECT id, channel_account, attempt, arm_no, evidence, is_hint, received_at, is_handled, kept_for_s FROM stored"""

_CLAIM = f"""
UPDATE callbacks
   SET leased_until = clock_timestamp() + make_interval(secs => $3), leased_by = $4
 WHERE id = (SELECT id FROM callbacks WHERE id = $1::uuid AND arm_no = $2 AND {_OPEN} AND {FREE} AND {DUE}
              FOR UPDATE)
RETURNING {_COLUMNS}"""

_CLAIM_OVERDUE = f"""
WITH overdue AS (
    SELECT id FROM callbacks
     WHERE {_OPEN} AND due_at <= {NOW} - make_interval(secs => $1) AND {FREE}
     ORDER BY due_at
     LIMIT $2
       FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE callbacks c
       SET leased_until = clock_timestamp() + make_interval(secs => $3), leased_by = $4
      FROM overdue o
     WHERE c.id = o.id
    RETURNING c.*
)
SELECT {_COLUMNS} FROM claimed ORDER BY due_at"""

_RESCHEDULE = f"""
UPDATE callbacks
   SET attempt = $3, arm_no = arm_no + 1, due_at = clock_timestamp() + make_interval(secs => $4),
       leased_until = NULL, outcome = $5
 WHERE id = $1::uuid AND arm_no = $2 AND {_OPEN}
RETURNING arm_no"""

_FINISH = """
UPDATE callbacks SET handled_at = clock_timestamp(), outcome = $2, leased_until = NULL
 WHERE id = $1::uuid AND handled_at IS NULL"""

_GIVE_UP = f"""
WITH dead AS (
    UPDATE callbacks SET dead_at = clock_timestamp(), leased_until = NULL, outcome = $2
     WHERE id = $1::uuid AND {_OPEN}
    RETURNING channel_account, out_trade_no
)
INSERT INTO cases (order_no, channel_account, out_trade_no, reason, detail)
SELECT (SELECT order_no FROM payments p
         WHERE p.channel_account = dead.channel_account AND p.out_trade_no = dead.out_trade_no),
       channel_account, out_trade_no, $3, $4
  FROM dead
ON CONFLICT DO NOTHING"""

_FIND_MESSAGES = """
SELECT evidence::text, received_at FROM callbacks
 WHERE channel_account = $1 AND out_trade_no = ANY($2) AND id <> $3::uuid"""

_COUNT = """
INSERT INTO callback_counts AS c (channel_account, reason, count, last_at)
{counted}
ON CONFLICT (channel_account, reason) DO UPDATE SET count = c.count + 1, last_at = excluded.last_at"""
_COUNT_ONE = _COUNT.format(counted="VALUES ($1, $2, 1, clock_timestamp())")

_DROP = f"""
WITH dropped AS (
    DELETE FROM callbacks WHERE id = $1::uuid AND arm_no = $2 AND {_OPEN} RETURNING channel_account
){_COUNT.format(counted="SELECT channel_account, 'unknown', 1, clock_timestamp() FROM dropped")}"""

_ASSIGN = "UPDATE callbacks SET out_trade_no = $2 WHERE id = $1::uuid AND out_trade_no <> $2"

_COUNTS = "SELECT channel_account AS account, reason, count FROM callback_counts ORDER BY 1, 2"

_TAKE_OVER = take_over_statement("callbacks", "id::text, arm_no", is_open=_OPEN)

_WALK = walk_statement("callbacks", ("id",), "id, arm_no", is_open=_OPEN)


async def insert_callback(
    db: Database,
    sealer: Sealer,
    *,
    account: str,
    notification_id: str,
    headers: Mapping[str, str],
    body: bytes,
    evidence: Evidence,
    received_at: datetime | None,
    due_s: float,
    kept_s: float,
    is_hint: bool = False,
    unreadable: str = "",
) -> StoredCallback:
    """Store it, or find the copy that is there already. Due in `due_s` seconds: with that the compensation is armed.

    `received_at` None: now. A payment is looked for during `kept_s` seconds. `unreadable` opens a case in the same
    statement. Raises DatabaseUnavailable; nothing may be acknowledged then.
    """
    notification_id = storable(notification_id)
    detail = f"notification {notification_id}: {unreadable}"
    case = (CaseReason.CALLBACK_UNREADABLE.value, detail) if unreadable else ()
    row = await db.fetchrow(
        _INSERT_UNREADABLE if unreadable else _INSERT,
        account,
        notification_id,
        sha256(body).digest(),
        received_at,
        document(dict(headers)),
        sealer.seal(body, belongs_to=belongs_to(account, notification_id)),
        document(evidence),
        storable(evidence.out_trade_no),
        due_s,
        is_hint,
        kept_s,
        sealer.first,
        *case,
    )
    return _stored(row)


async def claim(db: Database, callback_id: str, lease_s: float, *, arm_no: int) -> StoredCallback | None:
    """Lease one callback; None when it is handled or given up, leased, not due, or has another arm number."""
    row = await db.fetchrow(_CLAIM, callback_id, arm_no, lease_s, db.process)
    return None if row is None else _stored(row)


async def claim_overdue(db: Database, *, grace_s: float, limit: int, lease_s: float) -> list[StoredCallback]:
    """Lease free callbacks that have been due for longer than `grace_s`, oldest first."""
    rows = await db.fetch(_CLAIM_OVERDUE, grace_s, limit, lease_s, db.process)
    return [replace(_stored(row), grace_s=grace_s) for row in rows]


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
    await db.execute(_GIVE_UP, callback.id, reason.value, reason.value, detail)


async def find_others(db: Database, callback: StoredCallback, numbers: Iterable[str]) -> tuple[Message, ...]:
    """The other stored callbacks of the account that name the payment by one of these numbers."""
    rows = await db.fetch(_FIND_MESSAGES, callback.channel_account, list(numbers), callback.id)
    return tuple(
        Message(evidence=_evidence_decoder.decode(row["evidence"]), received_at=row["received_at"]) for row in rows
    )


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


def belongs_to(account: str, notification_id: str) -> str:
    """The name that a callback's sealed body is bound to."""
    return f"callback {account} {notification_id}"


def _stored(row: object) -> StoredCallback:
    fields = dict(row)  # type: ignore[call-overload]  # a Record is a mapping, and says so in no type
    return StoredCallback(**fields | {"evidence": _evidence_decoder.decode(fields["evidence"])})
