"""Statements for many callers: those of one process that want the same at the same time share one.

A module names its statement once, `_find_states = Gathered(_find_many)`, and calls `await _find_states(db, order_no)`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Sequence
from functools import partial
from typing import Generic, TypeVar

from core.errors import DatabaseUnavailable
from storage.gathering import Gathering
from storage.postgres.database import Database

T = TypeVar("T")
R = TypeVar("R")

BATCH_MAX = 100
"""Items of one statement: with more of them an item costs no less, and waits longer."""

WAITING_MAX = 2000
"""Callers of one kind that wait in one process: several times the requests that an api process takes at once."""


class Gathered(Generic[T, R]):
    """Callers of `send`, which returns a result or an error for each item, in their order.

    An error of a batch is bisected, so that only the guilty item fails; Postgres being away is the error of all.
    """

    def __init__(
        self,
        send: Callable[[Database, list[T]], Awaitable[Sequence[R | Exception]]],
        *,
        key: Callable[[T], Hashable | None] = lambda _: None,
        lanes: int = 1,
        batch_max: int = BATCH_MAX,
    ) -> None:
        self._send = send
        self._key = key
        self._lanes = lanes
        self._batch_max = batch_max

    async def __call__(self, db: Database, item: T) -> R:
        """Return the result of this item.

        Raises:
            DatabaseUnavailable: as `Database.fetch`, and when too many callers wait.
        """
        gathering: Gathering[T, R] | None = db.gatherings.get(self)
        if gathering is None:
            gathering = db.gatherings[self] = Gathering(
                partial(self._send, db),
                is_shared=_is_shared,
                full=DatabaseUnavailable("too many callers wait for Postgres"),
                key=self._key,
                lanes=self._lanes,
                batch_max=self._batch_max,
                waiting_max=WAITING_MAX,
            )
        return await gathering.add(item)


def _is_shared(error: Exception) -> bool:
    return isinstance(error, DatabaseUnavailable)
