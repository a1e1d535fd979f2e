"""Callbacks over HTTP: those that came, stored or refused, and what each proves. A raw body is an act with a reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from api.context import Context
from api.http.request import Request
from api.http.response import Response, json_response
from api.v1.acts import Reason, record
from api.v1.schemas import AccountName, Cursor, Limit, OrderNo
from core.act_names import ActName
from core.acts import check_reason
from core.clocks import Instant
from core.errors import InvalidRequest, NotFound
from flows.callback_explanation import explain_received, read_raw
from storage.postgres.callback_history import (
    CallbackRow,
    CallbackState,
    callbacks_of_order,
    find_callback,
    list_callbacks,
)


class CallbacksQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Filters of callbacks. `order_no` goes with `account` and `state`, and has no pages: an order has few."""

    order_no: OrderNo | None = None
    account: AccountName | None = None
    state: CallbackState | None = None
    received_after: Instant | None = None
    cursor: Cursor | None = None
    limit: Limit = 50


class CallbackView(msgspec.Struct, frozen=True, kw_only=True):
    """A callback that came. `verdict` is `genuine`, `hint`, `unreadable`, or why it was refused: `forged`, `stale`,
    `not_verifiable`, `unknown_account`.

    The numbers of a refused one are what it claims. `kind` is the word for what a genuine one says of the money.
    `due_at` is when a waiting one is handled again, `copies` how often it came.
    """

    id: str
    state: CallbackState
    verdict: str
    detail: str
    account: Annotated[str, Meta(description="Empty: it was sent to a name that no account has.")]
    order_no: str | None
    out_trade_no: str | None
    notification_id: str | None
    kind: str | None
    evidence: dict[str, Any] | None
    received_at: Instant
    last_at: Instant | None
    handled_at: Instant | None
    dead_at: Instant | None
    due_at: Instant | None
    attempt: int
    outcome: str | None
    copies: int
    network: str
    body_bytes: int | None
    has_body: bool


class CallbackPage(msgspec.Struct, frozen=True, kw_only=True):
    callbacks: Sequence[CallbackView]
    next_cursor: str | None


class CheckView(msgspec.Struct, frozen=True, kw_only=True):
    """One check of a signature, over the exact `string`; `encoding` is `text` or `base64`."""

    what: str
    algorithm: str
    key: str
    string: str
    encoding: str
    good: bool


class ExplanationView(msgspec.Struct, frozen=True, kw_only=True):
    """The proof in a callback, by the account's keys of today. Secrets are masked; amounts are in minor units.

    `verdict` is what it says of the payment, or `mismatch` or `rejected`; `reason` and `detail` say why.
    """

    callback_id: str
    account: str
    order_no: str | None
    verdict: str
    reason: str
    detail: str
    amount_minor: int | None
    currency: str | None
    refunded_amount: int | None
    out_trade_no: str | None
    channel_transaction_id: str | None
    channel_account: str | None
    at: Instant | None
    notification_id: str | None
    is_hint: bool
    checks: Sequence[CheckView]
    notes: Sequence[str]


class RawInput(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The reason why somebody reads what may hold data about the buyer."""

    reason: Reason


class RawView(msgspec.Struct, frozen=True, kw_only=True):
    """The bytes that came. `encoding` is `text` or `base64`; credentials in the headers are masked. `whole` false:
    of a refused one only the beginning is kept.
    """

    callback_id: str
    headers: dict[str, str]
    body: str
    encoding: str
    whole: bool


async def find_callbacks(context: Context, _request: Request, query: CallbacksQuery) -> Response:
    db = context.resources.db
    if query.order_no is not None:
        if query.cursor is not None:
            raise InvalidRequest("cursor: the callbacks of one order have no pages")
        rows = [row for row in reversed(await callbacks_of_order(db, query.order_no)) if _is_wanted(row, query)]
        return _page(rows, None)
    return _page(
        *await list_callbacks(
            db,
            account=query.account,
            state=query.state,
            since=query.received_after,
            cursor=query.cursor,
            limit=query.limit,
        )
    )


async def get_callback(context: Context, request: Request) -> Response:
    return json_response(_view(await _find(context, request)))


async def explain_callback(context: Context, request: Request) -> Response:
    explained = await explain_received(context.resources, await _find(context, request))
    return json_response(msgspec.convert(explained.as_json(), ExplanationView))


async def read_raw_body(context: Context, request: Request, body: RawInput) -> Response:
    row, reason = await _find(context, request), check_reason(body.reason)
    await record(context, ActName.CALLBACK_RAW, row.id, order_no=row.order_no, reason=reason)
    raw = await read_raw(context.resources, row)
    view = RawView(
        callback_id=row.id, headers=dict(raw.headers), body=raw.text, encoding=raw.encoding, whole=raw.is_whole
    )
    return json_response(view)


def _is_wanted(row: CallbackRow, query: CallbacksQuery) -> bool:
    is_of = query.account in (None, row.account) and query.state in (None, row.state)
    return is_of and (query.received_after is None or row.received_at >= query.received_after)


def _page(rows: Sequence[CallbackRow], next_cursor: str | None) -> Response:
    return json_response(CallbackPage(callbacks=[_view(row) for row in rows], next_cursor=next_cursor))


def _view(row: CallbackRow) -> CallbackView:
    return msgspec.convert(row, CallbackView, from_attributes=True)


async def _find(context: Context, request: Request) -> CallbackRow:
    row = await find_callback(context.resources.db, request.params["callback_id"])
    if row is None:
        raise NotFound("no such callback")
    return row
