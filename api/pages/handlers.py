"""The handlers for buyers, by page token: the order's page, its state, its stream, refresh, and the return from the
channel.

A token opens one order and nothing else. A malformed, an unknown and an expired token get the same response.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import ExitStack
from math import ceil

import msgspec
import structlog

from api.context import Context
from api.http.event_stream import HEARTBEAT, HEARTBEAT_S, event, reconnect_hint
from api.http.request import Request
from api.http.response import HTML, EventStream, Response, json_response
from api.pages import assets
from api.pages import html as page_html
from api.pages import pay as page_pay
from api.pages.requests import check_origin, find_order, language_of, look_up, to_page
from api.pages.status import PageStatus, view_status
from api.pages.texts import DEFAULT, choose
from api.shop import Shop
from core.errors import InvalidRequest, NodropError, NotFound, StorageError, TooManyRequests
from core.order import OrderState, public_status
from flows.refresh import note_return

NOTE_S = 10.0
"""A database that does not answer ends no buyer's return with a bare problem: the request's own deadline is later."""

RETURN_WAIT_S = 2.5
"""A buyer who comes back from the channel sees the page within three seconds, with the result if it came by then."""

REFRESH_WAIT_S = 8.0

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'; worker-src 'self'; manifest-src 'none'"
)
PAGE_HEADERS = (
    ("content-security-policy", CSP),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
)
_PRIVATE = (("referrer-policy", "no-referrer"),)

_EVENT_ID = re.compile(r"[0-9]{1,18}", re.ASCII)
_LAST_EVENT_ID = re.compile(r"(?:^|&)last_event_id=([0-9]{1,18})(?:&|$)", re.ASCII)

log = structlog.get_logger()


# -- HTML --------------------------------------------------------------------------------------------------------------


async def show(context: Context, request: Request) -> Response:
    """The page. When the state is not read it says *processing* and polls, as in a browser that is offline."""
    lang, requested = language_of(request)
    try:
        state = await find_order(context, request)
        pay_view = await page_pay.view_pay(context, request, state)
    except NotFound:
        return _html(page_html.missing(context.shop, lang, requested), 404)
    except (StorageError, TooManyRequests) as error:
        return _unread(context, request, error)
    wait_s = _retry_after_s(context, state)
    if pay_view.current is not None:
        context.refreshes.go_on(state.order.order_no)
    page = page_html.page_of(
        state, context.shop, lang=lang, requested_lang=requested, retry_after_s=wait_s, pay=pay_view
    )
    return _html(page_html.render(page))


async def come_from_channel(context: Context, request: Request) -> Response:
    """The channel's `return_url`: query it at once, then show the page. Parameters of the URL are not evidence.

    Whoever comes back may have paid. A return that cannot be noted is kept, and the page comes here again by itself.
    """
    try:
        async with asyncio.timeout(NOTE_S):
            state = await find_order(context, request)
            context.refreshes.go_on(state.order.order_no)
            await note_return(context.resources, state)
    except NotFound:
        return _html(page_html.missing(context.shop, *language_of(request)), 404)
    except TooManyRequests as error:  # not kept: strangers could end every wait
        return _unread(context, request, error)
    except Exception as error:  # noqa: BLE001 - after any fault the buyer still gets the page
        log.warning("return_not_noted", error=type(error).__name__)
        await context.unnoted_returns.add(request.params["token"])
        return _unread(context, request, error)
    if context.limits.take_return(state.order.order_no, request.address):
        await _ask_on_return(context, state.order.order_no)
    return to_page(request)


async def _ask_on_return(context: Context, order_no: str) -> None:
    try:
        await context.refreshes.come_back(order_no, wait_s=RETURN_WAIT_S)
    except Exception as error:  # noqa: BLE001 - as above
        log.warning("return_not_asked", error=type(error).__name__)


async def pay(context: Context, request: Request) -> Response:
    """Start or renew a payment by the buyer's own click, then show the page with it, or with why there is none."""
    try:
        state = await find_order(context, request)
        check_origin(context, request)
        context.refreshes.go_on(state.order.order_no)
        return to_page(request, await page_pay.start(context, request, state))
    except NotFound:
        return _html(page_html.missing(context.shop, *language_of(request)), 404)
    except TooManyRequests:
        return to_page(request, "error=limit")
    except InvalidRequest:
        return to_page(request, "error=origin")
    except StorageError:
        return to_page(request, "error=unclear")


async def show_shell(context: Context, request: Request) -> Response:
    return _html(shell(context.shop, language_of(request)[0]))


