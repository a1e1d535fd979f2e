"""Statements for many callers: those of one process that want the same at the same time share one.

A module names its statement once, `_find_states = Gathered(_find_many)`, and calls `await _find_states(db, order_no)`.
A lone caller goes at once: there is no window of time. While a statement is under way the others wait for a lane, and
go together with the next one, as soon as some turns of the event loop bring no further caller.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

from core.errors import DatabaseUnavailable, RowLocked
from storage.gathering import OfStore
from storage.postgres.database import Database

T = TypeVar("T")
R = TypeVar("R")

BATCH_MAX = 100
"""Items of one statement: with more of them an item costs no less, and waits longer."""

WAITING_MAX = 2000
"""Callers of one kind that wait in one process: several times the requests that an api process takes at once."""

WAITERS_MAX = 2
"""Connections on which items of all kinds wait for the locks of others; the rest of the four stays free."""


class Gathered(OfStore[Database, T, R]):
    """Callers of `send`, which returns a result or an error for each item, in their order.

    An error of a batch is bisected, so that only the guilty item fails; Postgres being away is the error of all, and of
    callers beyond `WAITING_MAX`.

    A batch leaves out rows that somebody else has locked: then `RowLocked` is the result of the item, and `alone` waits
    for its row. So nobody waits for the lock of another item. `lone` takes the place of `send` for a single item, and
    leaves out a locked row too: a statement for one row costs a half to two thirds of one for many.
    """

    def __init__(
        self,
        send: Callable[[Database, list[T]], Awaitable[Sequence[R | Exception]]],
        *,
        alone: Callable[[Database, T], Awaitable[R]] | None = None,
        lone: Callable[[Database, T], Awaitable[R | Exception]] | None = None,
        key: Callable[[T], Hashable | None] = lambda _: None,
        lanes: int = 1,
        batch_max: int = BATCH_MAX,
    ) -> None:
        super().__init__(
            send if lone is None else _with_lone(send, lone),
            left_out=RowLocked,
            alone=None if alone is None else _waits(alone, key),
            is_shared=_is_shared,
            full=_full,
            key=key,
            lanes=lanes,
            batch_max=batch_max,
            waiting_max=WAITING_MAX,
        )


def _is_shared(error: Exception) -> bool:
    return isinstance(error, DatabaseUnavailable) and not isinstance(error, RowLocked)


_full = partial(DatabaseUnavailable, "too many callers wait for Postgres")


class _Wait(NamedTuple):
    """A statement that waits for the row of this key."""

    key: Hashable | None
    run: Callable[[], Awaitable[Any]]


async def _run_all(_: Database, waits: list[_Wait]) -> list[Any]:
    return [await wait.run() for wait in waits]


_waiting: OfStore[Database, _Wait, Any] = OfStore(
    _run_all,
    left_out=RowLocked,
    alone=None,
    is_shared=_is_shared,
    full=_full,
    key=lambda wait: wait.key,
    lanes=WAITERS_MAX,
    batch_max=1,
    waiting_max=WAITING_MAX,
)
"""Of all kinds, so that two locked rows stop no process. However many want one row, one connection waits for it."""


def _waits(
    alone: Callable[[Database, T], Awaitable[R]], key: Callable[[T], Hashable | None]
) -> Callable[[Database, T], Awaitable[R]]:
    async def wait(db: Database, item: T) -> R:
        result: R = await _waiting(db, _Wait(key(item), lambda: alone(db, item)))
        return result

    return wait


def _with_lone(
    send: Callable[[Database, list[T]], Awaitable[Sequence[R | Exception]]],
    lone: Callable[[Database, T], Awaitable[R | Exception]],
) -> Callable[[Database, list[T]], Awaitable[Sequence[R | Exception]]]:
    async def send_all(db: Database, items: list[T]) -> Sequence[R | Exception]:
        return [await lone(db, items[0])] if len(items) == 1 else await send(db, items)

    return send_all


def if_unlocked(statement: str) -> str:
    """A statement for one row, which leaves that out if somebody else has locked it."""
    return statement.replace("FOR UPDATE", "FOR UPDATE SKIP LOCKED")


def columns(items: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    """The fields of all items, as arrays for `unnest`."""
    return [list(column) for column in zip(*items, strict=True)]
