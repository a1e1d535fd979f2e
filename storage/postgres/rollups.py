"""Roll-ups: sums of five minutes from the tables, of hours from those, of days from hours; and what processes count.

A bucket is computed whole, by indices on time, and replaced: to compute it again changes nothing that has not changed
in the tables. `core.rollups` has the keys of the figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from core.rollups import COUNTED, FINER, HEARD_S, KEEP_S, SETTLED_S, SPAN_BOUNDS_S, Scope, Step
from storage.postgres.database import Database, document

ENDPOINTS_MAX = 50
"""Endpoints of one bucket, of any length, that have figures of their own: those with the most notifications. A merchant
whose URLs name the order would otherwise have a row for each."""

TALLIES_KEPT_S = SETTLED_S + 2 * Step.MINUTES + 3_600

_NO_MONEY = "('unpaid', 'approved', 'lapsed', 'closed', 'missing')"
"""Kinds of evidence in a callback that say nothing of money that came."""


class Rollup(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of one account or endpoint in the bucket that begins `at`."""

    at: datetime
    scope: Scope
    name: str
    figures: Mapping[str, int]


FILL_TIMEOUT_S = 60.0
"""An hour may have more orders than a statement of a request may take the time for."""

# By key: to walk the index would be to read every account and endpoint of every bucket.
_FIND_COMPUTED = """
SELECT array_agg(at ORDER BY at) AS starts, array_agg(computed_at ORDER BY at) AS computed
  FROM generate_series($2::timestamptz, $3::timestamptz, make_interval(secs => $4::float8)) AS at
 CROSS JOIN LATERAL (
       SELECT computed_at FROM rollups
        WHERE rollups.step = $1 AND rollups.at = at.at AND scope = 'all' AND name = '' LIMIT 1) AS row"""
_FIRST_ORDER = "SELECT created_at FROM orders WHERE created_at >= '-infinity' ORDER BY created_at, order_no LIMIT 1"
_FIRST_TALLY = "SELECT at FROM tallies WHERE at >= '-infinity' ORDER BY at LIMIT 1"
_FIRST = f"SELECT ({_FIRST_ORDER}) AS order_at, least(({_FIRST_ORDER}), ({_FIRST_TALLY})) AS at"

# The endpoints with the most, also of an hour and a day: its five minutes may have others each time.
_KEPT = f"""ranked AS (
    SELECT name, row_number() OVER (ORDER BY sum(value) DESC, name) AS rank
      FROM named WHERE scope = 'endpoint' AND name <> '' AND key IN ('delivered', 'dead', 'tries') GROUP BY name
), kept AS (
    SELECT n.scope, CASE WHEN n.scope <> 'endpoint' OR r.rank <= {ENDPOINTS_MAX} THEN n.name ELSE '' END AS name,
           n.key, sum(n.value)::bigint AS value
      FROM named n LEFT JOIN ranked r ON n.scope = 'endpoint' AND r.name = n.name
     GROUP BY 1, 2, 3
)
SELECT scope, name, jsonb_object_agg(key, value) AS figures FROM kept GROUP BY scope, name"""

# What processes counted, of five minutes.
_COUNTED = """
    SELECT t.scope, t.name, f.key, f.value::bigint AS value
      FROM tallies t, jsonb_each_text(t.figures) AS f
     WHERE t.at >= $1::timestamptz AND t.at < {until}"""
# Tallies go when the roll-ups have them. Of an hour that was computed in part, that part has some, and some may still
# be there: whichever is more, for one of them may have the other in it.
_COUNTED_BEFORE = f"""
    SELECT scope, name, key, max(value) AS value
      FROM (SELECT scope, name, key, sum(value)::bigint AS value FROM ({_COUNTED}) AS tallied GROUP BY 1, 2, 3
            UNION ALL
            SELECT r.scope, r.name, f.key, f.value::bigint
              FROM rollups r, jsonb_each_text(r.figures) AS f
             WHERE r.step = {int(Step.HOUR)} AND r.at = $1::timestamptz
               AND split_part(f.key, ':', 1) IN ({", ".join(f"'{key}'" for key in sorted(COUNTED))})) AS several
     GROUP BY 1, 2, 3"""

