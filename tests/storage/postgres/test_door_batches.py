"""Random batches at the door, on Postgres: each caller has its own outcome, whatever becomes of the others."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from itertools import count
from typing import NamedTuple

import asyncpg
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from core.decision import Decision
from core.errors import TransactionClaimed
from core.order import OrderState, OrderStatus
from storage.postgres.database import Database
from storage.postgres.door.transition import Committed, transition
from tests.storage.postgres.tools import (
    commit_evidence,
    connected,
    get_state,
    if_there,
    moved,
    noted,
    opened,
    paid,
    placed,
    versions,
)

PATIENCE_S = 120.0
EXAMPLES = 25
_numbers = count()


class Kind(StrEnum):
    """A caller's way: it writes a version, decides first on a state that is gone, is refused by the table, wants a
    transaction of another payment, or is cancelled after some turns of the loop.
    """

    WRITES = "writes"
    CONFLICTS = "conflicts"
    IS_POISONED = "is poisoned"
    CLAIMS = "claims"
    IS_CANCELLED = "is cancelled"


class Caller(NamedTuple):
    order: int
    kind: Kind
    turns: int


ORDERS = 6
LOCKS = ("orders", "payments", "pending")

callers = st.lists(
    st.builds(Caller, st.integers(0, ORDERS - 1), st.sampled_from(Kind), st.integers(0, 6)), min_size=2, max_size=24
)
locked = st.none() | st.tuples(st.integers(0, ORDERS - 1), st.sampled_from(LOCKS))


@given(batch=callers, locked=locked)
@settings(
    max_examples=EXAMPLES,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # to shrink batches that wait for a lock takes half an hour
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_every_caller_at_the_door_has_its_own_outcome(
    database_url: str, batch: list[Caller], locked: tuple[int, str] | None
) -> None:
    """A stranger holds a row of one order: the callers of all others are done before it is free."""
    asyncio.run(_check(database_url, batch, locked))


async def _check(database_url: str, batch: list[Caller], locked: tuple[int, str] | None) -> None:
    names = [f"A-{next(_numbers)}" for _ in range(ORDERS)]
    async with opened(database_url) as db, connected(database_url) as stranger, asyncio.timeout(PATIENCE_S):
        taken, stale = await _prepared(db, names)
        transaction = stranger.transaction()
        await transaction.start()
        if locked is not None:
            sql = f"SELECT FROM {locked[1]} WHERE order_no = '{names[locked[0]]}' FOR UPDATE"
            await stranger.execute(sql)
        tasks = [_begun(db, names[caller.order], stale[caller.order], caller.kind, taken) for caller in batch]
        for caller, task in zip(batch, tasks, strict=True):
            if caller.kind is Kind.IS_CANCELLED:
                await _cancel(task, caller.turns)
        others = (
            task for caller, task in zip(batch, tasks, strict=True) if locked is None or caller.order != locked[0]
        )
        await asyncio.gather(*others, return_exceptions=True)
        await transaction.rollback()
        results = zip(batch, await asyncio.gather(*tasks, return_exceptions=True), strict=True)
        outcomes: list[list[tuple[Kind, Committed | BaseException]]] = [[] for _ in names]
        for caller, result in results:
            outcomes[caller.order].append((caller.kind, result))
        for name, of_order in zip(names, outcomes, strict=True):
            _judge(of_order, await versions(db, name))


async def _prepared(db: Database, names: list[str]) -> tuple[str, list[OrderState]]:
    """Place the orders, and change each once. Returns a channel transaction that another order has, and old states."""
    other = f"{names[0]}-other"
    await asyncio.gather(*(placed(db, name) for name in (*names, other)))
    await commit_evidence(db, other, paid(other))
    stale = [await get_state(db, name) for name in names]
    await asyncio.gather(*(moved(db, name, noted) for name in names))
    return f"t-alipay-{other}", stale


def _begun(db: Database, name: str, stale: OrderState, kind: Kind, taken: str) -> asyncio.Task[Committed]:
    if kind is Kind.CONFLICTS:
        return asyncio.create_task(transition(db, name, if_there(noted), known=stale))
    if kind is Kind.CLAIMS:
        return asyncio.create_task(commit_evidence(db, name, paid(name, transaction=taken)))
    return asyncio.create_task(moved(db, name, _poisoned if kind is Kind.IS_POISONED else noted))


async def _cancel(task: asyncio.Task[Committed], turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()


def _poisoned(state: OrderState) -> Decision:
    """A change that the table refuses: closed, and nobody says when."""
    decision = noted(state)
    assert decision.change is not None
    order = replace(decision.change.order, status=OrderStatus.CLOSED)
    return replace(decision, change=replace(decision.change, order=order))


def _judge(of_order: list[tuple[Kind, Committed | BaseException]], events: list[int]) -> None:
    """Two events were there before. Each caller that succeeded has a version of its own, and no other has any."""
    written = []
    for kind, result in of_order:
        match kind, result:
            case ((Kind.WRITES | Kind.CONFLICTS | Kind.IS_CANCELLED), Committed()):
                written.append(result.version)
            case Kind.IS_POISONED, asyncpg.CheckViolationError():
                pass
            case Kind.CLAIMS, TransactionClaimed():
                pass
            case Kind.IS_CANCELLED, asyncio.CancelledError():
                pass
            case _:
                raise AssertionError(f"{kind}: {result!r}")
    assert events == list(range(1, len(events) + 1))
    assert len(set(written)) == len(written)
    assert set(written) <= set(events[2:])
    cancelled = sum(isinstance(result, asyncio.CancelledError) for _, result in of_order)
    assert len(written) <= len(events) - 2 <= len(written) + cancelled
