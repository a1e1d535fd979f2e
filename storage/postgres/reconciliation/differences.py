"""Data of a run: our payments, the statement rows read so far, and the differences found.

A statement is read once and not kept in memory: its earlier rows are recorded in Postgres while the run lasts.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from core.order import CaseReason
from core.reconciliation import Difference
from core.sentences import Sentence, encode_phrase
from storage.postgres.database import Database, storable

DIFFERENCES_MAX = 10_000
"""The most differences and cases of one run: with more it is the statement that is wrong, not the payments."""

DELETE_BATCH = 20_000
"""Rows deleted by one statement, well within its time-out."""


class RecordedRow(msgspec.Struct, frozen=True, kw_only=True):
    """A statement row of a payment that we know. `refund_no` may be empty, and is read for refunds only."""

    row_no: int
    is_refund: bool
    out_trade_no: str
    refund_no: str
    amount: int

    @property
    def part(self) -> str:
        """The part of its payment: empty for the money that came. Two refunds without our number are two parts."""
        if not self.is_refund:
            return ""
        return f"refund {storable(self.refund_no)}" if self.refund_no else f"row {self.row_no}"


class EarlierRows(msgspec.Struct, frozen=True, kw_only=True):
    """A row's relation to the rows before it: whether it repeats one, and the sum refunded of its payment up to and
    including its batch, in minor units.
    """

    repeats: bool
    refunded: int


class UnlistedPayment(msgspec.Struct, frozen=True, kw_only=True):
    """A payment that is paid here and has no row in the statement."""

    order_no: str
    out_trade_no: str
    channel_transaction_id: str
    amount: int
    currency: str
    paid_at: datetime


# An upsert uses the index whatever the planner takes the table for, which was empty when the run began. A refund is
# added to its payment's sum when its row is new, so a batch that is recorded again adds nothing.
_RECORD = """
WITH recorded AS (
    INSERT INTO reconciliation_rows AS r (reconciliation_id, out_trade_no, part, row_no)
    SELECT $1, * FROM unnest($2::text[], $3::text[], $4::int[])
    ON CONFLICT (reconciliation_id, out_trade_no, part) DO UPDATE SET row_no = least(r.row_no, excluded.row_no)
    RETURNING out_trade_no, part, row_no, xmax = 0 AS is_new
), refunded AS (
    INSERT INTO reconciliation_refunded AS t (reconciliation_id, out_trade_no, amount)
    SELECT $1, g.out_trade_no, coalesce(sum(g.amount) FILTER (WHERE recorded.is_new), 0)
      FROM unnest($2::text[], $3::text[], $5::bigint[]) AS g(out_trade_no, part, amount)
      JOIN recorded USING (out_trade_no, part)
     WHERE g.part <> ''
     GROUP BY g.out_trade_no
    ON CONFLICT (reconciliation_id, out_trade_no) DO UPDATE SET amount = t.amount + excluded.amount
    RETURNING out_trade_no, amount
)
SELECT out_trade_no, part, row_no, coalesce(amount, 0) AS refunded
  FROM recorded LEFT JOIN refunded USING (out_trade_no)"""

# A page of all payments, not of unlisted ones: a day without unlisted payments would otherwise be one long statement.
_UNLISTED = """
SELECT page.*, recorded.yes IS NOT NULL AS is_listed
  FROM (SELECT p.order_no, p.out_trade_no, p.channel_transaction_id, p.amount, p.currency, p.paid_at
          FROM payments p
         WHERE p.channel_account = $1 AND p.paid_at IS NOT NULL AND (p.paid_at, p.out_trade_no) > ($2, $3::text)
           AND p.paid_at < $4
         ORDER BY p.paid_at, p.out_trade_no
         LIMIT $6) AS page
  LEFT JOIN LATERAL (SELECT true AS yes FROM reconciliation_rows r
                      WHERE r.reconciliation_id = ANY($5::bigint[]) AND r.out_trade_no = page.out_trade_no
                        AND r.part = ''
                      LIMIT 1) AS recorded ON true
 ORDER BY page.paid_at, page.out_trade_no"""

_DELETE = f"""
DELETE FROM reconciliation_rows
 WHERE ctid = ANY(ARRAY(
    SELECT r.ctid FROM reconciliation_rows r
     WHERE r.reconciliation_id = $1
       AND ($3::timestamptz IS NULL OR starts_with(r.part, 'row ') OR (r.part = '' AND EXISTS (
               SELECT FROM payments p
                WHERE p.channel_account = $2 AND p.out_trade_no = r.out_trade_no
                  AND p.paid_at >= $3 AND p.paid_at < $4)))
     LIMIT {DELETE_BATCH}))"""
_DELETE_REFUNDED = "DELETE FROM reconciliation_refunded WHERE reconciliation_id = $1"

_ADD = f"""
INSERT INTO reconciliation_differences
       (reconciliation_id, row_no, kind, order_no, out_trade_no, channel_transaction_id, detail, phrase)
