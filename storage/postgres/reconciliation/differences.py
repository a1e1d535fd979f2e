"""What a run works with besides itself: our payments, the rows that it has seen, and the differences that it found.

A statement is read once and never held: what has to be known of its earlier rows is in Postgres while the run lasts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec

from core.order import CaseReason, Payment
from core.reconciliation import Difference
from storage.postgres.database import Database
from storage.postgres.rows import storable

DIFFERENCES_MAX = 10_000
"""Listed, and asked a person about, of one run: with more it is not the payments that differ but the statement."""

FORGET_BATCH = 20_000
"""Rows deleted by one statement, well within its time-out."""

_payment_decoder = msgspec.json.Decoder(Payment)


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A row of a payment that we know. `refund_no` may be empty, and is not looked at for money that came."""

    row_no: int
    is_refund: bool
    out_trade_no: str
    refund_no: str
    amount: int

    @property
    def part(self) -> str:
        """What it tells of, within its payment: two refunds without a number of ours are two refunds."""
        if not self.is_refund:
            return ""
        return f"refund {storable(self.refund_no)}" if self.refund_no else f"row {self.row_no}"


class Before(msgspec.Struct, frozen=True, kw_only=True):
    """What the statement has told up to a row's batch: of the same money already, and how much was given back of this
    payment, in minor units, the batch included.
    """

    repeats: bool
    refunded: int


class PaidHere(msgspec.Struct, frozen=True, kw_only=True):
    """A payment that is paid here and that no row tells of."""

    order_no: str
    out_trade_no: str
    channel_transaction_id: str
    amount: int
    currency: str
    paid_at: datetime


_BY_NUMBER = """
SELECT to_jsonb(p)::text AS payment
  FROM payments p WHERE p.channel_account = $1 AND p.out_trade_no = ANY($2::text[])"""
_BY_CHANNEL_ID = """
SELECT channel_transaction_id AS id, to_jsonb(p)::text AS payment
  FROM payments p WHERE p.channel_account = $1 AND p.channel_transaction_id = ANY($2::text[])
UNION ALL
SELECT channel_reference, to_jsonb(p)::text
  FROM payments p WHERE p.channel_account = $1 AND p.channel_reference = ANY($2::text[])"""

# An upsert finds by the index whatever the planner takes the table for, which was empty when the run began. A refund is
# added to its payment's sum by the statement that sees it first, so a batch that is seen again adds nothing.
_SEE = """
WITH seen AS (
    INSERT INTO reconciliation_rows AS r (reconciliation_id, out_trade_no, part, row_no)
    SELECT $1, * FROM unnest($2::text[], $3::text[], $4::int[])
    ON CONFLICT (reconciliation_id, out_trade_no, part) DO UPDATE SET row_no = least(r.row_no, excluded.row_no)
    RETURNING out_trade_no, part, row_no, xmax = 0 AS is_new
), refunded AS (
    INSERT INTO reconciliation_refunded AS t (reconciliation_id, out_trade_no, amount)
    SELECT $1, g.out_trade_no, coalesce(sum(g.amount) FILTER (WHERE seen.is_new), 0)
      FROM unnest($2::text[], $3::text[], $5::bigint[]) AS g(out_trade_no, part, amount)
      JOIN seen USING (out_trade_no, part)
     WHERE g.part <> ''
     GROUP BY g.out_trade_no
    ON CONFLICT (reconciliation_id, out_trade_no) DO UPDATE SET amount = t.amount + excluded.amount
    RETURNING out_trade_no, amount
)
SELECT out_trade_no, part, row_no, coalesce(amount, 0) AS refunded FROM seen LEFT JOIN refunded USING (out_trade_no)"""

