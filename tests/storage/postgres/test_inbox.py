"""Storing a callback reads its order and leases its payment, in the same statement and without waiting for it."""

import asyncio

import asyncpg
import pytest
from msgspec import DecodeError
from msgspec.structs import replace

from core.decision import Decision, Handled, Outcome
from core.errors import ConflictsExhausted
from core.evidence import Unpaid
from core.order import OrderState, PaymentStatus
from storage.postgres import callbacks, inbox, pending
from storage.postgres.database import Database
from storage.postgres.door.transition import transition
from storage.postgres.inbox import StoredCallback, insert_callback
from tests.sealed import SEALER
from tests.storage.postgres.plans import is_sorted, plan_parts
from tests.storage.postgres.tools import (
    DecideThere,
    commit_evidence,
    connected,
    decide_evidence,
    get_state,
    moved,
    noted,
    number,
    paid,
    placed,
    unpaid,
)


async def store(
    db: Database, order_no: str, notification_id: str = "evt-1", lease_s: float | None = 20.0
) -> StoredCallback:
    return await insert_callback(
        db,
        SEALER,
        account=number(order_no).channel_account,
        notification_id=notification_id,
        headers={},
        body=b"{}",
        evidence=paid(order_no),
        received_at=None,
        due_s=60.0,
        kept_s=86_400.0,
        lease_s=lease_s,
    )


async def test_a_free_payment_is_leased_and_its_order_is_read(db: Database) -> None:
    await placed(db, "A-1")
    stored = await store(db, "A-1")
    assert stored.named is not None
    state, payment = stored.named
    assert (state.order.order_no, payment.key, payment.status) == ("A-1", number("A-1"), PaymentStatus.OPEN)
    assert stored.leased is not None
    assert (stored.leased.key, stored.leased.order_no, stored.leased.arm_no) == (number("A-1"), "A-1", 1)
    assert await pending.claim(db, number("A-1"), 20.0) is None
    await pending.release(db, stored.leased, was_queried=False)
    assert await pending.claim(db, number("A-1"), 20.0) is not None


async def test_without_a_wish_nothing_is_read_or_leased(db: Database) -> None:
    await placed(db, "A-1")
    stored = await store(db, "A-1", lease_s=None)
    assert (stored.state, stored.leased) == (None, None)
    assert await pending.claim(db, number("A-1"), 20.0) is not None


async def test_an_order_that_cannot_be_read_costs_no_other_callback_its_lease(db: Database) -> None:
    order_nos = ["A-1", "A-2", "A-3", "A-4"]
    for order_no in order_nos:
        await placed(db, order_no)
    await db.execute("UPDATE orders SET metadata = '[]', version = version + 1 WHERE order_no = 'A-3'")
    stored = await asyncio.gather(*(store(db, order_no, order_no) for order_no in order_nos), return_exceptions=True)
    assert [isinstance(one, StoredCallback) and one.leased is not None for one in stored] == [True, True, False, True]
    assert isinstance(stored[2], DecodeError)


async def test_a_payment_that_another_process_queries_is_not_leased(db: Database) -> None:
    await placed(db, "A-1")
    held = await pending.claim(db, number("A-1"), 20.0)
    assert held is not None
    stored = await store(db, "A-1")
    assert stored.leased is None
    assert stored.state is not None
    await pending.release(db, held)
    assert (await store(db, "A-1", "evt-2")).leased is not None


async def test_a_payment_that_is_paid_is_not_leased(db: Database) -> None:
    await placed(db, "A-1")
    await commit_evidence(db, "A-1", paid("A-1"))
    stored = await store(db, "A-1")
    assert stored.leased is None
    assert stored.named is not None
    assert stored.named[1].status is PaymentStatus.PAID


async def test_a_copy_of_a_handled_callback_leases_nothing(db: Database) -> None:
    await placed(db, "A-1")
    first = await store(db, "A-1", lease_s=None)
    await callbacks.finish(db, first.id, "still_open")
    copy = await store(db, "A-1")
    assert (copy.id, copy.is_handled, copy.leased) == (first.id, True, None)


