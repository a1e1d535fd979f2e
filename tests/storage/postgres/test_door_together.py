"""Decisions of many callers in one statement of the door: each has its own outcome, whatever becomes of the others."""

import asyncio
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from core.decision import Decision, Outcome
from core.errors import TransactionClaimed
from core.order import OrderState, OrderStatus
from storage.postgres.api_keys import acting_key
from storage.postgres.database import Database
from storage.postgres.door import transition as door
from storage.postgres.door.transition import Committed, Decide, transition
from tests.storage.postgres.tools import (
    closed,
    commit_evidence,
    connected,
    count,
    decide_evidence,
    get_state,
    if_there,
    moved,
    noted,
    paid,
    placed,
    rows,
    versions,
)

PATIENCE_S = 120.0
ORDERS = ("A-1", "A-2", "A-3", "A-4", "A-5")


@pytest.fixture
async def orders(db: Database) -> Database:
    for order_no in ORDERS:
        await placed(db, order_no)
    return db


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The orders of each statement of many callers."""
    sent: list[list[str]] = []
    write = door._write

    async def recorded(db: Database, commits: list[door._Commit], *, together: bool) -> door._Written:
        if together:
            sent.append([commit.order_no for commit in commits])
        return await write(db, commits, together=together)

    monkeypatch.setattr(door, "_write", recorded)
    return sent


async def test_callers_that_wait_share_a_statement_in_the_order_of_their_numbers(
    orders: Database, statements: list[list[str]]
) -> None:
    known = {order_no: await get_state(orders, order_no) for order_no in ORDERS}
    done = await asyncio.gather(
        *(transition(orders, order_no, if_there(noted), known=known[order_no]) for order_no in reversed(ORDERS))
    )
    assert [one.version for one in done] == [2] * 5
    assert statements == [list(ORDERS)]


@pytest.mark.parametrize(
    "lock",
    [
        "SELECT FROM orders WHERE order_no = 'A-2' FOR UPDATE",
        "SELECT FROM payments WHERE order_no = 'A-2' FOR UPDATE",
        "SELECT FROM pending WHERE order_no = 'A-2' FOR UPDATE",
    ],
    ids=["order", "payment", "pending"],
)
async def test_rows_that_a_stranger_has_locked_delay_no_other_order(
    orders: Database, database_url: str, lock: str
) -> None:
    """Their own decision waits for the stranger, and is committed once."""
    async with asyncio.timeout(PATIENCE_S), connected(database_url) as stranger:
        stranger_transaction = stranger.transaction()
        await stranger_transaction.start()
        await stranger.execute(lock)
        moves = {order_no: asyncio.create_task(_close(orders, order_no)) for order_no in ORDERS}
        others = [move for order_no, move in moves.items() if order_no != "A-2"]
        assert [(await move).decision.outcome for move in others] == [Outcome.PAYMENT_CLOSED] * 4
        assert not moves["A-2"].done()
        await stranger_transaction.rollback()
        assert (await moves["A-2"]).decision.outcome is Outcome.PAYMENT_CLOSED
    for order_no in ORDERS:
        assert await versions(orders, order_no) == [1, 2]


async def test_an_order_that_a_stranger_has_locked_splits_no_statement(
    orders: Database, database_url: str, statements: list[list[str]]
) -> None:
    """It is left out, and nobody waits for it: a statement that waited would be halved until it is alone."""
    await _decide_beside_a_lock(orders, database_url, "orders", lambda _: if_there(noted))
    assert statements == [list(ORDERS)]


async def test_a_payment_that_a_stranger_has_locked_is_found_by_halving(
    orders: Database, database_url: str, statements: list[list[str]]
) -> None:
    """Only its own decision waits by itself: the others stay together as far as they can."""
    await _decide_beside_a_lock(
        orders, database_url, "payments", lambda order_no: if_there(decide_evidence(order_no, closed(order_no)))
    )
    assert statements == [list(ORDERS), ["A-1", "A-2"], ["A-1"], ["A-2"], ["A-3", "A-4", "A-5"]]


async def _decide_beside_a_lock(
    orders: Database, database_url: str, table: str, decide_on: Callable[[str], Decide]
) -> None:
    """Decide about all orders at once while a stranger holds the row of A-2; it lets go when the others are decided."""
    known = {order_no: await get_state(orders, order_no) for order_no in ORDERS}
    async with asyncio.timeout(PATIENCE_S), connected(database_url) as stranger:
        stranger_transaction = stranger.transaction()
        await stranger_transaction.start()
        await stranger.execute(f"SELECT FROM {table} WHERE order_no = 'A-2' FOR UPDATE")
        moves = {
            order_no: asyncio.create_task(transition(orders, order_no, decide_on(order_no), known=known[order_no]))
            for order_no in ORDERS
        }
        await asyncio.gather(*(move for order_no, move in moves.items() if order_no != "A-2"))
        await stranger_transaction.rollback()
        await moves["A-2"]


async def test_only_the_guilty_one_fails(orders: Database) -> None:
    """One claims a transaction that another payment has, one is poisoned, one loses its race, and one is cancelled."""
    await commit_evidence(orders, "A-5", paid("A-5", transaction="t-5"))
    stale = await get_state(orders, "A-3")
    await moved(orders, "A-3", noted)
    moves = [
        asyncio.create_task(commit_evidence(orders, "A-1", paid("A-1", transaction="t-5"))),
        asyncio.create_task(moved(orders, "A-2", _poisoned)),
        asyncio.create_task(transition(orders, "A-3", if_there(noted), known=stale)),
        asyncio.create_task(moved(orders, "A-4", noted)),
        asyncio.create_task(moved(orders, "A-4", noted)),
    ]
    await asyncio.sleep(0)
    moves[4].cancel()
    claimed, poisoned, lost, done, cancelled = await asyncio.gather(*moves, return_exceptions=True)
    assert isinstance(claimed, TransactionClaimed)
    assert type(poisoned).__name__ == "CheckViolationError"
    assert isinstance(cancelled, asyncio.CancelledError)
    assert [one.version for one in (lost, done) if isinstance(one, Committed)] == [3, 2]
    assert await versions(orders, "A-1") == await versions(orders, "A-2") == [1]
    assert await versions(orders, "A-3") == [1, 2, 3]


async def test_the_history_has_the_key_of_each_callers_own_request(orders: Database) -> None:
    async def as_key(api_key: str, order_no: str) -> None:
        acting_key.set(api_key)
        await moved(orders, order_no, noted)

    await asyncio.gather(*(asyncio.create_task(as_key(f"key-of-{order_no}", order_no)) for order_no in ORDERS))
    found = await rows(orders, "order_events", "order_no, api_key", "version = 2")
    assert {row["order_no"]: row["api_key"] for row in found} == {no: f"key-of-{no}" for no in ORDERS}


async def test_a_connection_lost_in_the_middle_is_one_version_for_each(orders: Database, database_url: str) -> None:
    """Every caller reloads and decides again: nothing is lost, nothing is done twice."""
    async with connected(database_url) as stranger:
        transaction = stranger.transaction()
        await transaction.start()
        await stranger.execute("LOCK TABLE order_events IN SHARE MODE")
        moves = [asyncio.create_task(moved(orders, order_no, noted)) for order_no in ORDERS]
        async with asyncio.timeout(PATIENCE_S):
            ended = 0
            while not ended:
                ended = await stranger.fetchval(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid() AND wait_event_type = 'Lock'"
                )
                await asyncio.sleep(0)
        await transaction.rollback()
        assert [one.version for one in await asyncio.gather(*moves)] == [2] * 5
    assert await count(orders, "order_events", "version = 2") == 5


async def _close(db: Database, order_no: str) -> Committed:
    return await commit_evidence(db, order_no, closed(order_no), arm_no=1)


def _poisoned(state: OrderState) -> Decision:
    """A change that the table refuses: paid, and nobody says by which payment."""
    decision = noted(state)
    assert decision.change is not None
    order = replace(decision.change.order, status=OrderStatus.PAID)
    return replace(decision, change=replace(decision.change, order=order))
