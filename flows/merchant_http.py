"""HTTP requests to merchants: to addresses that were judged, one after another, and nothing of a stranger is kept.

There are no cookies and no redirects, and neither proxy variables nor .netrc are read. Of a body the beginning is kept,
for the record of the delivery. All that stays between two requests is an open connection, in the pool of its host.
Addresses outside of the opened networks are reached through `EGRESS_PROXY`, if there is one.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import NamedTuple

import httpx

from channels.egress_proxy import egress_proxy
from channels.http_connection import Connection, Head
from core.deliveries import ANSWER_BYTES_MAX
from core.settings import Settings

CONNECTIONS_MAX = 16
"""Connections to one host."""

HOSTS_MAX = 64
KEEPALIVE_S = 5.0
CONNECT_S = 2.0
"""Time for each address of a name but the last, which has what is left."""

READ_S = 1.0

NOT_CONNECTED = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError)
"""Nothing was sent to the merchant."""


class Origin(NamedTuple):
    """The far end of a connection. `name` is the one of its certificate; None: there is no TLS."""

    address: str
    port: int
    name: str | None


class Response(NamedTuple):
    """The head of a response, and the connection on which its body comes."""

    head: Head
    host: str
    origin: Origin
    connection: Connection


class MerchantHttp:
    """Connection pools by host: connections are kept by address, and one that was opened for another name at the same
    address has proved another certificate.
    """

    def __init__(self, settings: Settings) -> None:
        self._tls = ssl.create_default_context()
        # Python 3.13 sets it: an authority of one's own in SSL_CERT_FILE may lack an extension, as for channels.
        self._tls.verify_flags &= ~ssl.VERIFY_X509_STRICT
        self._tls.set_alpn_protocols(["http/1.1"])
        self._proxy = egress_proxy(settings)
        self._direct_nets = settings.allowed_nets()
        self._pools: OrderedDict[str, list[_Kept]] = OrderedDict()

    async def aclose(self) -> None:
        while self._pools:
            _close(self._pools.popitem()[1])
        await asyncio.sleep(0)  # the sockets are closed in the next turn of the loop

    async def post(
        self,
        url: httpx.URL,
        addresses: Sequence[str],
        *,
        headers: Mapping[str, str],
        body: bytes,
        timeout_s: float,
        is_busy: Callable[[str], bool],
    ) -> Response:
        """Return the head of the response to a POST; `drain` ends it. The next address is tried only if nothing was
        sent to the one before. The caller ends it after `timeout_s`.

        Raises:
            httpx.ConnectError, httpx.ReadError …: of the last address.
        """
        host = url.raw_host.decode("ascii")
        self._open_pool(host, is_busy)
        port, name = url.port or (443 if url.scheme == "https" else 80), host if url.scheme == "https" else None
        ends_at = asyncio.get_running_loop().time() + timeout_s
        *others, last = (Origin(address, port, name) for address in addresses)
        for number, origin in enumerate(others):
            left_s = ends_at - asyncio.get_running_loop().time()
            with suppress(*NOT_CONNECTED):
                connection = await self._connect(host, origin, min(CONNECT_S, left_s / (len(addresses) - number)))
                break
        else:
            origin = last
            connection = await self._connect(host, origin, timeout_s)
        head = await connection.send(_request(url, headers, body), keep=ANSWER_BYTES_MAX)
        return Response(head, host, origin, connection)

    async def drain(self, response: Response) -> bytes:
        """Read a short body, so that the connection can be used again; a long one costs the connection.

        Returns the beginning of the body, as far as it has come.
        """
        connection = response.connection
        try:
            if not connection.is_free:
                with suppress(TimeoutError):  # the status has come and counts, whatever follows
                    async with asyncio.timeout(READ_S):
                        await connection.drain()
            return connection.beginning
        finally:
            pool = self._pools.get(response.host)
            if connection.is_free and pool is not None:
                pool[:] = [kept for kept in pool if kept.connection.is_free]
                expiry = asyncio.get_running_loop().call_later(KEEPALIVE_S, connection.abort)
                pool.append(_Kept(response.origin, connection, expiry))
            else:
                connection.abort()

    def _open_pool(self, host: str, is_busy: Callable[[str], bool]) -> None:
        self._pools[host] = self._pools.pop(host, [])
        if len(self._pools) > HOSTS_MAX:
            idle = next((name for name in self._pools if name != host and not is_busy(name)), None)
            if idle is not None:
                _close(self._pools.pop(idle))

    async def _connect(self, host: str, origin: Origin, connect_s: float) -> Connection:
        """A kept connection to this address, or a new one."""
        pool = self._pools[host]
        for kept in [kept for kept in reversed(pool) if kept.origin == origin]:
            pool.remove(kept)
            kept.expiry.cancel()
            if kept.connection.is_quiet:
                return kept.connection
            kept.connection.abort()
        try:
            async with asyncio.timeout(connect_s):
                return await self._open(origin)
        except TimeoutError:
            raise httpx.ConnectTimeout("nobody accepted in time") from None
        except OSError as error:
            raise httpx.ConnectError(type(error).__name__) from None

    async def _open(self, origin: Origin) -> Connection:
        """Connect to the address that was judged, with the name for SNI and certificate: there is no second look-up."""
        loop, tls = asyncio.get_running_loop(), None if origin.name is None else self._tls
        proxy = self._proxy
        if proxy is None or any(ip_address(origin.address) in net for net in self._direct_nets):
            _, connection = await loop.create_connection(
                Connection, origin.address, origin.port, ssl=tls, server_hostname=origin.name
            )
            return connection
        _, connection = await loop.create_connection(Connection, proxy.host, proxy.port)
        try:
            await connection.open_tunnel(proxy, _target(origin))
            if tls is not None and origin.name is not None:
                await connection.start_tls(tls, origin.name)
        except BaseException:
            connection.abort()
            raise
        return connection


class _Kept(NamedTuple):
    """A connection that waits for the next request. `expiry` ends it."""

    origin: Origin
    connection: Connection
    expiry: asyncio.TimerHandle


def _close(pool: list[_Kept]) -> None:
    for kept in pool:
        kept.expiry.cancel()
        kept.connection.abort()


def _request(url: httpx.URL, headers: Mapping[str, str], body: bytes) -> bytes:
    lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
    head = f"Host: {url.netloc.decode('ascii')}\r\n{''.join(lines)}Content-Length: {len(body)}\r\n\r\n"
    return b"POST " + url.raw_path + b" HTTP/1.1\r\n" + head.encode("ascii") + body


def _target(origin: Origin) -> str:
    return f"[{origin.address}]:{origin.port}" if ":" in origin.address else f"{origin.address}:{origin.port}"