# A page of payments, not of what is missing: otherwise a day on which nothing is would be one long statement.
_PAID_HERE = """
SELECT page.*, seen.yes IS NOT NULL AS is_seen
  FROM (SELECT p.order_no, p.out_trade_no, p.channel_transaction_id, p.amount, p.currency, p.paid_at
          FROM payments p
         WHERE p.channel_account = $1 AND p.paid_at IS NOT NULL AND (p.paid_at, p.out_trade_no) > ($2, $3::text)
           AND p.paid_at < $4
         ORDER BY p.paid_at, p.out_trade_no
         LIMIT $6) AS page
  LEFT JOIN LATERAL (SELECT true AS yes FROM reconciliation_rows r
                      WHERE r.reconciliation_id = ANY($5::bigint[]) AND r.out_trade_no = page.out_trade_no
                        AND r.part = ''
                      LIMIT 1) AS seen ON true
 ORDER BY page.paid_at, page.out_trade_no"""

_FORGET = f"""
DELETE FROM reconciliation_rows
 WHERE ctid = ANY(ARRAY(
    SELECT r.ctid FROM reconciliation_rows r
     WHERE r.reconciliation_id = $1
       AND ($3::timestamptz IS NULL OR r.part <> '' OR EXISTS (
               SELECT FROM payments p
                WHERE p.channel_account = $2 AND p.out_trade_no = r.out_trade_no
                  AND p.paid_at >= $3 AND p.paid_at < $4))
     LIMIT {FORGET_BATCH}))"""
_FORGET_REFUNDED = "DELETE FROM reconciliation_refunded WHERE reconciliation_id = $1"

_ADD = f"""
INSERT INTO reconciliation_differences
       (reconciliation_id, row_no, kind, order_no, out_trade_no, channel_transaction_id, detail)
SELECT $1, n.* FROM unnest($2::int[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[]) AS n
 WHERE (SELECT count(*) FROM (SELECT FROM reconciliation_differences d
                               WHERE d.reconciliation_id = $1 LIMIT {DIFFERENCES_MAX}) few) < {DIFFERENCES_MAX}
ON CONFLICT DO NOTHING"""
_DIFFERENCES = """
SELECT row_no, kind, order_no, out_trade_no, channel_transaction_id, detail
  FROM reconciliation_differences WHERE reconciliation_id = $1
 ORDER BY row_no = 0, row_no, kind, out_trade_no
 LIMIT $2"""

# A question that a person has answered is not asked again as long as it is the very same.
_OPEN = """
INSERT INTO cases (order_no, channel_account, out_trade_no, reason, detail)
SELECT n.order_no, $1, n.out_trade_no, n.reason, n.detail
  FROM unnest($2::text[], $3::text[], $4::text[], $5::text[]) AS n(order_no, out_trade_no, reason, detail)
 WHERE NOT EXISTS (SELECT FROM cases c
                    WHERE c.order_no = n.order_no AND c.channel_account = $1 AND c.out_trade_no = n.out_trade_no
                      AND c.reason = n.reason AND c.detail = n.detail)
   AND NOT (n.order_no IS NULL AND EXISTS (
           SELECT FROM cases c
            WHERE c.order_no IS NULL AND c.channel_account = $1 AND c.reason = n.reason AND c.detail = n.detail))
ON CONFLICT DO NOTHING"""
_ANSWER = f"""
UPDATE cases c
   SET resolved_at = now(), resolution = $3, by = 'reconciliation'
 WHERE c.channel_account = $2 AND c.resolved_at IS NULL
   AND ((c.reason = '{CaseReason.STATEMENT_PAID_HERE_ONLY}'
         AND EXISTS (SELECT FROM reconciliation_rows r
                      WHERE r.reconciliation_id = $1 AND r.out_trade_no = c.out_trade_no AND r.part = ''))
     OR (c.reason = '{CaseReason.STATEMENT_UNCONFIRMED}'
         AND EXISTS (SELECT FROM payments p
                      WHERE p.channel_account = $2 AND p.out_trade_no = c.out_trade_no AND p.status = 'paid')))"""


async def find_payments(db: Database, account: str, numbers: Iterable[str]) -> dict[str, Payment]:
    """Payments of this account by our number; a number of another account is nobody's."""
    rows = await db.fetch(_BY_NUMBER, account, list({storable(number) for number in numbers}))
    found = [_payment_decoder.decode(row["payment"]) for row in rows]
    return {payment.out_trade_no: payment for payment in found}


