"""The temporary table: who may ask about a payment now, what is overdue, and what Redis is to be reminded of.

A lease makes one query per payment at a time across all processes: whoever holds it asks the channel, the others wait
for its answer. Leases end by themselves, so a killed worker holds nothing up for long. All times are the database's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime

import msgspec

from core.order import PaymentKey, PendingKind
from storage.postgres.database import Database
from storage.postgres.door import Armed


class Leased(msgspec.Struct, frozen=True, kw_only=True):
    """A row that is ours until `leased_until`. `leased_at` is the token of the lease, and when the query began."""

    key: PaymentKey
    kind: PendingKind
    order_no: str
    attempt: int
    arm_no: int
    leased_at: datetime


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """How it stands with queries of one payment: when the last completed query began, by the database's clock `now`."""

    now: datetime
    answered_from: datetime | None


_ROW = "channel_account, out_trade_no, kind, order_no, attempt, arm_no, leased_at"

_LEASE = f"""
UPDATE pending
   SET leased_at = clock_timestamp(), leased_until = clock_timestamp() + make_interval(secs => $3)
 WHERE channel_account = $1 AND out_trade_no = $2 AND ($4::int IS NULL OR arm_no = $4)
   AND (leased_until IS NULL OR leased_until <= clock_timestamp())
   AND ($5::timestamptz IS NULL OR answered_from IS NULL OR answered_from < $5)
RETURNING {_ROW}"""

_RELEASE = """
UPDATE pending
   SET leased_at = NULL, leased_until = NULL,
       answered_from = CASE WHEN $4 THEN leased_at ELSE answered_from END
 WHERE channel_account = $1 AND out_trade_no = $2 AND leased_at = $3"""

_POSTPONE = """
UPDATE pending
   SET due_at = now() + make_interval(secs => $4), arm_no = arm_no + 1, leased_at = NULL, leased_until = NULL
 WHERE channel_account = $1 AND out_trade_no = $2 AND arm_no = $3
RETURNING arm_no, order_no, kind"""

_ASKED = """
SELECT clock_timestamp() AS now, answered_from
  FROM pending WHERE channel_account = $1 AND out_trade_no = $2"""

# Oldest first and no look-back limit: what is long overdue is the most urgent, not the least.
_CLAIM_OVERDUE = f"""
WITH overdue AS (
    SELECT channel_account, out_trade_no FROM pending
     WHERE due_at <= now() - make_interval(secs => $1)
       AND (leased_until IS NULL OR leased_until <= now())
     ORDER BY due_at
     LIMIT $2
       FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE pending p
       SET leased_at = clock_timestamp(), leased_until = clock_timestamp() + make_interval(secs => $3)
      FROM overdue o
     WHERE p.channel_account = o.channel_account AND p.out_trade_no = o.out_trade_no
    RETURNING p.*
)
SELECT {_ROW} FROM claimed ORDER BY due_at"""

_WALK = """
SELECT channel_account, out_trade_no, kind, order_no, arm_no, extract(epoch FROM due_at - now()) AS delay_s
  FROM pending
 WHERE (channel_account, out_trade_no) > ($1, $2)
   AND due_at > now() + make_interval(secs => $3) AND due_at <= now() + make_interval(secs => $4)
 ORDER BY channel_account, out_trade_no
 LIMIT $5"""

WALK_BATCH = 5000


async def lease(
    db: Database,
    key: PaymentKey,
    lease_s: float,
    *,
    arm_no: int | None = None,
    unanswered_since: datetime | None = None,
) -> Leased | None:
    """The right to ask now. None: the row is gone, another scheduling has replaced it, somebody is asking already, or
    a query that began at `unanswered_since` or later has been answered.
    """
    row = await db.fetchrow(_LEASE, *key, lease_s, arm_no, unanswered_since)
    return None if row is None else _leased(row)


async def release(db: Database, leased: Leased, *, was_asked: bool = True) -> None:
    """Give the lease back. If the channel was asked, everybody who wanted to know before that has what there was to
    learn; if it was not (its rate is used up), the next one may ask.
    """
    await db.execute(_RELEASE, *leased.key, leased.leased_at, was_asked)


async def postpone(db: Database, leased: Leased, delay_s: float) -> Armed | None:
    """Another scheduling without using an attempt: the rate is used up or the breaker is open."""
    row = await db.fetchrow(_POSTPONE, *leased.key, leased.arm_no, delay_s)
    if row is None:
        return None
    return Armed(key=leased.key, kind=leased.kind, order_no=leased.order_no, arm_no=row["arm_no"], delay_s=delay_s)


async def asked(db: Database, key: PaymentKey) -> Asked | None:
    """How it stands; None when nothing is pending for this payment any more."""
    row = await db.fetchrow(_ASKED, *key)
    return None if row is None else Asked(**dict(row))


async def claim_overdue(db: Database, *, grace_s: float, limit: int, lease_s: float) -> list[Leased]:
    """Rows that have been due for longer than `grace_s` and that nobody is looking after, leased; oldest first."""
    rows = await db.fetch(_CLAIM_OVERDUE, grace_s, limit, lease_s)
    return [_leased(row) for row in rows]


async def walk(db: Database, *, from_s: float, until_s: float) -> AsyncIterator[list[Armed]]:
    """Every row due between `from_s` and `until_s` seconds from now, in batches along the key, without a snapshot."""
    after = PaymentKey("", "")
    while True:
        rows = await db.fetch(_WALK, *after, from_s, until_s, WALK_BATCH)
        if rows:
            yield [_armed(row) for row in rows]
        if len(rows) < WALK_BATCH:
            return
        after = PaymentKey(rows[-1]["channel_account"], rows[-1]["out_trade_no"])


def _leased(row: object) -> Leased:
    fields = dict(row)  # type: ignore[call-overload]  # a Record is a mapping, and says so in no type
    key = PaymentKey(fields.pop("channel_account"), fields.pop("out_trade_no"))
    return Leased(key=key, kind=PendingKind(fields.pop("kind")), **fields)


def _armed(row: object) -> Armed:
    fields = dict(row)  # type: ignore[call-overload]  # as above
    key = PaymentKey(fields.pop("channel_account"), fields.pop("out_trade_no"))
    delay_s = max(0.0, float(fields.pop("delay_s")))
    return Armed(key=key, kind=PendingKind(fields.pop("kind")), delay_s=delay_s, **fields)
