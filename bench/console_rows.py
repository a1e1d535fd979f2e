"""Many orders with their neighbours, as a shop has them after ninety days: copies of two real ones, and in ratio to
them notifications, callbacks, cases, disputes, differences, refunds, approvals, alerts, acts of people and roll-ups.

Of a million orders 900,000 are paid, 50,000 notifications have reached nobody at 1,000 endpoints, 100,000 cases are
open, and one day of one account has 100,000 differences. A copy was never updated, so it leaves no dead row versions.
"""

from __future__ import annotations

from collections.abc import Mapping

from bench.buyer import Buyer
from bench.rig import Rig
from bench.sizes import ShowProgress
from core.rollups import Step
from storage.postgres.database import Database

ACCOUNTS = ("sandbox", "second", "rare")
PAID, OPEN = "first-paid", "first-open"
ENDPOINT = "https://m-1.shop.test/hook"
"""One of many that do not answer."""

PAUSED = "https://m-2.shop.test/hook"
CHUNK = 20_000
TIMEOUT_S = 600.0
OF_AN_ENDPOINT = 1000
"""Orders for each endpoint that does not answer."""

ENDPOINTS_MAX = 50
"""Endpoints in the roll-ups of a bucket, as many as are kept."""

BUCKETS: Mapping[Step, int] = {Step.MINUTES: 600, Step.HOUR: 2_400, Step.DAY: 800}
"""As many as are kept."""

# Every tenth order is closed, every five hundredth is open. Times are spread over the last ninety days.
_KIND = "CASE WHEN i % 500 = 0 THEN 'paying' WHEN i % 10 = 9 THEN 'closed' ELSE 'paid' END"
_AT = "now() - make_interval(secs => 7776000.0 * ($1::bigint - i) / $1::bigint)"
_ACCOUNT = "CASE WHEN i % 100000 = 7 THEN 'rare' WHEN i % 4 = 3 THEN 'second' ELSE 'sandbox' END"
_ATTEMPT = """jsonb_build_array(jsonb_build_object('no', 1, 'at', n.at, 'latency_ms', 31, 'status',
                  CASE WHEN {failed} THEN '503' ELSE '200' END, 'answer', 'thank you'))"""
_IS_UNDELIVERED, _IS_DEAD = "i % 20 = 1", "i % 200 = 3"
_HOOK = f"'https://m-' || (i / 20) % greatest(1, $1::bigint / {OF_AN_ENDPOINT}) || '.shop.test/hook'"
_COPY = """
INSERT INTO {table}
SELECT copy.* FROM (SELECT * FROM {table} WHERE order_no = '{first}') AS t,
       (SELECT i, {kind} AS kind, {at} AS at, {account} AS account
          FROM generate_series($2::bigint, $3::bigint) AS i) AS n,
       LATERAL jsonb_populate_record(t::{table}, jsonb_build_object('order_no', 'copy-' || n.i, {changes})) AS copy
 WHERE {where}"""
