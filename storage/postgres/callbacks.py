"""The inbox: every verified callback with its raw bytes, stored before it is acknowledged, handled until it is done.

`handled_at` is set only after the work is done, so a repeat after a failed handling is work and not a duplicate.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256

import msgspec

from core.evidence import Evidence
from core.order import CaseReason
from storage.postgres.database import Database
from storage.postgres.rows import document, storable

_evidence_decoder: msgspec.json.Decoder[Evidence] = msgspec.json.Decoder(Evidence)


class StoredCallback(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the inbox: what is needed to carry on with it."""

    id: str
    channel_account: str
    attempt: int
    arm_no: int
    evidence: Evidence
    is_handled: bool


_COLUMNS = """id::text, channel_account, attempt, arm_no, evidence::text,
          handled_at IS NOT NULL OR dead_at IS NOT NULL AS is_handled"""

_INSERT = f"""
INSERT INTO callbacks (channel_account, notification_id, body_hash, received_at, headers, body, evidence, out_trade_no,
                       due_at)
VALUES ($1, $2, $3, coalesce($4, now()), $5::text::jsonb, $6, $7::text::jsonb, $8, now() + make_interval(secs => $9))
ON CONFLICT (channel_account, notification_id, body_hash) DO UPDATE SET copies = callbacks.copies + 1
RETURNING {_COLUMNS}"""

_CLAIM = f"""
UPDATE callbacks
   SET leased_until = now() + make_interval(secs => $3)
 WHERE id = $1::uuid AND arm_no = $2 AND handled_at IS NULL AND dead_at IS NULL
   AND (leased_until IS NULL OR leased_until <= now())
RETURNING {_COLUMNS}"""

_CLAIM_OVERDUE = f"""
WITH overdue AS (
    SELECT id FROM callbacks
     WHERE handled_at IS NULL AND dead_at IS NULL AND due_at <= now() - make_interval(secs => $1)
       AND (leased_until IS NULL OR leased_until <= now())
     ORDER BY due_at
     LIMIT $2
       FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE callbacks c
       SET leased_until = now() + make_interval(secs => $3)
      FROM overdue o
     WHERE c.id = o.id
    RETURNING c.*
)
SELECT {_COLUMNS} FROM claimed ORDER BY due_at"""

_HANDLED = """
UPDATE callbacks SET handled_at = now(), outcome = $2, leased_until = NULL
 WHERE id = $1::uuid AND handled_at IS NULL
RETURNING arm_no"""

_AGAIN = """
UPDATE callbacks
   SET attempt = $3, arm_no = arm_no + 1, due_at = now() + make_interval(secs => $4), leased_until = NULL, outcome = $5
 WHERE id = $1::uuid AND arm_no = $2 AND handled_at IS NULL AND dead_at IS NULL
RETURNING arm_no"""

_DEAD = """
WITH dead AS (
    UPDATE callbacks SET dead_at = now(), leased_until = NULL, outcome = $2
     WHERE id = $1::uuid AND handled_at IS NULL AND dead_at IS NULL
    RETURNING channel_account, out_trade_no
)
INSERT INTO cases (order_no, channel_account, out_trade_no, reason, detail)
SELECT (SELECT order_no FROM payments p
         WHERE p.channel_account = dead.channel_account AND p.out_trade_no = dead.out_trade_no),
       channel_account, out_trade_no, $3, $4
  FROM dead
ON CONFLICT DO NOTHING"""

_WALK = """
SELECT id::text, arm_no, extract(epoch FROM due_at - now())::float8 AS delay_s
  FROM callbacks
 WHERE handled_at IS NULL AND dead_at IS NULL AND due_at <= now() + make_interval(secs => $1)
 ORDER BY due_at
 LIMIT $2"""


async def insert_callback(
    db: Database,
    *,
    account: str,
    notification_id: str,
    headers: Mapping[str, str],
    body: bytes,
    evidence: Evidence,
    received_at: datetime | None,
    due_s: float,
) -> StoredCallback:
    """Store it, or find the copy that is there already. Due in `due_s` seconds: with that the compensation is armed.

    `received_at` None: now. Raises DatabaseUnavailable; nothing may be acknowledged then.
    """
    row = await db.fetchrow(
        _INSERT,
        account,
        storable(notification_id),
        sha256(body).digest(),
        received_at,
        document(dict(headers)),
        body,
        document(evidence),
        storable(evidence.out_trade_no),
        due_s,
    )
    return _stored(row)


async def claim_callback(db: Database, callback_id: str, arm_no: int, lease_s: float) -> StoredCallback | None:
    """The right to handle it now; None when it is handled, was scheduled anew, or somebody is at it."""
    row = await db.fetchrow(_CLAIM, callback_id, arm_no, lease_s)
    return None if row is None else _stored(row)


async def claim_overdue_callbacks(db: Database, *, grace_s: float, limit: int, lease_s: float) -> list[StoredCallback]:
    """Callbacks due for longer than `grace_s` that nobody is looking after, oldest first."""
    return [_stored(row) for row in await db.fetch(_CLAIM_OVERDUE, grace_s, limit, lease_s)]


async def mark_handled(db: Database, callback_id: str, outcome: str) -> int | None:
    """The work is done. Returns the arm number whose job is no longer needed, None when it was marked already."""
    arm_no: int | None = await db.fetchval(_HANDLED, callback_id, outcome)
    return arm_no


async def handle_again(
    db: Database, callback: StoredCallback, *, attempt: int, delay_s: float, outcome: str
) -> int | None:
    """Not done: scheduled anew, as `attempt`, in `delay_s` seconds. Returns its arm number, None when it is handled."""
    arm_no: int | None = await db.fetchval(_AGAIN, callback.id, callback.arm_no, attempt, delay_s, outcome)
    return arm_no


async def give_up_callback(db: Database, callback: StoredCallback, reason: CaseReason, detail: str) -> None:
    """The attempts are used up: a case opens in the same statement. Giving up is not evidence."""
    await db.execute(_DEAD, callback.id, reason.value, reason.value, detail)


async def callbacks_due_within(db: Database, seconds: float, limit: int = 5000) -> list[tuple[str, int, float]]:
    """(id, arm number, delay in seconds) of unhandled callbacks, for re-arming Redis."""
    return [(row["id"], row["arm_no"], max(0.0, row["delay_s"])) for row in await db.fetch(_WALK, seconds, limit)]


def _stored(row: object) -> StoredCallback:
    fields = dict(row)  # type: ignore[call-overload]  # a Record is a mapping, and says so in no type
    return StoredCallback(**fields | {"evidence": _evidence_decoder.decode(fields["evidence"])})
