"""What buyers see, by page token: the order's page, its state, its stream, refresh, and the way back from the channel.

A token opens one order and nothing else. A malformed, an unknown and an expired token have the same answer.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from math import ceil
from urllib.parse import urlsplit

import msgspec
import structlog

from api.http.request import Request
from api.http.response import HTML, EventStream, Response, json_response, see_other
from api.pages import assets
from api.pages import html as page_html
from api.pages.streams import BEAT, HEARTBEAT_S, come_back, event
from api.pages.texts import choose
from api.service import Service
from api.v1.schemas import PageStatus
from core.errors import DatabaseUnavailable, InvalidRequest, NotFound, TooManyRequests
from core.order import OrderState, public_status
from storage.postgres.orders import find_state_by_page_token

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

_TOKEN = re.compile(r"[0-9A-Za-z_\-]{16,64}", re.ASCII)
_EVENT_ID = re.compile(r"[0-9]{1,18}", re.ASCII)
_LANG = re.compile(r"(?:^|&)lang=(en|zh)(?:&|$)", re.ASCII)

log = structlog.get_logger()


# -- HTML --------------------------------------------------------------------------------------------------------------


async def show(service: Service, request: Request) -> Response:
    """The page. When the state cannot be read it says *processing* and keeps asking, as a browser offline does."""
    lang, asked = _language(request)
    try:
        state = await _find(service, request)
    except NotFound:
        return _html(page_html.missing(lang, asked), 404)
    except DatabaseUnavailable:
        page = page_html.Page(lang=lang, asked_lang=asked, token=request.params["token"])
        return _html(page_html.render(page), 503, ("retry-after", "5"))
    wait_s = _retry_after_s(service, state)
    return _html(page_html.render(page_html.page_of(state, lang=lang, asked_lang=asked, retry_after_s=wait_s)))


async def come_from_channel(service: Service, request: Request) -> Response:
    """The channel's `return_url`: ask it at once, then show the page. Nothing that the URL claims is believed."""
    try:
        state = await _find(service, request)
        if service.limits.take_return(state.order.order_no, request.address):
            await service.asks.ask(state.order.order_no, wait_s=RETURN_WAIT_S, trailing=True)
    except NotFound:
        return _html(page_html.missing(*_language(request)), 404)
    except Exception as error:  # noqa: BLE001 - whatever it is, the buyer is better off on the page
        log.warning("return_not_asked", error=type(error).__name__)
    return _to_page(request)


async def show_shell(_service: Service, request: Request) -> Response:
    return _html(shell(choose(*_language_wishes(request))))


async def serve_worker(_service: Service, _request: Request) -> Response:
    body = assets.service_worker(shell("en"))
    headers = (("cache-control", "no-cache"), ("content-security-policy", CSP))
    return Response(body=body, content_type="text/javascript; charset=utf-8", headers=headers)


async def serve_asset(_service: Service, request: Request) -> Response:
    found = assets.find(request.params["name"])
    if found is None:
        raise NotFound("no such file")
    return found


def shell(lang: str) -> bytes:
    """The page of no order: what a browser shows without a network, filled from what it remembers."""
    return page_html.render(page_html.Page(lang=lang))


# -- JSON and events ---------------------------------------------------------------------------------------------------


async def show_status(service: Service, request: Request) -> Response:
    return json_response(_status(service, await _find(service, request)), 200, *_PRIVATE)


async def refresh(service: Service, request: Request) -> Response:
    """Ask the channel now. The script gets the state; the plain form gets its page again."""
    _check_origin(service, request)
    wants_json = "application/json" in request.headers.get("accept", "")
    state = await _find(service, request)
    try:
        service.limits.take(state.order.order_no, request.address)
    except TooManyRequests:
        if wants_json:
            raise
        return _to_page(request)
    await service.asks.ask(state.order.order_no, wait_s=REFRESH_WAIT_S)
    if not wants_json:
        return _to_page(request)
    return json_response(_status(service, await _find(service, request)), 200, *_PRIVATE)


