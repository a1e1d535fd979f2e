"""The whole surface as one table. Dispatch, authentication, body caps, deadlines and OpenAPI all come from it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

import msgspec

from api import callbacks, ops
from api.http.errors import MethodNotAllowed
from api.http.response import HTML, JSON, TEXT, Reply
from api.pages import handlers as pages
from api.v1 import orders
from api.v1 import schemas as s
from core import errors

Handler = Callable[..., Awaitable[Reply]]
Answers = Mapping[int, Any]
Faults = tuple[type[errors.NodropError], ...]

DEADLINE_S = 25.0
"""Within the 30 s after which hosted platforms' routers give up. A body has 15 s of its own, a channel 10 s."""

JSON_BODY_BYTES_MAX = 160 * 1024
"""The largest order that the schema admits, each character escaped as two surrogates, has 132 KiB."""

FORM_BODY_BYTES_MAX = 1024


class Auth(StrEnum):
    """Who may call. A page token and a callback's signature are looked at by the handler."""

    NOBODY = "anyone"
    API_KEY = "api_key"
    PAGE_TOKEN = "page_token"  # noqa: S105 - the name of a kind
    SIGNATURE = "signature"


class Media(NamedTuple):
    """An answer that is not JSON."""

    content_type: str


PAGE, EVENTS, SEE_OTHER = Media(HTML), Media("text/event-stream"), Media("")


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """A method and a pattern whose parameters are single segments. `answers` is by status: a type, or a `Media`.

    The handler is called with the service and the request, and with the decoded body or query if the route takes one.
    """

    method: str
    pattern: str
    handler: Handler
    auth: Auth
    summary: str
    answers: Answers
    faults: Faults = ()
    takes: type[msgspec.Struct] | None = None
    query: type[msgspec.Struct] | None = None
    body_bytes_max: int = 0
    is_exempt: bool = False
    """From the cap on requests at once: what tells how a process does must be answered when it does badly."""


class Found(NamedTuple):
    route: Route
    params: Mapping[str, str]


_KEY, _TOKEN, _ANYONE, _SIGNED = Auth.API_KEY, Auth.PAGE_TOKEN, Auth.NOBODY, Auth.SIGNATURE
_TEXT = Media(TEXT)


def _v1(
    method: str,
    pattern: str,
    handler: Handler,
    summary: str,
    answers: Answers,
    faults: Faults = (),
    *,
    takes: type[msgspec.Struct] | None = None,
    query: type[msgspec.Struct] | None = None,
) -> Route:
    """A route of the merchant's API."""
    return Route(
        method=method,
        pattern=pattern,
        handler=handler,
        auth=Auth.API_KEY,
        summary=summary,
        answers=answers,
        faults=faults,
        takes=takes,
        query=query,
        body_bytes_max=JSON_BODY_BYTES_MAX if takes else 0,
    )


def _open(
    method: str,
    pattern: str,
    handler: Handler,
    auth: Auth,
    summary: str,
    answers: Answers,
    faults: Faults = (),
    *,
    body_bytes_max: int = 0,
    is_exempt: bool = False,
) -> Route:
    """A route for buyers, channels and those who run it."""
    return Route(
        method=method,
        pattern=pattern,
        handler=handler,
        auth=auth,
        summary=summary,
        answers=answers,
        faults=faults,
        body_bytes_max=body_bytes_max,
        is_exempt=is_exempt,
    )


_NONE, _BUSY = errors.NotFound, errors.TooManyRequests
_NEW = (errors.UnknownAccount, errors.NumberTaken, errors.PaymentRefused)
_ENDED = (errors.OrderPaid, errors.OrderClosed, errors.PaymentUnclear)