_IF_PAID = "CASE WHEN n.kind = 'paid' THEN {} END"
_CHANGES: Mapping[str, tuple[str, str, str]] = {
    "orders": (
        PAID,
        f"""'page_token', md5('page' || i), 'status', n.kind, 'created_at', n.at, 'updated_at', n.at,
            'expires_at', n.at + interval '30 min',
            'amount', 100 + i % 5000, 'currency', CASE WHEN i % 200000 = 11 THEN 'USD' ELSE 'CNY' END,
            'paid_at', {_IF_PAID.format("n.at")}, 'paid_by_account', {_IF_PAID.format("n.account")},
            'paid_by_out_trade_no', {_IF_PAID.format("'n-' || i")},
            'closed_at', CASE WHEN n.kind = 'closed' THEN n.at END""",
        "true",
    ),
    "payments": (
        PAID,
        f"""'out_trade_no', 'n-' || i, 'channel_account', n.account, 'created_at', n.at, 'amount', 100 + i % 5000,
            'currency', CASE WHEN i % 200000 = 11 THEN 'USD' ELSE 'CNY' END,
            'status', CASE n.kind WHEN 'paying' THEN 'open' ELSE n.kind END, 'channel_reference', 'ref-' || i,
            'channel_transaction_id', {_IF_PAID.format("'t-' || i")}, 'paid_at', {_IF_PAID.format("n.at")},
            'channel_refunds', CASE WHEN i % 20 = 1 THEN jsonb_build_object('re-' || i, 5) ELSE '{{}}' END""",
        "true",
    ),
    "order_events": (
        PAID,
        """'at', n.at, 'out_trade_no', 'n-' || i, 'channel_account', n.account,
           'kind', CASE WHEN t.kind = 'paid' THEN n.kind ELSE t.kind END""",
        "NOT (t.kind = 'paid' AND n.kind = 'paying')",
    ),
    "notifications": (
        PAID,
        f"""'id', 'msg-' || i, 'created_at', n.at, 'leased_until', NULL,
            'url', CASE WHEN {_IS_UNDELIVERED} OR {_IS_DEAD} THEN {_HOOK} ELSE t.url END,
            'attempt', CASE WHEN {_IS_UNDELIVERED} THEN 4 ELSE 1 END,
            'last_status', CASE WHEN {_IS_UNDELIVERED} OR {_IS_DEAD} THEN '503' ELSE '200' END,
            'attempts', {_ATTEMPT.format(failed=f"{_IS_UNDELIVERED} OR {_IS_DEAD}")},
            'delivered_at', CASE WHEN NOT ({_IS_UNDELIVERED} OR {_IS_DEAD}) THEN n.at END,
            'dead_at', CASE WHEN {_IS_DEAD} THEN n.at END,
            'due_at', CASE WHEN {_IS_UNDELIVERED} THEN now() + interval '1 min' * (i % 120 - 5) ELSE n.at END""",
        "n.kind <> 'paying'",
    ),
    "pending": (
        OPEN,
        """'channel_account', CASE t.kind WHEN 'query' THEN n.account ELSE '' END, 'due_at', now() + interval '1 day',
           'leased_until', NULL,
           'out_trade_no', CASE t.kind WHEN 'query' THEN 'n-' || i ELSE 'copy-' || i END""",
        "n.kind = 'paying'",
    ),
}
_OTHERS: Mapping[str, str] = {
    "callbacks": """
INSERT INTO callbacks
SELECT copy.* FROM (SELECT * FROM callbacks LIMIT 1) AS t, generate_series($2::bigint, $3::bigint) AS i,
       LATERAL jsonb_populate_record(t::callbacks, jsonb_build_object(
           'id', md5('callback' || i)::uuid, 'notification_id', 'evt-' || i, 'out_trade_no', 'n-' || i,
           'channel_account', {account}, 'received_at', {at}, 'leased_until', NULL,
           'due_at', CASE WHEN i % 1000 = 7 THEN now() + interval '1 day' ELSE {at} END,
           'handled_at', CASE WHEN i % 1000 NOT IN (6, 7) THEN {at} END,
           'dead_at', CASE WHEN i % 1000 = 6 THEN {at} END)) AS copy
 WHERE i % 10 < 9""",
    "refused_callbacks": """
INSERT INTO refused_callbacks (channel_account, verdict, received_at, body_hash, body_bytes)
SELECT {account}, 'forged', {at}, sha256(i::text::bytea), 9
  FROM generate_series($2::bigint, $3::bigint) AS i WHERE i % 100 = 5""",
    # Open ones of two reasons, and two of a rare one; as many are resolved.
    "cases": """
INSERT INTO cases (order_no, channel_account, out_trade_no, reason, detail, opened_at, resolved_at, resolution, by,
                   assignee)
SELECT 'copy-' || i, {account}, 'n-' || i,
       CASE WHEN i % 500000 = 13 THEN 'transaction_claimed_twice' WHEN i % 20 = 3 THEN 'statement_amount'
            ELSE 'paid_late' END,
       'the channel says 88.88 CNY, and 88.80 CNY were ordered', {at}, CASE WHEN i % 10 = 4 THEN {at} END,
       CASE WHEN i % 10 = 4 THEN 'refunded' END, CASE WHEN i % 10 = 4 THEN 'anna' END,
       CASE WHEN i % 70 = 3 THEN 'anna' END
  FROM generate_series($2::bigint, $3::bigint) AS i WHERE i % 10 IN (3, 4)""",
    "disputes": """
INSERT INTO disputes (channel_account, out_trade_no, dispute_id, order_no, kind, state, amount, currency, respond_by,
                      opened_at, changed_at)
SELECT {account}, 'n-' || i, 'd-' || i, 'copy-' || i, 'claim', CASE WHEN i % 1000 = 17 THEN 'open' ELSE 'won' END,
       100, 'CNY', {at} + interval '7 days', {at}, {at}
  FROM generate_series($2::bigint, $3::bigint) AS i WHERE i % 100 = 17""",
    "refunds": """
INSERT INTO refunds (refund_no, channel_account, out_trade_no, order_no, amount, currency, reason, status, requested_at,
                     settled_at, channel_refund_no)
SELECT 'r-' || i, {account}, 'n-' || i, 'copy-' || i, 50, 'CNY', 'operator', 'succeeded', {at}, {at}, 'rf-' || i
  FROM generate_series($2::bigint, $3::bigint) AS i WHERE i % 100 = 1""",
    "refund_approvals": """
INSERT INTO refund_approvals (order_no, channel_account, out_trade_no, amount, currency, request_key, reason,
                              requested_by, requested_at, expires_at, decision, decided_by, decided_at)
SELECT 'copy-' || i, {account}, 'n-' || i, 60, 'CNY', 'key-' || i, 'the buyer sent it back', 'anna', {at},
       now() + interval '3 days', CASE WHEN i % 1000 = 11 THEN 'declined' END,
       CASE WHEN i % 1000 = 11 THEN 'berta' END, CASE WHEN i % 1000 = 11 THEN now() END
  FROM generate_series($2::bigint, $3::bigint) AS i WHERE i % 500 = 11""",
    # Most acts are of one person, and few are rare.
    "audit": """
INSERT INTO audit (at, by, via, action, subject, detail)
SELECT {at}, CASE WHEN i % 10 < 7 THEN 'anna' ELSE 'p-' || i % 20 END, 'console',
       CASE WHEN i % 100000 = 3 THEN 'rare' ELSE 'order.query' END, 'copy-' || i, '{{"reason": "the buyer called"}}'
  FROM generate_series($2::bigint, $3::bigint) AS i""",
    "alerts": """
INSERT INTO alerts (id, key, rule, subject, text, looks, seen_at, raised_at, cleared_at)
SELECT 'alert-' || i, 'case:' || i, 'case', i::text, 'a case is open', 0, {at}, {at},
       CASE WHEN i % 20000 <> 19 THEN {at} END
  FROM generate_series($2::bigint, $3::bigint) AS i WHERE i % 200 = 19""",
}
_CLOSED = """
INSERT INTO closings (channel_account, day, money)
SELECT name, current_date - n, '{"CNY": {"payments": 9, "paid": 900}}' FROM accounts, generate_series(0, 89) AS n"""
_RUNS = """
INSERT INTO reconciliations (channel_account, day, dry_run, status, counts, sums, statement_rows, finished_at)
SELECT name, current_date - n, false, 'finished', '{"agrees": 9, "amount": 3}', '{}', 12, now()
  FROM accounts, generate_series(2, 89) AS n"""
