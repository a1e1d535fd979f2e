"""Calls of a store that many callers share: those of one process that want the same at the same time go together.

A lone caller goes at once: there is no window of time. While a call is under way the others wait for a lane, and go
together with the next one, as soon as some turns of the event loop bring no further caller.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextvars import Context
from functools import partial
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")
S = TypeVar("S", bound="HasGatherings")

Send = Callable[[list[T]], Awaitable[Sequence[R | Exception]]]
"""One call for many items: a result or an error for each, in their order."""

QUIET_TURNS = 3
"""Turns of the event loop without another caller, before a call goes: 0.01 ms in an idle process."""


class _Caller(NamedTuple, Generic[T, R]):
    item: T
    key: Hashable | None
    result: asyncio.Future[R]


class Gathering(Generic[T, R]):
    """Calls of `send`, at most `lanes` at once, each with up to `batch_max` items.

    If a call of several items fails, its halves are sent one after the other, down to single items: only the guilty one
    fails. After an error that `is_shared`, the store being away, nothing is sent again: it is the result of them all.

    Of the items with one key, one is under way at a time. None is a key that all may have.
    """

    def __init__(
        self,
        send: Send[T, R],
        *,
        is_shared: Callable[[Exception], bool],
        full: Callable[[], Exception],
        key: Callable[[T], Hashable | None] = lambda _: None,
        lanes: int = 1,
        batch_max: int = 100,
        waiting_max: int = 10_000,
    ) -> None:
        self._send = send
        self._is_shared = is_shared
        self._full = full
        self._key = key
        self._free_lanes = lanes
        self._batch_max = batch_max
        self._waiting_max = waiting_max
        self._waiting: list[_Caller[T, R]] = []
        self._keys_under_way: set[Hashable] = set()
        self._running: set[asyncio.Task[None]] = set()

    async def add(self, item: T) -> R:
        """Return the result of this item. A caller that is cancelled takes its item back, unless it is under way.

        Raises:
            Exception: of this item; or `full`, if too many wait already.
        """
        return await self.put(item)

    def put(self, item: T) -> asyncio.Future[R]:
        """The result that this item will have.

        The item is sent in no caller's context: what it needs of its own, it carries. Raises `full`.
        """
        if len(self._waiting) >= self._waiting_max:
            raise self._full()
        loop = asyncio.get_running_loop()
        caller: _Caller[T, R] = _Caller(item, self._key(item), loop.create_future())
        self._waiting.append(caller)
        if self._free_lanes:
            self._free_lanes -= 1
            lane = loop.create_task(self._run_lane(), context=Context())
            self._running.add(lane)
            lane.add_done_callback(self._running.discard)
        return caller.result

    async def _run_lane(self) -> None:
        """Send batch after batch. Nothing is awaited between the look that finds no item and the lane being free: a
        caller that came in between would wait for ever.
        """
        batch: list[_Caller[T, R]] = []
        try:
            while await self._settled() and (batch := self._take()):
                try:
                    await self._deliver(batch)
                except Exception as error:  # noqa: BLE001 - a bug of `send`: its callers hear of it, others go on
                    for caller in batch:
                        _set(caller.result, error)
                finally:
                    self._keys_under_way.difference_update(caller.key for caller in batch)
        except BaseException:  # the loop ends: nobody sends what waits
            for caller in (*batch, *self._waiting):
                caller.result.cancel()
            raise
        finally:
            self._free_lanes += 1

    async def _settled(self) -> bool:
        """Whether callers wait, once a few turns of the loop have brought no other one: a busy process, whose turns are
        long, gathers more of them, and a lone caller waits for turns without work.
        """
        waiting = 0
        while waiting < len(self._waiting) < self._batch_max:
            waiting = len(self._waiting)
            for _ in range(QUIET_TURNS):
                await asyncio.sleep(0)
        return bool(self._waiting)

    def _take(self) -> list[_Caller[T, R]]:
        """The next batch, oldest first: no cancelled caller, and no key twice or under way in another lane."""
        batch: list[_Caller[T, R]] = []
        left: list[_Caller[T, R]] = []
        for caller in self._waiting:
            if caller.result.done():
                continue
            if len(batch) == self._batch_max or caller.key in self._keys_under_way:
                left.append(caller)
                continue
            batch.append(caller)
            if caller.key is not None:
                self._keys_under_way.add(caller.key)
        self._waiting = left
        return batch

    async def _deliver(self, batch: Sequence[_Caller[T, R]]) -> None:
        try:
            results = await self._send([caller.item for caller in batch])
        except Exception as error:  # noqa: BLE001 - whatever it is, it is raised where the item came from
            if len(batch) == 1 or self._is_shared(error):
                results = [error] * len(batch)
            else:
                middle = len(batch) // 2
                await self._deliver(batch[:middle])
                await self._deliver(batch[middle:])
                return
        for caller, result in zip(batch, results, strict=True):
            _set(caller.result, result)


def _set(future: asyncio.Future[R], result: R | Exception) -> None:
    if future.done():  # its caller was cancelled
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)


# -- calls of a store that is opened later -----------------------------------------------------------------------------


class HasGatherings(Protocol):
    """A store, with the `Gathering` of each `OfStore` that was called with it."""

    gatherings: dict[Any, Any]


class OfStore(Generic[S, T, R]):
    """Calls of `send(store, items)` that the callers of one store share, by a `Gathering` with these options for each.

    An item whose result is `left_out` is sent once more, by `alone`.
    """

    def __init__(
        self,
        send: Callable[[S, list[T]], Awaitable[Sequence[R | Exception]]],
        *,
        left_out: type[Exception],
        alone: Callable[[S, T], Awaitable[R]] | None,
        **options: Any,
    ) -> None:
        self._send = send
        self._left_out = left_out
        self._alone = alone
        self._options = options

    async def __call__(self, store: S, item: T) -> R:
        """Return the result of this item. Raises as `Gathering.add`."""
        gathering: Gathering[T, R] | None = store.gatherings.get(self)
        if gathering is None:
            gathering = store.gatherings[self] = Gathering(partial(self._send, store), **self._options)
        try:
            return await gathering.add(item)
        except self._left_out:
            if self._alone is None:
                raise
            return await self._alone(store, item)
