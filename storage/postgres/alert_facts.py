"""Facts that alerts are about, cheap to read every half minute: each part has a limit, or reads what is open alone.

The invariants are compared for a page of orders at each look, from the oldest of the last week to the newest and round
again, and for those that were found broken before.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from core.alerts import (
    CASES_EACH,
    SUSPECTS_MAX,
    Broken,
    EndpointCount,
    Invariant,
    OldestDue,
    OpenCase,
    PausedEndpoint,
    Reconciled,
    WorkerClock,
)
from storage.postgres.cases import IS_OPEN, OPEN_REASONS, count_of_reason
from storage.postgres.database import Database

NOTIFICATIONS_MAX = 5000
CASES_MAX = 10_000
"""Open cases of one reason that are counted."""

PAGE = 500
WALK_DAYS = 7
SETTLED_S = 60
"""An order that was changed later than this is not compared yet."""

NOTIFIED_DAYS = 1
"""Notifications stay at least so long."""

_IS_OPEN = "delivered_at IS NULL AND superseded_at IS NULL AND dead_at IS NULL"
_OLDEST = "coalesce(greatest(0, extract(epoch FROM now() - min(due_at))), 0)::float8"


class StoredFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of one moment in Postgres, as `core.alerts.Facts` has them."""

    oldest_due: tuple[OldestDue, ...]
    dead_letters: tuple[EndpointCount, ...]
    undelivered: tuple[EndpointCount, ...]
    paused: tuple[PausedEndpoint, ...]
    cases: tuple[OpenCase, ...]
    reconciled: tuple[Reconciled, ...]
    workers: tuple[WorkerClock, ...]


# An endpoint fails if what waits for it has been tried, or is parked because its host hangs.
_FACTS = f"""
SELECT json_build_object(
    'oldest_due', json_build_array(
        json_build_object('kind', 'pending', 'seconds', (SELECT {_OLDEST} FROM pending)),
        json_build_object('kind', 'callbacks', 'seconds', (
            SELECT {_OLDEST} FROM callbacks WHERE handled_at IS NULL AND dead_at IS NULL)),
        json_build_object('kind', 'notifications', 'seconds', (
            SELECT {_OLDEST} FROM notifications WHERE {_IS_OPEN} AND held_at IS NULL)),
        json_build_object('kind', 'refunds', 'seconds', (
            SELECT {_OLDEST} FROM refunds WHERE status IN ('requested', 'processing')))),
    'dead_letters', (SELECT coalesce(json_agg(d), '[]') FROM (
        SELECT url, count(*) FROM (
            SELECT url FROM notifications
             WHERE dead_at IS NOT NULL AND delivered_at IS NULL AND superseded_at IS NULL
             ORDER BY dead_at DESC LIMIT {NOTIFICATIONS_MAX}) n
         GROUP BY url) d),
    'undelivered', (SELECT coalesce(json_agg(u), '[]') FROM (
        SELECT url, count(*), extract(epoch FROM now() - min(created_at))::float8 AS seconds FROM (
            SELECT url, created_at, attempt, last_status FROM notifications WHERE {_IS_OPEN} AND held_at IS NULL
             ORDER BY due_at LIMIT {NOTIFICATIONS_MAX}) n
         WHERE attempt > 1 OR last_status = 'parked'
         GROUP BY url) u),
    'paused', (SELECT coalesce(json_agg(p), '[]') FROM (
        SELECT endpoint, extract(epoch FROM now() - paused_at)::float8 AS seconds FROM paused_endpoints) p),
    'cases', (SELECT coalesce(json_agg(c ORDER BY c.id), '[]') FROM (
        WITH RECURSIVE {OPEN_REASONS}
        SELECT first.id, r.reason, first.order_no, first.account, r.of_reason
          FROM (SELECT reason, {count_of_reason("reasons.reason", CASES_MAX)} AS of_reason FROM reasons
                 WHERE reason IS NOT NULL OFFSET 0) AS r
         CROSS JOIN LATERAL (
               SELECT id, order_no, channel_account AS account FROM cases
                WHERE {IS_OPEN} AND reason BETWEEN r.reason AND r.reason
                ORDER BY cases.reason, opened_at, id LIMIT {CASES_EACH}) AS first) c),
    'reconciled', (SELECT coalesce(json_agg(r), '[]') FROM (
        SELECT a.name AS account,
               extract(epoch FROM now() - greatest(a.created_at, coalesce(last.finished_at, a.created_at)))::float8
               AS seconds
          FROM accounts a
          LEFT JOIN LATERAL (
               SELECT finished_at FROM reconciliations
                WHERE channel_account = a.name AND day IS NOT NULL AND NOT dry_run AND finished_at IS NOT NULL
                ORDER BY day DESC LIMIT 1) AS last ON true
         WHERE a.enabled) r),
    'workers', (SELECT coalesce(json_agg(json_build_object('process', name, 'clock', clock)), '[]')
                  FROM processes WHERE kind = 'worker')
)::text"""

