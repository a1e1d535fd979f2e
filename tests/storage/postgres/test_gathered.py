"""Statements of many callers on a real Postgres: each gets its own outcome, none waits for another's lock."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from msgspec import ValidationError
from msgspec.structs import replace

from core.errors import DatabaseUnavailable, InvalidRequest, RowLocked
from core.evidence import Source
from core.lifecycle import LatePolicy, Rules, on_query
from core.order import PendingKind
from storage.postgres import callbacks, database, gathered, inbox, notifications, pending, refunds
from storage.postgres.database import Database
from storage.postgres.door import transition as door
from storage.postgres.door.shapes import LOCK_WAIT_MS
from storage.postgres.gathered import Gathered
from storage.postgres.inbox import StoredCallback
from storage.postgres.pending import Leased
from tests.sealed import SEALER
from tests.servers import eventually
from tests.storage.postgres.tools import (
    closed,
    commit_evidence,
    connected,
    count,
    moved,
    number,
    opened,
    paid,
    pass_time,
    placed,
)

ORDERS = ("A-1", "A-2", "A-3")
COPIES = 3
PATIENCE_S = 120.0
LEASED_AT = datetime(2026, 1, 1, tzinfo=UTC)
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


def leased_query(order_no: str) -> Leased:
    """The lease in which `prepare` leaves the row of a payment."""
    return Leased(key=number(order_no), kind=PendingKind.QUERY, order_no=order_no, arm_no=1, leased_at=LEASED_AT)


async def reschedule_query(db: Database, order_no: str) -> bool:
    return await pending.reschedule(db, leased_query(order_no), delay_s=60.0) is not None


async def release_query(db: Database, order_no: str) -> bool:
    """Whether that was the payment's last query, which it is not for a second time."""
    await pending.release(db, leased_query(order_no))
    mine = "channel_account = $1 AND out_trade_no = $2 AND answered_from = $3"
    forget = f"UPDATE pending SET answered_from = NULL WHERE {mine}"  # noqa: S608 - ours
    return await db.execute(forget, *number(order_no), LEASED_AT) == 1


async def claim_callback(db: Database, order_no: str) -> bool:
    return await callbacks.claim(db, str(callback_id_of(order_no)), 20.0, arm_no=1) is not None


def callback_id_of(order_no: str) -> UUID:
    return UUID(int=ORDERS.index(order_no) + 1)


async def claim_refund(db: Database, order_no: str) -> bool:
    """Lease it; the channel cannot know it yet."""
    leased = await refunds.claim(db, f"r{number(order_no).out_trade_no}", 20.0, arm_no=1)
    assert leased is None or not leased.may_be_known
    return leased is not None


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


async def close_payment(db: Database, order_no: str) -> bool:
    return (await commit_evidence(db, order_no, closed(order_no), arm_no=1)).version is not None


@asynccontextmanager
async def locked(url: str, table: str, where: str) -> AsyncIterator[Any]:
    """Rows that a stranger holds in a transaction of its own, until the end of the block."""
    async with connected(url) as stranger, stranger.transaction():
        await stranger.execute(f"SELECT FROM {table} WHERE {where} FOR UPDATE")
        yield stranger


async def prepare(db: Database, table: str = "") -> None:
    """A row of this table for each order, and pending ones, all of them due. Leases of those have ended."""
    for order_no in ORDERS:
        await placed(db, order_no)
        if table == "notifications":
            await commit_evidence(db, order_no, paid(order_no))
        elif table == "callbacks":
            stored = await receive(db, order_no)
            await db.execute("UPDATE callbacks SET id = $2 WHERE id = $1::uuid", stored.id, callback_id_of(order_no))
        elif table == "refunds":
            await pay_late(db, order_no)
    await db.execute("UPDATE pending SET leased_at = $1, leased_until = $1", LEASED_AT)
    await pass_time(db, "pending", 120)
    await pass_time(db, "callbacks", 120)


