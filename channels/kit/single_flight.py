"""One call shared by all callers that need the same result at the same time. Results are not kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from functools import partial
from typing import Any, Generic, TypeVar

_K = TypeVar("_K", bound=Hashable)
_T = TypeVar("_T")


class SingleFlight(Generic[_K, _T]):
    """At most one call in flight for each key. A cancelled waiter leaves the call running for the others."""

    def __init__(self) -> None:
        self._in_flight: dict[_K, asyncio.Task[_T]] = {}

    def __len__(self) -> int:
        """Number of calls in flight."""
        return len(self._in_flight)

    async def run(self, key: _K, call: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Join the call of this key, or start it. Raises what the call raises; the next caller starts a new one."""
        task = self._in_flight.get(key)
        if task is None:
            task = self._in_flight[key] = asyncio.create_task(call())
            task.add_done_callback(partial(self._land, key))
        return await asyncio.shield(task)

    def _land(self, key: _K, task: asyncio.Task[_T]) -> None:
        del self._in_flight[key]
        if not task.cancelled():
            task.exception()  # marks it as retrieved: every waiter may have been cancelled
