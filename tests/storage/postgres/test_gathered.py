"""Statements of many callers on a real Postgres: each gets its own outcome, none waits for another's lock."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace

from core.errors import DatabaseUnavailable, InvalidRequest, RowLocked
from core.order import PendingKind
from storage.postgres import gathered, inbox, notifications, pending
from storage.postgres.database import Database
from storage.postgres.gathered import Gathered
from storage.postgres.inbox import StoredCallback
from storage.postgres.pending import Leased
from tests.sealed import SEALER
from tests.servers import eventually
from tests.storage.postgres.tools import commit_evidence, connected, count, number, opened, paid, pass_time, placed

ORDERS = ("A-1", "A-2", "A-3")
Call = Callable[[Database, str], Awaitable[Any]]


async def notification_of(db: Database, order_no: str) -> str:
    found: str = await db.fetchval("SELECT id FROM notifications WHERE order_no = $1", order_no)
    return found


async def claim_notification(db: Database, order_no: str) -> bool:
    return await notifications.claim(db, await notification_of(db, order_no), 20.0, arm_no=1) is not None


async def finish_notification(db: Database, order_no: str) -> bool:
    return await notifications.finish(db, await notification_of(db, order_no), "200")


async def claim_deadline(db: Database, order_no: str) -> bool:
    return await pending.claim(db, number(order_no), 20.0) is not None


async def claim_query_with_order(db: Database, order_no: str) -> bool:
    return await pending.claim_with_order(db, number(order_no), 20.0, arm_no=1) is not None


async def reschedule_query(db: Database, order_no: str) -> bool:
    """Put off a row of the first arm number."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    leased = Leased(key=number(order_no), kind=PendingKind.QUERY, order_no=order_no, arm_no=1, leased_at=at)
    return await pending.reschedule(db, leased, delay_s=60.0) is not None


async def receive(db: Database, order_no: str, **changes: Any) -> StoredCallback:
    arguments: dict[str, Any] = {
        "account": "alipay",
        "notification_id": f"evt-{order_no}",
        "headers": {},
        "body": b"{}",
        "evidence": paid(order_no),
        "received_at": None,
        "due_s": 60.0,
        "kept_s": 86_400.0,
    }
    return await inbox.insert_callback(db, SEALER, **arguments | changes)


async def store_callback(db: Database, order_no: str) -> bool:
    return (await receive(db, order_no, lease_s=20.0)).leased is not None


@asynccontextmanager
async def locked(url: str, table: str, where: str) -> AsyncIterator[Any]:
    """Rows that a stranger holds in a transaction of its own, until the end of the block."""
    async with connected(url) as stranger, stranger.transaction():
        await stranger.execute(f"SELECT FROM {table} WHERE {where} FOR UPDATE")
        yield stranger


async def prepare(db: Database, *, are_paid: bool) -> None:
    for order_no in ORDERS:
        await placed(db, order_no)
        if are_paid:
            await commit_evidence(db, order_no, paid(order_no))
    await pass_time(db, "pending", 120)


@pytest.mark.parametrize(
    ("call", "table", "where", "taken"),
    [
        (claim_notification, "notifications", "order_no = 'A-2'", "leased_until = now() + interval '1 minute'"),
        (finish_notification, "notifications", "order_no = 'A-2'", "delivered_at = now()"),
        (claim_deadline, "pending", "order_no = 'A-2'", "leased_until = now() + interval '1 minute'"),
        (reschedule_query, "pending", "order_no = 'A-2'", "arm_no = 2"),
        (claim_query_with_order, "pending", "order_no = 'A-2'", "leased_until = now() + interval '1 minute'"),
    ],
)
@pytest.mark.parametrize("is_taken", [False, True])
async def test_nobody_waits_for_a_row_that_a_stranger_holds_but_its_own_caller(
    db: Database, database_url: str, call: Call, table: str, where: str, taken: str, *, is_taken: bool
) -> None:
    """The others have their rows while the stranger holds its own; then its caller finds that as it is left."""
    await prepare(db, are_paid=table == "notifications")
    async with locked(database_url, table, where) as stranger:
        callers = {order_no: asyncio.ensure_future(call(db, order_no)) for order_no in ORDERS}
        assert await callers["A-1"]
        assert await callers["A-3"]
        assert await eventually(lambda: is_anybody_waiting(db))
        assert not callers["A-2"].done()
        if is_taken:
            await stranger.execute(f"UPDATE {table} SET {taken} WHERE {where}")  # noqa: S608 - ours
    assert await callers["A-2"] is not is_taken
    assert not await call(db, "A-1")


