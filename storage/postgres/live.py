"""Open work of this moment: pending queries by attempt and by age, and undelivered notifications by endpoint. Bounded
reads by index: the counts say "at least" from `COUNT_MAX` on.
"""

from __future__ import annotations

import msgspec

from storage.postgres.database import Database
from storage.postgres.notifications import ENDPOINT

COUNT_MAX = 20_000
"""Rows that are read, those due longest first: whoever looks needs no exact number of so many."""

ATTEMPT_BOUNDS = (2, 5, 9, 17)
"""Attempts 1 and the early ones; 2 to 4; 5 to 8; 9 to 16; the queries after the sixteen."""

AGE_BOUNDS_S = (60.0, 600.0, 3_600.0, 86_400.0)
"""Age of the payment that is asked about."""

ENDPOINTS_MAX = 100


class OpenQueries(msgspec.Struct, frozen=True, kw_only=True):
    """Pending queries: counts by the slot of `ATTEMPT_BOUNDS`, and by that of `AGE_BOUNDS_S`. `deadlines` are orders
    that end at a time. `is_more`: not all were read.
    """

    by_attempt: list[int]
    by_age: list[int]
    deadlines: int
    is_more: bool


class OpenEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Notifications that an endpoint has not acknowledged, and the age of the oldest of them."""

    endpoint: str
    undelivered: int
    oldest_s: float
    attempt_max: int
    dead: int


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

_ENDPOINTS = f"""
WITH rows AS (
    (SELECT url, created_at, attempt, false AS is_dead FROM notifications
      WHERE delivered_at IS NULL AND superseded_at IS NULL AND dead_at IS NULL
      ORDER BY due_at LIMIT {COUNT_MAX})
    UNION ALL
    (SELECT url, created_at, attempt, true FROM notifications
      WHERE dead_at IS NOT NULL AND delivered_at IS NULL AND superseded_at IS NULL
      ORDER BY dead_at DESC LIMIT {COUNT_MAX})
)
SELECT {ENDPOINT} AS endpoint,
       count(*) FILTER (WHERE NOT is_dead) AS undelivered,
       coalesce(extract(epoch FROM now() - min(created_at) FILTER (WHERE NOT is_dead)), 0)::float8 AS oldest_s,
       coalesce(max(attempt) FILTER (WHERE NOT is_dead), 0) AS attempt_max,
       count(*) FILTER (WHERE is_dead) AS dead
  FROM rows
 GROUP BY 1
 ORDER BY oldest_s DESC, dead DESC, endpoint
 LIMIT {ENDPOINTS_MAX}"""


async def read_open_queries(db: Database) -> OpenQueries:
    """Raises DatabaseUnavailable."""
    text = await db.fetchval(_QUERIES, list(ATTEMPT_BOUNDS), list(AGE_BOUNDS_S))
    return msgspec.json.decode(text, type=OpenQueries)


async def read_open_endpoints(db: Database) -> list[OpenEndpoint]:
    """Endpoints with an undelivered notification or a dead letter, the oldest first. Raises DatabaseUnavailable."""
    return [OpenEndpoint(**dict(row)) for row in await db.fetch(_ENDPOINTS)]
