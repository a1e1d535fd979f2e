"""Calls of a channel that a run cannot do without: repeated until their result is clear, or the channel is down."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from core.errors import ChannelUnavailable
from flows.channel_call import Deferred

CONCURRENCY = 8
"""Calls under way at once. The account's rate is the limit; this one protects a slow channel."""

ATTEMPTS_MAX = 3
"""Calls for one row, with pauses of 1 and 4 seconds between them. After the last one a difference is kept."""

SILENCE_S_MAX = 300.0
"""A channel without a clear result for so long is down: the run stops, and continues later."""

WAIT_S_MAX = 5.0
LOOK_AGAIN_S = 0.1

_T = TypeVar("_T")


class Patience:
    """The calls of one run. Waiting for the rate or for another process uses no attempt."""

    def __init__(self, account: str) -> None:
        self._account = account
        self._slots = asyncio.Semaphore(CONCURRENCY)
        self._silent_since: float | None = None

    async def until_clear(self, call: Callable[[], Awaitable[_T | Deferred]], is_clear: Callable[[_T], bool]) -> _T:
        """The result of a call that is clear, or of the third one.

        Raises:
            ChannelUnavailable: no clear result in this run for `SILENCE_S_MAX`.
        """
        async with self._slots:
            return await self._until_clear(call, is_clear)

    async def _until_clear(self, call: Callable[[], Awaitable[_T | Deferred]], is_clear: Callable[[_T], bool]) -> _T:
        loop = asyncio.get_running_loop()
        attempt = 1
        while True:
            result = await call()
            if isinstance(result, Deferred):
                pause_s = min(max(result.seconds, LOOK_AGAIN_S), WAIT_S_MAX)
            elif is_clear(result):
                self._silent_since = None
                return result
            elif attempt == ATTEMPTS_MAX:
                return result
            else:
                pause_s, attempt = float(attempt**2), attempt + 1
            self._silent_since = self._silent_since or loop.time()
            if loop.time() - self._silent_since > SILENCE_S_MAX:
                raise ChannelUnavailable(f"account {self._account} gives no clear result: run it again later")
            await asyncio.sleep(pause_s)
