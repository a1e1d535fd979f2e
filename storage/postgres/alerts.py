"""Alerts and their messages: moved together, in one statement that does nothing if another process was faster.

`alert_facts` reads what they are about.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from core.alerts import Condition, Judgement, OpenAlert, Rule
from core.sentences import encode_phrase
from storage.postgres.cursors import decode_cursor, encode_cursor
from storage.postgres.database import Database, storable

KEEP_DAYS = 90
"""Alerts stay so long after they were cleared."""

BATCH = 500


class MovedAlert(msgspec.Struct, frozen=True, kw_only=True):
    """An alert that a look has raised (`is_raised`) or cleared."""

    id: str
    rule: Rule
    subject: str
    is_raised: bool


class AlertRow(msgspec.Struct, frozen=True, kw_only=True):
    """A raised alert. `raised_sent_at` and `cleared_sent_at`: when `ALERT_URL` has taken the messages."""

    id: str
    rule: str
    subject: str
    text: str
    raised_at: datetime
    cleared_at: datetime | None
    raised_sent_at: datetime | None
    cleared_sent_at: datetime | None
    phrase: str | None = None


class Unsent(msgspec.Struct, frozen=True, kw_only=True):
    """Messages that wait for `ALERT_URL`: how many, since when, and the result of the last attempt at the oldest."""

    count: int
    since: datetime | None = None
    last_status: str | None = None


class Leased(msgspec.Struct, frozen=True, kw_only=True):
    """A message that is ours to deliver."""

    id: str
    body: bytes
    attempt: int


class MessageState(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a message was taken, and what its last attempt came to."""

    sent_at: datetime | None
    last_status: str | None


_OPEN = """
SELECT id, key, rule, subject, text, looks, raised_at FROM alerts
 WHERE cleared_at IS NULL AND key >= '' AND rule = ANY($1::text[]) ORDER BY key"""

_APPLY = """
WITH begun AS (
    INSERT INTO alerts (id, key, rule, subject, text, phrase, looks, raised_at)
    SELECT n.id, n.key, n.rule, n.subject, n.text, n.phrase, CASE WHEN $2 THEN 0 ELSE 1 END,
           CASE WHEN $2 THEN $1::timestamptz END
      FROM unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $17::text[])
           AS n(id, key, rule, subject, text, phrase)
    ON CONFLICT (key) WHERE cleared_at IS NULL DO NOTHING
    RETURNING id, rule, subject, raised_at
), moved AS (
    UPDATE alerts a
       SET looks = m.looks, text = m.text, phrase = CASE WHEN a.text = m.text THEN a.phrase ELSE m.phrase END,
           raised_at = CASE m.what WHEN 'raise' THEN $1 ELSE a.raised_at END,
           cleared_at = CASE m.what WHEN 'clear' THEN $1 END
      FROM unnest($8::text[], $9::int[], $10::int[], $11::text[], $12::text[], $13::boolean[], $18::text[])
           AS m(id, from_looks, looks, text, what, was_raised, phrase)
     WHERE a.id = m.id AND m.what <> 'drop'
       AND a.cleared_at IS NULL AND a.looks = m.from_looks AND (a.raised_at IS NOT NULL) = m.was_raised
    RETURNING a.id, a.rule, a.subject, m.what
), dropped AS (
    DELETE FROM alerts a USING unnest($8::text[], $9::int[], $12::text[]) AS m(id, from_looks, what)
     WHERE a.id = m.id AND m.what = 'drop' AND a.raised_at IS NULL AND a.looks = m.from_looks
), moved_now AS (
    SELECT id, rule, subject, true AS is_raised FROM begun WHERE raised_at IS NOT NULL
    UNION ALL
    SELECT id, rule, subject, what = 'raise' FROM moved WHERE what IN ('raise', 'clear')
), messages AS (
    INSERT INTO alert_messages (id, alert_id, body)
    SELECT w.id, w.alert_id, w.body
      FROM unnest($14::text[], $15::text[], $16::bytea[]) AS w(id, alert_id, body)
     WHERE w.alert_id IN (SELECT id FROM moved_now)
    ON CONFLICT DO NOTHING
)
SELECT id, rule, subject, is_raised FROM moved_now ORDER BY id"""

