"""Endpoints that people have paused, those that have something undelivered, and letting go what is held.

A notification of a paused endpoint is held when it comes due (`notifications.hold`). To resume an endpoint deletes its
row here, and no more: the worker lets its notifications go, so many at a time. So whoever dies in between delays them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from core.deliveries import Attempt
from storage.postgres.database import Database
from storage.postgres.leases import FREE
from storage.postgres.notifications import ENDPOINT

READ_MAX = 50_000
"""Undelivered notifications that are counted: the page of an outage must not read a million."""

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
_PAUSES = f"""
SELECT endpoint, paused_at, paused_by, reason FROM paused_endpoints WHERE endpoint > '' ORDER BY endpoint
 LIMIT {ENDPOINTS_MAX}"""

_OPEN = "delivered_at IS NULL AND superseded_at IS NULL AND dead_at IS NULL"
_UNDELIVERED = f"""
WITH open AS MATERIALIZED (
    SELECT id, {ENDPOINT} AS endpoint, created_at, held_at, attempts IS NOT NULL AS is_tried
      FROM (SELECT * FROM notifications WHERE {_OPEN} AND due_at >= '-infinity' ORDER BY due_at LIMIT {READ_MAX}) AS n
), counted AS (
    SELECT endpoint, count(*) AS undelivered, count(held_at) AS held, min(created_at) AS oldest_at,
           (array_agg(id ORDER BY created_at DESC) FILTER (WHERE is_tried))[1] AS tried
      FROM open
     GROUP BY endpoint
     ORDER BY min(created_at)
     LIMIT {ENDPOINTS_MAX}
)
SELECT endpoint, undelivered, held, oldest_at,
       (SELECT attempts->-1 FROM notifications n WHERE n.id = tried)::text AS last_failure
  FROM counted"""
_DEAD = f"""
SELECT {ENDPOINT} AS endpoint, count(*) AS dead
  FROM (SELECT url FROM notifications
         WHERE dead_at IS NOT NULL AND delivered_at IS NULL AND dead_at >= '-infinity' AND superseded_at IS NULL
         ORDER BY dead_at DESC LIMIT {READ_MAX}) AS n
 GROUP BY 1
 ORDER BY count(*) DESC
 LIMIT {ENDPOINTS_MAX}"""

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


async def list_endpoints(db: Database) -> list[EndpointRow]:
    """Endpoints that are paused, or have something undelivered or dead, those with the oldest first.

    Of more than `READ_MAX` rows not all are counted.
    """
    pauses = {row["endpoint"]: Pause(**dict(row)) for row in await db.fetch(_PAUSES)}
    undelivered = {row["endpoint"]: _undelivered(row) for row in await db.fetch(_UNDELIVERED)}
    dead = {row["endpoint"]: int(row["dead"]) for row in await db.fetch(_DEAD)}
    return [
        EndpointRow(
            endpoint=endpoint,
            pause=pauses.get(endpoint),
            dead=dead.get(endpoint, 0),
            **undelivered.get(endpoint, _NOTHING)._asdict(),
        )
        for endpoint in {**undelivered, **pauses, **dead}
    ]


async def let_go(db: Database, *, limit: int, gap_s: float) -> Sequence[tuple[str, int, float]]:
    """End the wait of at most `limit` notifications whose endpoint is not paused: one is due each `gap_s` seconds.

    Returns their ids and arm numbers, and the seconds until each is due.
    """
    return [(row["id"], row["arm_no"], row["delay_s"]) for row in await db.fetch(_LET_GO, limit, gap_s)]


class _Undelivered(NamedTuple):
    """Open notifications of one endpoint."""

    undelivered: int
    held: int
    oldest_at: datetime | None
    last_failure: Attempt | None


_NOTHING = _Undelivered(0, 0, None, None)


def _undelivered(row: Mapping[str, Any]) -> _Undelivered:
    failure = row["last_failure"]
    return _Undelivered(
        undelivered=row["undelivered"],
        held=row["held"],
        oldest_at=row["oldest_at"],
        last_failure=None if failure is None else msgspec.json.decode(failure, type=Attempt),
    )
