"""The one HTTP client towards the channels. Every failure is *unavailable* or *unreadable*: outcome unknown.

Limits: connections, one total deadline per call (a drip of bytes does not extend it), size of the response. No
redirects, no proxy variables or .netrc, no cookies (accounts share the client), no compression (no bombs), no retries:
the delay queue retries. The addresses of a name are tried one after another, each with its share of CONNECT_TIMEOUT_S.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from io import BytesIO
from types import TracebackType
from typing import IO, Protocol, Self

import httpx
import msgspec
from msgspec.structs import replace

from channels.carrier import open_carrier
from channels.egress_proxy import EgressProxy
from channels.http_connection import Take
from core.admission import CallKind, Urgency
from core.errors import (
    ChannelNotCalled,
    ChannelRefused,
    ChannelUnavailable,
    ChannelUnreadable,
    InvalidRequest,
)

RESPONSE_BYTES_MAX = 1 << 20
STATEMENT_BYTES_MAX = 64 << 20
DOWNLOAD_TIMEOUT_S = 120.0
USER_AGENT = "nodrop/0.1"
HEADERS = {"Accept": "*/*", "Accept-Encoding": "identity", "Connection": "keep-alive", "User-Agent": USER_AGENT}
HEAR_S = 60.0
"""The time of a channel is taken from one of its responses in so many seconds."""


ReadTime = Callable[[], float]
"""Returns Unix seconds."""


class WallClock(Protocol):
    """The wall clock of the process; a channel's own time is a witness for or against it."""

    @property
    def read(self) -> ReadTime: ...

    def witness(self, host: str, at: float) -> None: ...


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """An HTTP response: status, header names in lower case, and the raw bytes that a signature covers."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:
        """Omit headers and body, for a response may end in a log line."""
        return f"Response({self.status}, {len(self.body)} bytes)"


class Calling(msgspec.Struct, kw_only=True):
    """The call that requests are made for. `gate` admits one request that nothing covers, and raises ChannelNotCalled.
    `is_admitted`: the next one is covered by the admission of the whole call. `end_first` reports its end, should
    there be another: that one would wait for the place that its own call holds.
    """

    kind: CallKind
    urgency: Urgency
    gate: Callable[[CallKind, Urgency], AbstractAsyncContextManager[None]]
    is_admitted: bool = False
    is_first_over: bool = False
    end_first: Callable[[], Awaitable[None]] | None = None


CALLING: ContextVar[Calling | None] = ContextVar("calling", default=None)
"""Set around each use of an account's adapter by a process of nodrop; None: nothing limits the requests."""


def was_answered(error: BaseException | None) -> bool | None:
    """Whether the channel answered a call that ended so. None: it was not called."""
    if isinstance(error, ChannelNotCalled):
        return None
    return error is None or isinstance(error, ChannelRefused | ChannelUnreadable | InvalidRequest)


def current_urgency() -> Urgency | None:
    calling = CALLING.get()
    return None if calling is None else calling.urgency


@contextmanager
def with_urgency(urgency: Urgency) -> Iterator[None]:
    """Make the requests of this block with another urgency."""
    calling = CALLING.get()
    token = CALLING.set(None if calling is None else replace(calling, urgency=urgency))
    try:
        yield
    finally:
        CALLING.reset(token)


@asynccontextmanager
async def admitted() -> AsyncIterator[None]:
    """Make one request as what calls now may make it. Raises ChannelNotCalled."""
    calling = CALLING.get()
    if calling is None:
        yield
    elif calling.is_admitted:
        calling.is_admitted = False
        try:
            yield
        finally:
            calling.is_first_over = True
    else:
        if calling.is_first_over and calling.end_first is not None:
            calling.is_first_over = False
            await calling.end_first()
        async with calling.gate(calling.kind, calling.urgency):
            yield


class Exchanges(Protocol):
    """As `channels.carrier.Carrier` does, one request and its whole response; another one in tests."""

    async def exchange(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, take: Take
    ) -> tuple[int, dict[str, str]]: ...

    async def aclose(self) -> None: ...


