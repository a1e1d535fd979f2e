"""Refunds that wait for a second operator: written, read and decided here. The refund itself is made by the door."""

from __future__ import annotations

from datetime import datetime

import msgspec

from storage.postgres.database import Database


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """A refund above the limit. `decision` None: nobody has decided. `refund_no`: the refund that it has become.

    `is_expired`: nobody can approve it any more, nor end an approval that has become no refund, by Postgres's clock.
    """

    id: int
    order_no: str
    account: str
    out_trade_no: str
    amount: int
    currency: str
    request_key: str
    reason: str
    requested_by: str
    requested_at: datetime
    expires_at: datetime
    decision: str | None
    decided_by: str | None
    decided_at: datetime | None
    decided_reason: str
    refund_no: str | None
    is_expired: bool

    @property
    def is_waiting(self) -> bool:
        return self.decision is None and not self.is_expired


_COLUMNS = """id, order_no, channel_account AS account, out_trade_no, amount, currency, request_key, reason,
       requested_by, requested_at, expires_at, decision, decided_by, decided_at, decided_reason, refund_no,
       decision IS DISTINCT FROM 'declined' AND refund_no IS NULL AND expires_at <= clock_timestamp() AS is_expired"""

# The row is returned whether it is new or not; a row that another process has inserted since is found by the next try.
_INSERT = f"""
WITH inserted AS (
    INSERT INTO refund_approvals (order_no, channel_account, out_trade_no, amount, currency, request_key, reason,
                                  requested_by, expires_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, now() + make_interval(secs => $9))
    ON CONFLICT (order_no, request_key) DO NOTHING
    RETURNING *
)
SELECT {_COLUMNS} FROM inserted
 UNION ALL
SELECT {_COLUMNS} FROM refund_approvals WHERE order_no = $1 AND request_key = $6"""

_GET = f"SELECT {_COLUMNS} FROM refund_approvals WHERE id = $1"
_FIND = f"SELECT {_COLUMNS} FROM refund_approvals WHERE order_no = $1 AND request_key = $2"

# Waiting ones, and approved ones whose refund was not requested yet. After its time neither becomes a refund.
_LIST_OPEN = f"""
SELECT {_COLUMNS} FROM refund_approvals
 WHERE refund_no IS NULL AND decision IS DISTINCT FROM 'declined' AND id < coalesce($1::bigint, 9223372036854775807)
   AND expires_at > now()
 ORDER BY id DESC
 LIMIT $2"""
_LIST_ALL = f"""
SELECT {_COLUMNS} FROM refund_approvals
 WHERE id < coalesce($1::bigint, 9223372036854775807)
 ORDER BY id DESC
 LIMIT $2"""
_OF_ORDER = f"SELECT {_COLUMNS} FROM refund_approvals WHERE order_no = $1 ORDER BY id DESC LIMIT $2"

_DECIDE = f"""
UPDATE refund_approvals
   SET decision = $2, decided_by = $3, decided_reason = $4, decided_at = now()
 WHERE id = $1 AND decision IS NULL AND expires_at > now() AND requested_by <> $3
RETURNING {_COLUMNS}"""

_SET_REFUND = "UPDATE refund_approvals SET refund_no = $2 WHERE id = $1 AND refund_no IS NULL"


async def insert_approval(
    db: Database,
    *,
    order_no: str,
    account: str,
    out_trade_no: str,
    amount: int,
    currency: str,
    request_key: str,
    reason: str,
    requested_by: str,
    lives_s: float,
) -> Approval:
    """Store it; or return the one of this order that has its key, whatever became of that."""
    row = await db.fetchrow(
        _INSERT, order_no, account, out_trade_no, amount, currency, request_key, reason, requested_by, lives_s
    )
    if row is None:  # inserted by somebody else within this statement's snapshot
        row = await db.fetchrow(_FIND, order_no, request_key)
    assert row is not None, "rows are never deleted"
    return Approval(**dict(row))


async def find_approval(db: Database, approval_id: int) -> Approval | None:
    row = await db.fetchrow(_GET, approval_id)
    return None if row is None else Approval(**dict(row))


async def list_approvals(
    db: Database, *, open_only: bool = True, before: int | None = None, limit: int = 50
) -> list[Approval]:
    """Newest first; `before` is the id of the last one of the page before."""
    rows = await db.fetch(_LIST_OPEN if open_only else _LIST_ALL, before, limit)
    return [Approval(**dict(row)) for row in rows]


async def approvals_of(db: Database, order_no: str, *, limit: int = 50) -> list[Approval]:
    """Those of one order, newest first."""
    return [Approval(**dict(row)) for row in await db.fetch(_OF_ORDER, order_no, limit)]


async def decide_approval(db: Database, approval_id: int, *, decision: str, by: str, reason: str) -> Approval | None:
    """Approve or decline it, once. None: somebody has decided, it has expired, or it is the same operator's."""
    row = await db.fetchrow(_DECIDE, approval_id, decision, by, reason)
    return None if row is None else Approval(**dict(row))


async def set_refund(db: Database, approval_id: int, refund_no: str) -> None:
    """Store the refund that it has become."""
    await db.execute(_SET_REFUND, approval_id, refund_no)