_LIST = """
SELECT a.id, a.rule, a.subject, a.text, a.phrase, a.raised_at, a.cleared_at,
       (SELECT sent_at FROM alert_messages WHERE id = a.id || '_raised') AS raised_sent_at,
       (SELECT sent_at FROM alert_messages WHERE id = a.id || '_cleared') AS cleared_sent_at
  FROM alerts a
 WHERE a.raised_at IS NOT NULL AND ($1::boolean IS NULL OR (a.cleared_at IS NULL) = $1)
   AND (a.raised_at, a.id) < (coalesce($2::timestamptz, 'infinity'), coalesce($3::text, ''))
 ORDER BY a.raised_at DESC, a.id DESC
 LIMIT $4"""

_COUNT_OPEN = "SELECT rule, count(*) AS count FROM alerts WHERE cleared_at IS NULL AND raised_at IS NOT NULL GROUP BY 1"

_UNSENT = """
SELECT count(*)::int AS count, min(created_at) AS since, (array_agg(last_status ORDER BY position))[1] AS last_status
  FROM alert_messages WHERE sent_at IS NULL"""

_INSERT_TEST = "INSERT INTO alert_messages (id, body) VALUES ($1, $2)"
_FIND_MESSAGE = "SELECT sent_at, last_status FROM alert_messages WHERE id = $1"

# An all-clear waits until its alert was heard of.
_CLAIM = """
UPDATE alert_messages SET leased_until = clock_timestamp() + make_interval(secs => $1)
 WHERE position = (
    SELECT m.position FROM alert_messages m
     WHERE m.sent_at IS NULL AND m.due_at <= clock_timestamp()
       AND (m.leased_until IS NULL OR m.leased_until <= clock_timestamp())
       AND NOT EXISTS (SELECT FROM alert_messages e
                        WHERE e.alert_id = m.alert_id AND e.position < m.position AND e.sent_at IS NULL)
     ORDER BY m.position
     LIMIT 1
       FOR UPDATE SKIP LOCKED)
   AND sent_at IS NULL
RETURNING id, body, attempt"""
_FINISH = """
UPDATE alert_messages SET sent_at = clock_timestamp(), leased_until = NULL, last_status = $2
 WHERE id = $1 AND sent_at IS NULL"""
_RESCHEDULE = """
UPDATE alert_messages
   SET attempt = attempt + 1, due_at = clock_timestamp() + make_interval(secs => $3), leased_until = NULL,
       last_status = $2
 WHERE id = $1 AND attempt = $4 AND sent_at IS NULL"""

# Messages go with their alerts, sent or not.
_DELETE = f"""
WITH old AS (
    SELECT id FROM alerts
     WHERE raised_at < now() - interval '{KEEP_DAYS} days' AND cleared_at < now() - interval '{KEEP_DAYS} days'
     ORDER BY raised_at
     LIMIT $1
), tests AS (
    DELETE FROM alert_messages WHERE alert_id IS NULL AND created_at < now() - interval '{KEEP_DAYS} days'
)
DELETE FROM alerts WHERE id = ANY(ARRAY(SELECT id FROM old))"""


_ID = re.compile(r"alr_[0-9a-f]{1,64}", re.ASCII)


def _is_id(key: str) -> bool:
    return _ID.fullmatch(key) is not None


async def find_open(db: Database) -> list[OpenAlert]:
    """Alerts that are not cleared, also those that are not raised yet. Those of a rule that only another release knows
    are left out: a look of this one could not say whether they are over.
    """
    return [msgspec.convert(dict(row), OpenAlert) for row in await db.fetch(_OPEN, [rule.value for rule in Rule])]