class Transport:
    """The connection pool of a process, shared by all accounts."""

    def __init__(
        self,
        *,
        timeout_s: float,
        proxy: EgressProxy | None = None,
        carrier: Exchanges | None = None,
        root_pem: bytes | None = None,
        clock: WallClock | None = None,
    ) -> None:
        """`timeout_s` is the total deadline of a call; `proxy` the way to every host but this machine; `root_pem` an
        additional trusted root certificate; without `clock` the system's own clock is read.

        Raises:
            ConfigurationError: there are no authorities to trust.
        """
        self.timeout_s = timeout_s
        self._clock = clock
        self._heard: dict[str, float] = {}
        self._carrier = carrier or open_carrier(proxy, root_pem)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        await self._carrier.aclose()

    def time(self) -> float:
        """The time that requests are signed with and responses are judged by, in Unix seconds."""
        return time.time() if self._clock is None else self._clock.read()

    def hear(self, url: str, at: float, *, by: str = "") -> None:
        """Take the time in a channel's message, `at` in Unix seconds, for a witness; `by` says which of its times."""
        name = f"{_netloc(url)}{by}"
        if self._clock is not None and self._is_unheard(name):
            self._heard[name] = time.monotonic()
            self._clock.witness(name, at)

    def _is_unheard(self, name: str) -> bool:
        return time.monotonic() - self._heard.get(name, -HEAR_S) >= HEAR_S

    def _hear_date(self, url: str, headers: Mapping[str, str]) -> None:
        """Take the time of a response that no cache has kept."""
        if self._clock is None or not self._is_unheard(_netloc(url)) or "age" in headers:
            return
        with suppress(ValueError, OverflowError):
            self.hear(url, parsedate_to_datetime(headers.get("date", "")).timestamp())

    async def call(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes = b"",
        response_bytes_max: int = RESPONSE_BYTES_MAX,
    ) -> Response:
        """Send one request with exactly these bytes and return the whole response within the deadline.

        Raises:
            ChannelUnavailable: refused, unresolved, timed out, cut off, or status 429 or 5xx.
            ChannelUnreadable: a redirect, a compressed or an oversized response, a header that is not ASCII.
        """
        async with admitted():
            return await self._within(self.timeout_s, self._exchange(method, url, headers, body, response_bytes_max))

    async def _within(self, timeout_s: float, exchange: Coroutine[None, None, Response]) -> Response:
        """Return the response, or map the failure to one of the two errors of an unknown outcome."""
        try:
            async with asyncio.timeout(timeout_s):
                response = await exchange
        except httpx.PoolTimeout:
            raise ChannelNotCalled("no_connection_free") from None
        except TimeoutError:
            raise ChannelUnavailable("timed_out") from None
        except (httpx.ConnectError, httpx.ProxyError):
            raise ChannelUnavailable("not_connected") from None
        except (httpx.HTTPError, OSError) as error:
            raise ChannelUnavailable(f"cut_off_{type(error).__name__}") from None
        except (ValueError, httpx.InvalidURL):  # bytes in a header or an address that HTTP does not allow
            raise ChannelUnreadable("not_http") from None
        if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR or response.status == HTTPStatus.TOO_MANY_REQUESTS:
            raise ChannelUnavailable(f"status_{response.status}")
        if 300 <= response.status < 400:  # noqa: PLR2004 - the class of redirects
            raise ChannelUnreadable(f"status_{response.status}")
        return response

    async def download(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        into: IO[bytes],
        bytes_max: int = STATEMENT_BYTES_MAX,
        timeout_s: float = DOWNLOAD_TIMEOUT_S,
    ) -> Response:
        """Stream the body of a GET with status 200 to a file; the returned response has an empty body then.

        Raises as `call`, with a deadline of its own.
        """
        async with admitted():
            return await self._within(timeout_s, self._exchange("GET", url, headers, b"", bytes_max, into))

    async def _exchange(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        bytes_max: int,
        into: IO[bytes] | None = None,
    ) -> Response:
        buffer, size = BytesIO(), 0

        def take(status: int, piece: bytes) -> None:
            nonlocal size
            size += len(piece)
            if size > bytes_max:
                raise ChannelUnreadable("oversized")
            (buffer if into is None or status != HTTPStatus.OK else into).write(piece)

        status, received = await self._carrier.exchange(method, url, {**HEADERS, **headers}, body, take)
        self._hear_date(url, received)
        if received.get("content-encoding", "identity").lower() != "identity":
            raise ChannelUnreadable("compressed")
        return Response(status=status, headers=received, body=buffer.getvalue())


def _netloc(url: str) -> str:
    """The host of an address that was called, with its port."""
    return url.split("/", 3)[2]