SELECT $1, n.* FROM unnest($2::int[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[]) AS n
 WHERE (SELECT count(*) FROM (SELECT FROM reconciliation_differences d
                               WHERE d.reconciliation_id = $1 LIMIT {DIFFERENCES_MAX}) few) < {DIFFERENCES_MAX}
ON CONFLICT DO NOTHING"""
_DIFFERENCES = """
SELECT row_no, kind, order_no, out_trade_no, channel_transaction_id, detail, phrase
  FROM reconciliation_differences WHERE reconciliation_id = $1 AND ($3::text IS NULL OR kind = $3)
 ORDER BY row_no = 0, row_no, kind, out_trade_no
 LIMIT $2"""

# The newest case that a difference has opened, each by the index of its order (by `id` alone the primary key might be
# walked backwards to the first that fits); one without an order only while it is open, by the index of open cases.
_CASES_OF = """
SELECT n.row_no, n.kind, n.number, c.id, c.resolved_at IS NOT NULL AS is_resolved
  FROM unnest($2::int[], $3::text[], $4::text[], $5::text[]) AS n(row_no, kind, order_no, number)
 CROSS JOIN LATERAL (
    (SELECT c.id, c.resolved_at FROM cases c
      WHERE n.order_no <> '' AND c.order_no = n.order_no AND c.channel_account = $1
        AND c.out_trade_no = n.number AND c.reason = 'statement_' || n.kind
      ORDER BY c.id + 0 DESC LIMIT 1)
    UNION ALL
    (SELECT c.id, c.resolved_at FROM cases c
      WHERE (n.order_no = '' OR n.kind IN ('malformed', 'total'))
        AND coalesce(c.order_no, '') = '' AND coalesce(c.channel_account, '') = $1
        AND coalesce(c.out_trade_no, '') = CASE WHEN n.kind IN ('malformed', 'total') THEN '' ELSE n.number END
        AND c.reason = 'statement_' || n.kind AND c.resolved_at IS NULL
      LIMIT 1)
    LIMIT 1) AS c"""

# A case that a person has resolved is not opened again with the same detail. Each is looked up by its order: an EXISTS
# may be planned as a join that walks all cases.
_OPEN = """
INSERT INTO cases (order_no, channel_account, out_trade_no, reason, detail, phrase)
SELECT n.order_no, $1, n.out_trade_no, n.reason, n.detail, n.phrase
  FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[])
       AS n(order_no, out_trade_no, reason, detail, phrase)
 WHERE (SELECT c.id FROM cases c
         WHERE c.order_no = n.order_no AND c.channel_account = $1 AND c.out_trade_no = n.out_trade_no
           AND c.reason = n.reason AND c.detail = n.detail
         LIMIT 1) IS NULL
   AND (n.order_no IS NOT NULL
        OR (SELECT c.id FROM cases c
             WHERE c.order_no IS NULL AND c.channel_account = $1 AND c.reason = n.reason AND c.detail = n.detail
             LIMIT 1) IS NULL)
ON CONFLICT DO NOTHING"""
_RESOLVE_SETTLED = f"""
UPDATE cases c
   SET resolved_at = now(), resolution = $3, resolution_phrase = $5, by = 'reconciliation'
 WHERE c.channel_account = $2 AND c.resolved_at IS NULL
   AND ((c.reason = '{CaseReason.STATEMENT_PAID_HERE_ONLY}'
         AND EXISTS (SELECT FROM reconciliation_rows r
                      WHERE r.reconciliation_id = $1 AND r.out_trade_no = c.out_trade_no AND r.part = ''))
     OR (c.reason = '{CaseReason.STATEMENT_REFUND_HERE_ONLY}'
         AND EXISTS (SELECT FROM reconciliation_rows r
                       JOIN refunds f ON f.out_trade_no = r.out_trade_no AND r.part = 'refund ' || f.refund_no
                      WHERE r.reconciliation_id = $1 AND r.out_trade_no = c.out_trade_no
                        AND f.channel_account = $2 AND starts_with(c.detail, f.refund_no || ' ')))
     OR (c.reason = '{CaseReason.STATEMENT_TOTAL}' AND starts_with(c.detail, $4))
     OR (c.reason IN ('{CaseReason.STATEMENT_UNCONFIRMED}', '{CaseReason.STATEMENT_UNCLAIMED}')
         AND EXISTS (SELECT FROM payments p
                      WHERE p.channel_account = $2 AND p.status = 'paid'
                        AND (p.out_trade_no = c.out_trade_no OR p.channel_transaction_id = c.out_trade_no))))"""


async def record_rows(db: Database, run_id: int, rows: Sequence[RecordedRow]) -> dict[int, EarlierRows]:
    """Record these rows; return each row's relation to the earlier ones. Recording them again changes nothing."""
    first: dict[tuple[str, str], RecordedRow] = {}
    for row in rows:
        first.setdefault((row.out_trade_no, row.part), row)
    if not first:
        return {}
    recorded = await db.fetch(
        _RECORD,
        run_id,
        [number for number, _ in first],
        [part for _, part in first],
        [row.row_no for row in first.values()],
        [row.amount for row in first.values()],
    )
    known = {(row["out_trade_no"], row["part"]): (row["row_no"], int(row["refunded"])) for row in recorded}
    before = {}
    for row in rows:
        row_no, refunded = known[row.out_trade_no, row.part]
        before[row.row_no] = EarlierRows(repeats=row_no < row.row_no, refunded=refunded if row.is_refund else 0)
    return before


