"""Server-sent events: how many streams there may be, how one is sent, and how it ends.

A stream ends after a definite state, when its token expires, after ten minutes, when the client goes, and at drain; the
client is told to come back within one to three seconds, spread so that a deploy is no stampede.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager, suppress

from api.http.request import Receive, Send
from api.http.response import HeaderList
from core.errors import TooManyRequests

STREAMS_MAX = 2000
STREAMS_PER_ADDRESS_MAX = 100
"""Far over one household, about right for an office behind one address; the others' pages poll."""

HEARTBEAT_S = 15.0
"""Routers of hosted platforms cut what is silent for 30 to 60 s."""

AGE_MAX_S = 600.0
SEND_TIMEOUT_S = 10.0

HEADERS: HeaderList = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]

BEAT = b"event: beat\ndata: {}\n\n"
"""A named event and not a comment, because a page cannot hear a comment and must know that the stream lives."""


class ReaderTooSlow(Exception):
    """The reader takes nothing; its connection is closed by the server when the application returns."""


class Streams:
    """The open streams of this process, counted."""

    def __init__(self, *, total_max: int = STREAMS_MAX, per_address_max: int = STREAMS_PER_ADDRESS_MAX) -> None:
        self._total_max = total_max
        self._per_address_max = per_address_max
        self._of: Counter[str] = Counter()

    @property
    def count(self) -> int:
        return self._of.total()

    def check(self, address: str) -> None:
        """Whether one more may open.

        Raises:
            TooManyRequests: the page polls instead.
        """
        if self.count >= self._total_max or self._of[address] >= self._per_address_max:
            raise TooManyRequests("too many open streams", retry_after_s=30)

    @contextmanager
    def counted(self, address: str) -> Iterator[None]:
        self._of[address] += 1
        try:
            yield
        finally:
            self._of[address] -= 1
            self._of += Counter()  # drops the addresses that have none left


def event(version: int, data: bytes) -> bytes:
    """One state. The id is the order's version, which comes back as `Last-Event-ID`."""
    return b"id: %d\ndata: %s\n\n" % (version, data)


def come_back() -> bytes:
    return b"retry: %d\n\n" % random.randint(1000, 3000)  # noqa: S311 - spread, not a secret


async def send_stream(
    events: AsyncGenerator[bytes, None], receive: Receive, send: Send, draining: asyncio.Event
) -> BaseException | None:
    """Send until something ends it. Returns what broke the generator, if anything did."""
    pump = asyncio.ensure_future(_pump(events, send))
    gone = asyncio.ensure_future(_until_gone(receive))
    drained = asyncio.ensure_future(draining.wait())
    tasks = (pump, gone, drained)
    try:
        await asyncio.wait(tasks, timeout=AGE_MAX_S, return_when=asyncio.FIRST_COMPLETED)
        is_gone = gone.done()
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    broke = results[0]
    if is_gone or isinstance(broke, ReaderTooSlow):
        return None
    with suppress(ReaderTooSlow):
        await _send(send, come_back(), more=False)
    return broke if isinstance(broke, Exception) else None


async def _pump(events: AsyncGenerator[bytes, None], send: Send) -> None:
    async with aclosing(events):
        async for chunk in events:
            await _send(send, chunk, more=True)


async def _send(send: Send, chunk: bytes, *, more: bool) -> None:
    """A reader that takes nothing for ten seconds has what it can hold; it comes back with `Last-Event-ID`."""
    try:
        async with asyncio.timeout(SEND_TIMEOUT_S):
            await send({"type": "http.response.body", "body": chunk, "more_body": more})
    except TimeoutError:
        raise ReaderTooSlow from None


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
