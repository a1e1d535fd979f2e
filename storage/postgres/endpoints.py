"""Endpoints that people have paused, those that have something undelivered, and letting go what is held.

A notification of a paused endpoint is held when it comes due (`notifications.hold`). To resume an endpoint deletes its
row here, and no more: the worker lets its notifications go, so many at a time. So whoever dies in between delays them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from core.deliveries import Attempt
from storage.postgres.database import Database
from storage.postgres.leases import FREE
from storage.postgres.notifications import ENDPOINT

READ_MAX = 5_000
"""Undelivered notifications that are counted, those due first, and given up ones, the newest: each is on a page of the
table of its own, and those of an outage are many.
"""

ENDPOINTS_MAX = 1000
"""Endpoints that are listed, and of which notifications are let go in one turn."""


class Pause(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint to which nothing is sent."""

    endpoint: str
    paused_at: datetime
    paused_by: str
    reason: str


class EndpointRow(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint with something undelivered, or one that is paused.

    `undelivered` counts open notifications and `held` those of them that wait for a resume or their turn;
    `last_failure` is that of the youngest undelivered one that was tried.
    """

    endpoint: str
    pause: Pause | None
    undelivered: int
    held: int
    oldest_at: datetime | None
    dead: int
    last_failure: Attempt | None


_PAUSE = """
INSERT INTO paused_endpoints (endpoint, paused_by, reason) VALUES ($1, $2, $3)
ON CONFLICT (endpoint) DO NOTHING"""
_RESUME = "DELETE FROM paused_endpoints WHERE endpoint = $1"
_FIND = "SELECT endpoint, paused_at, paused_by, reason FROM paused_endpoints WHERE endpoint = $1"
# Of all endpoints, or of $1: the rows are read in the order of an index up to a limit, whosever they are, because no
# index of what is undelivered has the endpoint.
_LIST = f"""
WITH rows AS MATERIALIZED (
    SELECT id, {ENDPOINT} AS endpoint, created_at, held_at, attempts IS NOT NULL AS is_tried, false AS is_dead
      FROM (SELECT * FROM notifications
             WHERE delivered_at IS NULL AND superseded_at IS NULL AND dead_at IS NULL AND due_at >= '-infinity'
             ORDER BY due_at LIMIT {READ_MAX}) AS open
     WHERE $1::text IS NULL OR {ENDPOINT} = $1
    UNION ALL
    SELECT id, {ENDPOINT}, created_at, NULL, false, true
      FROM (SELECT * FROM notifications
             WHERE dead_at IS NOT NULL AND delivered_at IS NULL AND dead_at >= '-infinity' AND superseded_at IS NULL
             ORDER BY dead_at DESC LIMIT {READ_MAX}) AS dead
     WHERE $1::text IS NULL OR {ENDPOINT} = $1
), counted AS (
    SELECT endpoint, count(*) FILTER (WHERE NOT is_dead) AS undelivered, count(held_at) AS held,
           min(created_at) FILTER (WHERE NOT is_dead) AS oldest_at, count(*) FILTER (WHERE is_dead) AS dead,
           (array_agg(id ORDER BY created_at DESC) FILTER (WHERE is_tried))[1] AS tried
      FROM rows
     GROUP BY endpoint
     ORDER BY oldest_at, dead DESC, endpoint
     LIMIT $2
), pauses AS (
    SELECT endpoint, paused_at, paused_by, reason FROM paused_endpoints
     WHERE endpoint > '' AND ($1::text IS NULL OR endpoint = $1)
     ORDER BY endpoint
     LIMIT $2
)
SELECT endpoint, paused_at, paused_by, reason, coalesce(undelivered, 0) AS undelivered, coalesce(held, 0) AS held,
       oldest_at, coalesce(dead, 0) AS dead,
       (SELECT attempts->-1 FROM notifications n WHERE n.id = tried)::text AS last_failure
  FROM counted FULL JOIN pauses USING (endpoint)
 ORDER BY oldest_at, paused_at IS NULL, dead DESC, endpoint"""

# The endpoints come one after another from their index, so what a paused one holds is not read; then an equal number
# of each, in their order. The last comparison is none of the index of held ones, which would be read whole.
_LET_GO = f"""
WITH RECURSIVE held AS (
    (SELECT {ENDPOINT} AS endpoint FROM notifications WHERE held_at IS NOT NULL AND {ENDPOINT} > ''
      ORDER BY {ENDPOINT} LIMIT 1)
    UNION ALL
    SELECT (SELECT {ENDPOINT} FROM notifications WHERE held_at IS NOT NULL AND {ENDPOINT} > held.endpoint
             ORDER BY {ENDPOINT} LIMIT 1)
      FROM held WHERE held.endpoint IS NOT NULL
), resumed AS (
    SELECT endpoint FROM held
     WHERE endpoint IS NOT NULL
       AND (SELECT p.paused_at FROM paused_endpoints p WHERE p.endpoint = held.endpoint) IS NULL
     LIMIT {ENDPOINTS_MAX}
), ranked AS (
    SELECT first.id, first.rank
      FROM resumed r
     CROSS JOIN LATERAL (
           SELECT id, row_number() OVER (ORDER BY created_at, id) AS rank
             FROM (SELECT id, created_at FROM notifications
                    WHERE held_at IS NOT NULL AND {ENDPOINT} = r.endpoint
                    ORDER BY created_at, id
                    LIMIT $1) AS n) AS first
), turns AS (
    SELECT id, row_number() OVER (ORDER BY rank, id) - 1 AS turn FROM ranked ORDER BY rank, id LIMIT $1
)
UPDATE notifications n
   SET held_at = NULL, arm_no = arm_no + 1, leased_until = NULL,
       due_at = clock_timestamp() + make_interval(secs => turn * $2::float8)
  FROM turns t
 WHERE n.id BETWEEN t.id AND t.id AND coalesce(n.held_at, 'infinity') < 'infinity' AND {FREE}
RETURNING n.id, n.arm_no, turn * $2::float8 AS delay_s"""


async def pause(db: Database, endpoint: str, *, by: str, reason: str) -> bool:
    """Send nothing to it from now on. False: it was paused before, and that stands."""
    return await db.execute(_PAUSE, endpoint, by, reason) == 1


async def resume(db: Database, endpoint: str) -> bool:
    """End its pause. False: it was not paused."""
    return await db.execute(_RESUME, endpoint) == 1


async def find_pause(db: Database, endpoint: str) -> Pause | None:
    row = await db.fetchrow(_FIND, endpoint)
    return None if row is None else Pause(**dict(row))


async def list_endpoints(db: Database, *, limit: int = ENDPOINTS_MAX) -> list[EndpointRow]:
    """Endpoints that are paused, or have something undelivered or dead, those with the oldest first.

    Of more than `READ_MAX` rows not all are counted. `limit` is of those that are paused and of the others.
    """
    return [_endpoint(row) for row in await db.fetch(_LIST, None, limit)]


async def find_endpoint(db: Database, endpoint: str) -> EndpointRow | None:
    """One of them, counted within the same bounds. None: nothing waits for it, and it is not paused."""
    row = await db.fetchrow(_LIST, endpoint, 1)
    return None if row is None else _endpoint(row)


async def let_go(db: Database, *, limit: int, gap_s: float) -> Sequence[tuple[str, int, float]]:
    """End the wait of at most `limit` notifications whose endpoint is not paused: one is due each `gap_s` seconds.

    Returns their ids and arm numbers, and the seconds until each is due.
    """
    return [(row["id"], row["arm_no"], row["delay_s"]) for row in await db.fetch(_LET_GO, limit, gap_s)]


def _endpoint(row: Mapping[str, Any]) -> EndpointRow:
    fields = dict(row)
    paused_at, paused_by, reason = fields.pop("paused_at"), fields.pop("paused_by"), fields.pop("reason")
    failure = fields.pop("last_failure")
    return EndpointRow(
        pause=None
        if paused_at is None
        else Pause(endpoint=fields["endpoint"], paused_at=paused_at, paused_by=paused_by, reason=reason),
        last_failure=None if failure is None else msgspec.json.decode(failure, type=Attempt),
        **fields,
    )
