"""Refunds on their way: who may ask the channel now, what is overdue, and what Redis is to be reminded of.

A refund is requested and becomes definite only through `storage.postgres.door`; here it is leased and scheduled. Leases
end by themselves, and all times are the database's.
"""

from __future__ import annotations

import msgspec

from core.order import PaymentKey
from storage.postgres.database import Database


class LeasedRefund(msgspec.Struct, frozen=True, kw_only=True):
    """A refund that is ours to ask for. `may_be_known`: somebody has had it before, so the channel may have it."""

    refund_no: str
    key: PaymentKey
    order_no: str
    amount: int
    attempt: int
    arm_no: int
    may_be_known: bool


_OPEN = "status IN ('requested', 'processing')"
_FREE = "(leased_until IS NULL OR leased_until <= clock_timestamp())"
_KNOWN = "leased_until IS NOT NULL OR arm_no > 1 OR status = 'processing' AS may_be_known"
_ROW = "r.refund_no, r.channel_account, r.out_trade_no, r.order_no, r.amount, r.attempt, r.arm_no, f.may_be_known"

_LEASE = f"""
WITH found AS (
    SELECT refund_no, {_KNOWN} FROM refunds
     WHERE refund_no = $1 AND arm_no = $2 AND {_OPEN} AND {_FREE}
       FOR UPDATE
)
UPDATE refunds r
   SET leased_until = clock_timestamp() + make_interval(secs => $3)
  FROM found f
 WHERE r.refund_no = f.refund_no
RETURNING {_ROW}"""

# Oldest first and no look-back limit, as for everything that waits.
_CLAIM_OVERDUE = f"""
WITH found AS (
    SELECT refund_no, {_KNOWN} FROM refunds
     WHERE {_OPEN} AND due_at <= now() - make_interval(secs => $1) AND {_FREE}
     ORDER BY due_at
     LIMIT $2
       FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE refunds r
       SET leased_until = clock_timestamp() + make_interval(secs => $3)
      FROM found f
     WHERE r.refund_no = f.refund_no
    RETURNING {_ROW}, r.due_at
)
SELECT * FROM claimed ORDER BY due_at"""

_AGAIN = f"""
UPDATE refunds
   SET attempt = $3, arm_no = arm_no + 1, due_at = now() + make_interval(secs => $4), leased_until = NULL,
       last_error = $5
 WHERE refund_no = $1 AND arm_no = $2 AND {_OPEN}
RETURNING arm_no"""

_WALK = f"""
SELECT refund_no, arm_no, extract(epoch FROM due_at - now())::float8 AS delay_s
  FROM refunds
 WHERE {_OPEN} AND due_at <= now() + make_interval(secs => $1)
 ORDER BY due_at
 LIMIT $2"""


async def lease_refund(db: Database, refund_no: str, arm_no: int, lease_s: float) -> LeasedRefund | None:
    """The right to ask now. None: it is definite, another scheduling has replaced this one, or somebody is asking."""
    row = await db.fetchrow(_LEASE, refund_no, arm_no, lease_s)
    return None if row is None else _leased(row)


async def claim_overdue_refunds(db: Database, *, grace_s: float, limit: int, lease_s: float) -> list[LeasedRefund]:
    """Refunds due for longer than `grace_s` that nobody is asking about, leased; oldest first."""
    return [_leased(row) for row in await db.fetch(_CLAIM_OVERDUE, grace_s, limit, lease_s)]


async def refund_again(
    db: Database, leased: LeasedRefund, *, attempt: int, delay_s: float, error: str = ""
) -> int | None:
    """Not definite: scheduled anew, as `attempt`, in `delay_s` seconds. Returns its arm number, None when it is not
    open any more or somebody has scheduled it meanwhile.
    """
    arm_no: int | None = await db.fetchval(_AGAIN, leased.refund_no, leased.arm_no, attempt, delay_s, error)
    return arm_no


async def refunds_due_within(db: Database, seconds: float, limit: int = 5000) -> list[tuple[str, int, float]]:
    """(refund number, arm number, delay in seconds) of what is not definite, for re-arming Redis."""
    return [
        (row["refund_no"], row["arm_no"], max(0.0, row["delay_s"])) for row in await db.fetch(_WALK, seconds, limit)
    ]


def _leased(row: object) -> LeasedRefund:
    fields = dict(row)  # type: ignore[call-overload]  # a Record is a mapping, and says so in no type
    fields.pop("due_at", None)
    return LeasedRefund(key=PaymentKey(fields.pop("channel_account"), fields.pop("out_trade_no")), **fields)
