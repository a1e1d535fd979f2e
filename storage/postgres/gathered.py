"""Statements for many callers: those of one process that want the same at the same time share one.

A module names its statement once, `_find_states = Gathered(_find_many)`, and calls `await _find_states(db, order_no)`.
A lone caller goes at once: there is no window of time. While a statement is under way the others wait for a lane, and
go together with the next one, as soon as some turns of the event loop bring no further caller.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from core.errors import DatabaseUnavailable, RowLocked
from storage.gathering import Gathering
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
