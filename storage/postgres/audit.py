"""Acts of people: one row for each act, written before it. A trigger refuses to change one, whoever is connected, and
to delete one that is not old; the application's own role may not even try. Old ones go by a function of the owner.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from core.act_names import ActName, names_of
from storage.postgres.cursors import decode_numbered, encode_cursor
from storage.postgres.database import Database, document

_INSERT = """
INSERT INTO audit (by, via, action, subject, detail) VALUES ($1, $2, $3, $4, $5::text::jsonb)"""
_FIND = """
SELECT id, at, by, via, action, subject, detail::text, role FROM audit
 WHERE {conditions}
 ORDER BY {order}
 LIMIT $1"""
# An act has had several names: the newest rows of each, by the index of one name.
_FIND_NAMED = """
SELECT found.* FROM unnest($2::text[]) AS names(name) CROSS JOIN LATERAL (
    SELECT id, at, by, via, action, subject, detail::text, role FROM audit
     WHERE {conditions}
     ORDER BY {order}
     LIMIT $1) AS found
 ORDER BY at DESC, id DESC
 LIMIT $1"""
_DELETE = "SELECT delete_old_acts($1, $2)"
# A member of the owner's role can take on its rights; a superuser is a member of every role.
_CAN_CHANGE = """
SELECT has_table_privilege('audit', 'UPDATE') OR has_table_privilege('audit', 'DELETE')
       OR has_table_privilege('audit', 'TRUNCATE') OR pg_has_role(relowner, 'MEMBER')
  FROM pg_class WHERE oid = 'audit'::regclass"""


class Via(StrEnum):
    """The way in which somebody acted."""

    COMMAND = "command"
    API = "api"
    CONSOLE = "console"


class Act(msgspec.Struct, frozen=True, kw_only=True):
    """An act of a person. `detail` holds no secret and no personal data of a buyer."""

    by: str
    via: Via
    action: ActName
    subject: str = ""
    detail: Mapping[str, Any] = {}


class AuditRow(msgspec.Struct, frozen=True, kw_only=True):
    """A stored act. `action` may be a name of an earlier release. `role` is the user of Postgres that wrote it."""

    id: int
    at: datetime
    by: str
    via: str
    action: str
    subject: str
    detail: Mapping[str, Any]
    role: str


async def write_act(db: Database, act: Act) -> None:
    """Store it. Raises DatabaseUnavailable: then the act must not be done."""
    await db.execute(_INSERT, act.by, act.via, act.action.value, act.subject, document(act.detail))


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """Rows that are wanted; None: all. `action` finds the rows of earlier releases too, whichever of its names it is.

    `before`: time and id of the row after which the list goes on.
    """

    by: str | None = None
    action: str | None = None
    subject: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    before: tuple[datetime, int] | None = None


async def find_acts(db: Database, filters: Filters, *, limit: int) -> list[AuditRow]:
    """The rows that fit, newest first."""
    sql, values = statement_of(filters)
    rows = await db.fetch(sql, limit, *values)
    return [AuditRow(**{**row, "detail": msgspec.json.decode(row["detail"])}) for row in rows]


_KEYS = (
    (("subject",), "{subject}"),
    (("by", "action"), "ARRAY[{by}, {action}]"),
    (("by",), "{by}"),
    (("action",), "{action}"),
    ((), ""),
)
"""The indexes, by the columns in them and what comes before time and id: the first whose columns are all wanted."""


def statement_of(filters: Filters) -> tuple[str, list[object]]:
    """The statement with the conditions that are wanted, and the values from $2 on.

    What its index begins with is compared as a part of the key, and is in the order. A plain `by = $2` would be left
    out of the order; then the planner reads all acts by their time until enough of that person have come, which of a
    rare one is all there are.
    """
    values = list[object]()

    def place(value: object) -> str:
        values.append(value)
        return f"${len(values) + 1}"

    names = () if filters.action is None else names_of(filters.action)
    has_several = len(names) > 1
    wanted = {"action": names if has_several else next(iter(names), None), "by": filters.by, "subject": filters.subject}
    named = {column: place(value) for column, value in wanted.items() if value is not None}
    columns, key = next(each for each in _KEYS if named.keys() >= set(each[0]))
    is_each = has_several and "action" in columns
    ends = [] if filters.until is None else [(filters.until, 0)]
    ends += [] if filters.before is None else [filters.before]
    end_at, end_id = min(ends, default=(None, 0))
    of_name = named | ({"action": "names.name"} if is_each else {})
    first = [key.format(**{column: column for column in columns})] if key else []
    value = [key.format(**of_name)] if key else []
    end = f"coalesce({place(end_at)}::timestamptz, 'infinity')", f"{place(end_id)}::bigint"
    since = f"coalesce({place(filters.since)}::timestamptz, '-infinity')"
    conditions = [
        f"({', '.join((*first, 'at', 'id'))}) < ({', '.join((*value, *end))})",
        f"({', '.join((*first, 'at'))}) >= ({', '.join((*value, since))})",
        *(
            f"{column} = ANY({name}::text[])" if has_several and column == "action" else f"{column} = {name}"
            for column, name in named.items()
            if column not in columns
        ),
    ]
    order = ", ".join(f"{column} DESC" for column in (*first, "at", "id"))
    sql = _FIND_NAMED if is_each else _FIND
    return sql.format(conditions=" AND ".join(conditions), order=order), values


def cursor_of(row: AuditRow) -> str:
    """The cursor of the page after this row."""
    return encode_cursor(row.at, str(row.id))


def read_cursor(cursor: str | None) -> tuple[datetime, int] | None:
    """The `before` of a cursor. Raises InvalidRequest: it is not one of ours."""
    at, row_id = decode_numbered(cursor)
    return None if at is None or row_id is None else (at, row_id)


async def list_acts(db: Database, *, subject: str | None = None, limit: int) -> list[AuditRow]:
    """The newest first."""
    return await find_acts(db, Filters(subject=subject), limit=limit)


async def delete_old_acts(db: Database, *, keep_days: int, limit: int) -> int:
    """Delete up to `limit` rows that are older than that, and than a year; return how many. Nothing else does."""
    return int(await db.fetchval(_DELETE, keep_days, limit))


async def can_change_acts(db: Database) -> bool:
    """Whether the role of this connection could change or delete rows, now or by taking on another role."""
    return bool(await db.fetchval(_CAN_CHANGE))
