"""Work that is not done yet: the rows that keep the demo waiting, and why each is open, read with SQL."""

from __future__ import annotations

import msgspec

from storage.postgres.database import Database


class OpenWork(msgspec.Struct, frozen=True, kw_only=True):
    """A row that is still open. `reason`: what its last attempt came to, if that is known.

    `due_in_s` is below 0 for a row that is overdue; `leased_for_s` 0: no process works on it.
    """

    work: str
    number: str
    attempt: int
    due_in_s: float
    leased_for_s: float
    reason: str

    @property
    def sentence(self) -> str:
        state = f"due in {self.due_in_s:.0f} s" if self.due_in_s > 0 else f"overdue by {-self.due_in_s:.0f} s"
        if self.leased_for_s:
            state = f"under way, its lease ends in {self.leased_for_s:.0f} s"
        return f"{self.work} {self.number}: attempt {self.attempt}, {state}, last: {self.reason}"


# The question about a closed payment a day later is not waited for, only those of the next $1 seconds.
_ROWS = """
    SELECT CASE t.kind WHEN 'deadline' THEN 'deadline' ELSE 'query' END AS work, t.out_trade_no AS number, t.attempt,
           t.due_at, t.leased_until,
           (SELECT concat_ws(', ', o.kind, nullif(o.note, '')) FROM observations o
             WHERE o.order_no = t.order_no ORDER BY o.at DESC LIMIT 1) AS reason
      FROM pending t LEFT JOIN payments p USING (channel_account, out_trade_no)
     WHERE p.status IS DISTINCT FROM 'closed' OR t.due_at < now() + make_interval(secs => $1)
    UNION ALL
    SELECT 'callback', out_trade_no, attempt, due_at, leased_until, outcome FROM callbacks
     WHERE handled_at IS NULL AND dead_at IS NULL
    UNION ALL
    SELECT 'notification', order_no, attempt, due_at, leased_until, last_status FROM notifications
     WHERE delivered_at IS NULL AND superseded_at IS NULL AND dead_at IS NULL
    UNION ALL
    SELECT 'refund', refund_no, attempt, due_at, leased_until, last_error FROM refunds
     WHERE status IN ('requested', 'processing')"""

_COUNT = f"SELECT count(*) FROM ({_ROWS}) AS r"  # noqa: S608 - ours

_LIST = f"""
SELECT work, number, attempt, extract(epoch FROM due_at - now())::float8 AS due_in_s,
       coalesce(greatest(0, extract(epoch FROM leased_until - now())), 0)::float8 AS leased_for_s,
       coalesce(nullif(reason, ''), 'nothing yet') AS reason
  FROM ({_ROWS}) AS r
 ORDER BY due_at"""  # noqa: S608 - ours


async def count_open_work(db: Database, rechecked_within_s: float) -> int:
    """Number of open rows; of closed payments those that are queried again within so many seconds."""
    count: int = await db.fetchval(_COUNT, rechecked_within_s)
    return count


async def list_open_work(db: Database, rechecked_within_s: float) -> tuple[OpenWork, ...]:
    """The same rows, the longest due first."""
    return tuple(OpenWork(**dict(row)) for row in await db.fetch(_LIST, rechecked_within_s))