async def pay_late(db: Database, order_no: str) -> None:
    """Money that comes after the order was closed, and is to be given back."""
    await commit_evidence(db, order_no, closed(order_no))
    close = "UPDATE orders SET status = 'closed', closed_at = now(), version = version + 1 WHERE order_no = $1"
    await db.execute(close, order_no)
    refund = Rules(late_policy=LatePolicy.REFUND)
    decide = partial(on_query, key=number(order_no), evidence=paid(order_no), rules=refund, by=Source.QUERY)
    await moved(db, order_no, decide)


every_call = pytest.mark.parametrize(
    ("call", "table", "where", "taken"),
    [
        (claim_notification, "notifications", "order_no = 'A-2'", "leased_until = now() + interval '1 minute'"),
        (finish_notification, "notifications", "order_no = 'A-2'", "delivered_at = now()"),
        (claim_deadline, "pending", "order_no = 'A-2'", "leased_until = now() + interval '1 minute'"),
        (reschedule_query, "pending", "order_no = 'A-2'", "arm_no = 2"),
        (claim_query_with_order, "pending", "order_no = 'A-2'", "leased_until = now() + interval '1 minute'"),
        (release_query, "pending", "order_no = 'A-2'", "leased_at = now()"),
        (claim_callback, "callbacks", "notification_id = 'evt-A-2'", "leased_until = now() + interval '1 minute'"),
        (claim_refund, "refunds", "order_no = 'A-2'", "leased_until = now() + interval '1 minute'"),
    ],
)


@every_call
@pytest.mark.parametrize("is_taken", [False, True])
async def test_nobody_waits_for_a_row_that_a_stranger_holds_but_its_own_caller(
    db: Database, database_url: str, call: Call, table: str, where: str, taken: str, *, is_taken: bool
) -> None:
    """The others have their rows while the stranger holds its own; then its caller finds that as it is left."""
    await prepare(db, table)
    async with locked(database_url, table, where) as stranger:
        callers = {order_no: asyncio.ensure_future(call(db, order_no)) for order_no in ORDERS}
        assert await callers["A-1"]
        assert await callers["A-3"]
        assert await is_waiting(db, callers["A-2"])
        if is_taken:
            await stranger.execute(f"UPDATE {table} SET {taken} WHERE {where}")  # noqa: S608 - ours
    assert await callers["A-2"] is not is_taken
    assert not await call(db, "A-1")


@every_call
async def test_a_lone_caller_that_waits_for_a_row_holds_up_no_later_one(
    db: Database, database_url: str, call: Call, table: str, where: str, taken: str
) -> None:
    await prepare(db, table)
    async with locked(database_url, table, where):
        waiting = asyncio.ensure_future(call(db, "A-2"))
        assert await is_waiting(db, waiting)
        assert await call(db, "A-1")
    assert await waiting
    assert await call(db, "A-3")