async def serve_worker(context: Context, _request: Request) -> Response:
    body = assets.service_worker(shell(context.shop, DEFAULT), context.shop.urls())
    headers = (("cache-control", "no-cache"), ("content-security-policy", CSP))
    return Response(body=body, content_type="text/javascript; charset=utf-8", headers=headers)


async def serve_asset(context: Context, request: Request) -> Response:
    asset = assets.find(request.params["name"]) or context.shop.find(request.params["name"])
    if asset is None:
        raise NotFound("no such file")
    return asset


def show_fault(shop: Shop, headers: Mapping[str, str]) -> Response:
    """The page for a buyer whose request was not answered: it says *processing* and asks again."""
    return _html(shell(shop, choose("", headers.get("accept-language", ""))), 503, ("retry-after", "5"))


def shell(shop: Shop, lang: str) -> bytes:
    """The page of no order, which a browser without a network fills from its memory."""
    return page_html.render(page_html.Page(lang=lang, shop=shop))


# -- JSON and events ---------------------------------------------------------------------------------------------------


async def show_status(context: Context, request: Request) -> Response:
    return _status_response(context, request, await find_order(context, request))


async def refresh(context: Context, request: Request) -> Response:
    """Query the channel now. The script gets the state; the plain form gets its page again."""
    check_origin(context, request, context.resources.settings.shop_origins())
    wants_json = "application/json" in request.headers.get("accept", "")
    try:
        state = await _refreshed(context, request)
    except NodropError as error:
        if wants_json:
            raise
        if isinstance(error, NotFound):
            return _html(page_html.missing(context.shop, *language_of(request)), 404)
        return to_page(request)
    return _status_response(context, request, state) if wants_json else to_page(request)


async def _refreshed(context: Context, request: Request) -> OrderState:
    """The order after a query of its channel, or as it is when that takes too long.

    Raises as `find_order` and `refresh_order`.
    """
    state = await find_order(context, request)
    context.limits.take(state.order.order_no, request.address)
    refreshed = await context.refreshes.refresh(state.order.order_no, wait_s=REFRESH_WAIT_S)
    return refreshed or await find_order(context, request)


async def stream(context: Context, request: Request) -> EventStream:
    with ExitStack() as place:
        place.enter_context(context.streams.place(request.address))
        state = await find_order(context, request)
        version = _last_event_id(request)
        return EventStream(events=_events(context, request, state.order.order_no, version), place=place.pop_all())


def _last_event_id(request: Request) -> int:
    """The version that the page has: by the browser's own header, or in the address when a script begins anew."""
    match = _LAST_EVENT_ID.search(request.query)
    last_id = request.headers.get("last-event-id", match[1] if match else "")
    return int(last_id) if _EVENT_ID.fullmatch(last_id) else 0


async def _events(context: Context, request: Request, order_no: str, version: int) -> AsyncGenerator[bytes, None]:
    """Subscribe, then read: a change in between wakes the wait. A lost wake-up is made good at the next heartbeat.

    `version` is the one that the page has already.
    """
    with context.resources.changes.subscribe(order_no) as feed:
        yield reconnect_hint()
        while True:
            try:
                state = await look_up(context, request.params["token"])
            except StorageError:
                yield HEARTBEAT
            except NotFound:  # the token has expired
                return
            else:
                is_definite = public_status(state.order, state.payments, state.disputes).is_definite
                if state.order.version > version or is_definite:
                    version = state.order.version
                    yield event(version, msgspec.json.encode(_status(context, request, state)))
                else:
                    yield HEARTBEAT
                if is_definite:
                    return
            await feed.wait(HEARTBEAT_S)


# -- helpers -----------------------------------------------------------------------------------------------------------


def _status_response(context: Context, request: Request, state: OrderState) -> Response:
    return json_response(_status(context, request, state), 200, *_PRIVATE)


def _status(context: Context, request: Request, state: OrderState) -> PageStatus:
    return view_status(state, _retry_after_s(context, state), language_of(request)[0])


def _retry_after_s(context: Context, state: OrderState) -> int:
    return ceil(context.limits.wait_s(state.order.order_no))


def _unread(context: Context, request: Request, error: Exception) -> Response:
    """The page of an order that could not be read: it says *processing* and comes again by itself."""
    lang, requested = language_of(request)
    page = page_html.Page(lang=lang, shop=context.shop, requested_lang=requested, token=request.params["token"])
    status = 429 if isinstance(error, TooManyRequests) else 503
    return _html(page_html.render(page), status, ("retry-after", "5"))


def _html(body: bytes, status: int = 200, *headers: tuple[str, str]) -> Response:
    return Response(status=status, body=body, content_type=HTML, headers=(*PAGE_HEADERS, *headers))
