"""Messages between processes that an order changed, over Redis pub/sub: a hint and nothing more.

A message can be lost, repeated or forged, so a listener reads the order from Postgres, and now and then it reads
without a message. All streams of a process share one connection.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import msgspec
import structlog
from redis.asyncio import Redis

from core.errors import RedisUnavailable, TooManyRequests
from storage.redis.client import RedisLink, redis_errors

CHANNEL = "nodrop:changes"
PAIRS_MAX = 1000
"""Changes in one message; more are split into several."""

LISTENERS_MAX = 10_000
SILENCE_S = 15.0
"""After this time without a message a ping is sent; after twice this time the connection counts as lost."""

log = structlog.get_logger()


class Subscription:
    """One listener's interest in one order."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    async def wait(self, timeout_s: float) -> bool:
        """Return whether the order may have changed since the last call, or changes within `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            return False
        self._changed.clear()
        return True

    def wake(self) -> None:
        self._changed.set()


Change = tuple[str, int]
"""The number of an order, and the version that it has now."""


def publishing(changes: Sequence[Change]) -> list[tuple[str, str, bytes]]:
    """The commands that publish to all processes that these orders have changed."""
    return [
        ("PUBLISH", CHANNEL, msgspec.json.encode(changes[start : start + PAIRS_MAX]))
        for start in range(0, len(changes), PAIRS_MAX)
    ]


class Changes:
    """Listener to changes of orders."""

    def __init__(self, redis: Redis, *, listeners_max: int = LISTENERS_MAX) -> None:
        self._redis = redis
        self._listeners_max = listeners_max
        self._listeners: defaultdict[str, set[Subscription]] = defaultdict(set)
        self._count = 0
        self._listening = RedisLink("listening to changes")

    @contextmanager
    def subscribe(self, order_no: str) -> Iterator[Subscription]:
        """Receive changes of one order until the block ends. Subscribe first, then read it: no change is missed.

        Raises:
            TooManyRequests: this process already has the maximum of listeners.
        """
        if self._count >= self._listeners_max:
            raise TooManyRequests("this process already serves the maximum of listening pages", retry_after_s=SILENCE_S)
        subscription = Subscription()
        self._listeners[order_no].add(subscription)
        self._count += 1
        try:
            yield subscription
        finally:
            self._count -= 1
            self._listeners[order_no].discard(subscription)
            if not self._listeners[order_no]:
                del self._listeners[order_no]

    async def listen(self) -> None:
        """Wake listeners as messages arrive, for ever, and reconnect after a loss. Run one task per process."""
        while True:
            try:
                await listen_until_lost(self._redis, CHANNEL, self._handle)
            except RedisUnavailable as error:
                await asyncio.sleep(self._listening.lost(error))

    def _handle(self, pairs: bytes | None) -> None:
        if pairs is None:
            self._listening.up()
            self._wake(list(self._listeners))
            return
        try:
            self._wake([order_no for order_no, _ in _decoder.decode(pairs)])
        except ValueError:
            log.warning("changes_unreadable", bytes=len(pairs))

    def _wake(self, order_nos: Sequence[str]) -> None:
        for order_no in order_nos:
            for subscription in self._listeners.get(order_no, ()):
                subscription.wake()


async def listen_until_lost(redis: Redis, channel: str, handle: Callable[[bytes | None], None]) -> None:
    """Call `handle` with every message of a channel, and with None when a subscription begins: messages may be lost.

    Raises:
        RedisUnavailable: the connection was lost.
    """
    message: dict[str, Any] | None
    is_pinged = False
    with redis_errors():
        async with redis.pubsub() as pubsub:
            await pubsub.subscribe(channel)
            while True:
                with redis_errors():  # each turn also notices that the task was cancelled
                    message = await pubsub.get_message(timeout=SILENCE_S)
                    if message is None and not is_pinged:
                        await pubsub.ping()
                if message is not None and message["type"] in ("subscribe", "message"):
                    # Also after the client's own reconnect there is a subscription.
                    handle(message["data"] if message["type"] == "message" else None)
                elif message is None and is_pinged:
                    raise RedisUnavailable("Redis sends nothing")
                is_pinged = message is None


_Pairs = Annotated[list[tuple[Annotated[str, msgspec.Meta(max_length=64)], int]], msgspec.Meta(max_length=PAIRS_MAX)]
_decoder = msgspec.json.Decoder(_Pairs)