async def is_anybody_waiting(db: Database) -> bool:
    return bool(
        await db.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
    )


async def test_no_callback_waits_for_a_copy_that_a_stranger_holds(db: Database, database_url: str) -> None:
    await prepare(db, are_paid=False)
    await receive(db, "A-2")
    async with locked(database_url, "callbacks", "true"):
        callers = {order_no: asyncio.ensure_future(store_callback(db, order_no)) for order_no in ORDERS}
        assert await callers["A-1"]
        assert await callers["A-3"]
        assert not callers["A-2"].done()
    assert await callers["A-2"]
    assert await count(db, "callbacks") == 3
    [timeout] = await db.fetch("SHOW lock_timeout")
    assert timeout[0] == "0"


async def test_callbacks_at_once_get_each_its_own_row_or_error(db: Database) -> None:
    """Two copies of one, one that no row can hold, one that nobody waits for any more, and others."""
    await prepare(db, are_paid=False)
    callers = [
        asyncio.ensure_future(receive(db, "A-1", lease_s=20.0)),
        asyncio.ensure_future(receive(db, "A-1", lease_s=20.0)),
        asyncio.ensure_future(receive(db, "A-2", evidence=replace(paid("A-2"), amount=2**70))),
        asyncio.ensure_future(receive(db, "A-2", due_s=1e300)),
        asyncio.ensure_future(receive(db, "A-3", lease_s=20.0)),
    ]
    await asyncio.sleep(0)
    callers.append(asyncio.ensure_future(receive(db, "A-4")))
    await asyncio.sleep(0)
    callers[-1].cancel()
    first, copy, large, unstorable, third, _ = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(first, StoredCallback)
    assert isinstance(copy, StoredCallback)
    assert isinstance(large, StoredCallback)
    assert isinstance(third, StoredCallback)
    assert isinstance(unstorable, InvalidRequest)
    assert first.id == copy.id
    assert (first.leased is None, copy.leased is None, third.leased is None) == (False, True, False)
    assert first.state is not None
    assert third.state is not None
    assert (first.state.order.order_no, third.state.order.order_no) == ("A-1", "A-3")


async def test_rows_that_are_locked_are_waited_for_on_few_connections() -> None:
    """However many items have to wait, the others of their kind go on."""
    may_end = asyncio.Event()
    waiting = 0

    async def send(_db: Database, items: list[int]) -> list[int | Exception]:
        return [RowLocked() if item < 10 else item for item in items]

    async def alone(_db: Database, item: int) -> int:
        nonlocal waiting
        waiting += 1
        await may_end.wait()
        return -item

    call: Gathered[int, int] = Gathered(send, alone=alone)
    async with opened("postgres://nobody@127.0.0.1:1/nothing") as db:
        callers = [asyncio.ensure_future(call(db, item)) for item in range(10)]
        assert await call(db, 10) == 10
        assert await call(db, 11) == 11
        assert waiting == gathered.WAITERS_MAX
        may_end.set()
        assert await asyncio.gather(*callers) == [-item for item in range(10)]


async def test_too_many_callers_are_refused_as_if_postgres_were_away(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(pending._claim._options, "waiting_max", 1)
    callers = [asyncio.ensure_future(claim_deadline(db, order_no)) for order_no in ORDERS]
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert [type(result) for result in results[1:]] == [DatabaseUnavailable] * 2
