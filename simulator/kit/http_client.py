"""One HTTP exchange, for callbacks, shops and browsers: bounded, without proxy, redirects and decompression.

pyreqwest is used directly: an exchange through its httpx transport costs four to five times as much, and the sender of
callbacks is the busiest part of a channel process.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple, Protocol

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import PyreqwestError

CONNECTIONS_MAX = 512


class ClientResponse(NamedTuple):
    """A response with its body, cut at the limit. `location` is empty without the header."""

    status: int
    location: str
    body: bytes


class NoResponse(Exception):
    """There was no whole response in time: refused, cut, too late, or an invalid address."""


class OtherClient(Protocol):
    """A client over another network than that of sockets, as a simulated world has one."""

    async def exchange(
        self,
        method: str,
        url: str,
        *,
        headers: dict[str, str],
        within_s: float,
        body_bytes_max: int,
        body: bytes | None,
    ) -> ClientResponse:
        """As `exchange` below."""
        ...

    async def close(self) -> None: ...


AnyClient = Client | OtherClient


def http_client(connections_max: int = CONNECTIONS_MAX) -> Client:
    """Return a client; close it with `await client.close()`."""
    builder = ClientBuilder().follow_redirects(enable=False).no_proxy().http1_only().max_connections(connections_max)
    return builder.gzip(enable=False).brotli(enable=False).zstd(enable=False).deflate(enable=False).build()


async def exchange(
    client: AnyClient,
    method: str,
    url: str,
    *,
    headers: dict[str, str],
    within_s: float,
    body_bytes_max: int,
    body: bytes | None = None,
) -> ClientResponse:
    """Send a request and read the response, its body up to the limit; raises NoResponse."""
    if not isinstance(client, Client):
        return await client.exchange(
            method, url, headers=headers, within_s=within_s, body_bytes_max=body_bytes_max, body=body
        )
    content = b""
    try:
        request = client.request(method, url).headers(headers)
        if body is not None:
            request = request.body_bytes(body)
        async with asyncio.timeout(within_s), request.build_streamed() as response:
            while len(content) <= body_bytes_max and (chunk := await response.body_reader.read()) is not None:
                content += bytes(chunk)
            return ClientResponse(response.status, response.headers.get("location") or "", content)
    except (PyreqwestError, TimeoutError, ValueError) as error:
        raise NoResponse(type(error).__name__) from error
