"""The ASGI application: from a scope to a route, a handler and a response; every fault a problem, every request a line.

In this order: room for one more, the route, the API key or the session, and only then the body, so that a stranger's
bytes are never read. A handler has a deadline; the sweep finds again what it was doing then, as after a crash.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from secrets import token_hex
from time import perf_counter
from typing import Generic, NamedTuple, Protocol, TypeVar
from urllib.parse import unquote_to_bytes

import structlog
from msgspec.structs import replace

from api.http import event_stream, metrics
from api.http.auth import ApiKeys
from api.http.errors import MethodNotAllowed
from api.http.packing import form_for
from api.http.problems import PROBLEM_JSON, Problems
from api.http.request import (
    BODY_TIMEOUT_S,
    Body,
    ClientGone,
    LoopLag,
    Receive,
    Request,
    Scope,
    Send,
    Shares,
    Waiting,
    check_host,
    client_address,
    client_ip,
    query_string,
    read_headers,
)
from api.http.response import EventStream, HeaderList, Reply, Response, encode_headers
from api.http.route import Auth, Route
from core.errors import NodropError, NotFound
from core.operators import Role
from runtime.logs import REQUEST_ID
from storage.postgres.api_keys import acting_key, acting_operator
from storage.postgres.sessions import Session

LAG_MAX_S = 1.0
CALLBACK_LAG_MAX_S = 3.0
"""A process that is so late answers 503 at once: what it began would end in a time-out. Callbacks have longer, but less
than the five seconds of the channels."""

REQUESTS_MAX = 512
"""At once, streams not counted. Beyond, 503 with Retry-After is kinder than a queue that ends in time-outs."""

REQUESTS_KEPT = 64
"""Above the maximum, for callbacks alone. Health and metrics are always answered."""

REQUESTS_FREE = REQUESTS_MAX // 2
"""Up to here an address may have any number."""

REQUESTS_PER_ADDRESS_MAX = 128
"""Not of requests with an API key: their caller is no stranger, and their body is read only once the key is known."""

PRESSED_BODY_S = 3.0
"""The longest time that a body may then take."""

DEADLINE_S = 25.0
"""Within the 30 s after which hosted platforms' routers give up. A body has 15 s of its own, a channel 10 s."""

SEND_TIMEOUT_S = 20.0
HSTS = (b"strict-transport-security", b"max-age=31536000")
CLIENT_GONE = 499
"""For the log and the metrics only: no response was sent."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

C = TypeVar("C")

log = structlog.get_logger()


class Visitor(NamedTuple):
    """The request as it came, before anybody is known to have sent it."""

    method: str
    target: str
    headers: Mapping[str, str]
    request_id: str


class Console(Protocol):
    """The part of the console that comes before and after its handlers."""

    async def admit(self, role: Role, visitor: Visitor) -> Session:
        """The session of an operator who has the role. Raises a fault that `show_fault` shows."""

    def show_fault(self, problem: Response, error: BaseException | None, visitor: Visitor) -> Response:
        """The page of a fault in place of its problem."""


class Exchange:
    """One request while it is answered. `pattern` is logged and counted instead of the path, which may hold a token."""

    __slots__ = (
        "body", "error", "headers", "is_of_console", "is_of_reader", "method", "pattern", "raw_path", "request_id",
        "scope", "sharing",
    )  # fmt: skip

    def __init__(self, scope: Scope, receive: Receive, body_timeout_s: float, waiting: Waiting) -> None:
        self.scope = scope
        self.method: str = scope["method"]
        self.raw_path: bytes = scope["raw_path"]
        self.headers = read_headers(scope)
        self.body = Body(receive, self.headers, body_timeout_s, waiting, scope.get("state", {}))
        self.request_id = token_hex(8)
        self.pattern = "-"
        self.sharing: HeaderList = []
        self.is_of_reader = False
        self.is_of_console = False
        self.error: BaseException | None = None

    @property
    def visitor(self) -> Visitor:
        query = self.scope["query_string"].decode("latin-1")
        target = self.raw_path.decode("latin-1") + (f"?{query}" if query else "")
        return Visitor(self.method, target, self.headers, self.request_id)

    def find_reader(self, auth: Auth) -> None:
        """Note whether a buyer's browser is going to this address, and shows whatever it gets."""
        is_visit = self.method == "GET" and "text/html" in self.headers.get("accept", "")
        self.is_of_reader = is_visit and auth is Auth.PAGE_TOKEN


