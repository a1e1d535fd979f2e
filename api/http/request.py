"""One request as the handlers see it, its body within bounds, and the address that it counts for.

A body has a size cap that holds while it streams, with and without Content-Length, and a deadline; it is read only
after the caller is known to be allowed to send it. Nothing here trusts `X-Forwarded-For` beyond `TRUSTED_PROXY_HOPS`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any

import msgspec

from api.http.errors import BodyTooLarge, BodyTooSlow, UnsupportedBody
from core.errors import InvalidRequest

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

BODY_TIMEOUT_S = 15.0
"""uvicorn has no time-out for a body; a phone on a bad network needs some seconds for 64 KiB."""

DISCARD_BYTES_MAX = 1024 * 1024
DISCARD_TIMEOUT_S = 2.0


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One request. Header names are lower-case; a header sent twice is joined with a comma, as HTTP has it."""

    method: str
    params: Mapping[str, str]
    query: str
    headers: Mapping[str, str]
    address: str
    body: bytes = b""


class ClientGone(Exception):
    """The client went away before its body was complete; no response can be sent."""


class Body:
    """The body still on the wire. While it `is_unread`, the connection cannot be used for another request."""

    def __init__(self, receive: Receive, headers: Mapping[str, str], timeout_s: float) -> None:
        self._receive = receive
        self._headers = headers
        self._timeout_s = timeout_s
        self.is_unread = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"

    async def read(self, bytes_max: int) -> bytes:
        """The whole body.

        Raises:
            UnsupportedBody: it has a Content-Encoding, so the size that it unpacks to has no known bound.
            BodyTooLarge, BodyTooSlow: as soon as that is known.
        """
        if self._headers.get("content-encoding", "identity").lower() != "identity":
            raise UnsupportedBody("Content-Encoding is not taken")
        declared = self._headers.get("content-length", "0")
        if declared.isdecimal() and int(declared[:12]) > bytes_max:
            raise BodyTooLarge(f"at most {bytes_max} bytes")
        try:
            async with asyncio.timeout(self._timeout_s):
                body = await self._read(bytes_max)
        except TimeoutError:
            raise BodyTooSlow(f"the whole body is expected within {self._timeout_s:g} s") from None
        self.is_unread = False
        return body

    async def discard(self) -> None:
        """Read on in a refused body, within bounds: a connection closed on unread bytes is reset, and a reset can
        overtake the response that says why.
        """
        left = DISCARD_BYTES_MAX
        with suppress(TimeoutError):
            async with asyncio.timeout(DISCARD_TIMEOUT_S):
                while left > 0:
                    message = await self._receive()
                    if message["type"] == "http.disconnect" or not message.get("more_body", False):
                        return
                    left -= len(message.get("body", b""))

    async def _read(self, bytes_max: int) -> bytes:
        chunks, size = [], 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > bytes_max:
                raise BodyTooLarge(f"at most {bytes_max} bytes")
            chunks.append(chunk)
            if not message.get("more_body", False):
                return b"".join(chunks)


def read_headers(scope: Scope) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def client_address(scope: Scope, headers: Mapping[str, str], hops: int) -> str:
    """The address that a request counts for: the peer's, or the one before the last `hops` proxies, each of which has
    appended one address.

    An IPv6 address counts as its /64, which is what one customer is given.
    """
    client = scope.get("client")
    peer = client[0] if client else ""
    entries = [entry.strip() for entry in headers.get("x-forwarded-for", "").split(",") if entry.strip()]
    forwarded = entries[max(0, len(entries) - hops)] if hops and entries else peer
    return _network_of(forwarded) or _network_of(peer) or peer


@lru_cache(maxsize=4096)
def _network_of(text: str) -> str:
    """The address without port, brackets and zone, an IPv6 one as its /64; empty when it is none."""
    bare = text.removeprefix("[").split("]")[0].split("%")[0]
    bare = bare.split(":")[0] if bare.count(":") == 1 else bare
    try:
        address: IPv4Address | IPv6Address = ip_address(bare)
    except ValueError:
        return ""
    if isinstance(address, IPv6Address):
        mapped = address.ipv4_mapped
        return str(mapped) if mapped else str(IPv6Network((int(address) >> 64 << 64, 64)))
    return str(address)


def query_string(scope: Scope) -> str:
    """The query string as sent; it is ASCII by protocol.

    Raises:
        InvalidRequest: it is not.
    """
    raw: bytes = scope["query_string"]
    try:
        return raw.decode("ascii")
    except UnicodeDecodeError:
        raise InvalidRequest("the query string cannot be read") from None