_FEW_DIFFERENCES = """
INSERT INTO reconciliation_differences (reconciliation_id, row_no, kind, order_no, out_trade_no, channel_transaction_id,
                                        detail)
SELECT id, n, 'amount', 'copy-' || id * n, 'n-' || id * n, '', 'x' FROM reconciliations, generate_series(1, 3) AS n"""
_RUN_OF_MANY = """
INSERT INTO reconciliations (channel_account, day, dry_run, status, counts, sums, statement_rows, finished_at)
VALUES ('sandbox', current_date - 1, false, 'finished', jsonb_build_object('amount', $1::bigint / 10), '{}',
        $1::bigint / 10, now())
RETURNING id"""
# Half of them are of orders whose case about it is open.
_MANY_DIFFERENCES = """
INSERT INTO reconciliation_differences (reconciliation_id, row_no, kind, order_no, out_trade_no, channel_transaction_id,
                                        detail)
SELECT $2, i, 'amount', 'copy-' || i, 'n-' || i, 't-' || i, 'the statement says 88.80 CNY, and 88.88 CNY came'
  FROM generate_series(1, $1::bigint) AS i WHERE i % 10 = 3"""
_PAUSE = "INSERT INTO paused_endpoints (endpoint, paused_by, reason) VALUES ($1, 'anna', 'they move')"
_ROLLUPS = """
INSERT INTO rollups (step, at, scope, name, figures)
SELECT $1::integer, to_timestamp((floor(extract(epoch FROM now()) / $1::integer) - n) * $1::integer), scope, name,
       figures
  FROM generate_series(0, $2::integer - 1) AS n,
       (SELECT 'all' AS scope, '' AS name, '{"placed": 9, "closed": 1}'::jsonb AS figures
        UNION ALL
        SELECT 'account', accounts.name, '{"paid": 8, "paid_amount:CNY": 800, "by:callback": 7, "by:query": 1,
               "paid_s:2": 8, "repaired_s:6": 1, "expected": 8, "unheard": 1, "callbacks": 9, "calls": 20,
               "call_s:2": 20}' FROM accounts
        UNION ALL
        SELECT 'endpoint', 'https://m-' || e || '.shop.test/hook',
               '{"delivered": 8, "first_try": 7, "attempts": 9, "tries": 9, "try_s:1": 9, "delivered_s:0": 8}'
          FROM generate_series(1, $3::integer) AS e) AS each"""