class App(Generic[C]):
    """The ASGI callable over a table of routes; `context` is what their handlers share.

    `draining` is set when the process is to end: streams end then, and connections are not kept. `routes_by_port` are
    the tables of ports that have one of their own.
    """

    def __init__(
        self,
        routes: Sequence[Route[C]],
        context: C,
        keys: ApiKeys,
        draining: asyncio.Event,
        *,
        trusted_proxy_hops: int = 0,
        public_url: str = "",
        page_origins: frozenset[str] = frozenset(),
        body_timeout_s: float = BODY_TIMEOUT_S,
        lag: LoopLag | None = None,
        page_of_fault: Callable[[Mapping[str, str]], Response] | None = None,
        console: Console | None = None,
        routes_by_port: Mapping[int, Sequence[Route[C]]] | None = None,
    ) -> None:
        self.context = context
        self.keys = keys
        self._router = _Router(routes)
        self._routers = {port: _Router(rows) for port, rows in (routes_by_port or {}).items()}
        self._console = console
        self._draining = draining
        self._hops = trusted_proxy_hops
        self._body_timeout_s = body_timeout_s
        self._problems = Problems(public_url)
        self._every: HeaderList = [HSTS] if public_url.lower().startswith("https://") else []
        self._places = Shares(REQUESTS_MAX + REQUESTS_KEPT, REQUESTS_PER_ADDRESS_MAX, free=REQUESTS_FREE)
        self._page_origins = page_origins
        self._bodies = Waiting()
        self._lag = lag or LoopLag()
        self._page_of_fault = page_of_fault
        self._has_warned_of_proxy = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"{scope['type']} is not served; start with lifespan off and without websockets")
        started = perf_counter()
        exchange = Exchange(scope, receive, self._body_timeout_s, self._bodies)
        REQUEST_ID.set(exchange.request_id)
        status = await self._serve(exchange, receive, send)
        self._note(exchange, status, perf_counter() - started)

    async def _serve(self, exchange: Exchange, receive: Receive, send: Send) -> int:
        """Respond; the status that was sent."""
        try:
            reply = self._for_reader(await self._respond(exchange), exchange)
        except ClientGone:
            return CLIENT_GONE
        if isinstance(reply, EventStream):
            with reply.place:
                return await self._stream(reply, exchange, receive, send)
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await self._send(reply, exchange, send)
        except TimeoutError:
            log.info("reader_too_slow", route=exchange.pattern)
        return reply.status

    def _for_reader(self, reply: Reply, exchange: Exchange) -> Reply:
        """The reply; for a buyer, a page in place of a problem of ours, and for an operator in place of any."""
        if exchange.is_of_console and self._console is not None and isinstance(reply, Response):
            return self._page_for_operator(self._console, reply, exchange)
        if not exchange.is_of_reader or not isinstance(reply, Response) or self._page_of_fault is None:
            return reply
        is_fault = reply.status >= HTTPStatus.INTERNAL_SERVER_ERROR and reply.content_type == PROBLEM_JSON
        return replace(self._page_of_fault(exchange.headers), status=reply.status) if is_fault else reply

    @staticmethod
    def _page_for_operator(console: Console, reply: Response, exchange: Exchange) -> Response:
        if reply.content_type != PROBLEM_JSON:
            return reply
        return console.show_fault(reply, exchange.error, exchange.visitor)

    def _router_of(self, exchange: Exchange) -> _Router[C]:
        """The table of the port that the request came to."""
        _, port = exchange.scope.get("server") or ("", 0)
        return self._routers.get(port, self._router)

    async def _respond(self, exchange: Exchange) -> Reply:
        """The handler's reply, or the problem that came up."""
        try:
            check_host(exchange.scope, exchange.headers)
            router = self._router_of(exchange) if self._routers else self._router
            exchange.is_of_console = router.has_console and exchange.raw_path.startswith(_CONSOLE)
            match = router.find(exchange.method, exchange.raw_path)
            exchange.pattern = match.route.pattern
            exchange.sharing = self._sharing(exchange, match.route)
            exchange.find_reader(match.route.auth)
            address = self._address(exchange)
            sharer = None if match.route.auth is Auth.API_KEY else address
            if not match.route.is_exempt and not self._take_place(exchange, match.route, sharer):
                return self._problems.overloaded(exchange.request_id)
            metrics.requests_open.inc()
            try:
                async with asyncio.timeout(DEADLINE_S):
                    return await self._handle(exchange, match, address)
            finally:
                metrics.requests_open.dec()
                if not match.route.is_exempt:
                    self._places.release(sharer)
        except MethodNotAllowed as error:
            exchange.error = error
            return self._problems.response(error, exchange.request_id, ("allow", error.detail))
        except TimeoutError:
            log.warning("request_out_of_time", route=exchange.pattern)
            return self._problems.out_of_time(exchange.request_id)
        except NodropError as error:
            return self._problem(error, exchange)
        except ClientGone:
            raise
        except Exception as error:  # the last resort: any bug is a problem without details for the client
            exchange.error = error
            log.exception("request_broke", route=exchange.pattern)
            return self._problems.response(error, exchange.request_id)

    def _sharing(self, exchange: Exchange, route: Route[C]) -> HeaderList:
        """The headers by which a browser lets a page of another origin read the response; never with credentials."""
        if not route.is_shared or not self._page_origins:
            return []
        origin = exchange.headers.get("origin", "")
        if origin not in self._page_origins:
            return [(b"vary", b"origin")]
        return [
            (b"vary", b"origin"),
            (b"access-control-allow-origin", origin.encode()),
            (b"access-control-expose-headers", b"retry-after"),
        ]

    def _take_place(self, exchange: Exchange, route: Route[C], sharer: str | None) -> bool:
        """Take a place for one more request, unless there is none for the address `sharer`."""
        if self._places.is_pressed:
            self._bodies.cut(PRESSED_BODY_S)
        is_callback = route.auth is Auth.SIGNATURE
        is_full = exchange.scope.get("state", {}).get("is_full", False) and not is_callback
        is_late = self._lag.seconds > (CALLBACK_LAG_MAX_S if is_callback else LAG_MAX_S)
        return not (is_late or is_full) and self._places.take(sharer, kept=0 if is_callback else REQUESTS_KEPT)

    def _problem(self, error: NodropError, exchange: Exchange) -> Response:
        exchange.error = error
        response = self._problems.response(error, exchange.request_id)
        if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            log.warning("request_not_done", route=exchange.pattern, exc_info=error)
        return response

    async def _handle(self, exchange: Exchange, match: _Match[C], address: str) -> Reply:
        route, bytes_max = match.route, match.route.endpoint.body_bytes_max
        key = await self.keys.admit(exchange.headers, route.scope) if route.scope is not None else None
        session = await self._admit(route.role, exchange) if route.role is not None else None
        is_of_buyer = route.auth is Auth.PAGE_TOKEN
        request = Request(
            method=exchange.method,
            params=match.params,
            query=query_string(exchange.scope),
            headers=exchange.headers,
            address=address,
            client_ip=client_ip(exchange.scope, exchange.headers, self._hops) if is_of_buyer else "",
            # A body that the route does not take stays unread, and the connection is closed after the response.
            body=await exchange.body.read(bytes_max) if bytes_max else b"",
            session=session,
        )
        if key is not None and route.act is not None:
            await self.keys.record(key, route.act, "/".join(match.params.values()))
        token = acting_key.set(None if key is None else key.id)
        person = acting_operator.set(None if key is None else key.operator)
        try:
            return await route.endpoint.respond(self.context, request)
        finally:
            acting_operator.reset(person)
            acting_key.reset(token)

    async def _admit(self, role: Role, exchange: Exchange) -> Session:
        # /%6fps leads nowhere: a proxy that keeps /ops to itself by its bytes would let it through.
        if self._console is None or not exchange.is_of_console:
            raise NotFound("nothing is at this address")
        return await self._console.admit(role, exchange.visitor)

    def _address(self, exchange: Exchange) -> str:
        if self._hops == 0 and "x-forwarded-for" in exchange.headers and not self._has_warned_of_proxy:
            self._has_warned_of_proxy = True
            log.warning("proxy_not_trusted", reason="requests come through a proxy and TRUSTED_PROXY_HOPS is 0")
        return client_address(exchange.scope, exchange.headers, self._hops)

    async def _send(self, whole: Response, exchange: Exchange, send: Send) -> None:
        response = form_for(exchange.headers.get("accept-encoding", ""), whole)
        headers = encode_headers(response, close=exchange.body.is_unread or self._draining.is_set())
        headers += [(b"x-request-id", exchange.request_id.encode()), *exchange.sharing, *self._every]
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": response.body, "more_body": exchange.body.is_unread})
        if exchange.body.is_unread:
            await exchange.body.discard()
            await send({"type": "http.response.body", "body": b""})

    async def _stream(self, reply: EventStream, exchange: Exchange, receive: Receive, send: Send) -> int:
        identity = ((b"x-request-id", exchange.request_id.encode()), (b"connection", b"close"))
        headers = [*event_stream.HEADERS, *identity, *exchange.sharing, *self._every]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if exchange.method == "HEAD":
            await reply.events.aclose()
            await send({"type": "http.response.body", "body": b""})
            return 200
        with metrics.streams_open.track_inprogress():
            error = await event_stream.send_stream(reply.events, receive, send, self._draining)
        if error is not None:
            log.error("stream_broke", route=exchange.pattern, exc_info=error)
        return 200

    def _note(self, exchange: Exchange, status: int, seconds: float) -> None:
        method = exchange.method if exchange.method in _METHODS else "OTHER"
        metrics.count_request(method, exchange.pattern, status, seconds)
        log.info(
            "request_answered",
            method=method,
            route=exchange.pattern,
            status=status,
            duration_ms=round(seconds * 1000, 1),
        )


