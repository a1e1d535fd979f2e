"""New connections to channels: to the addresses of a name, by the way out, to servers with a trusted certificate."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from contextlib import suppress
from pathlib import Path

import httpx

from channels.egress_proxy import EgressProxy
from channels.http_connection import Carrier, Connection, Origin
from core.errors import ConfigurationError

CONNECTIONS_MAX = 128
CONNECT_TIMEOUT_S = 5.0

NO_AUTHORITIES = (
    "SSL_CERT_FILE: no certificate of an authority can be read there, so no server could be trusted; set it to a file "
    "with such certificates in PEM, or unset it and install the system's (ca-certificates)"
)


def open_carrier(proxy: EgressProxy | None, root_pem: bytes | None) -> Carrier:
    """The connections of a process: `proxy` is the way to every host but this machine, `root_pem` one more authority.

    Raises:
        ConfigurationError: there are no authorities to trust.
    """
    way = _Way(_tls_context(root_pem), proxy)
    return Carrier(way.connect, proxy, requests_max=CONNECTIONS_MAX, wait_s=CONNECT_TIMEOUT_S)


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


def _tls_context(root_pem: bytes | None) -> ssl.SSLContext:
    """Trust the authorities of SSL_CERT_FILE and SSL_CERT_DIR, if one is set, and no others then."""
    file, directories = os.environ.get("SSL_CERT_FILE", "").strip(), os.environ.get("SSL_CERT_DIR", "").strip()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.set_alpn_protocols(["http/1.1"])
    try:
        if file or directories:
            tls.load_verify_locations(file or None, directories or None)
        else:
            tls.load_default_certs()
            directories = ssl.get_default_verify_paths().capath or ""
    except OSError:
        raise ConfigurationError(NO_AUTHORITIES) from None
    is_any = tls.cert_store_stats()["x509"] or any(
        any(Path(directory).glob("*.[0-9]")) for directory in directories.split(os.pathsep) if directory
    )
    if not is_any:
        raise ConfigurationError(NO_AUTHORITIES)
    if root_pem is not None:
        tls.load_verify_locations(cadata=root_pem.decode())
    return tls