async def test_a_callback_about_no_payment_of_ours_is_stored(db: Database) -> None:
    stored = await store(db, "A-404")
    assert (stored.state, stored.leased, stored.named) == (None, None, None)


@pytest.mark.servers
async def test_a_payment_that_a_stranger_has_locked_is_not_waited_for(db: Database, database_url: str) -> None:
    """The acknowledgement depends on this statement alone."""
    await placed(db, "A-1")
    stranger = await asyncpg.connect(database_url, ssl=False)
    try:
        async with stranger.transaction():
            await stranger.execute("SELECT FROM pending WHERE out_trade_no = $1 FOR UPDATE", number("A-1").out_trade_no)
            async with asyncio.timeout(60):
                stored = await store(db, "A-1")
    finally:
        await stranger.close()
    assert stored.leased is None
    assert stored.state is not None


async def test_copies_are_locked_in_the_order_of_their_key(database_url: str) -> None:
    """Two processes that store the same callbacks the other way round do not wait for each other."""
    async with connected(database_url) as connection:
        parts = await plan_parts(connection, inbox._STORE, "[]", "here", None)
    assert parts["CTE stored"]["Node Type"] == "ModifyTable"
    assert is_sorted(parts["CTE stored"], "channel_account", "notification_id", "body_hash")


# -- ended by the statement of a decision ------------------------------------------------------------------------------


async def is_handled(db: Database, stored: StoredCallback) -> bool:
    return bool(await db.fetchval("SELECT handled_at IS NOT NULL FROM callbacks WHERE id = $1::uuid", stored.id))


def ending(stored: StoredCallback, decide: DecideThere) -> DecideThere:
    """The decision, which ends this callback."""
    return lambda state: replace(decide(state), handled=Handled(id=stored.id, outcome=Outcome.PAID))


async def test_a_decision_that_wins_ends_its_callback_in_the_same_statement(db: Database) -> None:
    await placed(db, "A-1")
    stored = await store(db, "A-1")
    await moved(db, "A-1", ending(stored, decide_evidence("A-1", paid("A-1"))))
    assert await is_handled(db, stored)
    assert await callbacks.finish(db, stored.id, "paid") is False


@pytest.mark.parametrize("evidence", [unpaid("A-1"), None])
async def test_a_decision_without_a_change_ends_its_callback_too(db: Database, evidence: Unpaid | None) -> None:
    await placed(db, "A-1")
    stored = await store(db, "A-1")
    decide = decide_evidence("A-1", evidence) if evidence else lambda _: Decision(outcome=Outcome.NOTHING_NEW)
    committed = await moved(db, "A-1", ending(stored, decide))
    assert committed.version is None
    assert await is_handled(db, stored)


async def test_a_decision_that_loses_the_race_ends_no_callback_until_it_is_made_again(db: Database) -> None:
    await placed(db, "A-1")
    stored, stale = await store(db, "A-1"), await get_state(db, "A-1")
    await moved(db, "A-1", noted)

    def decide(state: OrderState | None) -> Decision:
        assert state is not None
        if state.order.version != stale.order.version:
            raise ConflictsExhausted("the second try of this test is not made")
        return ending(stored, noted)(state)

    with pytest.raises(ConflictsExhausted):
        await transition(db, "A-1", decide, known=stale)
    assert not await is_handled(db, stored)
    await moved(db, "A-1", ending(stored, noted))
    assert await is_handled(db, stored)


async def test_a_callback_has_one_end_whatever_is_decided_about_it_later(db: Database) -> None:
    """A copy of it may be decided about at the same time, in another process."""
    await placed(db, "A-1")
    stored = await store(db, "A-1")
    await callbacks.finish(db, stored.id, "contradicted")
    find_end = "SELECT handled_at, outcome FROM callbacks WHERE id = $1::uuid"
    end = await db.fetchrow(find_end, stored.id)
    await moved(db, "A-1", ending(stored, noted))
    assert await db.fetchrow(find_end, stored.id) == end
