"""Orders as lines of a file: what such a line has, and nothing else, read by the numbers of the orders."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from core.dispute import Dispute, is_withheld
from core.order import OrderStatus, PublicStatus, page_status
from storage.postgres.database import Database


class OrderRow(msgspec.Struct, frozen=True, kw_only=True):
    """One order. `refunded` is in minor units, None: something, and no sum is known. `reasons` are of open cases."""

    order_no: str
    created_at: datetime
    status: OrderStatus
    page_status: PublicStatus
    amount: int
    currency: str
    subject: str
    paid_at: datetime | None
    closed_at: datetime | None
    accounts: list[str]
    out_trade_nos: list[str]
    channel_transaction_ids: list[str]
    refunded: int | None
    reasons: list[str]


# OFFSET and LIMIT keep the planner from joining whole tables: an order's rows are looked up by its number.
_FIND = """
SELECT o.order_no, o.created_at, o.status, o.amount, o.currency, o.subject, o.paid_at, o.closed_at,
       p.accounts, p.numbers, p.transactions, c.reasons, p.refunded,
       o.handed_off_at IS NOT NULL, p.has_paid, p.has_open, p.is_all_back,
       o.paid_by_account, o.paid_by_out_trade_no, d.disputes
  FROM unnest($1::text[]) AS wanted(order_no)
 CROSS JOIN LATERAL (SELECT * FROM orders WHERE orders.order_no = wanted.order_no LIMIT 1) AS o
 CROSS JOIN LATERAL (
       SELECT array_agg(channel_account ORDER BY attempt_no) AS accounts,
              array_agg(out_trade_no ORDER BY attempt_no) AS numbers,
              array_agg(channel_transaction_id ORDER BY attempt_no)
                  FILTER (WHERE channel_transaction_id IS NOT NULL) AS transactions,
              CASE WHEN bool_or(is_refund_amount_unknown) THEN NULL ELSE coalesce(sum(refunded_amount), 0)::bigint
              END AS refunded,
              coalesce(bool_or(status = 'paid'), false) AS has_paid,
              coalesce(bool_or(status = 'open'), false) AS has_open,
              coalesce(bool_and(refunded_amount >= amount AND NOT is_refund_amount_unknown)
                  FILTER (WHERE status = 'paid'), false) AS is_all_back
         FROM (SELECT * FROM payments WHERE order_no = o.order_no OFFSET 0) AS every) AS p
 CROSS JOIN LATERAL (
       SELECT array_agg(reason ORDER BY reason) AS reasons
         FROM (SELECT * FROM cases WHERE order_no = o.order_no OFFSET 0) AS every WHERE resolved_at IS NULL) AS c
 CROSS JOIN LATERAL (
       SELECT jsonb_agg(to_jsonb(every))::text AS disputes
         FROM (SELECT * FROM disputes WHERE order_no = o.order_no OFFSET 0) AS every) AS d"""

_disputes_decoder = msgspec.json.Decoder(tuple[Dispute, ...])


async def find_order_rows(db: Database, order_nos: list[str]) -> list[OrderRow]:
    """The orders of these numbers, in their order; one that is not there is left out."""
    found = {row.order_no: row for row in map(_row, await db.fetch(_FIND, order_nos))}
    return [found[order_no] for order_no in order_nos if order_no in found]


def _row(record: Any) -> OrderRow:
    *own, is_handed_off, has_paid, has_open, is_all_back, account, number, disputes = record
    order_no, created_at, status, amount, currency, subject, paid_at, closed_at, *several, refunded = own
    accounts, numbers, transactions, reasons = (each or [] for each in several)
    known = () if disputes is None or account is None else _disputes_decoder.decode(disputes)
    return OrderRow(
        order_no=order_no,
        created_at=created_at,
        status=OrderStatus(status),
        page_status=page_status(
            status,
            is_handed_off=is_handed_off,
            has_paid=has_paid,
            has_open=has_open,
            is_all_back=is_all_back,
            is_disputed=is_withheld(known, (account, number)),
        ),
        amount=amount,
        currency=currency,
        subject=subject,
        paid_at=paid_at,
        closed_at=closed_at,
        accounts=accounts,
        out_trade_nos=numbers,
        channel_transaction_ids=transactions,
        refunded=refunded,
        reasons=reasons,
    )