async def apply(
    db: Database,
    judgement: Judgement,
    begun: Mapping[str, Condition],
    messages: Sequence[tuple[str, str, bytes]],
    *,
    now: datetime,
) -> list[MovedAlert]:
    """Move the alerts, and store the messages of those that were moved now. Returns what is to be told.

    `begun` are the new conditions by the ids of their alerts, `messages` ids, ids of alerts, and bodies.
    """
    new = [(id_, one.key, one.rule, one.subject, one.text) for id_, one in begun.items()]
    moves = [
        (move.alert.id, move.from_looks, move.alert.looks, move.alert.text, move.what, move.alert.raised_at is not None)
        for move in judgement.moves
    ]
    rows = await db.fetch(
        _APPLY, now, judgement.raises, *_columns(new, 5, text_at=(1, 3, 4)), *_columns(moves, 6, text_at=(3,)),
        *_columns(messages, 3),
        [encode_phrase(one.text) for one in begun.values()], [encode_phrase(m.alert.text) for m in judgement.moves],
    )  # fmt: skip
    return [msgspec.convert(dict(row), MovedAlert) for row in rows]


async def list_alerts(
    db: Database, *, is_open: bool | None = True, cursor: str | None = None, limit: int = 50
) -> tuple[list[AlertRow], str | None]:
    """Raised alerts, newest first, and the cursor of the next page. `is_open` None: open and past ones.

    Raises:
        InvalidRequest: the cursor is not one of ours.
    """
    at, after = decode_cursor(cursor, _is_id)
    rows = await db.fetch(_LIST, is_open, at, after, limit + 1)
    found = [AlertRow(**dict(row)) for row in rows[:limit]]
    last = found[-1] if len(rows) > limit else None
    return found, None if last is None else encode_cursor(last.raised_at, last.id)


async def count_open(db: Database) -> dict[str, int]:
    """Open alerts by rule."""
    return {row["rule"]: row["count"] for row in await db.fetch(_COUNT_OPEN)}


async def find_unsent(db: Database) -> Unsent:
    """Messages that wait for `ALERT_URL`."""
    row = await db.fetchrow(_UNSENT)
    assert row is not None, "an aggregate has a row"
    return Unsent(**dict(row))


async def insert_test(db: Database, message_id: str, body: bytes) -> None:
    """Store a message that tells of nothing."""
    await db.execute(_INSERT_TEST, message_id, body)


async def find_message(db: Database, message_id: str) -> MessageState | None:
    """The state of one message."""
    row = await db.fetchrow(_FIND_MESSAGE, message_id)
    return None if row is None else MessageState(**dict(row))


async def claim_message(db: Database, *, lease_s: float) -> Leased | None:
    """Lease the oldest message that is due; None: there is none, or others deliver it."""
    row = await db.fetchrow(_CLAIM, lease_s)
    return None if row is None else Leased(**dict(row))


async def finish_message(db: Database, message_id: str, status: str) -> None:
    """`ALERT_URL` has taken it."""
    await db.execute(_FINISH, message_id, status)


async def reschedule_message(db: Database, leased: Leased, status: str, *, delay_s: float) -> None:
    """Due again, as the next attempt."""
    await db.execute(_RESCHEDULE, leased.id, status, delay_s, leased.attempt)


async def delete_alerts(db: Database, limit: int = BATCH) -> int:
    """Delete up to `limit` alerts that were cleared long ago, with their messages; return how many."""
    return await db.execute(_DELETE, limit)


def _columns(rows: Sequence[Sequence[object]], width: int, text_at: Sequence[int] = ()) -> list[list[object]]:
    """The columns of rows, as arrays; those with texts of strangers made storable."""
    columns = [[row[n] for row in rows] for n in range(width)]
    return [[storable(str(v)) for v in column] if n in text_at else column for n, column in enumerate(columns)]
