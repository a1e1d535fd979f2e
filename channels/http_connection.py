"""Connections of ours: HTTP/1.1, one request at a time, the response bounded and read by httptools.

A connection keeps nothing of a response for the next one, and follows nothing. Here are those to channels, which
`channels.carrier` opens; `flows.merchant_http` has those to merchants.
"""

from __future__ import annotations

import asyncio
import re
import select
import ssl
from base64 import b64encode
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache
from ipaddress import ip_address
from typing import NamedTuple, cast
from urllib.parse import quote

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

KEPT_S = 60.0
"""Time for which a connection waits for its next request: servers end them after about as long."""

PORT_MAX = 65_535
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

    async def send(self, request: bytes, take: Take | None = None) -> Head:
        """Send the bytes of a request, and return the head of its response. `drain` or `read` ends it.

        `take` gets the body, and limits it: what it raises ends the connection, and `read` raises it. Without it the
        body is dropped.

        Raises:
            httpx.ReadError, httpx.RemoteProtocolError: there is none, or it is not HTTP.
        """
        assert self._transport is not None, "it was opened"
        self.is_free = False
        if self._transport.is_closing():  # by the other side: nothing would ever come
            raise httpx.ReadError("closed")
        self._response = response = _Response(asyncio.get_running_loop(), take)
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

    def __init__(self, loop: asyncio.AbstractEventLoop, take: Take | None) -> None:
        self.head: asyncio.Future[Head] = loop.create_future()
        self.end: asyncio.Future[None] = loop.create_future()
        self.error: Exception | None = None
        self.is_reusable = False
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

    def on_message_complete(self) -> None:
        if self.head.done() and not self.end.done():
            self.is_reusable = self._parser.should_keep_alive()
            self.end.set_result(None)

    def _break(self, error: BaseException | None) -> None:
        """End it. `error` None: more came than the response."""
        self._is_broken, self.is_reusable, self._ends_with_connection = True, False, False
        self.cut(error if isinstance(error, Exception) else None)


# -- requests over kept connections ------------------------------------------------------------------------------------

_URL = re.compile(r"(https?)://([^/?#]+)([^#]*)(?:#.*)?", re.DOTALL)
_HEADER = re.compile(r"[!-9;-~]+: [\t -~]*\r\n")
_TARGET = re.compile(r"[!-~]+")
_TARGET_SAFE = "!\"#$%&'()*+,/:;<=>?@[\\]^`{|}"


class Origin(NamedTuple):
    """The server of requests. `is_here`: it is on this machine, never through the proxy."""

    host: str
    port: int
    is_tls: bool
    netloc: str
    is_here: bool


class Carrier:
    """Requests over the connections of a process, by at most `requests_max` at once, each over one that was kept or
    that `connect` opens. `proxy` is sent requests without TLS to other machines.
    """

    def __init__(
        self,
        connect: Callable[[Origin], Awaitable[Connection]],
        proxy: EgressProxy | None,
        *,
        requests_max: int,
        wait_s: float,
    ) -> None:
        self._connect = connect
        self._proxy = proxy
        self._wait_s = wait_s
        self._slots = asyncio.Semaphore(requests_max)
        self._kept: defaultdict[Origin, list[tuple[float, Connection]]] = defaultdict(list)

    async def exchange(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, take: Take
    ) -> tuple[int, dict[str, str]]:
        """Send one request; return status and headers of its whole response. `take` gets the body.

        Raises:
            httpx.PoolTimeout: all connections were in use, so nothing was sent.
            httpx.HTTPError, OSError: there is no whole response, or what `take` raised.
            httpx.InvalidURL, ValueError: HTTP allows no such address or header.
        """
        parts = _URL.fullmatch(url)
        if parts is None:
            raise ValueError("no address of a web server")
        origin = origin_of(parts[1], parts[2])
        request = self._request(method, origin, _target(parts[3]), headers, body)
        await self._take_slot()
        connection: Connection | None = None
        try:
            connection = self._kept_connection(origin) or await self._connect(origin)
            head = await connection.send(request, take)
            await connection.read()
        finally:
            self._slots.release()
            if connection is not None:
                self._give_back(origin, connection)
        return head.status, _texts(head.headers)

    async def aclose(self) -> None:
        for kept in self._kept.values():
            for _, connection in kept:
                connection.abort()
        self._kept.clear()
        await asyncio.sleep(0)  # the sockets are closed in the next turn of the loop

    async def _take_slot(self) -> None:
        if not self._slots.locked():
            await self._slots.acquire()
            return
        try:
            async with asyncio.timeout(self._wait_s):
                await self._slots.acquire()
        except TimeoutError:
            raise httpx.PoolTimeout("no connection is free") from None

    def _kept_connection(self, origin: Origin) -> Connection | None:
        """The connection that was used last, if it is still good."""
        kept, now = self._kept[origin], asyncio.get_running_loop().time()
        while kept:
            kept_at, connection = kept.pop()
            if now - kept_at < KEPT_S and connection.is_quiet:
                return connection
            connection.abort()
        return None

    def _give_back(self, origin: Origin, connection: Connection) -> None:
        if not connection.is_free:
            connection.abort()
            return
        kept, now = self._kept[origin], asyncio.get_running_loop().time()
        kept.append((now, connection))
        if now - kept[0][0] >= KEPT_S:
            kept.pop(0)[1].abort()

    def _request(self, method: str, origin: Origin, target: str, headers: Mapping[str, str], body: bytes) -> bytes:
        """The bytes of a request. Without TLS the proxy is sent the whole address."""
        lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
        if self._proxy is not None and not origin.is_tls and not origin.is_here:
            target = f"http://{origin.netloc}{target}"
            lines += [f"{name}: {value}\r\n" for name, value in authorization(self._proxy).items()]
        if body or method != "GET":
            lines.append(f"Content-Length: {len(body)}\r\n")
        if not all(map(_HEADER.fullmatch, lines)):
            raise ValueError("a header that HTTP does not allow")
        return f"{method} {target} HTTP/1.1\r\nHost: {origin.netloc}\r\n{''.join(lines)}\r\n".encode("ascii") + body


@lru_cache(maxsize=64)
def origin_of(scheme: str, netloc: str) -> Origin:
    """Raises httpx.InvalidURL, ValueError."""
    url = httpx.URL(f"{scheme}://{netloc}")
    host = url.raw_host.decode("ascii")
    is_tls = url.scheme == "https"
    port = url.port or (443 if is_tls else 80)
    if port > PORT_MAX:
        raise ValueError("no port")
    return Origin(host, port, is_tls, url.netloc.decode("ascii"), _is_this_machine(host))


def _is_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _target(text: str) -> str:
    """Path and query, percent-encoded where HTTP needs it."""
    text = text if text.startswith("/") else f"/{text}"
    return text if _TARGET.fullmatch(text) else quote(text, safe=_TARGET_SAFE)


def _texts(headers: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers by name in lower case, the values of one name joined. Raises ValueError: one is not ASCII."""
    texts: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("ascii").lower(), raw_value.decode("ascii")
        texts[name] = f"{texts[name]}, {value}" if name in texts else value
    return texts
