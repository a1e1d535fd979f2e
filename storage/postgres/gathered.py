"""Statements for many callers: those of one process that want the same at the same time share one.

A module names its statement once, `_find_states = Gathered(_find_many)`, and calls `await _find_states(db, order_no)`.
A lone caller goes at once: there is no window of time. While a statement is under way the others wait for a lane, and
go together with the next one, as soon as some turns of the event loop bring no further caller.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Sequence
from functools import partial
from typing import Any, TypeVar

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
"""Connections on which items of one kind wait for the locks of others; the rest of the four stays free."""


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
            alone=None if alone is None else Gathered(_one_by_one(alone), lanes=WAITERS_MAX, batch_max=1),
            is_shared=_is_shared,
            full=partial(DatabaseUnavailable, "too many callers wait for Postgres"),
            key=key,
            lanes=lanes,
            batch_max=batch_max,
            waiting_max=WAITING_MAX,
        )


def _is_shared(error: Exception) -> bool:
    return isinstance(error, DatabaseUnavailable) and not isinstance(error, RowLocked)


def _one_by_one(send: Callable[[Database, T], Awaitable[R]]) -> Callable[[Database, list[T]], Awaitable[list[R]]]:
    async def send_all(db: Database, items: list[T]) -> list[R]:
        return [await send(db, item) for item in items]

    return send_all


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
