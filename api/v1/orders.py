"""The handlers of /v1: read the request, call the flow, show the order. Nothing is decided here."""

from __future__ import annotations

import msgspec

from api.context import Context
from api.http.request import Request
from api.http.response import Response, json_response, unless_known
from api.v1.acts import record
from api.v1.paths import order_no_in
from api.v1.schemas import (
    ActPreview,
    CasePage,
    CasesQuery,
    CasesSort,
    CaseView,
    OrderActInput,
    OrderInput,
    OrderPage,
    OrdersQuery,
    PayerInput,
    PaymentInput,
    Timeline,
    TimelineView,
    WatchInput,
    check_accounts,
    check_client_ip,
    check_currency,
    check_payable_until,
    check_url,
)
from api.v1.views import view_order
from core.act_names import ActName
from core.act_view import view_preview
from core.acts import Preview
from core.checkout import NO_PAYER, Payer
from core.decision import Outcome
from core.errors import InvalidRequest, NotFound
from core.lifecycle import OrderTerms
from core.order import OrderState, OrderStatus
from core.previews import query_preview
from flows.close import preview_close, request_close
from flows.egress import check_new_notify_url
from flows.place import PaymentRequest, Watch, place_order, start_payment
from flows.refresh import refresh_order
from storage.postgres.cases import list_cases
from storage.postgres.orders import find_state, list_orders, timeline


async def place(context: Context, _request: Request, body: OrderInput) -> Response:
    nets = context.resources.settings.allowed_nets()
    check_currency(body.currency)
    check_accounts(body.accounts, body.account)
    check_url("return_url", body.return_url, https_only=False)
    if body.notify_url is not None:
        check_url("notify_url", body.notify_url, https_only=not nets)
        check_new_notify_url(body.notify_url, allow_nets=nets)
    terms = OrderTerms(
        order_no=body.order_no,
        amount=body.amount,
        currency=body.currency,
        subject=body.subject,
        notify_url=body.notify_url,
        return_url=body.return_url,
        metadata=body.metadata,
        accounts=body.accounts,
    )
    placed = await place_order(
        context.resources,
        terms,
        _first_payment(context, body),
        expires_in_s=body.expires_in_s,
        payer=_page_payer(body),
    )
    return _order_response(context, placed.state, 201 if placed.outcome is Outcome.PLACED else 200)


async def find_orders(context: Context, _request: Request, query: OrdersQuery) -> Response:
    states, cursor = await list_orders(
        context.resources.db,
        status=query.status,
        account=query.account,
        created_after=query.created_after,
        created_before=query.created_before,
        cursor=query.cursor,
        limit=query.limit,
    )
    public_url = context.resources.settings.public_url
    return json_response(OrderPage(orders=[view_order(state, public_url) for state in states], next_cursor=cursor))


async def get_order(context: Context, request: Request) -> Response:
    state = await _find(context, order_no_in(request))
    response = _order_response(context, state)
    return unless_known(response, state.order.version, request.headers.get("if-none-match", ""))


async def start(context: Context, request: Request, body: PaymentInput) -> Response:
    payment = _payment(context, body.account, body.method, body.payer, body.watch)
    placed = await start_payment(context.resources, order_no_in(request), payment)
    return _order_response(context, placed.state, 201 if placed.outcome is Outcome.STARTED else 200)


async def refresh(context: Context, request: Request, body: OrderActInput) -> Response:
    """With a reason it is the act of a person, and written down; a shop's backend gives none."""
    order_no = order_no_in(request)
    if body.dry_run:
        state = await _find(context, order_no)
        return _preview(query_preview(state, context.resources.rules))
    if body.reason is not None:
        await record(context, ActName.ORDER_QUERY, order_no, reason=body.reason)
    return _order_response(context, await refresh_order(context.resources, order_no))


async def close(context: Context, request: Request, body: OrderActInput) -> Response:
    order_no = order_no_in(request)
    if body.dry_run:
        return _preview(await preview_close(context.resources, order_no))
    await record(context, ActName.ORDER_CLOSE, order_no, reason=body.reason)
    state = await request_close(context.resources, order_no)
    return _order_response(context, state, 200 if state.order.status is OrderStatus.CLOSED else 202)


async def get_timeline(context: Context, request: Request) -> Response:
    order_no = order_no_in(request)
    entries = await timeline(context.resources.db, order_no)
    if not entries:
        raise NotFound("no such order")
    return json_response(Timeline(entries=msgspec.convert(entries, list[TimelineView], from_attributes=True)))


async def find_cases(context: Context, _request: Request, query: CasesQuery) -> Response:
    rows, cursor = await list_cases(
        context.resources.db,
        open_only=query.open,
        reason=query.reason,
        order_no=query.order_no,
        assignee=query.assignee,
        unassigned_only=query.unassigned,
        oldest_first=query.sort is CasesSort.OLDEST,
        cursor=query.cursor,
        limit=query.limit,
    )
    return json_response(
        CasePage(cases=msgspec.convert(rows, list[CaseView], from_attributes=True), next_cursor=cursor)
    )


def _order_response(context: Context, state: OrderState, status: int = 200) -> Response:
    return json_response(view_order(state, context.resources.settings.public_url), status)


async def _find(context: Context, order_no: str) -> OrderState:
    state = await find_state(context.resources.db, order_no)
    if state is None:
        raise NotFound("no such order")
    return state


def _preview(preview: Preview) -> Response:
    return json_response(ActPreview(preview=view_preview(preview)))


def _first_payment(context: Context, body: OrderInput) -> PaymentRequest | None:
    if body.account is None:
        if body.watch is not None or body.method:
            raise InvalidRequest("account is missing: method and watch belong to a payment")
        if body.payer is not None and body.accounts is None:
            raise InvalidRequest("account is missing: payer belongs to a payment, or to a choice of accounts")
        return None
    return _payment(context, body.account, body.method, body.payer, body.watch)


def _payment(
    context: Context, account: str, method: str, payer: PayerInput | None, watch: WatchInput | None
) -> PaymentRequest:
    check_client_ip(payer)
    check_payable_until(watch, context.resources.clock.now())
    return PaymentRequest(account=account, method=method, payer=_payer(payer), watch=_watch(watch))


def _page_payer(body: OrderInput) -> Payer:
    """The part of the payer that payments started on the page need. The address there is that of its own request."""
    return NO_PAYER if body.payer is None or body.accounts is None else Payer(openid=body.payer.openid)


def _payer(body: PayerInput | None) -> Payer:
    return NO_PAYER if body is None else Payer(openid=body.openid, client_ip=body.client_ip)


def _watch(body: WatchInput | None) -> Watch | None:
    if body is None:
        return None
    return Watch(
        out_trade_no=body.out_trade_no,
        channel_reference=body.channel_reference,
        payable_until=body.payable_until,
    )
