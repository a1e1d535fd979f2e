"""HTTP requests to merchants: to addresses that were judged, one after another, and nothing of a stranger is kept.

httpcore carries them: it has no cookies, follows no redirects and reads neither proxy variables nor .netrc. All that
stays between two requests is an open connection, in a pool of its host. Addresses outside of the opened networks are
reached through `EGRESS_PROXY`, if there is one.
"""

from __future__ import annotations

import asyncio
import ssl
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import NoReturn

import httpcore
import httpx

from channels.egress_proxy import EgressProxy, egress_proxy
from core.settings import Settings
from flows.egress import Net

CONNECTIONS_MAX = 16
"""Connections to one host."""

HOSTS_MAX = 64
KEEPALIVE_S = 5.0
CONNECT_S = 2.0
"""Time for each address of a name but the last, which has what is left."""

RESPONSE_BYTES_MAX = 4096
READ_S = 1.0
PROXY_HEAD_BYTES_MAX = 16_384

NOT_CONNECTED = (httpcore.ConnectError, httpcore.ConnectTimeout, httpcore.ProxyError)
"""Nothing was sent to the merchant."""


class MerchantHttp:
    """Connection pools by host: connections are kept by address, and one that was opened for another name at the same
    address has proved another certificate.
    """

    def __init__(self, settings: Settings) -> None:
        self._tls = ssl.create_default_context()
        self._backend = Network(egress_proxy(settings), settings.allowed_nets())
        self._pools: OrderedDict[str, httpcore.AsyncConnectionPool] = OrderedDict()

    async def aclose(self) -> None:
        while self._pools:
            await _close(self._pools.popitem()[1])

    async def post(
        self,
        url: httpx.URL,
        addresses: Sequence[str],
        *,
        headers: Mapping[str, str],
        body: bytes,
        timeout_s: float,
        is_busy: Callable[[str], bool],
    ) -> httpcore.Response:
        """Return the head of the response to a POST; `drain_body` ends it. The next address is tried only if nothing
        was sent to the one before.

        Raises:
            httpcore.TimeoutException, httpcore.ConnectError …: of the last address.
        """
        pool = await self._pool(url.raw_host.decode("ascii"), is_busy)
        ends_at = asyncio.get_running_loop().time() + timeout_s
        *others, last = addresses
        for number, address in enumerate(others):
            left_s = ends_at - asyncio.get_running_loop().time()
            connect_s = min(CONNECT_S, left_s / (len(addresses) - number))
            with suppress(*NOT_CONNECTED):
                return await _send(pool, url, address, headers, body, connect_s=connect_s, timeout_s=timeout_s)
        return await _send(pool, url, last, headers, body, connect_s=timeout_s, timeout_s=timeout_s)

    async def _pool(self, host: str, is_busy: Callable[[str], bool]) -> httpcore.AsyncConnectionPool:
        pool = self._pools.pop(host, None)
        if pool is None:
            pool = httpcore.AsyncConnectionPool(
                ssl_context=self._tls,
                max_connections=CONNECTIONS_MAX,
                keepalive_expiry=KEEPALIVE_S,
                network_backend=self._backend,
            )
        self._pools[host] = pool
        if len(self._pools) > HOSTS_MAX:
            idle = next((name for name in self._pools if name != host and not is_busy(name)), None)
            if idle is not None:
                await _close(self._pools.pop(idle))
        return pool


async def drain_body(response: httpcore.Response) -> None:
    """Read a short body, so that the connection can be used again; a long one costs the connection."""
    size = 0
    with suppress(Exception):  # the status has come and counts, whatever follows
        async with asyncio.timeout(READ_S):
            async for chunk in response.aiter_stream():
                size += len(chunk)
                if size > RESPONSE_BYTES_MAX:
                    break
    with suppress(Exception):
        await response.aclose()


async def _send(
    pool: httpcore.AsyncConnectionPool,
    url: httpx.URL,
    address: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    connect_s: float,
    timeout_s: float,
) -> httpcore.Response:
    """To the address that was judged, with the name for SNI, certificate and Host: there is no second look-up."""
    request = httpcore.Request(
        "POST",
        httpcore.URL(scheme=url.raw_scheme, host=address.encode(), port=url.port, target=url.raw_path),
        headers=[("Host", url.netloc), *headers.items(), ("Content-Length", str(len(body)))],
        content=body,
        extensions={
            "timeout": {"connect": connect_s, "read": timeout_s, "write": timeout_s, "pool": timeout_s},
            "sni_hostname": url.raw_host.decode("ascii"),
        },
    )
    return await pool.handle_async_request(request)


async def _close(pool: httpcore.AsyncConnectionPool) -> None:
    with suppress(Exception):  # the other end may have broken it
        await pool.aclose()


# -- the way out -------------------------------------------------------------------------------------------------------


class Network(httpcore.AnyIOBackend):
    """TCP connections: direct ones, or through a proxy to every address outside of the opened networks."""

    def __init__(self, proxy: EgressProxy | None, direct_nets: Sequence[Net]) -> None:
        self._proxy = proxy
        self._direct_nets = direct_nets

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's name
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        proxy = self._proxy
        if proxy is None or any(ip_address(host) in net for net in self._direct_nets):
            return await super().connect_tcp(host, port, timeout, local_address, socket_options)
        stream = await super().connect_tcp(proxy.host, proxy.port, timeout, local_address, socket_options)
        try:
            await _open_tunnel(stream, proxy, f"[{host}]:{port}" if ":" in host else f"{host}:{port}", timeout)
        except BaseException:
            await stream.aclose()
            raise
        return stream


async def _open_tunnel(
    stream: httpcore.AsyncNetworkStream, proxy: EgressProxy, target: str, timeout_s: float | None
) -> None:
    """Ask the proxy for a connection. It is given the judged address, so it looks no name up.

    Raises:
        httpcore.ProxyError: it refuses.
    """
    login = b64encode(f"{proxy.user}:{proxy.password}".encode()).decode()
    authorization = f"Proxy-Authorization: Basic {login}\r\n" if proxy.user else ""
    await stream.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{authorization}\r\n".encode(), timeout_s)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        chunk = await stream.read(1024, timeout_s)
        head += chunk
        if not chunk or len(head) > PROXY_HEAD_BYTES_MAX:
            _refuse("the proxy ended the connection")
    status = head.partition(b"\r\n")[0].split(b" ")[1:2]
    if status != [b"200"]:
        _refuse(f"the proxy answered {b''.join(status)[:3].decode('latin-1')}")


def _refuse(why: str) -> NoReturn:
    raise httpcore.ProxyError(why)