# An operator's acceptance of late money has no evidence: its payment was counted when its money was seen. A callback is
# filed under the payment's number or under another id of it. LIMIT 1 in place of EXISTS: Postgres would rather read all
# callbacks into a hash table.
_FIGURES = """
WITH events AS MATERIALIZED (
    SELECT e.kind, e.by, e.at, e.channel_account, e.out_trade_no, e.evidence IS NOT NULL AS has_evidence
      FROM order_events e
     WHERE e.kind IN ('paid', 'paid_late', 'double_payment', 'closed') AND e.at >= $1::timestamptz AND e.at < {until}
), paid AS MATERIALIZED (
    SELECT e.kind, e.by, e.channel_account AS name, p.amount, p.currency, p.origin = 'ours' AS is_expected,
           e.by NOT IN ('callback', 'compensation') AS is_repaired,
           width_bucket(greatest(0, extract(epoch FROM e.at - p.paid_at))::float8, $2::float8[]) AS slot,
           e.by IN ('callback', 'compensation') OR (
               SELECT true
                 FROM unnest(ARRAY[p.out_trade_no, p.channel_reference, p.channel_transaction_id]) AS ids (one)
                CROSS JOIN LATERAL (
                      SELECT FROM callbacks c
                       WHERE c.channel_account = p.channel_account AND c.out_trade_no = ids.one
                         AND c.received_at < e.at + make_interval(secs => {heard_s})
                         AND c.evidence->>'kind' NOT IN {no_money}
                       LIMIT 1) AS callback
                LIMIT 1) IS NOT NULL AS is_heard
      FROM events e
     CROSS JOIN LATERAL (
           SELECT * FROM payments
            WHERE channel_account = e.channel_account AND out_trade_no = e.out_trade_no LIMIT 1) AS p
     WHERE e.kind <> 'closed' AND e.has_evidence
), paid_alike AS (
    SELECT kind, by, name, currency, is_expected, is_repaired, slot, is_heard, count(*) AS count,
           sum(amount)::bigint AS amount
      FROM paid
     GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
), handled AS (
    SELECT c.channel_account AS name, c.handled_at IS NULL AS is_dead,
           c.evidence->>'kind' NOT IN {no_money} AS is_of_money, count(*) AS count, sum(c.copies - 1) AS copies
      FROM callbacks c
     WHERE coalesce(c.handled_at, c.dead_at) >= $1::timestamptz AND coalesce(c.handled_at, c.dead_at) < {until}
       AND (c.handled_at IS NOT NULL OR c.dead_at IS NOT NULL)
     GROUP BY 1, 2, 3
), ended AS (
    SELECT split_part(split_part(n.url, '?', 1), '#', 1) AS url, n.attempt, false AS is_dead,
           width_bucket(greatest(0, extract(epoch FROM n.delivered_at - n.created_at))::float8, $2::float8[]) AS slot,
           count(*) AS count
      FROM notifications n
     WHERE coalesce(n.delivered_at, n.superseded_at) >= $1::timestamptz
       AND coalesce(n.delivered_at, n.superseded_at) < {until}
       AND (n.delivered_at IS NOT NULL OR n.superseded_at IS NOT NULL) AND n.delivered_at IS NOT NULL
     GROUP BY 1, 2, 3, 4
    UNION ALL
    SELECT split_part(split_part(n.url, '?', 1), '#', 1), n.attempt, true, 0, count(*)
      FROM notifications n
     WHERE n.dead_at >= $1::timestamptz AND n.dead_at < {until} AND n.dead_at IS NOT NULL AND n.delivered_at IS NULL
     GROUP BY 1, 2, 3, 4
), counted AS MATERIALIZED ({counted}
), figures AS (
    SELECT 'all' AS scope, '' AS name, 'placed' AS key,
           (SELECT count(*) FROM orders WHERE created_at >= $1::timestamptz AND created_at < {until}) AS value
    UNION ALL
    SELECT 'all', '', 'closed', count(*) FROM events WHERE kind = 'closed'
    UNION ALL
    SELECT 'account', p.name, f.key, f.value
      FROM paid_alike p
     CROSS JOIN LATERAL (VALUES
           ('paid', count),
           ('paid_amount:' || currency, amount),
           ('by:' || by, count),
           ('paid_s:' || slot, count),
           ('repaired_s:' || slot, CASE WHEN is_repaired THEN count ELSE 0 END),
           ('late', CASE WHEN kind = 'paid_late' THEN count ELSE 0 END),
           ('double', CASE WHEN kind = 'double_payment' THEN count ELSE 0 END),
           ('expected', CASE WHEN is_expected THEN count ELSE 0 END),
           ('unheard', CASE WHEN is_expected AND NOT is_heard THEN count ELSE 0 END),
           ('unheard_amount:' || currency, CASE WHEN is_expected AND NOT is_heard THEN amount ELSE 0 END)
           ) AS f (key, value)
    UNION ALL
    SELECT 'account', h.name, f.key, f.value
      FROM handled h
     CROSS JOIN LATERAL (VALUES
           ('callbacks', count),
           ('callbacks_paid', CASE WHEN is_of_money THEN count ELSE 0 END),
           ('callbacks_dead', CASE WHEN is_dead THEN count ELSE 0 END),
           ('callback_copies', copies)
           ) AS f (key, value)
    UNION ALL
    SELECT 'endpoint', e.url, f.key, f.value
      FROM ended e
     CROSS JOIN LATERAL (VALUES
           ('delivered', CASE WHEN is_dead THEN 0 ELSE count END),
           ('first_try', CASE WHEN NOT is_dead AND attempt = 1 THEN count ELSE 0 END),
           ('delivered_s:' || slot, CASE WHEN is_dead THEN 0 ELSE count END),
           ('attempts', attempt * count),
           ('dead', CASE WHEN is_dead THEN count ELSE 0 END)
           ) AS f (key, value)
    UNION ALL
    SELECT scope, name, key, value FROM counted
), named AS (
    SELECT scope, name, key, sum(value)::bigint AS value FROM figures WHERE value <> 0 GROUP BY scope, name, key
), {kept}"""


