"""Server-sent events: the caps on streams, the sending of one, and its end.

A stream ends after a definite state, when its token expires, after ten minutes, when the client goes, and at drain; the
client then reconnects within one to three seconds, spread so that a deploy does not bring all of them at once.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager, suppress

from api.http.request import Receive, Send, Shares
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

HEARTBEAT = b"event: beat\ndata: {}\n\n"
"""A named event and not a comment, because a page cannot hear a comment and must know that the stream lives."""


class ReaderTooSlow(Exception):
    """The reader takes nothing; the server closes its connection when the application returns."""


class OpenStreams:
    """The number of open streams, in all and by address."""

    def __init__(self, *, total_max: int = STREAMS_MAX, per_address_max: int = STREAMS_PER_ADDRESS_MAX) -> None:
        self._places = Shares(total_max, per_address_max)

    @property
    def count(self) -> int:
        return self._places.count

    @contextmanager
    def place(self, address: str) -> Iterator[None]:
        """Take a place until the block ends.

        Raises:
            TooManyRequests: there is none; the page polls instead.
        """
        if not self._places.take(address):
            raise TooManyRequests("too many open streams", retry_after_s=30)
        try:
            yield
        finally:
            self._places.release(address)


def event(id_: int, data: bytes) -> bytes:
    """One event; a client that reconnects sends its id as `Last-Event-ID`."""
    return b"id: %d\ndata: %s\n\n" % (id_, data)


def reconnect_hint() -> bytes:
    """The time that a client waits before it reconnects, in ms."""
    return b"retry: %d\n\n" % random.randint(1000, 3000)  # noqa: S311 - spread, not a secret


async def send_stream(
    events: AsyncGenerator[bytes, None], receive: Receive, send: Send, draining: asyncio.Event
) -> Exception | None:
    """Send until something ends it. Returns the error that broke the generator, if any."""
    sending = asyncio.ensure_future(_send_all(events, send))
    disconnected = asyncio.ensure_future(_disconnect(receive))
    drained = asyncio.ensure_future(draining.wait())
    tasks = (sending, disconnected, drained)
    try:
        await asyncio.wait(tasks, timeout=AGE_MAX_S, return_when=asyncio.FIRST_COMPLETED)
        has_reader = not disconnected.done()
    finally:
        for task in tasks:
            task.cancel()
        error = (await asyncio.gather(*tasks, return_exceptions=True))[0]
    if has_reader and not isinstance(error, ReaderTooSlow):
        with suppress(ReaderTooSlow):
            await _send(send, reconnect_hint(), more=False)
        return error if isinstance(error, Exception) else None
    return None


async def _send_all(events: AsyncGenerator[bytes, None], send: Send) -> None:
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


async def _disconnect(receive: Receive) -> None:
    """Return when the client has gone, or sends a body, which a stream does not take."""
    while (message := await receive())["type"] != "http.disconnect" and not message.get("body"):
        pass
