"""The handlers of /v1 by which operators' programs look at notifications and endpoints, and act on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from api.context import Context
from api.http.request import Request
from api.http.response import Response, json_response
from api.v1.acts import DryRun, Reason, actor, record
from api.v1.schemas import Cursor, Limit, OrderNo
from core.act_names import ActName
from core.act_view import PreviewView, view_preview
from core.acts import Preview
from core.clocks import Instant
from core.deliveries import Attempt, NotificationState, endpoint_of
from core.resending import check_choice
from flows import endpoints as pausing
from flows import resend as resending
from storage.postgres import deliveries
from storage.postgres.deliveries import Choice, Listed, NotificationRow

Endpoint = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=2048,
        description="A `notify_url`; its query does not matter.",
        examples=["https://shop.example/hook"],
    ),
]


class _Input(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As the inputs of `api.v1.schemas`."""


class NotificationsQuery(_Input, frozen=True, kw_only=True):
    """Choice of notifications: undelivered ones with the next one due first, `paused` ones of them, or the newest.

    With `order_no` all of that order, and nothing else is looked at. A page may have few, or none, and a next one all
    the same.
    """

    status: Listed = Listed.UNDELIVERED
    endpoint: Endpoint | None = None
    since: Instant | None = None
    order_no: OrderNo | None = None
    cursor: Cursor | None = None
    limit: Limit = 50


class ResendInput(_Input, frozen=True, kw_only=True):
    """A notification to be sent again. If it was scheduled anew since the preview had `expected_version`, nothing is
    done.
    """

    reason: Reason
    expected_version: Annotated[int, Meta(ge=1)] | None = None
    dry_run: DryRun = False


class ResendManyInput(_Input, frozen=True, kw_only=True):
    """Notifications to be sent again: dead letters, or all of an endpoint since a time, delivered ones too."""

    reason: Reason
    dead_only: bool = False
    endpoint: Endpoint | None = None
    since: Instant | None = None
    dry_run: DryRun = False


class EndpointInput(_Input, frozen=True, kw_only=True):
    """An endpoint to be paused or resumed."""

    endpoint: Endpoint
    reason: Reason
    dry_run: DryRun = False


