"""Requests to channels over kept connections: to the addresses of a name, by the way out, to servers with a trusted
certificate.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import quote

import httpx

from channels.authorities import trusting
from channels.egress_proxy import EgressProxy
from channels.http_connection import Connection, Take, authorization

CONNECTIONS_MAX = 128
CONNECT_TIMEOUT_S = 5.0

KEPT_S = 60.0
"""Time for which a connection waits for its next request: servers end them after about as long."""

PORT_MAX = 65_535

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


def open_carrier(proxy: EgressProxy | None, root_pem: bytes | None) -> Carrier:
    """The connections of a process: `proxy` is the way to every host but this machine, `root_pem` one more authority.

    Raises:
        ConfigurationError: there are no authorities to trust.
    """
    way = _Way(trusting(root_pem), proxy)
    return Carrier(way.connect, proxy, requests_max=CONNECTIONS_MAX, wait_s=CONNECT_TIMEOUT_S)


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


# -- new connections ---------------------------------------------------------------------------------------------------


class _Way:
    def __init__(self, tls: ssl.SSLContext, proxy: EgressProxy | None) -> None:
        self._tls = tls
        self._proxy = proxy

    async def connect(self, origin: Origin) -> Connection:
        """Connect to one address of the name after another, each with its share of the time."""
        proxy = None if origin.is_here else self._proxy
        host, port = (origin.host, origin.port) if proxy is None else (proxy.host, proxy.port)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
            *others, last = dict.fromkeys(str(entry[4][0]) for entry in found)
            share_s = CONNECT_TIMEOUT_S / (len(others) + 1)
            for address in others:
                with suppress(OSError):
                    async with asyncio.timeout(share_s):
                        return await self._open(origin, proxy, address, port)
            async with asyncio.timeout(share_s):
                return await self._open(origin, proxy, last, port)
        except TimeoutError:
            raise
        except OSError as error:
            raise httpx.ConnectError(type(error).__name__) from None

    async def _open(self, origin: Origin, proxy: EgressProxy | None, address: str, port: int) -> Connection:
        loop, tls = asyncio.get_running_loop(), self._tls if origin.is_tls else None
        if proxy is None:
            name = None if tls is None else origin.host
            _, connection = await loop.create_connection(Connection, address, port, ssl=tls, server_hostname=name)
            return connection
        _, connection = await loop.create_connection(Connection, address, port)
        try:
            if tls is not None:
                host = f"[{origin.host}]" if ":" in origin.host else origin.host
                await connection.open_tunnel(proxy, f"{host}:{origin.port}")
                await connection.start_tls(tls, origin.host)
        except BaseException:
            connection.abort()
            raise
        return connection


# -- addresses and headers ---------------------------------------------------------------------------------------------


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
