"""Open work of this moment: pending queries by attempt and by age. A bounded read by index: the counts say "at least"
from `COUNT_MAX` on. Undelivered notifications by endpoint are in `endpoints`.
"""

from __future__ import annotations

import msgspec

from storage.postgres.database import Database

COUNT_MAX = 20_000
"""Rows that are read, those due longest first: whoever looks needs no exact number of so many."""

ATTEMPT_BOUNDS = (2, 5, 9, 17)
"""Attempts 1 and the early ones; 2 to 4; 5 to 8; 9 to 16; the queries after the sixteen."""

AGE_BOUNDS_S = (60.0, 600.0, 3_600.0, 86_400.0)
"""Age of the payment that is asked about."""


class OpenQueries(msgspec.Struct, frozen=True, kw_only=True):
    """Pending queries: counts by the slot of `ATTEMPT_BOUNDS`, and by that of `AGE_BOUNDS_S`. `deadlines` are orders
    that end at a time. `is_more`: not all were read.
    """

    by_attempt: list[int]
    by_age: list[int]
    deadlines: int
    is_more: bool


_QUERIES = f"""
WITH rows AS MATERIALIZED (
    SELECT kind, attempt, channel_account, out_trade_no FROM pending ORDER BY due_at LIMIT {COUNT_MAX}
), queries AS MATERIALIZED (
    SELECT width_bucket(r.attempt, $1::int[]) AS attempt,
           width_bucket(extract(epoch FROM now() - p.created_at)::float8, $2::float8[]) AS age
      FROM rows r
     CROSS JOIN LATERAL (
           SELECT created_at FROM payments
            WHERE channel_account = r.channel_account AND out_trade_no = r.out_trade_no LIMIT 1) AS p
     WHERE r.kind = 'query'
)
SELECT json_build_object(
    'by_attempt', (SELECT json_agg((SELECT count(*) FROM queries WHERE attempt = slot) ORDER BY slot)
                     FROM generate_series(0, cardinality($1::int[])) AS slot),
    'by_age', (SELECT json_agg((SELECT count(*) FROM queries WHERE age = slot) ORDER BY slot)
                 FROM generate_series(0, cardinality($2::float8[])) AS slot),
    'deadlines', (SELECT count(*) FROM rows WHERE kind = 'deadline'),
    'is_more', (SELECT count(*) FROM rows) = {COUNT_MAX}
)::text"""


async def read_open_queries(db: Database) -> OpenQueries:
    """Raises DatabaseUnavailable."""
    text = await db.fetchval(_QUERIES, list(ATTEMPT_BOUNDS), list(AGE_BOUNDS_S))
    return msgspec.json.decode(text, type=OpenQueries)
