"""The application: from an ASGI scope to a route, a handler and an answer; every fault a problem, every request a line.

In this order: room for one more, the route, the API key, and only then the body, so that a stranger's bytes are never
read. A handler has a deadline; what it was doing then is found again by the sweep, as after a crash.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from secrets import token_hex
from time import perf_counter

import structlog

from api import routes
from api.http import metrics, openapi, problems
from api.http.auth import ApiKeys
from api.http.errors import MethodNotAllowed
from api.http.limits import RefreshLimits
from api.http.request import (
    BODY_TIMEOUT_S,
    Body,
    ClientGone,
    Receive,
    Request,
    Scope,
    Send,
    client_address,
    read_headers,
    read_json,
    read_query,
)
from api.http.response import EventStream, Reply, Response, encode_headers
from api.pages.streams import HEADERS, Streams, send_stream
from api.routes import DEADLINE_S, Auth, Found, Route, Router
from api.service import Asks, Service
from core.errors import InvalidRequest, NodropError
from runtime.accounts import KEEP_CURRENT_S
from runtime.resources import Resources

REQUESTS_MAX = 512
"""At once, streams not counted. Beyond, 503 with Retry-After is kinder than a queue that ends in time-outs."""

SEND_TIMEOUT_S = 20.0
CLIENT_GONE = 499
"""For the log and the metrics only: nobody was there to be answered."""

ASKS_WAIT_S = 1.0
LISTEN_AGAIN_S = 1.0
CANCEL_AGAIN_S = 0.1

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

log = structlog.get_logger()


class Exchange:
    """What is known about one request while it is answered."""

    __slots__ = ("body", "headers", "method", "raw_path", "request_id", "route", "scope")

    def __init__(self, scope: Scope, receive: Receive, body_timeout_s: float) -> None:
        self.scope = scope
        self.method: str = scope["method"]
        self.raw_path: bytes = scope["raw_path"]
        self.headers = read_headers(scope)
        self.body = Body(receive, self.headers, body_timeout_s)
        self.request_id = token_hex(8)
        self.route: Route | None = None

    @property
    def pattern(self) -> str:
        """What is logged and counted instead of the path, which may hold a token."""
        return self.route.pattern if self.route is not None else "-"


class App:
    """The ASGI callable. `draining` is set when the process is to end: streams end, and it is not ready any more."""

    def __init__(
        self,
        resources: Resources,
        draining: asyncio.Event,
        *,
        body_timeout_s: float = BODY_TIMEOUT_S,
        streams: Streams | None = None,
    ) -> None:
        rows = routes.table(resources.settings.callback_body_bytes_max)
        self._router = Router(rows)
        self._hops = resources.settings.trusted_proxy_hops
        self._body_timeout_s = body_timeout_s
        self._open = 0
        self._has_warned_of_proxy = False
        self.service = Service(
            resources=resources,
            keys=ApiKeys(resources.db),
            limits=RefreshLimits(),
            streams=streams or Streams(),
            asks=Asks(resources),
            draining=draining,
            openapi=openapi.document(rows),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"{scope['type']} is not served; start with lifespan off and without websockets")
        started = perf_counter()
        exchange = Exchange(scope, receive, self._body_timeout_s)
        with structlog.contextvars.bound_contextvars(request_id=exchange.request_id):
            status = await self._serve(exchange, receive, send)
            self._note(exchange, status, perf_counter() - started)

    async def _serve(self, exchange: Exchange, receive: Receive, send: Send) -> int:
        try:
            reply = await self._answer(exchange)
        except ClientGone:
            return CLIENT_GONE
        if isinstance(reply, EventStream):
            return await self._stream(reply, exchange, receive, send)
        headers = encode_headers(reply, close=exchange.body.is_unread or self.service.draining.is_set())
        headers.append((b"x-request-id", exchange.request_id.encode()))
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await send({"type": "http.response.start", "status": reply.status, "headers": headers})
                await send({"type": "http.response.body", "body": reply.body, "more_body": exchange.body.is_unread})
                if exchange.body.is_unread:
                    await exchange.body.discard()
                    await send({"type": "http.response.body", "body": b""})
        except TimeoutError:
            log.info("reader_too_slow", route=exchange.pattern)
        return reply.status

    async def _answer(self, exchange: Exchange) -> Reply:
        """The handler's reply, or the problem that came up."""
        try:
            found = self._router.find(exchange.method, exchange.raw_path)
            exchange.route = found.route
            if self._open >= REQUESTS_MAX and not found.route.is_exempt:
                return problems.overloaded(exchange.request_id)
            self._open += 1
            try:
                async with asyncio.timeout(DEADLINE_S):
                    return await self._handle(exchange, found)
            finally:
                self._open -= 1
        except MethodNotAllowed as error:
            return _with_header(problems.answer(error, exchange.request_id), "allow", error.detail)
        except TimeoutError:
            log.warning("request_out_of_time", route=exchange.pattern)
            return problems.out_of_time(exchange.request_id)
        except NodropError as error:
            return self._fault(error, exchange)
        except ClientGone:
            raise
        except Exception as error:  # the last resort: whatever it is, the client gets a problem that does not tell it
            log.exception("request_broke", route=exchange.pattern)
            return problems.answer(error, exchange.request_id)

    def _fault(self, error: NodropError, exchange: Exchange) -> Response:
        answer = problems.answer(error, exchange.request_id)
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            log.warning("request_not_done", route=exchange.pattern, exc_info=error)
        return answer

    async def _handle(self, exchange: Exchange, found: Found) -> Reply:
        route = found.route
        if route.auth is Auth.API_KEY:
            await self.service.keys.check(exchange.headers)
        request = Request(
            method=exchange.method,
            params=found.params,
            query=_query(exchange.scope),
            headers=exchange.headers,
            address=self._address(exchange),
            body=await self._body(exchange, route),
        )
        if route.takes is not None:
            return await route.handler(self.service, request, read_json(request, route.takes))
        if route.query is not None:
            return await route.handler(self.service, request, read_query(request, route.query))
        return await route.handler(self.service, request)

    async def _body(self, exchange: Exchange, route: Route) -> bytes:
        """Routes that take none leave it where it is; the connection is closed after the answer."""
        return await exchange.body.read(route.body_bytes_max) if route.body_bytes_max else b""

    def _address(self, exchange: Exchange) -> str:
        if self._hops == 0 and "x-forwarded-for" in exchange.headers and not self._has_warned_of_proxy:
            self._has_warned_of_proxy = True
            log.warning("proxy_not_trusted", reason="requests come through a proxy and TRUSTED_PROXY_HOPS is 0")
        return client_address(exchange.scope, exchange.headers, self._hops)

    async def _stream(self, reply: EventStream, exchange: Exchange, receive: Receive, send: Send) -> int:
        headers = [*HEADERS, (b"x-request-id", exchange.request_id.encode()), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if exchange.method == "HEAD":
            await reply.events.aclose()
            await send({"type": "http.response.body", "body": b""})
            return 200
        metrics.streams_open.inc()
        try:
            broke = await send_stream(reply.events, receive, send, self.service.draining)
        finally:
            metrics.streams_open.dec()
        if broke is not None:
            log.error("stream_broke", route=exchange.pattern, exc_info=broke)
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


@asynccontextmanager
async def running(app: App) -> AsyncIterator[App]:
    """With its ear on the changes that other processes make, and its accounts kept current; what it asks channels may
    finish in the end.
    """
    resources = app.service.resources
    beside = [asyncio.create_task(_listen(resources)), asyncio.create_task(_keep_current(resources))]
    try:
        yield app
        await app.service.asks.close(ASKS_WAIT_S)
    finally:
        for task in beside:
            await _end(task)


async def _end(task: asyncio.Task[None]) -> None:
    """Cancel until it is over: redis-py swallows a cancellation that hits it while it connects."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=CANCEL_AGAIN_S)


async def _listen(resources: Resources) -> None:
    """For ever: without it pages hear of a change only at the next heart-beat."""
    while True:
        try:
            await resources.changes.listen()
        except Exception:  # a bug there must not make every page slow for ever
            log.exception("changes_listener_broke")
        await asyncio.sleep(LISTEN_AGAIN_S)


async def _keep_current(resources: Resources) -> None:
    """For ever: without it callbacks could not be verified any more once their channel has changed its keys."""
    while True:
        try:
            await resources.accounts.keep_current()
        except NodropError as error:
            log.warning("accounts_not_kept_current", reason=type(error).__name__)
        except Exception:  # a bug there must not keep this process from trying again
            log.exception("keep_current_broke")
        await asyncio.sleep(KEEP_CURRENT_S)


def _query(scope: Scope) -> str:
    """As sent; it is ASCII by protocol.

    Raises:
        InvalidRequest: it is not.
    """
    raw: bytes = scope["query_string"]
    try:
        return raw.decode("ascii")
    except UnicodeDecodeError:
        raise InvalidRequest("the query string cannot be read") from None


def _with_header(response: Response, name: str, value: str) -> Response:
    return Response(
        status=response.status,
        body=response.body,
        content_type=response.content_type,
        headers=(*response.headers, (name, value)),
    )