async def stream(service: Service, request: Request) -> EventStream:
    service.streams.check(request.address)
    state = await _find(service, request)
    seen = request.headers.get("last-event-id", "")
    version = int(seen) if _EVENT_ID.fullmatch(seen) else 0
    return EventStream(events=_events(service, request, state.order.order_no, version))


async def _events(service: Service, request: Request, order_no: str, seen: int) -> AsyncGenerator[bytes, None]:
    """Subscribe, then read: a change in between wakes the wait. A lost wake-up is made good at the next heart-beat."""
    with service.streams.counted(request.address), service.resources.changes.subscribe(order_no) as feed:
        yield come_back()
        while True:
            try:
                state = await _find(service, request)
            except DatabaseUnavailable:
                yield BEAT
            except NotFound:  # the token has expired
                return
            else:
                is_definite = public_status(state.order, state.payments).is_definite
                if state.order.version > seen or is_definite:
                    seen = state.order.version
                    yield event(seen, msgspec.json.encode(_status(service, state)))
                else:
                    yield BEAT
                if is_definite:
                    return
            await feed.wait(HEARTBEAT_S)


# -- small parts -------------------------------------------------------------------------------------------------------


async def _find(service: Service, request: Request) -> OrderState:
    token = request.params["token"]
    state = None
    if _TOKEN.fullmatch(token):
        state = await find_state_by_page_token(
            service.resources.db, token, days=service.resources.settings.page_token_days
        )
    if state is None:
        raise NotFound("this address is not valid, or not valid any more")
    return state


def _status(service: Service, state: OrderState) -> PageStatus:
    order, status = state.order, public_status(state.order, state.payments)
    return PageStatus(
        status=status,
        version=order.version,
        amount=order.amount,
        currency=order.currency,
        amount_text=page_html.amount_text(state),
        subject=order.subject,
        paid_at=order.paid_at,
        retry_after_s=_retry_after_s(service, state),
        definite=status.is_definite,
    )


def _retry_after_s(service: Service, state: OrderState) -> int:
    return ceil(service.limits.wait_s(state.order.order_no))


def _check_origin(service: Service, request: Request) -> None:
    """Another site must not press the button. There is no cookie to ride on, so this only backs the token up.

    `Origin: null` is what our own form sends under `no-referrer`, in browsers that do not know `Sec-Fetch-Site`.

    Raises:
        InvalidRequest: the browser says that another site sent it.
    """
    fetch_site = request.headers.get("sec-fetch-site")
    if fetch_site is not None:
        is_ours = fetch_site in ("same-origin", "none")
    else:
        ours = {urlsplit(service.resources.settings.public_url).netloc, request.headers.get("host", "")}
        origin = request.headers.get("origin", "null")
        is_ours = origin == "null" or urlsplit(origin).netloc in ours
    if not is_ours:
        raise InvalidRequest("a refresh is only taken from the order's own page")


def _language_wishes(request: Request) -> tuple[str, str]:
    asked = _LANG.search(request.query)
    return asked[1] if asked else "", request.headers.get("accept-language", "")


def _language(request: Request) -> tuple[str, str]:
    """The language to write in, and the one that the address asked for (empty: it asked for none)."""
    asked, accepted = _language_wishes(request)
    return choose(asked, accepted), asked


def _to_page(request: Request) -> Response:
    """Tokens are plain characters, so this cannot lead elsewhere; only our own parameter is carried on."""
    asked, _ = _language_wishes(request)
    return see_other(f"/o/{request.params['token']}" + (f"?lang={asked}" if asked else ""))


def _html(body: bytes, status: int = 200, *headers: tuple[str, str]) -> Response:
    return Response(status=status, body=body, content_type=HTML, headers=(*PAGE_HEADERS, *headers))
