"""Notifications as people look at them: where each stands, with its attempts; and sending them again.

A list is read along the index of its rows, by key. Those that a choice leaves out are read too, a bounded number for
each page, so a page may have few rows, or none, and a next one all the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from core.deliveries import Attempt, Chosen, NotificationState, Standing
from storage.postgres.cursors import decode_cursor, encode_cursor, is_text
from storage.postgres.database import Database
from storage.postgres.leases import FREE
from storage.postgres.notifications import ENDPOINT, HELD_S, IS_PAUSED

READ_MAX = 5_000
"""Rows that a page reads at most to find those that are chosen."""

COUNT_MAX = 50_000
"""Rows that are counted at most, before they are sent again."""

ENDPOINTS_MAX = 1000
OF_ORDER_MAX = 200
RESEND_MAX = 1000
"""Notifications that one statement sends again."""


class Listed(StrEnum):
    """The lists: `undelivered` are open ones, the next one due first; `paused` are those of them whose endpoint is
    paused. `dead` and `delivered` (superseded ones among them) have the newest first.
    """

    UNDELIVERED = "undelivered"
    PAUSED = "paused"
    DEAD = "dead"
    DELIVERED = "delivered"


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """A list, or a part of it: for this endpoint, made since then."""

    listed: Listed = Listed.UNDELIVERED
    endpoint: str | None = None
    since: datetime | None = None


class NotificationRow(msgspec.Struct, frozen=True, kw_only=True):
    """A notification as it stands. `attempt` is the number of its next attempt, or of its last one.

    `attempts` are oldest first; in a list only the newest of them is there. `attempts_made` is the number of those that
    are kept.
    """

    id: str
    order_no: str
    version: int
    type: str
    url: str
    endpoint: str
    created_at: datetime
    attempt: int
    arm_no: int
    due_at: datetime
    last_status: str | None
    standing: Standing
    attempts: tuple[Attempt, ...]
    attempts_made: int

    @property
    def state(self) -> NotificationState:
        return self.standing.state

    @property
    def next_at(self) -> datetime | None:
        """The time of its next attempt; None: there is none until somebody does something, or it is under way."""
        standing = self.standing
        is_held = standing.is_held or standing.is_under_way
        return self.due_at if standing.is_waiting and not is_held else None

    @property
    def last_attempt(self) -> Attempt | None:
        return self.attempts[-1] if self.attempts else None


class Resent(NamedTuple):
    """A notification that is due again, under its new arm number. `is_held`: once its turn has come."""

    id: str
    arm_no: int
    is_held: bool


_FIELDS = f"""id, order_no, version, type, url, {ENDPOINT} AS endpoint, created_at, attempt, arm_no, due_at,
       last_status, delivered_at, superseded_at, dead_at, resending_since, held_at IS NOT NULL AS is_held,
       {IS_PAUSED} AS is_paused,
       NOT {FREE} AS is_under_way, body = '' AS is_erased, coalesce(jsonb_array_length(attempts), 0) AS attempts_made"""
_ALL = "coalesce(attempts, '[]')::text AS attempts"
_NEWEST = "jsonb_build_array(attempts->-1)::text AS attempts"

_GET = f"SELECT {_FIELDS}, {_ALL} FROM notifications WHERE id = $1"
_BODY = "SELECT body FROM notifications WHERE id = $1"
_OF_ORDER = f"""
SELECT {_FIELDS}, {_ALL} FROM notifications WHERE order_no = $1 ORDER BY version LIMIT {OF_ORDER_MAX}"""


class _Index(NamedTuple):
    """The rows of an index, and its key in the direction in which it is read."""

    rows: str
    key: str
    is_ascending: bool = False
    only: str = "true"


_OPEN = "delivered_at IS NULL AND superseded_at IS NULL AND dead_at IS NULL"
_INDEXES: Mapping[Listed, _Index] = MappingProxyType(
    {
        Listed.UNDELIVERED: _Index(_OPEN, "due_at", is_ascending=True),
        Listed.PAUSED: _Index(_OPEN, "due_at", is_ascending=True, only=IS_PAUSED),
        Listed.DEAD: _Index("dead_at IS NOT NULL AND delivered_at IS NULL", "dead_at", only="superseded_at IS NULL"),
        Listed.DELIVERED: _Index(
            "(delivered_at IS NOT NULL OR superseded_at IS NOT NULL)", "coalesce(delivered_at, superseded_at)"
        ),
    }
)


def _read(listed: Listed) -> str:
    """The rows beyond the key $1, $2, as many as $3. What is over was made before that: so $4 bounds it too."""
    index = _INDEXES[listed]
    beyond, first, way = (">", "-infinity", "ASC") if index.is_ascending else ("<", "infinity", "DESC")
    key = index.key
    bound = "" if index.is_ascending else f" AND {key} >= coalesce($4::timestamptz, '-infinity')"
    return f"""
    SELECT *, {key} AS key FROM notifications
     WHERE {index.rows} AND {key} {beyond}= coalesce($1::timestamptz, '{first}'){bound}
       AND ({key}, id) {beyond} (coalesce($1::timestamptz, '{first}'), coalesce($2::text, ''))
     ORDER BY {key} {way}, id {way}
     LIMIT $3"""


def _list(listed: Listed) -> str:
    index = _INDEXES[listed]
    way = "ASC" if index.is_ascending else "DESC"
    return f"""
