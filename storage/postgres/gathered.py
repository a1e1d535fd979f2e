"""Statements for many callers: those of one process that want the same at the same time share one.

A module names its statement once, `_find_states = Gathered(_find_many)`, and calls `await _find_states(db, order_no)`.
A lone caller goes at once: there is no window of time. While a statement is under way the others wait for a lane, and
go together with the next one, as soon as a turn of the event loop brings no further caller.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextvars import Context
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

from core.errors import DatabaseUnavailable, RowLocked
from storage.postgres.database import Database

T = TypeVar("T")
R = TypeVar("R")

BATCH_MAX = 100
"""Items of one statement: with more of them an item costs no less, and waits longer."""

WAITING_MAX = 2000
"""Callers of one kind that wait in one process: several times the requests that an api process takes at once."""

WAITERS_MAX = 2
"""Connections on which items of one kind wait for the locks of others; the rest of the four stays free."""


class Gathered(Generic[T, R]):
    """Callers of `send`, which returns a result or an error for each item, in their order.

    An error of a batch is bisected, so that only the guilty item fails; Postgres being away is the error of all.

    A batch leaves out rows that somebody else has locked: then `RowLocked` is the result of the item, and `alone` waits
    for its row. So nobody waits for the lock of another item.
    """

    def __init__(
        self,
        send: Callable[[Database, list[T]], Awaitable[Sequence[R | Exception]]],
        *,
        alone: Callable[[Database, T], Awaitable[R]] | None = None,
        key: Callable[[T], Hashable | None] = lambda _: None,
        lanes: int = 1,
        batch_max: int = BATCH_MAX,
    ) -> None:
        self._send = send
        self._alone: Gathered[T, R] | None = alone and Gathered(_one_by_one(alone), lanes=WAITERS_MAX, batch_max=1)
        self._key = key
        self._lanes = lanes
        self._batch_max = batch_max

    async def __call__(self, db: Database, item: T) -> R:
        """Return the result of this item.

        Raises:
            DatabaseUnavailable: as `Database.fetch`, and when too many callers wait.
        """
        try:
            return await self._of(db).add(item)
        except RowLocked:
            if self._alone is None:
                raise
            return await self._alone(db, item)

    def _of(self, db: Database) -> Gathering[T, R]:
        gathering: Gathering[T, R] | None = db.gatherings.get(self)
        if gathering is None:
            gathering = db.gatherings[self] = Gathering(
                partial(self._send, db),
                is_shared=_is_shared,
                full=partial(DatabaseUnavailable, "too many callers wait for Postgres"),
                key=self._key,
                lanes=self._lanes,
                batch_max=self._batch_max,
                waiting_max=WAITING_MAX,
            )
        return gathering


def _is_shared(error: Exception) -> bool:
    return isinstance(error, DatabaseUnavailable) and not isinstance(error, RowLocked)


def _one_by_one(send: Callable[[Database, T], Awaitable[R]]) -> Callable[[Database, list[T]], Awaitable[list[R]]]:
    async def send_all(db: Database, items: list[T]) -> list[R]:
        return [await send(db, item) for item in items]

    return send_all


def columns(items: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    """The fields of all items, as arrays for `unnest`."""
    return [list(column) for column in zip(*items, strict=True)]


# -- callers that share calls, whatever is called ----------------------------------------------------------------------

Send = Callable[[list[T]], Awaitable[Sequence[R | Exception]]]
"""One call for many items: a result or an error for each, in their order."""


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

        The item is sent in no caller's context: what it needs of its own, it carries.

        Raises:
            Exception: of this item; or `full`, if too many wait already.
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
        return await caller.result

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
        """Whether callers wait, once a turn of the loop has brought no other one: a busy process gathers more of them,
        and a lone caller waits for one turn.
        """
        waiting = 0
        while waiting < len(self._waiting) < self._batch_max:
            waiting = len(self._waiting)
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