# Within one statement nothing moves: an order and all that is written with it are seen together.
_BROKEN = f"""
WITH at AS (
    SELECT greatest(coalesce((SELECT created_at FROM alert_walk), '-infinity'),
                    now() - interval '{WALK_DAYS} days') AS created_at,
           coalesce((SELECT order_no FROM alert_walk), '') AS order_no
), page AS MATERIALIZED (
    SELECT order_no, created_at FROM orders
     WHERE (created_at, order_no) > ((SELECT created_at FROM at), (SELECT order_no FROM at))
       AND created_at < now() - interval '{SETTLED_S} seconds'
     ORDER BY created_at, order_no
     LIMIT {PAGE}
), wanted AS MATERIALIZED (
    SELECT order_no FROM page UNION SELECT unnest($1::text[])
), compared AS (
    SELECT o.order_no, v.invariant
      FROM wanted w
     CROSS JOIN LATERAL (
           SELECT * FROM orders WHERE order_no = w.order_no AND updated_at < now() - interval '{SETTLED_S} seconds'
           OFFSET 0) AS o
     CROSS JOIN LATERAL (VALUES
           ('{Invariant.OPEN_PAYMENT_UNQUERIED}',
            0 < (SELECT count(*) FROM payments p
                  WHERE p.order_no = o.order_no AND p.status = 'open'
                    AND 0 = (SELECT count(*) FROM pending q
                              WHERE q.channel_account = p.channel_account AND q.out_trade_no = p.out_trade_no))),
           ('{Invariant.OPEN_ORDER_WITHOUT_DEADLINE}',
            o.status IN ('created', 'paying')
            AND 0 = (SELECT count(*) FROM pending q WHERE q.channel_account = '' AND q.out_trade_no = o.order_no)),
           ('{Invariant.PAID_WITHOUT_NOTIFICATION}',
            o.status = 'paid' AND o.notify_url IS NOT NULL AND o.paid_at > now() - interval '{NOTIFIED_DAYS} days'
            AND 0 = (SELECT count(*) FROM notifications n WHERE n.order_no = o.order_no)),
           ('{Invariant.PAID_WITHOUT_PAYMENT}',
            o.status = 'paid'
            AND 0 = (SELECT count(*) FROM payments p
                      WHERE p.channel_account = o.paid_by_account AND p.out_trade_no = o.paid_by_out_trade_no
                        AND p.status = 'paid')),
           ('{Invariant.HISTORY_WITH_GAP}',
            o.version <> (SELECT count(*) FROM order_events e WHERE e.order_no = o.order_no))
           ) AS v(invariant, is_broken)
     WHERE v.is_broken
     LIMIT {SUSPECTS_MAX}
)
SELECT json_build_object(
    'broken', (SELECT coalesce(json_agg(c), '[]') FROM compared c),
    'count', (SELECT count(*) FROM page),
    'last', (SELECT json_build_object('created_at', created_at, 'order_no', order_no) FROM page
              ORDER BY created_at DESC, order_no DESC LIMIT 1)
)::text"""

_WALKED = """
INSERT INTO alert_walk (created_at, order_no) VALUES ($1, $2)
ON CONFLICT (is_one) DO UPDATE SET created_at = $1, order_no = $2"""
_BEGIN_AGAIN = "DELETE FROM alert_walk"


class _Last(msgspec.Struct, frozen=True):
    created_at: datetime
    order_no: str


class _Walked(msgspec.Struct, frozen=True):
    broken: tuple[Broken, ...]
    count: int
    last: _Last | None


async def read_stored_facts(db: Database) -> StoredFacts:
    """All of one moment. Raises DatabaseUnavailable."""
    return msgspec.json.decode(await db.fetchval(_FACTS), type=StoredFacts)


async def find_broken(db: Database, suspects: Sequence[str]) -> tuple[Broken, ...]:
    """Broken invariants of `suspects` and of the next page of orders, at most `SUSPECTS_MAX`. A page that is compared
    twice, or not, because processes look at the same time, is compared in the next round.
    """
    walked = msgspec.json.decode(await db.fetchval(_BROKEN, list(suspects)), type=_Walked)
    if walked.count < PAGE or walked.last is None:
        await db.execute(_BEGIN_AGAIN)
    else:
        await db.execute(_WALKED, walked.last.created_at, walked.last.order_no)
    return walked.broken
