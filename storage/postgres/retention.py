"""Deletion of what is over and old, a bounded batch at a time. What is still open stays, however old it is.

Observations are not deleted row by row: their days are dropped whole (`observations`).
"""

from __future__ import annotations

from storage.postgres.database import Database

BATCH = 500

_OPEN_CASE = "coalesce(k.order_no, '') = {} AND k.resolved_at IS NULL"
"""As the index of open cases has it."""

_ORDER_IS_OPEN = f"""
       p.status = 'open'
       OR EXISTS (SELECT FROM pending q WHERE q.order_no = p.order_no)
       OR EXISTS (SELECT FROM refunds r WHERE r.order_no = p.order_no AND r.status IN ('requested', 'processing'))
       OR EXISTS (SELECT FROM disputes d WHERE d.order_no = p.order_no AND d.state IN ('open', 'under_review'))
       OR EXISTS (SELECT FROM cases k WHERE {_OPEN_CASE.format("p.order_no")})"""

# The callbacks of a payment stay while anything about its order is open, and one of no payment while its case is.
_CALLBACKS = f"""
DELETE FROM callbacks
 WHERE id IN (
    SELECT c.id FROM callbacks c
     WHERE coalesce(c.handled_at, c.dead_at) < now() - make_interval(days => $1)
       AND (c.handled_at IS NOT NULL OR c.dead_at IS NOT NULL)
       AND NOT EXISTS (SELECT FROM payments p
                        WHERE p.channel_account = c.channel_account AND p.out_trade_no = c.out_trade_no
                          AND ({_ORDER_IS_OPEN}))
       AND NOT EXISTS (SELECT FROM cases k
                        WHERE {_OPEN_CASE.format("''")} AND coalesce(k.channel_account, '') = c.channel_account
                          AND coalesce(k.out_trade_no, '') = c.out_trade_no)
     ORDER BY coalesce(c.handled_at, c.dead_at)
     LIMIT $2
       FOR UPDATE SKIP LOCKED)"""

# Dead letters stay: they can be sent again.
_NOTIFICATIONS = """
DELETE FROM notifications
 WHERE id IN (
    SELECT id FROM notifications
     WHERE coalesce(delivered_at, superseded_at) < now() - make_interval(days => $1)
       AND (delivered_at IS NOT NULL OR superseded_at IS NOT NULL)
     ORDER BY coalesce(delivered_at, superseded_at)
     LIMIT $2
       FOR UPDATE SKIP LOCKED)"""

# Those of an account as a whole stay: a resolved one is not opened again.
_CASES = """
DELETE FROM cases
 WHERE id IN (
    SELECT id FROM cases
     WHERE resolved_at < now() - make_interval(days => $1) AND NOT (order_no IS NULL AND out_trade_no IS NULL)
     LIMIT $2
       FOR UPDATE SKIP LOCKED)"""


async def delete_callbacks(db: Database, *, keep_days: int, limit: int = BATCH) -> int:
    """Delete up to `limit` callbacks that were handled or given up before that; return how many."""
    return await db.execute(_CALLBACKS, keep_days, limit)


async def delete_notifications(db: Database, *, keep_days: int, limit: int = BATCH) -> int:
    """The same for notifications that were delivered or superseded before that."""
    return await db.execute(_NOTIFICATIONS, keep_days, limit)


async def delete_cases(db: Database, *, keep_days: int, limit: int = BATCH) -> int:
    """The same for cases that were resolved before that."""
    return await db.execute(_CASES, keep_days, limit)
