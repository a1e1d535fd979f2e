"""Deletion of what is over and old, a bounded batch at a time, and what is left of ended orders and has to go through
the door. What is still open stays, however old it is.

Observations are not deleted row by row: their days are dropped whole (`observations`).
"""

from __future__ import annotations

from storage.postgres.database import Database

BATCH = 500
PAYERS_BATCH = 100

# Deleted by key, and what is open is counted row by row, which the planner does by key too: an EXISTS it would rather
# compare with a whole table.
_DELETE = """
WITH old AS (
    {old}
     LIMIT $2
       FOR UPDATE SKIP LOCKED
)
DELETE FROM {table} WHERE id = ANY(ARRAY(SELECT id FROM old))"""

# The callbacks of a payment stay while anything about its order is open, and one of no payment while its case is. The
# comparison of cases is that of their index.
_CALLBACKS = _DELETE.format(
    table="callbacks",
    old="""SELECT id FROM callbacks c
     WHERE coalesce(handled_at, dead_at) < now() - make_interval(days => $1)
       AND (handled_at IS NOT NULL OR dead_at IS NOT NULL)
       AND (SELECT count(*) FROM payments p
             WHERE p.channel_account = c.channel_account AND p.out_trade_no = c.out_trade_no
               AND (p.status = 'open'
                    OR 0 < (SELECT count(*) FROM pending q WHERE q.order_no = p.order_no)
                    OR 0 < (SELECT count(*) FROM refunds r
                             WHERE r.order_no = p.order_no AND r.settled_at IS NULL)
                    OR 0 < (SELECT count(*) FROM disputes d
                             WHERE d.order_no = p.order_no AND d.state IN ('open', 'under_review'))
                    OR 0 < (SELECT count(*) FROM cases k
                             WHERE coalesce(k.order_no, '') = p.order_no AND k.resolved_at IS NULL))) = 0
       AND (SELECT count(*) FROM cases k
             WHERE coalesce(k.order_no, '') = '' AND coalesce(k.channel_account, '') = c.channel_account
               AND coalesce(k.out_trade_no, '') = c.out_trade_no AND k.resolved_at IS NULL) = 0
     ORDER BY coalesce(handled_at, dead_at)""",
)

# Dead letters stay: they can be sent again. The attempts are in the row and go with it.
_NOTIFICATIONS = _DELETE.format(
    table="notifications",
    old="""SELECT id FROM notifications
     WHERE coalesce(delivered_at, superseded_at) < now() - make_interval(days => $1)
       AND (delivered_at IS NOT NULL OR superseded_at IS NOT NULL) AND resending_since IS NULL
     ORDER BY coalesce(delivered_at, superseded_at)""",
)

# Those of an account as a whole stay: a resolved one is not opened again.
_CASES = _DELETE.format(
    table="cases",
    old="""SELECT id FROM cases
     WHERE resolved_at < now() - make_interval(days => $1) AND NOT (order_no IS NULL AND out_trade_no IS NULL)""",
)


# The end of its time, which hardly any change moves, is in the index of the orders that have a payer. Of those past it
# few are open.
_LEFT_PAYERS = """
SELECT order_no FROM orders
 WHERE payer IS NOT NULL AND expires_at < now() AND status IN ('paid', 'closed')
 ORDER BY expires_at
 LIMIT $1"""


async def delete_callbacks(db: Database, *, keep_days: int, limit: int = BATCH) -> int:
    """Delete up to `limit` callbacks that were handled or given up before that; return how many."""
    return await db.execute(_CALLBACKS, keep_days, limit)


async def delete_notifications(db: Database, *, keep_days: int, limit: int = BATCH) -> int:
    """The same for notifications that were delivered or superseded before that."""
    return await db.execute(_NOTIFICATIONS, keep_days, limit)


async def delete_cases(db: Database, *, keep_days: int, limit: int = BATCH) -> int:
    """The same for cases that were resolved before that."""
    return await db.execute(_CASES, keep_days, limit)


async def find_left_payers(db: Database, limit: int) -> list[str]:
    """Numbers of ended orders that still have their payer though their time is over."""
    return [row["order_no"] for row in await db.fetch(_LEFT_PAYERS, limit)]