async def find_payments_by_channel_id(db: Database, account: str, ids: Iterable[str]) -> dict[str, Payment]:
    """The same by the channel's number of the money or of the payment, for rows that do not hold ours."""
    rows = await db.fetch(_BY_CHANNEL_ID, account, list({storable(id_) for id_ in ids}))
    return {row["id"]: _payment_decoder.decode(row["payment"]) for row in rows}


async def see(db: Database, run_id: int, rows: Sequence[Seen]) -> dict[int, Before]:
    """Remember these rows, and tell of each what came before it. Seeing them again changes nothing."""
    first: dict[tuple[str, str], Seen] = {}
    for row in rows:
        first.setdefault((row.out_trade_no, row.part), row)
    if not first:
        return {}
    told = await db.fetch(
        _SEE,
        run_id,
        [number for number, _ in first],
        [part for _, part in first],
        [row.row_no for row in first.values()],
        [row.amount for row in first.values()],
    )
    known = {(row["out_trade_no"], row["part"]): (row["row_no"], int(row["refunded"])) for row in told}
    before = {}
    for row in rows:
        row_no, refunded = known[row.out_trade_no, row.part]
        before[row.row_no] = Before(repeats=row_no < row.row_no, refunded=refunded if row.is_refund else 0)
    return before


async def find_paid_here(
    db: Database, account: str, *, after: tuple[datetime, str], until: datetime, run_ids: Sequence[int], limit: int
) -> tuple[list[PaidHere], tuple[datetime, str] | None]:
    """Of the next `limit` payments that were paid here until `until`, those of which none of these runs has seen a row;
    and where to go on, None at the end. It begins at (an instant, "").
    """
    rows = await db.fetch(_PAID_HERE, account, *after, until, list(run_ids), limit)
    unseen = [dict(row) for row in rows if not row["is_seen"]]
    for fields in unseen:
        del fields["is_seen"]
    last = rows[-1] if len(rows) == limit else None
    return [PaidHere(**fields) for fields in unseen], None if last is None else (last["paid_at"], last["out_trade_no"])


async def forget(db: Database, run_id: int, account: str, inner: tuple[datetime, datetime] | None) -> None:
    """Forget the rows of payments that were paid here within `inner`, and all refunds; None: everything."""
    since, until = inner or (None, None)
    while await db.execute(_FORGET, run_id, account, since, until) == FORGET_BATCH:
        pass
    await db.execute(_FORGET_REFUNDED, run_id)


async def add_differences(db: Database, run_id: int, found: Sequence[Difference]) -> None:
    """Keep them with the run, up to `DIFFERENCES_MAX`. Adding them again changes nothing."""
    if found:
        await db.execute(
            _ADD,
            run_id,
            [each.row_no for each in found],
            [each.kind.value for each in found],
            [each.order_no for each in found],
            [storable(each.out_trade_no) for each in found],
            [storable(each.channel_transaction_id) for each in found],
            [storable(each.detail) for each in found],
        )


async def list_differences(db: Database, run_id: int, limit: int = DIFFERENCES_MAX) -> list[Difference]:
    """In the order of the statement, and then what it has no row for."""
    return [msgspec.convert(dict(row), Difference) for row in await db.fetch(_DIFFERENCES, run_id, limit)]


async def open_cases(db: Database, account: str, found: Sequence[Difference]) -> int:
    """Ask a person about those that have a case; how many questions are new."""
    asked = [each for each in found if each.case is not None]
    if not asked:
        return 0
    return await db.execute(
        _OPEN,
        account,
        [each.order_no for each in asked],
        [storable(each.out_trade_no) or None for each in asked],
        [each.case.value for each in asked if each.case is not None],
        [storable(each.detail) for each in asked],
    )


async def answer_cases(db: Database, run_id: int, account: str, resolution: str) -> int:
    """Questions of earlier runs that this one answers: the row is there after all, the payment is paid by now."""
    return await db.execute(_ANSWER, run_id, account, resolution)