class AttemptView(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery that was tried. `status` is the HTTP status or a short word, `answer` the beginning of the response.

    `no` counts from 1, and from 1 again once somebody has sent the notification again (`manual`).
    """

    no: int
    at: Instant
    latency_ms: int
    status: str
    acknowledged: bool
    answer: str
    manual: bool


class NotificationView(msgspec.Struct, frozen=True, kw_only=True):
    """A notification with its attempts, oldest first; in a list only the newest of them is there.

    `next_at` null: nothing happens until somebody does something, or its delivery is `under_way`. `resending_since`: it
    was sent again, whatever became of it before. `text` is there for one that was asked for by its id.
    """

    id: str
    order_no: str
    order_version: int
    type: str
    url: str
    endpoint: str
    state: NotificationState
    version: int
    created_at: Instant
    delivered_at: Instant | None
    superseded_at: Instant | None
    dead_at: Instant | None
    resending_since: Instant | None
    under_way: bool
    erased: bool
    next_attempt: int | None
    next_at: Instant | None
    last_error: str | None
    attempts_made: int
    attempts: Sequence[AttemptView]
    text: str | None = None


class NotificationPage(msgspec.Struct, frozen=True, kw_only=True):
    notifications: Sequence[NotificationView]
    next_cursor: str | None


class EndpointView(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint with what waits for it. `held` of its undelivered notifications wait for a resume or their turn.

    `last_failure` is that of the youngest undelivered notification. `deliveries` and `acknowledged` are of about the
    last day.
    """

    endpoint: str
    paused_at: Instant | None
    paused_by: str | None
    pause_reason: str | None
    undelivered: int
    held: int
    oldest_undelivered_at: Instant | None
    dead_letters: int
    deliveries: int
    acknowledged: int
    last_failure: AttemptView | None


class EndpointList(msgspec.Struct, frozen=True, kw_only=True):
    endpoints: Sequence[EndpointView]


class ResendResult(msgspec.Struct, frozen=True, kw_only=True):
    """The preview of a dry run, or the notification as it stands now."""

    preview: PreviewView | None = None
    notification: NotificationView | None = None


class ResendManyResult(msgspec.Struct, frozen=True, kw_only=True):
    """The preview of a dry run, or how many are sent again, one after another."""

    preview: PreviewView | None = None
    resent: int | None = None


class EndpointResult(msgspec.Struct, frozen=True, kw_only=True):
    """The preview of a dry run, or the endpoint and whether it is paused now."""

    preview: PreviewView | None = None
    endpoint: str
    paused: bool


async def find_notifications(context: Context, _request: Request, query: NotificationsQuery) -> Response:
    db = context.resources.db
    if query.order_no is not None:
        rows, cursor = await deliveries.notifications_of_order(db, query.order_no), None
    else:
        endpoint = None if query.endpoint is None else endpoint_of(query.endpoint)
        choice = Choice(listed=query.status, endpoint=endpoint, since=query.since)
        rows, cursor = await deliveries.list_notifications(db, choice, cursor=query.cursor, limit=query.limit)
    return json_response(NotificationPage(notifications=[view_notification(row) for row in rows], next_cursor=cursor))


async def get_notification(context: Context, request: Request) -> Response:
    row = await resending.get_notification(context.resources, request.params["notification_id"])
    return json_response(view_notification(row, await deliveries.find_body(context.resources.db, row.id)))


async def resend(context: Context, request: Request, body: ResendInput) -> Response:
    notification_id = request.params["notification_id"]
    if body.dry_run:
        return _previewed(ResendResult, await resending.preview_resend(context.resources, notification_id))
    await record(context, ActName.NOTIFICATION_RESEND, notification_id, reason=body.reason)
    row = await resending.resend_notification(
        context.resources, notification_id, expected_version=body.expected_version
    )
    return json_response(ResendResult(notification=view_notification(row)))


async def resend_many(context: Context, _request: Request, body: ResendManyInput) -> Response:
    endpoint = None if body.endpoint is None else endpoint_of(body.endpoint)
    choice = Choice(listed=Listed.DEAD, endpoint=endpoint, since=body.since)
    if body.dry_run:
        preview = await resending.preview_resend_many(context.resources, choice, is_dead_only=body.dead_only)
        return _previewed(ResendManyResult, preview)
    check_choice(is_dead_only=body.dead_only, endpoint=endpoint, since=body.since)
    since = None if body.since is None else body.since.isoformat()
    await record(context, ActName.NOTIFICATIONS_RESEND, endpoint or "all", reason=body.reason, since=since)
    count = await resending.resend_many(context.resources, choice, is_dead_only=body.dead_only)
    return json_response(ResendManyResult(resent=count))


async def find_endpoints(context: Context, _request: Request) -> Response:
    served = await pausing.list_served(context.resources.db, context.resources.clock.now())
    return json_response(EndpointList(endpoints=[view_endpoint(each) for each in served]))


async def pause(context: Context, _request: Request, body: EndpointInput) -> Response:
    name = pausing.check_endpoint(context.resources, body.endpoint)
    if body.dry_run:
        preview = view_preview(await pausing.preview_pausing(context.resources, name))
        return json_response(EndpointResult(preview=preview, endpoint=name, paused=not preview.possible))
    await record(context, ActName.ENDPOINT_PAUSE, name, reason=body.reason)
    await pausing.pause_endpoint(context.resources, name, by=actor(), reason=body.reason)
    return json_response(EndpointResult(endpoint=name, paused=True))


async def resume(context: Context, _request: Request, body: EndpointInput) -> Response:
    name = pausing.check_endpoint(context.resources, body.endpoint)
    if body.dry_run:
        preview = view_preview(await pausing.preview_resuming(context.resources, name))
        return json_response(EndpointResult(preview=preview, endpoint=name, paused=preview.possible))
    await record(context, ActName.ENDPOINT_RESUME, name, reason=body.reason)
    await pausing.resume_endpoint(context.resources, name)
    return json_response(EndpointResult(endpoint=name, paused=False))


def view_notification(row: NotificationRow, body: bytes | None = None) -> NotificationView:
    standing, last = row.standing, row.last_attempt
    return NotificationView(
        id=row.id,
        order_no=row.order_no,
        order_version=row.version,
        type=row.type,
        url=row.url,
        endpoint=row.endpoint,
        state=row.state,
        version=row.arm_no,
        created_at=row.created_at,
        delivered_at=standing.delivered_at,
        superseded_at=standing.superseded_at,
        dead_at=standing.dead_at,
        resending_since=standing.resending_since,
        under_way=standing.is_under_way,
        erased=standing.is_erased,
        next_attempt=row.attempt if row.next_at is not None else None,
        next_at=row.next_at,
        last_error=None if last is None or last.ok else last.status,
        attempts_made=row.attempts_made,
        attempts=[view_attempt(attempt) for attempt in row.attempts],
        text=None if body is None else body.decode(),
    )


def view_attempt(attempt: Attempt) -> AttemptView:
    return AttemptView(
        no=attempt.no,
        at=attempt.at,
        latency_ms=attempt.latency_ms,
        status=attempt.status,
        acknowledged=attempt.ok,
        answer=attempt.answer,
        manual=attempt.is_manual,
    )


def view_endpoint(served: pausing.ServedEndpoint) -> EndpointView:
    row, pause = served.row, served.row.pause
    return EndpointView(
        endpoint=row.endpoint,
        paused_at=None if pause is None else pause.paused_at,
        paused_by=None if pause is None else pause.paused_by,
        pause_reason=None if pause is None else pause.reason,
        undelivered=row.undelivered,
        held=row.held,
        oldest_undelivered_at=row.oldest_at,
        dead_letters=row.dead,
        deliveries=served.deliveries,
        acknowledged=served.acknowledged,
        last_failure=None if row.last_failure is None else view_attempt(row.last_failure),
    )


def _previewed(result: type[ResendResult | ResendManyResult], preview: Preview) -> Response:
    return json_response(result(preview=view_preview(preview)))