def table(callback_body_bytes_max: int) -> tuple[Route, ...]:
    """Every address there is. The cap on callbacks is a setting."""
    # fmt: off
    return (
        _v1("POST", "/v1/orders", orders.place, "Place an order, and start to pay it",
            {201: s.OrderView, 200: s.OrderView}, (errors.OrderConflict, *_NEW), takes=s.OrderInput),
        _v1("GET", "/v1/orders", orders.find_orders, "List orders, newest first",
            {200: s.OrderPage}, query=s.OrdersQuery),
        _v1("GET", "/v1/orders/{order_no}", orders.get_order, "Get an order", {200: s.OrderView}, (_NONE,)),
        _v1("POST", "/v1/orders/{order_no}/payments", orders.start, "Start another payment of an order",
            {201: s.OrderView, 200: s.OrderView}, (_NONE, *_ENDED, *_NEW), takes=s.PaymentInput),
        _v1("POST", "/v1/orders/{order_no}/refresh", orders.refresh, "Ask the channels about an order now",
            {200: s.OrderView}, (_NONE,)),
        _v1("POST", "/v1/orders/{order_no}/close", orders.close, "End an order, once its channels say it is unpaid",
            {200: s.OrderView, 202: s.OrderView}, (_NONE, errors.OrderPaid)),
        _v1("GET", "/v1/orders/{order_no}/timeline", orders.get_timeline, "What happened to an order",
            {200: s.Timeline}, (_NONE,)),
        _v1("GET", "/v1/cases", orders.find_cases, "List the questions for a person, newest first",
            {200: s.CasePage}, query=s.CasesQuery),

        _open("POST", "/callbacks/{account}", callbacks.receive, _SIGNED, "A channel's callback, raw or forwarded raw",
              {200: Media("*/*")}, (errors.UnknownAccount, errors.CallbackForged, errors.CallbackStale),
              body_bytes_max=callback_body_bytes_max),

        _open("GET", "/o/sw.js", pages.serve_worker, _ANYONE, "The pages' service worker",
              {200: Media("text/javascript")}),
        _open("GET", "/o/shell", pages.show_shell, _ANYONE, "The page of no order, for browsers offline", {200: PAGE}),
        _open("GET", "/o/static/{name}", pages.serve_asset, _ANYONE, "The pages' files", {200: Media("*/*")}, (_NONE,)),
        _open("GET", "/o/{token}", pages.show, _TOKEN, "An order's page", {200: PAGE, 404: PAGE, 503: PAGE}),
        _open("GET", "/o/{token}/return", pages.come_from_channel, _TOKEN, "Where channels send buyers back to",
              {303: SEE_OTHER, 404: PAGE}),
        _open("GET", "/o/{token}/status", pages.show_status, _TOKEN, "An order's public state",
              {200: s.PageStatus}, (_NONE,)),
        _open("GET", "/o/{token}/events", pages.stream, _TOKEN, "An order's public states as they come",
              {200: EVENTS}, (_NONE, _BUSY)),
        _open("POST", "/o/{token}/refresh", pages.refresh, _TOKEN, "Ask the channel now, for a buyer",
              {200: s.PageStatus, 303: SEE_OTHER}, (_NONE, _BUSY), body_bytes_max=FORM_BODY_BYTES_MAX),

        _open("GET", "/healthz", ops.healthz, _ANYONE, "Is the process alive", {200: s.Health}, is_exempt=True),
        _open("GET", "/readyz", ops.readyz, _ANYONE, "May it have traffic", {200: s.Readiness, 503: s.Readiness},
              is_exempt=True),
        _open("GET", "/metrics", ops.expose_metrics, _KEY, "What it counts, for Prometheus", {200: _TEXT},
              is_exempt=True),
        _open("GET", "/openapi.json", ops.describe_api, _ANYONE, "This description", {200: Media(JSON)}),
        _open("GET", "/problems/{slug}", ops.describe_problem, _ANYONE, "What a type of problem means",
              {200: PAGE}, (_NONE,)),
    )
    # fmt: on


_NO_NAME = "\ufffd"
_SEGMENT = re.compile(rb"[^\x00-\x1f\x7f]{1,200}")


class Router:
    """Finds the route of a path. Fixed segments win over parameters, by the order of the table."""

    def __init__(self, routes: tuple[Route, ...]) -> None:
        self._of_length: dict[int, list[tuple[tuple[str, ...], dict[str, Route]]]] = {}
        for route in routes:
            self._add(route)

    def _add(self, route: Route) -> None:
        pattern = tuple(route.pattern.split("/"))
        rows = self._of_length.setdefault(len(pattern), [])
        for known, methods in rows:
            if known == pattern:
                methods[route.method] = route
                return
        rows.append((pattern, {route.method: route}))

    def find(self, method: str, raw_path: bytes) -> Found:
        """The route and its parameters, percent-decoded.

        Raises:
            NotFound: nothing is at this path.
            MethodNotAllowed: something is, for other methods; its detail names them.
        """
        segments = [_text(segment) for segment in raw_path.split(b"/")]
        for pattern, methods in self._of_length.get(len(segments), ()):
            params = _match(pattern, segments)
            if params is not None:
                route = methods.get("GET" if method == "HEAD" else method)
                if route is None:
                    raise MethodNotAllowed(", ".join(sorted(methods)))
                return Found(route, params)
        raise errors.NotFound("nothing is at this address")


def _match(pattern: tuple[str, ...], segments: list[str]) -> dict[str, str] | None:
    params: dict[str, str] = {}
    for wanted, segment in zip(pattern, segments, strict=True):
        if wanted.startswith("{"):
            if not segment:
                return None
            params[wanted[1:-1]] = segment
        elif wanted != segment:
            return None
    return params


def _text(raw: bytes) -> str:
    """One segment as text. What no name of ours can hold becomes one character that none of them holds."""
    plain = unquote_to_bytes(raw)
    if plain and _SEGMENT.fullmatch(plain) is None:
        return _NO_NAME
    try:
        return plain.decode("utf-8")
    except UnicodeDecodeError:
        return _NO_NAME
