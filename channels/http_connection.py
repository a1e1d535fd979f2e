"""Connections of ours: HTTP/1.1, one request at a time, the response bounded and read by httptools.

A connection keeps nothing of a response for the next one, and follows nothing. `channels.carrier` has those to
channels, and `flows.merchant_http` those to merchants.
"""

from __future__ import annotations

import asyncio
import select
import ssl
from base64 import b64encode
from collections.abc import Callable
from typing import NamedTuple, cast

import httptools
import httpx

from channels.egress_proxy import EgressProxy

HEAD_BYTES_MAX = 65_536
RESPONSE_BYTES_MAX = 4096
"""Of a body, beside the piece that its head came in: a longer one costs the connection."""

FRAMED_MAX = 8
"""Bytes for each of a body that is taken: one in a chunk of its own has five around it. What comes beyond them is no
body, and nobody limits it.
"""

PROXY_HEAD_BYTES_MAX = 16_384
OK = 200
_LENGTHS = (b"content-length", b"transfer-encoding")


Take = Callable[[int, bytes], None]
"""Takes a piece of a body. The first argument is the status of the response."""


class Head(NamedTuple):
    """Status of a response, and its headers as they came."""

    status: int
    headers: list[tuple[bytes, bytes]]


class Connection(asyncio.Protocol):
    """`is_free`: the last response has ended, and the connection may carry another request."""

    def __init__(self) -> None:
        self.is_free = False
        self._transport: asyncio.Transport | None = None
        self._tunnel: asyncio.Future[bytes] | None = None
        self._tunnel_head = b""
        self._response: _Response | None = None

    async def send(self, request: bytes, take: Take | None = None, *, keep: int = 0) -> Head:
        """Send the bytes of a request, and return the head of its response. `drain` or `read` ends it.

        `take` gets the body, and limits it: what it raises ends the connection, and `read` raises it. Without it the
        body is dropped, but for the first `keep` bytes: `beginning` has them.

        Raises:
            httpx.ReadError, httpx.RemoteProtocolError: there is none, or it is not HTTP.
        """
        assert self._transport is not None, "it was opened"
        self.is_free = False
        if self._transport.is_closing():  # by the other side: nothing would ever come
            raise httpx.ReadError("closed")
        self._response = response = _Response(asyncio.get_running_loop(), take, keep)
        self._transport.write(request)
        try:
            return await response.head
        except BaseException:
            self.abort()
            raise

    async def drain(self) -> None:
        """Wait for the end of the response."""
        if self._response is not None:
            await asyncio.shield(self._response.end)

    async def read(self) -> None:
        """Wait for the end of the response. Raises as `send`, also if it was cut short."""
        response = self._response
        assert response is not None, "it was sent"
        try:
            if not response.end.done():
                await response.end
        except BaseException:
            self.abort()
            raise
        if response.error is not None:
            raise response.error

    @property
    def beginning(self) -> bytes:
        """The first bytes of the last response's body, as far as they have come."""
        return b"" if self._response is None else self._response.beginning

    @property
    def is_quiet(self) -> bool:
        """Whether it is open and nothing has come since the last response: not even its end."""
        if not self.is_free or self._transport is None or self._transport.is_closing():
            return False
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not poll.poll(0)

    def abort(self) -> None:
        self.is_free = False
        if self._transport is not None:
            self._transport.abort()

    async def open_tunnel(self, proxy: EgressProxy, target: str) -> None:
        """Ask the proxy for a connection. It is given the judged address, so it looks no name up.

        Raises:
            httpx.ProxyError: it refuses.
        """
        assert self._transport is not None, "it is open"
        lines = "".join([f"{name}: {value}\r\n" for name, value in authorization(proxy).items()])
        self._tunnel = asyncio.get_running_loop().create_future()
        self._transport.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{lines}\r\n".encode())
        try:
            status = (await self._tunnel).partition(b"\r\n")[0].split(b" ")[1:2]
        finally:
            self._tunnel = None
        if status != [b"200"]:
            raise httpx.ProxyError(f"the proxy answered {b''.join(status)[:3].decode('latin-1')}")

    async def start_tls(self, tls: ssl.SSLContext, name: str) -> None:
        """Go on with TLS. Raises OSError."""
        assert self._transport is not None, "it is open"
        loop = asyncio.get_running_loop()
        self._transport = await loop.start_tls(self._transport, self, tls, server_hostname=name)

    # -- called by the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by name

    def data_received(self, data: bytes) -> None:
        if self._tunnel is not None:
            self._read_tunnel(self._tunnel, data)
        elif self._response is None or not self._response.feed(data):
            self.abort()
        else:
            self.is_free = self._response.is_reusable

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_free = False
        if self._tunnel is not None and not self._tunnel.done():
            self._tunnel.set_exception(httpx.ProxyError("the proxy ended the connection"))
        if self._response is not None:
            self._response.cut(httpx.ReadError(type(exc).__name__) if exc else None)

    def _read_tunnel(self, tunnel: asyncio.Future[bytes], data: bytes) -> None:
        self._tunnel_head += data
        if tunnel.done():
            return
        if len(self._tunnel_head) > PROXY_HEAD_BYTES_MAX:
            tunnel.set_exception(httpx.ProxyError("the proxy answers no CONNECT"))
        elif b"\r\n\r\n" in self._tunnel_head:  # a refusal has a body
            tunnel.set_result(self._tunnel_head)


