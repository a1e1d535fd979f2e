"""Payments of two accounts that claimed one channel payment before the database refused it: a case for each."""

from __future__ import annotations

from core.order import CaseReason
from storage.postgres.database import Database

PAGE = 1000
"""Payments compared by one statement, well within its time-out."""

DETAIL = "transaction {transaction}, which paid order {order_no}"

_UNCHECKED = """
SELECT name, world,
       EXISTS (SELECT FROM accounts b WHERE b.world = a.world AND b.name <> a.name) AS has_siblings
  FROM accounts a WHERE world IS NOT NULL AND collisions_checked_at IS NULL
 ORDER BY name"""
_CHECKED = "UPDATE accounts SET collisions_checked_at = now() WHERE name = $1 AND world = $2"

# The case is about the payment that came second, which would be refused today. The unique index of an account's
# transactions gives the page, payments_by_transaction the others.
_OPEN = """
WITH page AS (
    SELECT p.order_no, p.channel_account, p.out_trade_no, p.channel_transaction_id, p.paid_at, p.created_at
      FROM payments p
     WHERE p.channel_account = $1 AND p.channel_transaction_id > $3
     ORDER BY p.channel_transaction_id
     LIMIT $5
), opened AS (
    INSERT INTO cases (order_no, channel_account, out_trade_no, reason, detail, phrase)
    SELECT page.order_no, page.channel_account, page.out_trade_no, $4,
           'transaction ' || page.channel_transaction_id || ', which paid order ' || first.order_no,
           json_build_object('type', 'Phrase', 'template', $6::text, 'values', json_build_object(
               'transaction', page.channel_transaction_id, 'order_no', first.order_no))::text
      FROM page
     CROSS JOIN LATERAL (
           SELECT q.order_no FROM payments q JOIN accounts a ON a.name = q.channel_account
            WHERE q.channel_transaction_id = page.channel_transaction_id AND a.world = $2 AND a.name <> $1
              AND (q.paid_at, q.created_at, q.channel_account) < (page.paid_at, page.created_at, page.channel_account)
            ORDER BY q.paid_at, q.created_at
            LIMIT 1) AS first
     WHERE NOT EXISTS (SELECT FROM cases c
                        WHERE c.order_no = page.order_no AND c.channel_account = page.channel_account
                          AND c.out_trade_no = page.out_trade_no AND c.reason = $4)
    ON CONFLICT DO NOTHING
    RETURNING id
)
SELECT (SELECT max(channel_transaction_id) FROM page), (SELECT count(*) FROM page), (SELECT count(*) FROM opened)"""


async def open_collision_cases(db: Database) -> int:
    """Compare the payments of accounts whose world is new with those of the other accounts in it; return how many cases
    were opened. A collision that has a case, open or resolved, gets none.
    """
    opened = 0
    for account in await db.fetch(_UNCHECKED):
        if account["has_siblings"]:
            opened += await _check_account(db, account["name"], account["world"])
        await db.execute(_CHECKED, account["name"], account["world"])
    return opened


async def _check_account(db: Database, name: str, world: str) -> int:
    opened, last, size = 0, "", PAGE
    while size == PAGE:
        (row,) = await db.fetch(_OPEN, name, world, last, CaseReason.TRANSACTION_CLAIMED_TWICE.value, PAGE, DETAIL)
        last, size = row[0], row[1]
        opened += row[2]
    return opened
