"""Nodrop's own rows, read with SQL for the oracle."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Protocol

import msgspec

from simulator.oracle.books import Books

_BOOKS = """
SELECT json_build_object(
    'orders', (SELECT json_agg(json_build_object(
                   'order_no', order_no, 'amount', amount, 'currency', currency, 'status', status, 'version', version,
                   'expects_effect', notify_url IS NOT NULL,
                   'paid_by', CASE WHEN paid_by_account IS NOT NULL THEN json_build_object(
                                   'account', paid_by_account, 'out_trade_no', paid_by_out_trade_no) END))
                 FROM orders),
    'payments', (SELECT json_agg(json_build_object(
                   'account', channel_account, 'out_trade_no', out_trade_no, 'order_no', order_no, 'amount', amount,
                   'currency', currency, 'status', status, 'channel_transaction_id', channel_transaction_id))
                   FROM payments),
    'cases', (SELECT json_agg(json_build_object(
                   'reason', reason, 'detail', detail, 'order_no', order_no, 'account', channel_account,
                   'out_trade_no', out_trade_no))
                FROM cases WHERE resolved_at IS NULL),
    'callbacks', (SELECT json_agg(json_build_object(
                   'account', channel_account, 'notification_id', notification_id,
                   'body_sha256', encode(body_hash, 'hex')))
                    FROM callbacks),
    'events', (SELECT json_agg(json_build_object('order_no', order_no, 'version', version, 'kind', kind, 'by', by))
                 FROM order_events),
    'due', (SELECT json_agg(d) FROM (
                SELECT 'pending' AS "table", t.order_no, t.due_at, t.leased_until,
                       json_build_object('account', t.channel_account, 'out_trade_no', t.out_trade_no) AS ref,
                       CASE WHEN t.kind = 'deadline' THEN o.expires_at
                            WHEN p.status = 'closed' THEN least(p.payable_until, p.created_at + interval '30 days')
                       END AS waits_until
                  FROM pending t LEFT JOIN orders o USING (order_no)
                  LEFT JOIN payments p ON (p.channel_account, p.out_trade_no) = (t.channel_account, t.out_trade_no)
                UNION ALL
                SELECT 'callbacks', out_trade_no, due_at, leased_until, NULL, NULL FROM callbacks
                 WHERE handled_at IS NULL AND dead_at IS NULL
                UNION ALL
                SELECT 'notifications', order_no, due_at, leased_until, NULL, NULL FROM notifications
                 WHERE delivered_at IS NULL AND superseded_at IS NULL AND dead_at IS NULL
                UNION ALL
                SELECT 'refunds', order_no, due_at, leased_until, NULL, NULL FROM refunds
                 WHERE status IN ('requested', 'processing')) AS d),
    'refunds', (SELECT json_agg(json_build_object(
                   'account', channel_account, 'out_trade_no', out_trade_no, 'refund_no', refund_no, 'amount', amount,
                   'currency', currency, 'reason', reason))
                  FROM refunds WHERE status = 'succeeded')
)::text AS books, now() AS now"""


class Rows(Protocol):
    """A database, or one connection that sees what its transaction has changed."""

    async def fetchrow(self, sql: str, /, *args: object) -> Any: ...  # noqa: ANN401 - a row


async def read_books(db: Rows) -> tuple[Books, datetime]:
    """Return all rows at one instant, and that instant by the database's clock."""
    row = await db.fetchrow(_BOOKS)
    assert row is not None
    raw = {name: rows or [] for name, rows in msgspec.json.decode(row["books"]).items()}
    return msgspec.convert(raw, Books, strict=False), row["now"]