def _figures(step: Step, counted: str) -> str:
    """The figures of the bucket of this length that begins at $1, from the tables; $2 are the bounds of durations."""
    until = f"$1::timestamptz + interval '{int(step)} s'"
    of_tallies = counted.format(until=until)
    return _FIGURES.format(until=until, heard_s=HEARD_S, no_money=_NO_MONEY, kept=_KEPT, counted=of_tallies).strip()


_SUMS = f"""
WITH named AS (
    SELECT r.scope, r.name, f.key, sum(f.value::bigint)::bigint AS value
      FROM rollups r, jsonb_each_text(r.figures) AS f
     WHERE r.step = $2 AND r.at >= $1::timestamptz AND r.at < $1::timestamptz + make_interval(secs => $3)
     GROUP BY r.scope, r.name, f.key
), {_KEPT}"""

# The row of the scope `all` is there for every bucket that was computed. What another process writes at the same time
# is the same; the order of the rows lets neither wait for the other in a circle.
_REPLACE = """
WITH computed AS (
    {figures}
), rows AS (
    SELECT scope, name, figures FROM computed
    UNION ALL
    SELECT 'all', '', '{{}}'::jsonb WHERE NOT EXISTS (SELECT FROM computed WHERE scope = 'all')
), written AS (
    INSERT INTO rollups (step, at, scope, name, figures)
    SELECT {step}, $1::timestamptz, scope, name, figures FROM rows ORDER BY scope, name
    ON CONFLICT (step, at, scope, name) DO UPDATE SET figures = EXCLUDED.figures, computed_at = clock_timestamp()
    RETURNING scope, name
)
DELETE FROM rollups r
 WHERE r.step = {step} AND r.at = $1::timestamptz
   AND NOT EXISTS (SELECT FROM written w WHERE w.scope = r.scope AND w.name = r.name)"""

_COMPUTE = _REPLACE.format(figures=_figures(Step.MINUTES, _COUNTED), step=int(Step.MINUTES))
_FILL_HOUR = _REPLACE.format(figures=_figures(Step.HOUR, _COUNTED_BEFORE), step=int(Step.HOUR))