async def fill(rig: Rig, orders: int, show_progress: ShowProgress) -> None:
    """Place one order and pay another, copy them, and write what is beside them."""
    async with Buyer(rig) as buyer:
        await buyer.buy(PAID)
        await buyer.place(OPEN)
    db = rig.db
    # Triggers and foreign keys would only repeat what the first orders have passed.
    for table in (*_CHANGES, *_OTHERS):
        await db.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
    words = {"kind": _KIND, "at": _AT, "account": _ACCOUNT}
    statements = [
        _COPY.format(table=table, first=first, changes=changes, where=where, **words)
        for table, (first, changes, where) in _CHANGES.items()
    ]
    statements += [statement.format(**words) for statement in _OTHERS.values()]
    for start in range(1, orders + 1, CHUNK):
        show_progress(f"{start - 1:,} of {orders:,} orders are there")
        for statement in statements:
            await db.execute(statement, orders, start, min(start + CHUNK - 1, orders), timeout_s=TIMEOUT_S)
    show_progress("days, roll-ups and statistics")
    await _fill_days(db, orders)
    endpoints = max(1, min(ENDPOINTS_MAX, orders // OF_AN_ENDPOINT))
    for step, count in BUCKETS.items():
        await db.execute(_ROLLUPS, int(step), count, endpoints, timeout_s=TIMEOUT_S)
    await db.execute(_PAUSE, PAUSED)
    for table in (*_CHANGES, *_OTHERS, "rollups", "reconciliation_differences"):
        await db.execute(f"ALTER TABLE {table} ENABLE TRIGGER ALL")
        await db.execute(f"VACUUM (ANALYZE) {table}", timeout_s=TIMEOUT_S)
    await db.execute("CHECKPOINT", timeout_s=TIMEOUT_S)


async def _fill_days(db: Database, orders: int) -> None:
    for statement in (_CLOSED, _RUNS, _FEW_DIFFERENCES):
        await db.execute(statement)
    run_id = await db.fetchval(_RUN_OF_MANY, orders)
    await db.execute(_MANY_DIFFERENCES, orders, run_id, timeout_s=TIMEOUT_S)