SELECT {_FIELDS}, {_NEWEST}, key FROM ({_read(listed)}) AS read
 WHERE {index.only} AND ($5::text IS NULL OR {ENDPOINT} = $5) AND created_at >= coalesce($4::timestamptz, '-infinity')
 ORDER BY key {way}, id {way}
 LIMIT $6"""


def _count(listed: Listed) -> str:
    index = _INDEXES[listed]
    return f"""
SELECT {ENDPOINT} AS endpoint, count(*) AS count, min(created_at) AS oldest_at, max(created_at) AS newest_at,
       bool_or({IS_PAUSED}) AS is_paused
  FROM (SELECT * FROM notifications
         WHERE {index.rows} AND {index.key} >= coalesce($1::timestamptz, '-infinity') AND {index.only}
           AND ($2::text IS NULL OR {ENDPOINT} = $2) AND created_at >= coalesce($3::timestamptz, '-infinity')
           AND body <> '' AND {FREE} AND (delivered_at IS NOT NULL OR superseded_at IS NULL)
         ORDER BY {index.key} LIMIT {COUNT_MAX}) AS read
 GROUP BY 1
 ORDER BY count(*) DESC
 LIMIT {ENDPOINTS_MAX}"""


_LISTS = {listed: _list(listed) for listed in Listed}
_COUNTS = {listed: _count(listed) for listed in Listed}
_ENDS = {listed: f"SELECT key, id FROM ({_read(listed)}) AS read OFFSET $3 - 1" for listed in Listed}

# What is being sent at this moment, and what is erased, is left out.
_RESEND = f"""
WITH chosen AS (
    SELECT one.id FROM unnest($1::text[]) AS wanted(id)
     CROSS JOIN LATERAL (SELECT n.id FROM notifications n
                          WHERE n.id = wanted.id AND n.body <> '' AND {FREE} FOR UPDATE SKIP LOCKED) AS one
)
UPDATE notifications
   SET dead_at = NULL, attempt = 1, arm_no = arm_no + 1, leased_until = NULL, resending_since = clock_timestamp(),
       held_at = CASE WHEN $2::boolean THEN clock_timestamp() END,
       due_at = clock_timestamp() + make_interval(secs => CASE WHEN $2::boolean THEN {HELD_S} ELSE 0 END)
 WHERE id = ANY(ARRAY(SELECT id FROM chosen))
RETURNING id, arm_no, $2::boolean AS is_held"""


async def find_notification(db: Database, notification_id: str) -> NotificationRow | None:
    """One with all of its attempts."""
    row = await db.fetchrow(_GET, notification_id)
    return None if row is None else _row_of(dict(row))


async def find_body(db: Database, notification_id: str) -> bytes:
    """The bytes that are sent; none if they are erased, or there is no such notification."""
    return await db.fetchval(_BODY, notification_id) or b""


async def notifications_of_order(db: Database, order_no: str) -> list[NotificationRow]:
    """Those of one order by version, with all of their attempts."""
    return [_row_of(dict(row)) for row in await db.fetch(_OF_ORDER, order_no)]


async def list_notifications(
    db: Database, choice: Choice, *, cursor: str | None = None, limit: int = 50
) -> tuple[list[NotificationRow], str | None]:
    """A page of a list, each row with its newest attempt, and the cursor of the next page (None at the end).

    Raises:
        InvalidRequest: the cursor is not one of ours.
    """
    at, after = decode_cursor(cursor, is_text)
    is_whole = choice.endpoint is None and choice.since is None and _INDEXES[choice.listed].only == "true"
    read_max = limit + 1 if is_whole else max(READ_MAX, limit + 1)
    found = await db.fetch(_LISTS[choice.listed], at, after, read_max, choice.since, choice.endpoint, limit + 1)
    rows = [_row_of(dict(row)) for row in found[:limit]]
    if len(found) > limit:
        return rows, encode_cursor(found[limit - 1]["key"], found[limit - 1]["id"])
    if is_whole:
        return rows, None
    bound = () if _INDEXES[choice.listed].is_ascending else (choice.since,)
    end = await db.fetchrow(_ENDS[choice.listed], at, after, read_max, *bound)
    return rows, None if end is None else encode_cursor(end["key"], end["id"])


async def count_chosen(db: Database, choice: Choice) -> list[Chosen]:
    """Counts of those in a choice that can be sent again, by endpoint: of the first `COUNT_MAX` of them, however many
    others stand before them in the list, as sending them again walks past those too.
    """
    bound = None if _INDEXES[choice.listed].is_ascending else choice.since
    rows = await db.fetch(_COUNTS[choice.listed], bound, choice.endpoint, choice.since)
    return [Chosen(**dict(row)) for row in rows]


async def resend(db: Database, notification_ids: Sequence[str], *, is_paced: bool) -> list[Resent]:
    """Send these again from their first attempt: at once, or each when its turn has come.

    What is being sent now, and what has lost its text, is left out. What was delivered stays delivered.
    """
    return [Resent(*row) for row in await db.fetch(_RESEND, list(notification_ids), is_paced)]


_STANDING = frozenset(Standing.__struct_fields__)
_decoder = msgspec.json.Decoder(tuple[Attempt | None, ...])


def _row_of(fields: dict[str, Any]) -> NotificationRow:
    standing = Standing(**{name: fields.pop(name) for name in _STANDING})
    attempts = tuple(each for each in _decoder.decode(fields.pop("attempts")) if each is not None)
    fields.pop("key", None)
    return NotificationRow(**fields, standing=standing, attempts=attempts)
