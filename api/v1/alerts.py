"""Alerts over HTTP: what is open, what was, what `ALERT_URL` has not taken yet, and a test of it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from api.context import Context
from api.http.request import Request
from api.http.response import Response, json_response
from api.v1.acts import actor, record
from api.v1.schemas import Cursor, Limit
from core.act_names import ActName
from core.clocks import Instant
from flows.alert_messages import queue_test
from storage.postgres.alerts import find_unsent, list_alerts


class AlertsQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Choice of alerts to list, newest first. `open` is true by default; false: those that were cleared."""

    open: bool = True
    cursor: Cursor | None = None
    limit: Limit = 50


class AlertView(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a person must hear of, until `cleared_at`. `subject` is an account, an endpoint, a case …, by its
    `rule`. `raised_sent_at` and `cleared_sent_at`: when `ALERT_URL` has taken the message.
    """

    id: str
    rule: str
    subject: str
    text: str
    raised_at: Instant
    cleared_at: Instant | None
    raised_sent_at: Instant | None
    cleared_sent_at: Instant | None


class AlertPage(msgspec.Struct, frozen=True, kw_only=True):
    """`unsent`: messages that wait for `ALERT_URL`."""

    alerts: Sequence[AlertView]
    unsent: int
    next_cursor: str | None


class AlertTest(msgspec.Struct, frozen=True, kw_only=True):
    """A test that waits for a worker to send it; `id` is the `webhook-id` of its message."""

    id: str


async def find_alerts(context: Context, _request: Request, query: AlertsQuery) -> Response:
    db = context.resources.db
    rows, cursor = await list_alerts(db, is_open=query.open, cursor=query.cursor, limit=query.limit)
    unsent = await find_unsent(db)
    views = msgspec.convert(rows, list[AlertView], from_attributes=True)
    return json_response(AlertPage(alerts=views, unsent=unsent.count, next_cursor=cursor))


async def test(context: Context, _request: Request) -> Response:
    """A worker sends it, as it sends alerts: so `ALERT_URL` shows whether one would arrive."""
    await record(context, ActName.ALERT_TEST, "ALERT_URL")
    return json_response(AlertTest(id=await queue_test(context.resources, by=actor())), 202)
