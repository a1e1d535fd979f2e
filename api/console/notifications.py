"""Notifications: those that wait, the dead and the delivered ones; one with every attempt; sending them again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Annotated

import msgspec

from api.console.render import render, see_other
from api.console.visit import Visit, path_of
from api.context import Context
from api.http.response import Reply
from core.act_names import ActName
from core.acts import Preview
from core.deliveries import NotificationState, endpoint_of
from core.errors import InvalidRequest, NotPossible, PreviewOutdated
from core.order import ORDER_NO
from core.resending import preview_one
from flows.resend import get_notification, preview_resend_many, resend_many, resend_notification
from storage.postgres.deliveries import (
    Choice,
    Listed,
    NotificationRow,
    find_body,
    list_notifications,
    notifications_of_order,
)

PAGE_ROWS = 50
SPAN_DIGITS = 6

KINDS: Mapping[NotificationState, str] = MappingProxyType(
    {
        NotificationState.UNDELIVERED: "wait",
        NotificationState.QUEUED: "wait",
        NotificationState.PAUSED: "look",
        NotificationState.DEAD: "bad",
        NotificationState.DELIVERED: "good",
        NotificationState.SUPERSEDED: "calm",
    }
)
"""The mark of each state."""

_SPAN = re.compile(rf"([0-9]{{1,{SPAN_DIGITS}}})([smhd])", re.ASCII)
_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}

Text = Annotated[str, msgspec.Meta(max_length=2048)]


class ListQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Choice of a list; `since` is `2h`, or an instant in ISO 8601. With `order_no` all of that order."""

    status: Listed = Listed.UNDELIVERED
    endpoint: Text = ""
    since: Text = ""
    order_no: Text = ""
    cursor: str | None = None


class Many(msgspec.Struct, frozen=True, kw_only=True):
    """Notifications to be sent again: `dead` ones, or all of an endpoint since a time."""

    what: str = "dead"
    endpoint: Text = ""
    since: Text = ""

    @property
    def is_dead_only(self) -> bool:
        return self.what != "all"

    def choice(self, now: datetime) -> Choice:
        return Choice(listed=Listed.DEAD, endpoint=_endpoint(self.endpoint), since=read_since(self.since, now))


async def show_list(_context: Context, visit: Visit) -> Reply:
    query = visit.read_query(ListQuery)
    cursor = None
    if query.order_no:
        is_number = ORDER_NO.fullmatch(query.order_no) is not None
        rows = await notifications_of_order(visit.db, query.order_no) if is_number else []
    else:
        choice = Choice(
            listed=query.status, endpoint=_endpoint(query.endpoint), since=read_since(query.since, visit.now)
        )
        rows, cursor = await list_notifications(visit.db, choice, cursor=query.cursor, limit=PAGE_ROWS)
    return render(
        visit,
        "notifications/list.html",
        title=visit.language.texts["notifications.title"],
        rows=rows,
        query=query,
        lists=list(Listed),
        kinds=KINDS,
        more=visit.url(cursor=cursor) if cursor else "",
    )


async def show_one(context: Context, visit: Visit) -> Reply:
    row = await get_notification(context.resources, visit.params["notification_id"])
    return await _page(visit, row, _preview(row))


async def resend_one(context: Context, visit: Visit) -> Reply:
    notification_id, reason = visit.params["notification_id"], visit.reason()
    version = visit.form.get("version", "")
    if not version.isascii() or not version.isdigit():
        raise InvalidRequest("version: use the page's own form")
    await visit.record(ActName.NOTIFICATION_RESEND, notification_id, {"reason": reason})
    try:
        await resend_notification(context.resources, notification_id, expected_version=int(version[:9]))
    except (PreviewOutdated, NotPossible):
        row = await get_notification(context.resources, notification_id)
        return await _page(visit, row, _preview(row), status=409)
    return see_other(
        path_of("/ops/notifications/{notification_id}", notification_id=notification_id), "notifications.resent"
    )


async def show_many(context: Context, visit: Visit) -> Reply:
    """The preview of sending many again, once it is known which."""
    return await _many_page(context, visit, visit.read_query(Many))


async def send_many(context: Context, visit: Visit) -> Reply:
    many, reason = visit.read_form(Many), visit.reason()
    choice = many.choice(visit.now)
    preview = await preview_resend_many(context.resources, choice, is_dead_only=many.is_dead_only)
    if str(_count(preview)) != visit.form.get("count") or not preview.is_possible:
        return await _many_page(context, visit, many, status=409)
    detail = {"reason": reason, "what": many.what, "since": many.since}
    await visit.record(ActName.NOTIFICATIONS_RESEND, many.endpoint, detail)
    count = await resend_many(context.resources, choice, is_dead_only=many.is_dead_only)
    return see_other("/ops/notifications", "notifications.many_resent", count=count)


async def _many_page(context: Context, visit: Visit, many: Many, *, status: int = 200) -> Reply:
    """An instant takes the place of a span: what is sent is what was looked at."""
    choice = many.choice(visit.now)
    is_chosen = many.is_dead_only or (choice.endpoint is not None and choice.since is not None)
    preview = None
    if is_chosen:
        preview = await preview_resend_many(context.resources, choice, is_dead_only=many.is_dead_only)
    return render(
        visit,
        "notifications/many.html",
        status=status,
        title=visit.language.texts["notifications.many_title"],
        many=many,
        since="" if choice.since is None else choice.since.astimezone(UTC).isoformat(timespec="seconds"),
        preview=preview,
        count=0 if preview is None else _count(preview),
        has_changed=status != 200,  # noqa: PLR2004 - the page as it is
    )


async def _page(visit: Visit, row: NotificationRow, preview: Preview, *, status: int = 200) -> Reply:
    body = await find_body(visit.db, row.id) if visit.sight.is_whole else b""
    return render(
        visit,
        "notifications/one.html",
        status=status,
        title=row.id,
        row=row,
        kind=KINDS[row.state],
        text=_pretty(body),
        preview=preview,
        has_changed=status != 200,  # noqa: PLR2004 - the page as it is
    )


def _preview(row: NotificationRow) -> Preview:
    return preview_one(row.order_no, row.type, row.endpoint, row.standing, version=row.arm_no)


def _count(preview: Preview) -> int:
    count = preview.lines[0].figures["count"] if preview.lines else 0
    assert isinstance(count, int), "it is a number of notifications"
    return count


def _pretty(body: bytes) -> str:
    try:
        return msgspec.json.format(body, indent=2).decode() if body else ""
    except msgspec.DecodeError:
        return body.decode(errors="replace")


def _endpoint(text: str) -> str | None:
    return endpoint_of(text.strip()) or None


def read_since(text: str, now: datetime) -> datetime | None:
    """An instant in ISO 8601 (UTC unless it says otherwise), or so long before now: `30m`, `2h`, `7d`.

    Raises:
        InvalidRequest: it is neither.
    """
    text = text.strip()
    if not text:
        return None
    try:
        if span := _SPAN.fullmatch(text):
            return now - timedelta(seconds=int(span[1]) * _UNITS_S[span[2]])
        at = datetime.fromisoformat(text)
        return at.astimezone(UTC) if at.tzinfo is not None else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidRequest("since: write 30m, 2h or 7d, or an instant like 2026-11-23T04:30Z") from None
