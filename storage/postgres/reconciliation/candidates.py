"""Unpaid orders that an unknown row may belong to, and refunds that stand in no statement."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from storage.postgres.database import Database

CANDIDATES_MAX = 5
"""Orders named for one row: with more, amount and day say nothing."""

# Per row, because each has its own day; the partial index holds unpaid payments alone.
_CANDIDATES = f"""
SELECT n.row_no, c.order_no
  FROM unnest($2::int[], $3::bigint[], $4::text[], $5::timestamptz[], $6::timestamptz[])
       AS n(row_no, amount, currency, since, until)
 CROSS JOIN LATERAL (
    SELECT DISTINCT p.order_no
      FROM payments p JOIN orders o USING (order_no)
     WHERE p.channel_account = $1 AND p.status <> 'paid' AND p.amount = n.amount AND p.currency = n.currency
       AND p.created_at < n.until AND greatest(p.payable_until, o.expires_at) >= n.since AND o.status <> 'paid'
     ORDER BY p.order_no
     LIMIT {CANDIDATES_MAX}) AS c
 ORDER BY n.row_no, c.order_no"""

_UNLISTED_REFUNDS = """
SELECT f.refund_no, f.order_no, f.out_trade_no, f.amount, f.currency, f.settled_at
  FROM refunds f
 WHERE f.channel_account = $1 AND f.status = 'succeeded' AND f.settled_at >= $2 AND f.settled_at < $3
   AND (f.requested_at >= $2 OR $5)
   AND NOT EXISTS (SELECT FROM reconciliation_rows r
                    WHERE r.reconciliation_id = ANY($4::bigint[]) AND r.out_trade_no = f.out_trade_no
                      AND r.part = 'refund ' || f.refund_no)
 ORDER BY f.settled_at, f.refund_no
 LIMIT $6"""


class UnknownMoney(msgspec.Struct, frozen=True, kw_only=True):
    """A row of a payment that is not known here, with the time in which its order was payable."""

    row_no: int
    amount: int
    currency: str
    since: datetime
    until: datetime


class UnlistedRefund(msgspec.Struct, frozen=True, kw_only=True):
    """A refund of ours that succeeded and stands in no statement."""

    refund_no: str
    order_no: str
    out_trade_no: str
    amount: int
    currency: str
    settled_at: datetime


async def find_candidates(db: Database, account: str, rows: Sequence[UnknownMoney]) -> dict[int, list[str]]:
    """Numbers of orders that are not paid and have the amount of a row, by row number; at most `CANDIDATES_MAX`."""
    found: dict[int, list[str]] = {}
    if rows:
        columns = zip(*((row.row_no, row.amount, row.currency, row.since, row.until) for row in rows), strict=True)
        for row in await db.fetch(_CANDIDATES, account, *map(list, columns)):
            found.setdefault(row["row_no"], []).append(row["order_no"])
    return found


async def find_unlisted_refunds(
    db: Database,
    account: str,
    times: tuple[datetime, datetime],
    *,
    run_ids: Sequence[int],
    day_before_read: bool,
    limit: int,
) -> list[UnlistedRefund]:
    """Refunds of ours that succeeded in these times and of which none of these runs has recorded a row.

    Without the day before, those that were requested before these times are left out: they may stand there.
    """
    rows = await db.fetch(_UNLISTED_REFUNDS, account, *times, list(run_ids), day_before_read, limit)
    return [UnlistedRefund(**dict(row)) for row in rows]