# -- from a path to its route ------------------------------------------------------------------------------------------


class _Match(NamedTuple, Generic[C]):
    """The route of a path, and the parameters in the path."""

    route: Route[C]
    params: Mapping[str, str]


_CONSOLE = b"/ops"
_UNREADABLE = "\ufffd"
_PLAIN = re.compile(rb"(?:/[0-9A-Za-z_.~-]{0,200})+")
"""A path of segments that are texts as they stand: nearly all are."""

_SEGMENT = re.compile(rb"[^\x00-\x1f\x7f]{1,200}")


class _Router(Generic[C]):
    """Finds the route of a path. Fixed segments win over parameters, by the order of the table."""

    def __init__(self, routes: Sequence[Route[C]]) -> None:
        self.has_console = any(route.role is not None for route in routes)
        self._by_length: dict[int, dict[tuple[str, ...], dict[str, Route[C]]]] = {}
        for route in routes:
            pattern = tuple(route.pattern.split("/"))
            self._by_length.setdefault(len(pattern), {}).setdefault(pattern, {})[route.method] = route

    def find(self, method: str, raw_path: bytes) -> _Match[C]:
        """The route and its parameters, percent-decoded.

        Raises:
            NotFound: nothing is at this path.
            MethodNotAllowed: something is, for other methods; its detail names them.
        """
        plain = _PLAIN.fullmatch(raw_path)
        segments = raw_path.decode().split("/") if plain else [_text(segment) for segment in raw_path.split(b"/")]
        for pattern, methods in self._by_length.get(len(segments), {}).items():
            params = _params(pattern, segments)
            if params is not None:
                route = methods.get("GET" if method == "HEAD" else method)
                if route is None:
                    raise MethodNotAllowed(", ".join(sorted(methods)))
                return _Match(route, params)
        raise NotFound("nothing is at this address")


def _params(pattern: tuple[str, ...], segments: list[str]) -> dict[str, str] | None:
    """The parameters of segments that match the pattern, else None."""
    params: dict[str, str] = {}
    for expected, segment in zip(pattern, segments, strict=True):
        if expected.startswith("{"):
            if not segment:
                return None
            params[expected[1:-1]] = segment
        elif expected != segment:
            return None
    return params


def _text(raw: bytes) -> str:
    """One segment as text; U+FFFD, which no name of ours holds, for one that cannot be a name."""
    decoded = unquote_to_bytes(raw)
    if decoded and _SEGMENT.fullmatch(decoded) is None:
        return _UNREADABLE
    try:
        return decoded.decode("utf-8")
    except UnicodeDecodeError:
        return _UNREADABLE
