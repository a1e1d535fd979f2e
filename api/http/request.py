"""One request as the handlers see it, its body within bounds, and the address that it counts for.

A body has a size cap that holds while it streams, with and without Content-Length, and a deadline; it is read only
after the caller is known to be allowed to send it. Nothing here trusts `X-Forwarded-For` beyond `TRUSTED_PROXY_HOPS`.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Mapping, MutableMapping
from contextlib import suppress
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from time import monotonic
from typing import Any

import msgspec

from api.http.errors import BodyTooLarge, BodyTooSlow, UnsupportedBody
from core.errors import InvalidRequest
from core.sentences import Sentence
from storage.postgres.sessions import Session

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

BODY_TIMEOUT_S = 15.0
"""uvicorn has no time-out for a body; a phone on a bad network needs some seconds for 64 KiB."""

DISCARD_BYTES_MAX = 1024 * 1024
DISCARD_TIMEOUT_S = 2.0


_HOST = re.compile(r"[0-9A-Za-z._~%:\[\]\-]{1,255}", re.ASCII)


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One request. Header names are lower-case; a header sent twice is joined with a comma, as HTTP has it.

    `address` is what it counts for, `client_ip` the whole address of the client; empty: it is not known. `session` is
    that of the operator who sent it, where only operators may.
    """

    method: str
    params: Mapping[str, str]
    query: str
    headers: Mapping[str, str]
    address: str
    client_ip: str = ""
    body: bytes = b""
    session: Session | None = None


class ClientGone(Exception):
    """The client went away before its body was complete; no response can be sent."""


class Body:
    """The body still on the wire. While it `is_unread`, the connection cannot be used for another request."""

    def __init__(
        self, receive: Receive, headers: Mapping[str, str], timeout_s: float, waiting: Waiting, state: Mapping[str, Any]
    ) -> None:
        """`state` is that of the connection: with `is_whole` the whole body is there already, so no read can wait."""
        self._receive = receive
        self._headers = headers
        self._timeout_s = timeout_s
        self._waiting = waiting
        self._state = state
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
            raise BodyTooLarge(Sentence("at most {max} bytes", max=bytes_max))
        if self._state.get("is_whole", False):
            return await self._read(bytes_max)
        try:
            async with asyncio.timeout(self._timeout_s) as deadline:
                self._waiting.begin(self, lambda: None if deadline.expired() else deadline.reschedule(0.0))
                body = await self._read(bytes_max)
        except TimeoutError:
            fault = Sentence("the whole body is expected within {seconds} s", seconds=f"{self._timeout_s:g}")
            raise BodyTooSlow(fault) from None
        finally:
            self._waiting.end(self)
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
            self.is_unread = message.get("more_body", False)
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > bytes_max:
                raise BodyTooLarge(Sentence("at most {max} bytes", max=bytes_max))
            chunks.append(chunk)
            if not self.is_unread:
                return b"".join(chunks)


def read_headers(scope: Scope) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def check_host(scope: Scope, headers: Mapping[str, str]) -> None:
    """Check that there is one Host, which HTTP/1.0 does not need. Two would be read differently by a proxy and by us.

    Raises:
        InvalidRequest: it is missing, doubled or none.
    """
    host = headers.get("host")
    if host is None and scope.get("http_version") == "1.0":
        return
    if _HOST.fullmatch(host or "") is None:
        raise InvalidRequest("exactly one Host is expected")


def client_address(scope: Scope, headers: Mapping[str, str], hops: int) -> str:
    """The address that a request counts for: the peer's, or the one before the last `hops` proxies, each of which has
    appended one address.

    An IPv6 address counts as its /64, which is what one customer is given.
    """
    forwarded, peer = _sources(scope, headers, hops)
    return network_of(forwarded) or network_of(peer) or peer


def client_ip(scope: Scope, headers: Mapping[str, str], hops: int) -> str:
    """The same address whole, for a channel that compares it with the buyer's; empty when there is none."""
    addresses = map(ip_of, _sources(scope, headers, hops))
    return next((str(address) for address in addresses if address is not None), "")


def _sources(scope: Scope, headers: Mapping[str, str], hops: int) -> tuple[str, str]:
    """The client as the trusted proxies name it, and the peer."""
    client = scope.get("client")
    peer = client[0] if client else ""
    entries = [entry.strip() for entry in headers.get("x-forwarded-for", "").split(",") if entry.strip()]
    return entries[max(0, len(entries) - hops)] if hops and entries else peer, peer


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


# -- addresses and their shares ----------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def network_of(text: str) -> str:
    """The address without port, brackets and zone, an IPv6 one as its /64; empty when it is none."""
    address = ip_of(text)
    if isinstance(address, IPv6Address):
        return str(IPv6Network((int(address) >> 64 << 64, 64)))
    return "" if address is None else str(address)


def ip_of(text: str) -> IPv4Address | IPv6Address | None:
    """The address in a text such as `[2001:db8::1]:443`; one of IPv4 that is written as IPv6 is of IPv4."""
    bare = text.removeprefix("[").split("]")[0].split("%")[0]
    bare = bare.split(":")[0] if bare.count(":") == 1 else bare
    try:
        address: IPv4Address | IPv6Address = ip_address(bare)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


class Shares:
    """Places, counted in all and by address. Check and take are one step, with no await between them.

    While fewer than `free` are taken, an address may have any number. Without an address a place counts in all alone.
    """

    def __init__(self, total_max: int, per_address_max: int, *, free: int = 0) -> None:
        self._total_max = total_max
        self._per_address_max = per_address_max
        self._free = free
        self._by_address: dict[str, int] = {}
        self.count = 0

    @property
    def is_pressed(self) -> bool:
        return self.count >= self._free

    def take(self, address: str | None, *, kept: int = 0) -> bool:
        """Take a place, unless all but the last `kept` are taken or the address has its share."""
        taken = 0 if address is None else self._by_address.get(address, 0)
        if self.count >= self._total_max - kept or (self.is_pressed and taken >= self._per_address_max):
            return False
        self.count += 1
        if address is not None:
            self._by_address[address] = taken + 1
        return True

    def release(self, address: str | None) -> None:
        self.count -= 1
        if address is not None:
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]


class Waiting:
    """Requests that wait for bytes of their peers, the longest first."""

    def __init__(self) -> None:
        self._since: OrderedDict[Hashable, tuple[float, Callable[[], object]]] = OrderedDict()

    def begin(self, key: Hashable, end: Callable[[], object]) -> None:
        """Note that it waits from now on. `end` ends it."""
        self._since[key] = (monotonic(), end)
        self._since.move_to_end(key)

    def end(self, key: Hashable) -> None:
        self._since.pop(key, None)

    def cut(self, longer_than_s: float) -> None:
        """End what has waited longer."""
        now = monotonic()
        while self._since:
            key = next(iter(self._since))
            since, end = self._since[key]
            if now - since < longer_than_s:
                return
            del self._since[key]
            end()


LAG_INTERVAL_S = 0.1


class LoopLag:
    """Lateness of this process for what is due: the mean of its last turns, so that one pause alone counts half."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        """Measure until `end`."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(LAG_INTERVAL_S, self._measure, loop.time() + LAG_INTERVAL_S)

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _measure(self, due_at: float) -> None:
        self.seconds = (self.seconds + asyncio.get_running_loop().time() - due_at) / 2
        self.watch()