def authorization(proxy: EgressProxy) -> dict[str, str]:
    """The header that a proxy wants, if any."""
    login = b64encode(f"{proxy.user}:{proxy.password}".encode()).decode()
    return {"Proxy-Authorization": f"Basic {login}"} if proxy.user else {}


class _Response:
    """A response while it comes. httptools calls the methods that begin with `on_`. `error`: its body was cut short."""

    def __init__(self, loop: asyncio.AbstractEventLoop, take: Take | None, keep: int) -> None:
        self.head: asyncio.Future[Head] = loop.create_future()
        self.end: asyncio.Future[None] = loop.create_future()
        self.error: Exception | None = None
        self.is_reusable = False
        self.beginning = b""
        self._keep = keep
        self._take = take
        self._bytes_max = RESPONSE_BYTES_MAX if take is None else HEAD_BYTES_MAX
        self._parser = httptools.HttpResponseParser(self)
        self._headers: list[tuple[bytes, bytes]] = []
        self._bytes = 0
        self._ends_with_connection = False
        self._is_broken = False

    def feed(self, data: bytes) -> bool:
        """Read on; False if the connection is of no use any more."""
        self._bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            self._break(error.__context__)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._break(httpx.RemoteProtocolError(type(error).__name__))
        if self._bytes > (self._bytes_max if self.head.done() else HEAD_BYTES_MAX):
            self._break(httpx.RemoteProtocolError("too long"))
        return not self._is_broken

    def cut(self, error: Exception | None) -> None:
        """The connection has ended, which is the end of a body without a length."""
        if error is None and not (self._ends_with_connection and self.head.done()):
            error = httpx.RemoteProtocolError("cut off")
        if not self.head.done():
            self.head.set_exception(error or httpx.RemoteProtocolError("cut off"))
        if not self.end.done():
            self.error = error
            self.end.set_result(None)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_message_begin(self) -> None:
        if self.end.done():
            self._break(None)

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= OK and not self.head.done():
            self.head.set_result(Head(status, self._headers))
            self._ends_with_connection = not any(name.lower() in _LENGTHS for name, _ in self._headers)
            self._bytes = 0
        self._headers = []

    def on_body(self, piece: bytes) -> None:
        if self._take is not None:
            self._bytes_max += FRAMED_MAX * len(piece)
            self._take(self._parser.get_status_code(), piece)
        elif len(self.beginning) < self._keep:
            self.beginning = (self.beginning + piece)[: self._keep]

    def on_message_complete(self) -> None:
        if self.head.done() and not self.end.done():
            self.is_reusable = self._parser.should_keep_alive()
            self.end.set_result(None)

    def _break(self, error: BaseException | None) -> None:
        """End it. `error` None: more came than the response."""
        self._is_broken, self.is_reusable, self._ends_with_connection = True, False, False
        self.cut(error if isinstance(error, Exception) else None)