async def find_unlisted_payments(
    db: Database, account: str, *, after: tuple[datetime, str], until: datetime, run_ids: Sequence[int], limit: int
) -> tuple[list[UnlistedPayment], tuple[datetime, str] | None]:
    """Unlisted ones among the next `limit` payments that were paid here until `until`: none of these runs recorded a
    row of them. Also returns the `after` of the next page, None at the end; the first is (an instant, "").
    """
    rows = await db.fetch(_UNLISTED, account, *after, until, list(run_ids), limit)
    unlisted = [dict(row) for row in rows if not row["is_listed"]]
    for fields in unlisted:
        del fields["is_listed"]
    last = rows[-1] if len(rows) == limit else None
    after_page = None if last is None else (last["paid_at"], last["out_trade_no"])
    return [UnlistedPayment(**fields) for fields in unlisted], after_page


async def delete_rows(db: Database, run_id: int, account: str, inner: tuple[datetime, datetime] | None) -> None:
    """Delete the recorded rows of payments that were paid here within `inner`, and of refunds without our number; None:
    all rows.
    """
    since, until = inner or (None, None)
    while await db.execute(_DELETE, run_id, account, since, until) == DELETE_BATCH:
        pass
    await db.execute(_DELETE_REFUNDED, run_id)


async def add_differences(db: Database, run_id: int, found: Sequence[Difference]) -> None:
    """Store them with the run, up to `DIFFERENCES_MAX`. Adding them again changes nothing."""
    if found:
        await db.execute(
            _ADD,
            run_id,
            [each.row_no for each in found],
            [str(each.kind) for each in found],
            [each.order_no for each in found],
            [storable(each.out_trade_no) for each in found],
            [storable(each.channel_transaction_id) for each in found],
            [storable(each.detail) for each in found],
            [encode_phrase(each.detail) for each in found],
        )


class DifferenceRow(msgspec.Struct, frozen=True, kw_only=True):
    """A stored difference. `kind` is a `Finding`, as far as this release knows it; `phrase` is that of the detail."""

    kind: str
    row_no: int
    detail: str
    order_no: str | None
    out_trade_no: str
    channel_transaction_id: str
    phrase: str | None


async def list_differences(
    db: Database, run_id: int, limit: int = DIFFERENCES_MAX, *, kind: str | None = None
) -> list[DifferenceRow]:
    """Differences in the order of the statement, then those without a row. `kind`: only these."""
    return [DifferenceRow(**dict(row)) for row in await db.fetch(_DIFFERENCES, run_id, limit, kind)]


class CaseOf(msgspec.Struct, frozen=True, kw_only=True):
    """The case of a difference."""

    id: int
    is_resolved: bool


async def find_cases_of(
    db: Database, account: str, found: Sequence[Difference | DifferenceRow]
) -> dict[tuple[int, str, str], CaseOf]:
    """Cases of these differences, by row, kind and number; a difference without one is left out."""
    rows = await db.fetch(
        _CASES_OF,
        account,
        [each.row_no for each in found],
        [str(each.kind) for each in found],
        [each.order_no or "" for each in found],
        [each.out_trade_no for each in found],
    )
    return {
        (row["row_no"], row["kind"], row["number"]): CaseOf(id=row["id"], is_resolved=row["is_resolved"])
        for row in rows
    }


async def open_cases(db: Database, account: str, found: Sequence[Difference]) -> int:
    """Open the cases of these differences; return how many are new."""
    with_case = [each for each in found if each.case is not None]
    if not with_case:
        return 0
    return await db.execute(
        _OPEN,
        account,
        [each.order_no for each in with_case],
        [storable(each.out_trade_no) or None for each in with_case],
        [each.case.value for each in with_case if each.case is not None],
        [storable(each.detail) for each in with_case],
        [encode_phrase(each.detail) for each in with_case],
    )


async def resolve_settled_cases(db: Database, run_id: int, account: str, of: str) -> int:
    """Resolve cases of earlier runs that this run settles: the row exists after all, the payment is paid by now, or the
    totals of the statement `of` this day or file agree.
    """
    settled = Sentence("the statement of {of} settles it", of=of)
    return await db.execute(_RESOLVE_SETTLED, run_id, account, settled, f"{of}: ", encode_phrase(settled))
