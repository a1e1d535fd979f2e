"""A small ASGI application: a route table, whole bodies, and replies with the faults of a network.

A handler returns a `Response`, or a `Cut`, a `Hang` or a `Later` as faults of a network.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import partial
from typing import Any, TypeVar
from urllib.parse import unquote

import msgspec

JSON = "application/json"
HTML = "text/html; charset=utf-8"

BODY_BYTES_MAX = 256 * 1024
"""Far above any body that a channel or a merchant receives."""

BODY_TIMEOUT_S = 10.0
"""uvicorn has no time-out for a body that never ends."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


T = TypeVar("T")


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One request with its whole body. `target` is path and query exactly as sent; header names are lower case.

    A header sent twice is joined with a comma, as HTTP has it, so a doubled signature matches no signature.
    """

    method: str
    target: str
    query: str
    params: dict[str, str]
    headers: dict[str, str]
    body: bytes
    client: str


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """A response without a fault."""

    status: int = 200
    body: bytes = b""
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """Announce the whole body in Content-Length, send `keep` bytes of it, close the connection."""

    response: Response
    keep: int


class Hang(msgspec.Struct, frozen=True, kw_only=True):
    """Send nothing for `seconds`, then close the connection."""

    seconds: float


class Later(msgspec.Struct, frozen=True, kw_only=True):
    """Send the response after `seconds`."""

    seconds: float
    reply: Response | Cut


Reply = Response | Cut | Hang | Later
Handler = Callable[[Request], Awaitable[Reply]]


class Route(msgspec.Struct, frozen=True):
    """A method and a pattern such as `/v1/payments/{out_trade_no}`; a parameter is one non-empty segment."""

    method: str
    pattern: str
    handler: Handler


class BadBody(ValueError):
    """The body is not JSON of the expected type."""


def decode(body: bytes, type_: type[T]) -> T:
    """Decode the body as `type_`; raises BadBody, also for invalid UTF-8 and endless nesting."""
    try:
        return msgspec.json.decode(body, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadBody(str(error)) from error


def json_response(value: object, status: int = 200) -> Response:
    return Response(status=status, body=msgspec.json.encode(value))


def problem(status: int, code: str, message: str) -> Response:
    """Return an unsigned error: of a control API, or of a route that does not exist."""
    return json_response({"code": code, "message": message}, status)


class App:
    """An ASGI application over a fixed list of routes. Set `stopping` to end every `Hang` and `Later` at once.

    `now` is the server's own time, for the header `Date`.
    """

    def __init__(self, routes: Iterable[Route], *, now: Callable[[], datetime] | None = None) -> None:
        self._now = now or partial(datetime.now, UTC)
        self.stopping = asyncio.Event()
        self._table: dict[int, list[tuple[tuple[str, ...], dict[str, Handler]]]] = {}
        for route in routes:
            self._add(route)

    def _add(self, route: Route) -> None:
        pattern = tuple(route.pattern.split("/"))
        rows = self._table.setdefault(len(pattern), [])
        for known, methods in rows:
            if known == pattern:
                methods[route.method] = route.handler
                return
        rows.append((pattern, {route.method: route.handler}))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"{scope['type']} is not served; start with lifespan off and without websockets")
        reply = await self._reply(scope, receive)
        if isinstance(reply, (Hang, Later)):
            await self._wait(reply.seconds, receive)
            reply = reply.reply if isinstance(reply, Later) else Cut(response=Response(status=504, body=b"\n"), keep=0)
        await _send(reply, send, self._now())

    async def _reply(self, scope: Scope, receive: Receive) -> Reply:
        found = self._find(scope["raw_path"].decode("latin-1"))
        if found is None:
            return problem(404, "NO_SUCH_ADDRESS", "there is nothing at this address")
        methods, params = found
        handler = methods.get(scope["method"])
        if handler is None:
            refused = problem(405, "METHOD_NOT_ALLOWED", "this address has other methods")
            return msgspec.structs.replace(refused, headers=(("allow", ", ".join(methods)),))
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                body = await _read(receive)
        except TimeoutError:
            return problem(408, "BODY_TOO_SLOW", f"the body was not there within {BODY_TIMEOUT_S:g} s")
        if body is None:
            return problem(413, "BODY_TOO_LARGE", f"a body has at most {BODY_BYTES_MAX} bytes")
        return await handler(_request(scope, params, body))

    def _find(self, raw_path: str) -> tuple[dict[str, Handler], dict[str, str]] | None:
        segments = raw_path.split("/")
        for pattern, methods in self._table.get(len(segments), ()):
            params: dict[str, str] = {}
            for wanted, segment in zip(pattern, segments, strict=True):
                if wanted.startswith("{") and segment:
                    params[wanted[1:-1]] = unquote(segment)
                elif wanted != segment:
                    break
            else:
                return methods, params
        return None

    async def _wait(self, seconds: float, receive: Receive) -> None:
        """Wait until the time is over, the client has disconnected or the process ends."""
        ends = {asyncio.ensure_future(receive()), asyncio.ensure_future(self.stopping.wait())}
        try:
            await asyncio.wait(ends, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()


async def _read(receive: Receive) -> bytes | None:
    """Return the whole body, or None if it is too large. After a disconnection it is the part that arrived."""
    body = b""
    while True:
        message = await receive()
        chunk: bytes = message.get("body", b"")
        body += chunk
        if len(body) > BODY_BYTES_MAX:
            return None
        if not message.get("more_body", False):
            return body


def _request(scope: Scope, params: dict[str, str], body: bytes) -> Request:
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    path, query = scope["raw_path"].decode("latin-1"), scope["query_string"].decode("latin-1")
    client = scope.get("client")
    return Request(
        method=scope["method"],
        target=f"{path}?{query}" if query else path,
        query=query,
        params=params,
        headers=headers,
        body=body,
        client=client[0] if client else "",
    )


async def _send(reply: Response | Cut, send: Send, now: datetime) -> None:
    response = reply.response if isinstance(reply, Cut) else reply
    headers = [
        (b"content-type", response.content_type.encode("latin-1")),
        (b"content-length", str(len(response.body)).encode()),
        (b"date", format_datetime(now, usegmt=True).encode()),
        *((name.encode("latin-1"), value.encode("latin-1")) for name, value in response.headers),
    ]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    if isinstance(reply, Cut):
        # Returning with the body unfinished makes uvicorn close the connection.
        await send({"type": "http.response.body", "body": response.body[: reply.keep], "more_body": True})
    else:
        await send({"type": "http.response.body", "body": response.body})