_SUM_UP: Mapping[Step, str] = {
    step: _REPLACE.format(
        figures=_SUMS.replace("$2", str(int(finer))).replace("$3", str(int(step))).strip(), step=int(step)
    )
    for step, finer in FINER.items()
}

_READ = """
SELECT at, scope, name, figures::text AS figures FROM rollups
 WHERE step = $1 AND at >= $2
 ORDER BY at, scope, name"""

_READ_ONE = """
SELECT at, scope, name, figures::text AS figures FROM rollups
 WHERE step = $1 AND at >= $2 AND scope = $3 AND name = $4
 ORDER BY at"""

_DELETE = "DELETE FROM rollups WHERE step = $1 AND at < clock_timestamp() - make_interval(secs => $2)"
_DELETE_TALLIES = "DELETE FROM tallies WHERE at < clock_timestamp() - make_interval(secs => $1)"

_ADD_TALLIES = """
INSERT INTO tallies (source, number, scope, name, figures)
SELECT $1, $2, t->>0, t->>1, t->2 FROM jsonb_array_elements($3::jsonb) AS t
ON CONFLICT DO NOTHING"""

_figures_decoder = msgspec.json.Decoder(dict[str, int])


async def find_computed(db: Database, step: Step, since: datetime, until: datetime) -> dict[datetime, datetime]:
    """When each bucket that begins from `since`, which is the begin of one, to `until` was computed last."""
    row = await db.fetchrow(_FIND_COMPUTED, int(step), since, until, float(step))
    assert row is not None, "a statement that counts has a row"
    return dict(zip(row["starts"] or (), row["computed"] or (), strict=True))


async def find_first(db: Database) -> tuple[datetime | None, datetime | None]:
    """When the oldest order was placed, and the time of the oldest row of all that roll-ups are made of."""
    row = await db.fetchrow(_FIRST)
    assert row is not None, "a statement without a table has a row"
    return row["order_at"], row["at"]


async def compute(db: Database, start: datetime) -> None:
    """Compute the bucket of five minutes that begins then, from the tables."""
    await db.execute(_COMPUTE, start, list(map(float, SPAN_BOUNDS_S)))


async def fill_hour(db: Database, start: datetime) -> None:
    """Compute an hour from the tables, without its five minutes, which are no longer there. What processes counted in
    it is kept as far as it was known.
    """
    await db.execute(_FILL_HOUR, start, list(map(float, SPAN_BOUNDS_S)), timeout_s=FILL_TIMEOUT_S)


async def sum_up(db: Database, step: Step, start: datetime) -> None:
    """Compute a longer bucket from the shorter ones in it."""
    await db.execute(_SUM_UP[step], start)


async def read(db: Database, step: Step, since: datetime) -> list[Rollup]:
    """All roll-ups of buckets that begin at or after that, oldest first."""
    return [_rollup(row) for row in await db.fetch(_READ, int(step), since)]


async def read_one(db: Database, step: Step, since: datetime, scope: Scope, name: str) -> list[Rollup]:
    """The same of one account or endpoint."""
    return [_rollup(row) for row in await db.fetch(_READ_ONE, int(step), since, scope.value, name)]


async def delete_old(db: Database) -> int:
    """Delete the buckets that are older than they are kept, and what processes counted before; returns how many."""
    count = sum([await db.execute(_DELETE, int(step), float(keep_s)) for step, keep_s in KEEP_S.items()])
    return count + await db.execute(_DELETE_TALLIES, float(TALLIES_KEPT_S))


async def add_tallies(
    db: Database, source: str, number: int, tallies: Sequence[tuple[str, str, Mapping[str, int]]]
) -> None:
    """Add the counts of a process since its writing before, by scope and name; nothing if this number was written."""
    await db.execute(_ADD_TALLIES, source, number, document(tallies))


_SCOPES = {scope.value: scope for scope in Scope}


def _rollup(row: Mapping[str, Any]) -> Rollup:
    at, scope, name, figures = row["at"], row["scope"], row["name"], row["figures"]
    return Rollup(at=at, scope=_SCOPES[scope], name=name, figures=_figures_decoder.decode(figures))