async def test_an_order_that_a_stranger_holds_in_every_table_stops_no_other(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many callers want its rows by many statements: together they have fewer connections than a process."""
    monkeypatch.setattr(database, "STATEMENT_TIMEOUT_S", PATIENCE_S)
    calls = (claim_deadline, claim_query_with_order, reschedule_query, release_query, close_payment, store_callback)
    async with opened(database_url) as db, connected(database_url) as stranger:
        await prepare(db, "callbacks")
        async with stranger.transaction():
            for table in ("orders", "payments", "pending"):
                await stranger.execute(f"SELECT FROM {table} WHERE order_no = 'A-2' FOR UPDATE")
            await stranger.execute("SELECT FROM callbacks WHERE notification_id = 'evt-A-2' FOR UPDATE")
            waiting = [asyncio.ensure_future(call(db, "A-2")) for call in calls for _ in range(COPIES)]
            assert await is_waiting(db, waiting[0])
            assert await claim_deadline(db, "A-1")
            assert await close_payment(db, "A-1")
            assert await store_callback(db, "A-3")
            assert not [caller for caller in waiting if caller.done()]
        await asyncio.gather(*waiting, return_exceptions=True)


@every_call
async def test_of_many_callers_none_has_a_row_that_another_had_before(
    db: Database, call: Call, table: str, where: str, taken: str
) -> None:
    """Their statement asks for it as the one of a lone caller does."""
    await prepare(db, table)
    assert await call(db, "A-2")
    assert await asyncio.gather(*(call(db, order_no) for order_no in ORDERS)) == [True, False, True]


@pytest.mark.parametrize(
    ("call", "table"), [(release_query, "pending"), (claim_callback, "callbacks"), (claim_refund, "refunds")]
)
async def test_of_two_callers_of_a_row_one_has_it_and_a_cancelled_one_leaves_it(
    db: Database, call: Call, table: str
) -> None:
    await prepare(db, table)
    callers = [asyncio.ensure_future(call(db, order_no)) for order_no in ("A-1", "A-1", "A-3")]
    left = asyncio.ensure_future(call(db, "A-2"))
    await asyncio.sleep(0)
    left.cancel()
    first, second, other = await asyncio.gather(*callers)
    assert first is not second
    assert other
    assert await call(db, "A-2")


async def test_a_callback_that_cannot_be_read_fails_alone(db: Database) -> None:
    """Sent again with it, the others would find their rows leased."""
    await prepare(db, "callbacks")
    await db.execute("UPDATE callbacks SET evidence = '{}' WHERE notification_id = 'evt-A-2'")
    results = await asyncio.gather(*(claim_callback(db, order_no) for order_no in ORDERS), return_exceptions=True)
    assert [type(result) for result in results] == [bool, ValidationError, bool]
    assert (results[0], results[2]) == (True, True)


@pytest.mark.parametrize(
    ("shared", "call", "table"),
    [
        (door._write_gathered, close_payment, ""),
        (inbox._store_gathered, store_callback, ""),
        (notifications._claim, claim_notification, "notifications"),
        (notifications._finish, finish_notification, "notifications"),
        (pending._claim, claim_deadline, ""),
        (pending._claim_with_order, claim_query_with_order, ""),
        (pending._release, release_query, ""),
        (pending._reschedule, reschedule_query, ""),
        (callbacks._claim, claim_callback, "callbacks"),
        (refunds._claim, claim_refund, "refunds"),
    ],
)
async def test_no_statement_holds_a_row_twice(
    db: Database, monkeypatch: pytest.MonkeyPatch, shared: Gathered[Any, Any], call: Call, table: str
) -> None:
    """Postgres would change it once, and both callers would take the change for theirs."""
    await prepare(db, table)
    sizes: list[int] = []
    send = shared._send

    async def send_when_all_are_there(store: Database, items: list[Any]) -> Sequence[Any]:
        sizes.append(len(items))
        if len(sizes) == 1:
            await eventually(lambda: len(items) + len(store.gatherings[shared]._waiting) == COPIES, interval_s=0)
        return await send(store, items)

    monkeypatch.setattr(shared, "_send", send_when_all_are_there)
    monkeypatch.setattr(db, "gatherings", {})
    results = await asyncio.gather(*(call(db, "A-1") for _ in range(COPIES)))
    assert sizes[:COPIES] == [1] * COPIES
    assert sorted(results) == [False] * (COPIES - 1) + [True]


async def is_waiting(db: Database, caller: asyncio.Future[Any]) -> bool:
    """Whether this caller comes to wait for a lock, instead of ending without its row."""

    async def is_settled() -> bool:
        return caller.done() or await is_anybody_waiting(db)

    await eventually(is_settled)
    return not caller.done()


async def is_anybody_waiting(db: Database) -> bool:
    return bool(
        await db.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
    )


async def test_no_callback_waits_for_a_copy_that_a_stranger_holds(db: Database, database_url: str) -> None:
    await prepare(db)
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
    await prepare(db)
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


@pytest.mark.parametrize(
    ("batch_max", "wait_ms"),
    [(door.BATCH_MAX, LOCK_WAIT_MS), (gathered.BATCH_MAX, int(inbox.LOCK_WAIT.removesuffix("ms")))],
    ids=["door", "inbox"],
)
async def test_a_locked_row_holds_up_a_full_batch_for_less_than_a_tenth_of_a_second(
    batch_max: int, wait_ms: int
) -> None:
    """Whichever item has to wait for it: each statement with that item waits once."""
    async with opened("postgres://nobody@127.0.0.1:1/nothing") as db:
        for guilty in range(batch_max):
            waits: list[int] = []
            call, items = _waiting_for(guilty, waits), range(batch_max)
            assert await asyncio.gather(*(call(db, item) for item in items)) == [*items]
            assert 1 < len(waits) < 100 / wait_ms


def _waiting_for(guilty: int, waits: list[int]) -> Gathered[int, int]:
    """Calls that note in `waits` each statement for many that a locked row of this item ends."""

    async def send(_db: Database, items: list[int]) -> list[int]:
        if guilty in items:
            waits.append(len(items))
            raise RowLocked
        return items

    async def alone(_db: Database, item: int) -> int:
        return item

    return Gathered(send, alone=alone)


async def test_rows_that_are_locked_are_waited_for_on_few_connections() -> None:
    """However many items of whatever kinds have to wait, the others go on."""
    may_end = asyncio.Event()
    waiting = 0

    async def send(_db: Database, items: list[int]) -> list[int | Exception]:
        return [RowLocked() if item < 10 else item for item in items]

    async def alone(_db: Database, item: int) -> int:
        nonlocal waiting
        waiting += 1
        await may_end.wait()
        return -item

    kinds: list[Gathered[int, int]] = [Gathered(send, alone=alone), Gathered(send, alone=alone)]
    async with opened("postgres://nobody@127.0.0.1:1/nothing") as db:
        callers = [asyncio.ensure_future(call(db, item)) for call in kinds for item in range(10)]
        for call in kinds:
            assert await call(db, 10) == 10
            assert await call(db, 11) == 11
        assert waiting == gathered.WAITERS_MAX
        may_end.set()
        assert await asyncio.gather(*callers) == [-item for _ in kinds for item in range(10)]


async def test_one_connection_waits_for_a_locked_row_however_many_want_it() -> None:
    """So a row that somebody else has locked for a moment does not wait behind it."""
    may_end = asyncio.Event()
    waiting = 0

    async def send(_db: Database, items: list[str]) -> list[str | Exception]:
        return [RowLocked() for _ in items]

    async def alone(_db: Database, item: str) -> str:
        nonlocal waiting
        if item == "for long":
            waiting += 1
            await may_end.wait()
        return item

    call: Gathered[str, str] = Gathered(send, alone=alone, key=str)
    async with opened("postgres://nobody@127.0.0.1:1/nothing") as db:
        callers = [asyncio.ensure_future(call(db, "for long")) for _ in range(5)]
        for _ in range(100):
            await asyncio.sleep(0)
        assert waiting == 1
        assert await call(db, "for a moment") == "for a moment"
        may_end.set()
        assert await asyncio.gather(*callers) == ["for long"] * 5


async def test_a_batch_of_one_item_is_a_statement_for_one() -> None:
    """It is sent at once, and with others only if they are there."""
    sent: list[str] = []

    async def send(_db: Database, items: list[int]) -> list[int]:
        sent.append("many")
        return items

    async def lone(_db: Database, item: int) -> int | Exception:
        sent.append("lone")
        return RowLocked() if item == 0 else item

    async def alone(_db: Database, item: int) -> int:
        sent.append("alone")
        return item

    call: Gathered[int, int] = Gathered(send, alone=alone, lone=lone)
    async with opened("postgres://nobody@127.0.0.1:1/nothing") as db:
        assert await call(db, 1) == 1
        assert await call(db, 0) == 0
        assert await asyncio.gather(*(call(db, item) for item in (1, 2))) == [1, 2]
    assert sent == ["lone", "lone", "alone", "many"]


async def test_too_many_callers_are_refused_as_if_postgres_were_away(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(pending._claim._options, "waiting_max", 1)
    callers = [asyncio.ensure_future(claim_deadline(db, order_no)) for order_no in ORDERS]
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert [type(result) for result in results[1:]] == [DatabaseUnavailable] * 2
