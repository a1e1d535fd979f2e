"""What many ask for at the same time is fetched once; all of them are told what came of it, and nothing is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Generic, TypeVar

_T = TypeVar("_T")


class Once(Generic[_T]):
    """At most one fetch under way for each key. A waiter that is cancelled takes the others' answer from nobody."""

    def __init__(self) -> None:
        self._under_way: dict[str, asyncio.Task[_T]] = {}

    async def fetch(self, key: str, fetch: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Join the fetch of this key, or begin it. Raises what the fetch raises; the next caller begins a new one."""
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.create_task(fetch())
            task.add_done_callback(partial(self._ended, key))
        return await asyncio.shield(task)

    def _ended(self, key: str, task: asyncio.Task[_T]) -> None:
        del self._under_way[key]
        if not task.cancelled():
            task.exception()  # looked at here too: nobody may be waiting for it any more
