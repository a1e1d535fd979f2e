"""Acts of people over HTTP, newest first: by person, act, subject and time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from api.context import Context
from api.http.request import Request
from api.http.response import Response, json_response
from api.v1.schemas import Cursor, Limit
from core.clocks import Instant
from storage.postgres.audit import Filters, cursor_of, find_acts, read_cursor

Word = Annotated[str, Meta(min_length=1, max_length=255)]


class AuditQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Choice of acts: `by` an operator, the id of an API key or the user of a command; `subject` whole.

    `action` is a name like `order.refund`, and finds rows of earlier releases too. From `since`, and before `until`.
    """

    by: Word | None = None
    action: Word | None = None
    subject: Word | None = None
    since: Instant | None = None
    until: Instant | None = None
    cursor: Cursor | None = None
    limit: Limit = 50


class ActView(msgspec.Struct, frozen=True, kw_only=True):
    """An act, written down before it was done. `via` is command, api or console; `detail` has no secret in it."""

    id: int
    at: Instant
    by: str
    via: str
    action: str
    subject: str
    detail: Mapping[str, Any]


class AuditPage(msgspec.Struct, frozen=True, kw_only=True):
    acts: Sequence[ActView]
    next_cursor: str | None


async def find(context: Context, _request: Request, query: AuditQuery) -> Response:
    filters = Filters(
        by=query.by,
        action=query.action,
        subject=query.subject,
        since=query.since,
        until=query.until,
        before=read_cursor(query.cursor),
    )
    rows = await find_acts(context.resources.db, filters, limit=query.limit + 1)
    shown = rows[: query.limit]
    views = msgspec.convert(shown, list[ActView], from_attributes=True)
    return json_response(AuditPage(acts=views, next_cursor=cursor_of(shown[-1]) if len(rows) > query.limit else None))
