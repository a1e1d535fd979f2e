"""Refunds under way: leases for requesting and querying them, and when each is due.

A refund is requested and becomes definite only through the door; here it is leased and scheduled. Verbs and clock:
`leases`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

import msgspec
from msgspec.structs import replace

from core.order import PaymentKey
from storage.postgres.database import Database, storable
from storage.postgres.leases import (
    DUE,
    FREE,
    NOW,
    Claim,
    DueRow,
    claim_many_statement,
    due_in_s,
    gathered_claims,
    walk,
    walk_statement,
)


class LeasedRefund(msgspec.Struct, frozen=True, kw_only=True):
    """A refund leased to us. `may_be_known`: it was leased before, so the channel may have it."""

    refund_no: str
    key: PaymentKey
    order_no: str
    amount: int
    attempt: int
    arm_no: int
    may_be_known: bool
    grace_s: float = 0.0


_OPEN = "status IN ('requested', 'processing')"
_IS_OPEN = "settled_at IS NULL"
"""The same for one row, which is found by its key: `leases`."""
_KNOWN = "leased_until IS NOT NULL OR arm_no > 1 OR status = 'processing' AS may_be_known"
_COLUMNS = "refund_no, channel_account, out_trade_no, order_no, amount, attempt, arm_no"

# `may_be_known` describes the row before this lease.
_CLAIM = f"""
WITH free AS (
    SELECT refund_no, {_KNOWN} FROM refunds
     WHERE refund_no = $1 AND arm_no = $2 AND {_IS_OPEN} AND {FREE} AND {DUE}
       FOR UPDATE
)
UPDATE refunds
   SET leased_until = clock_timestamp() + make_interval(secs => $3)
 WHERE refund_no = (SELECT refund_no FROM free)
RETURNING {_COLUMNS}, (SELECT may_be_known FROM free)"""

_CLAIM_MANY = claim_many_statement(
    "refunds", "refund_no", f"{_COLUMNS}, may_be_known", is_open=_IS_OPEN, lease="", before=f", {_KNOWN}"
)

_CLAIM_OVERDUE = f"""
WITH overdue AS (
    SELECT refund_no, {_KNOWN} FROM refunds
     WHERE {_OPEN} AND due_at <= {NOW} - make_interval(secs => $1) AND {FREE}
     ORDER BY due_at
     LIMIT $2
       FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE refunds
       SET leased_until = clock_timestamp() + make_interval(secs => $3)
     WHERE refund_no = ANY(ARRAY(SELECT refund_no FROM overdue))
    RETURNING {_COLUMNS}, due_at
)
SELECT * FROM claimed JOIN overdue USING (refund_no) ORDER BY due_at"""

_RESCHEDULE = f"""
UPDATE refunds
   SET attempt = $3, arm_no = arm_no + 1, due_at = clock_timestamp() + make_interval(secs => $4),
       leased_until = NULL, last_error = $5
 WHERE refund_no = $1 AND arm_no = $2 AND {_IS_OPEN}
RETURNING arm_no"""

# Each by itself: for a list of them, the planner would rather walk the refunds while they are few.
_BY_CHANNEL_NO = """
SELECT r.channel_refund_no, r.channel_account, r.out_trade_no, r.refund_no
  FROM unnest($2::text[]) AS wanted(number)
 CROSS JOIN LATERAL (SELECT * FROM refunds WHERE channel_refund_no = wanted.number OFFSET 0) AS r
 WHERE r.channel_account = $1"""

_WALK = walk_statement("refunds", ("refund_no",), "refund_no, arm_no", is_open=_OPEN)


async def claim(db: Database, refund_no: str, lease_s: float, *, arm_no: int) -> LeasedRefund | None:
    """Lease one refund; None when it is definite, leased, not due, or has another arm number."""
    return await _claim(db, Claim(refund_no, arm_no, lease_s))


async def claim_overdue(db: Database, *, grace_s: float, limit: int, lease_s: float) -> list[LeasedRefund]:
    """Lease free refunds that have been due for longer than `grace_s`, oldest first."""
    rows = await db.fetch(_CLAIM_OVERDUE, grace_s, limit, lease_s)
    return [replace(_leased(dict(row)), grace_s=grace_s) for row in rows]


async def reschedule(
    db: Database, leased: LeasedRefund, *, attempt: int, delay_s: float, error: str = ""
) -> int | None:
    """Due again in `delay_s` seconds, as `attempt`.

    Returns the new arm number, None when the refund is definite or was scheduled meanwhile.
    """
    due_s = due_in_s(delay_s, leased.grace_s, is_postponed=attempt == leased.attempt)
    arm_no: int | None = await db.fetchval(_RESCHEDULE, leased.refund_no, leased.arm_no, attempt, due_s, error)
    return arm_no


async def find_by_channel_numbers(
    db: Database, account: str, numbers: Iterable[str]
) -> dict[tuple[PaymentKey, str], str]:
    """Our numbers of refunds of this account, by their payment and the channel's own number."""
    wanted = list({storable(number) for number in numbers})
    rows = await db.fetch(_BY_CHANNEL_NO, account, wanted) if wanted else []
    return {
        (PaymentKey(row["channel_account"], row["out_trade_no"]), row["channel_refund_no"]): row["refund_no"]
        for row in rows
    }


async def walk_due(db: Database, *, from_s: float | None = None, until_s: float) -> AsyncIterator[list[DueRow]]:
    """Open refunds due between `from_s` (None: ever) and `until_s` seconds from now, in batches."""
    async for rows in walk(db, _WALK, ("",), from_s=from_s, until_s=until_s):
        yield [DueRow(row["refund_no"], row["arm_no"], row["delay_s"]) for row in rows]


def _leased(fields: dict[str, Any]) -> LeasedRefund:
    fields.pop("due_at", None)
    return LeasedRefund(key=PaymentKey(fields.pop("channel_account"), fields.pop("out_trade_no")), **fields)


_claim = gathered_claims(_CLAIM, _CLAIM_MANY, _leased, has_process=False)
