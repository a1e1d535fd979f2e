"""The temporary table: leases, reschedulings, overdue rows and the walk."""

import asyncio

import pytest
from msgspec import DecodeError
from msgspec.structs import replace

from core.order import PaymentKey, PendingKind, deadline_key
from storage.postgres.database import Database
from storage.postgres.orders import find_state
from storage.postgres.pending import (
    PendingRow,
    claim,
    claim_overdue,
    claim_with_order,
    find_last_query,
    release,
    reschedule,
    walk_due,
)
from tests.servers import eventually
from tests.storage.postgres.tools import (
    commit_evidence,
    connected,
    count,
    number,
    opened,
    paid,
    pass_time,
    placed,
    rows,
    started,
    unpaid,
)

KEY = number("A-1")
QUERY = "kind = 'query'"


# -- the lease ---------------------------------------------------------------------------------------------------------


async def test_one_of_fifty_claims_at_once_gets_the_lease(database_url: str) -> None:
    """Across processes: one query per payment at a time."""
    async with opened(database_url) as one, opened(database_url) as two, opened(database_url) as three:
        await placed(one)
        leases = await asyncio.gather(*(claim([one, two, three][n % 3], KEY, 30.0) for n in range(50)))
        [held] = [found for found in leases if found is not None]
        assert (held.key, held.kind, held.order_no, held.arm_no) == (KEY, PendingKind.QUERY, "A-1", 1)


async def test_a_lease_is_for_one_payment(db: Database) -> None:
    await placed(db)
    await started(db, "A-1", number("A-1", "wechat"))
    assert await claim(db, KEY, 30.0) is not None
    assert await claim(db, number("A-1", "wechat"), 30.0) is not None
    assert await claim(db, deadline_key("A-1"), 30.0) is not None


async def test_scheduled_rows_are_leased_together_with_their_orders(db: Database) -> None:
    """Each caller has the order that its own lease protects, of the arm number that it names."""
    order_nos = ("A-1", "A-2", "A-3")
    for order_no in order_nos:
        await placed(db, order_no)
    await pass_time(db, "pending", 120)
    keys = [*map(number, order_nos), deadline_key("A-2")]
    claims = await asyncio.gather(*(claim_with_order(db, key, 30.0, arm_no=1) for key in keys))
    found = [(leased.key, leased.order_no, state.order.order_no) for leased, state in filter(None, claims)]
    assert found == [(key, order_no, order_no) for key, order_no in zip(keys, order_nos, strict=False)]
    assert claims[0] is not None
    assert claims[0][1] == replace(await find_state(db, "A-1") or claims[0][1], now=claims[0][1].now)
    again = await asyncio.gather(*(claim_with_order(db, key, 30.0, arm_no=1) for key in keys))
    assert again == [None] * 4


async def test_an_order_that_cannot_be_read_costs_no_other_its_lease(db: Database) -> None:
    order_nos = ["A-1", "A-2", "A-3", "A-4"]
    for order_no in order_nos:
        await placed(db, order_no)
    await pass_time(db, "pending", 120)
    await db.execute("UPDATE orders SET metadata = '[]', version = version + 1 WHERE order_no = 'A-3'")
    claims = [claim_with_order(db, number(order_no), 30.0, arm_no=1) for order_no in order_nos]
    results = await asyncio.gather(*claims, return_exceptions=True)
    assert [isinstance(result, tuple) for result in results] == [True, True, False, True]
    assert isinstance(results[2], DecodeError)


async def test_an_older_job_leases_nothing(db: Database) -> None:
    await placed(db)
    await pass_time(db, "pending", 120)
    assert await claim_with_order(db, KEY, 30.0, arm_no=2) is None
    assert await claim_with_order(db, KEY, 30.0, arm_no=1) is not None


async def test_a_lease_given_back_can_be_had_again(db: Database) -> None:
    await placed(db)
    held = await claim(db, KEY, 30.0)
    assert held is not None
    await release(db, held)
    assert await claim(db, KEY, 30.0) is not None


async def test_a_lease_ends_by_itself(db: Database) -> None:
    """A killed worker holds nothing up for long."""
    await placed(db)
    assert await claim(db, KEY, 0.05) is not None
    assert await eventually(lambda: claim(db, KEY, 30.0)) is not None


async def test_an_ended_lease_does_not_release_the_next_one(db: Database) -> None:
    await placed(db)
    late = await claim(db, KEY, 0.0)
    held = await claim(db, KEY, 30.0)
    assert late is not None
    assert held is not None
    await release(db, late)
    assert await claim(db, KEY, 30.0) is None
    [row] = await rows(db, "pending", "leased_at, answered_from", QUERY)
    assert row == {"leased_at": held.leased_at, "answered_from": None}


async def test_another_arm_number_or_account_has_no_lease(db: Database) -> None:
    await placed(db)
    await pass_time(db, "pending", 60.0, QUERY)
    assert await claim(db, KEY, 30.0, arm_no=2) is None
    assert await claim(db, PaymentKey("wechat", KEY.out_trade_no), 30.0) is None
    assert await claim(db, KEY, 30.0, arm_no=1) is not None


async def test_a_resolved_payment_has_no_lease_and_nothing_to_give_back(db: Database) -> None:
    await placed(db)
    held = await claim(db, KEY, 30.0)
    await commit_evidence(db, "A-1", paid())
    assert held is not None
    await release(db, held)
    assert await claim(db, KEY, 30.0) is None
    assert await find_last_query(db, KEY) is None


async def test_a_release_records_when_the_query_began(db: Database) -> None:
    await placed(db)
    before = await find_last_query(db, KEY)
    held = await claim(db, KEY, 30.0)
    during = await find_last_query(db, KEY)
    assert before is not None
    assert held is not None
    assert during is not None
    await release(db, held)
    after = await find_last_query(db, KEY)
    assert after is not None
    assert before.began_at is during.began_at is None
    assert before.now < held.leased_at < during.now < after.now
    assert after.began_at == held.leased_at


async def test_a_rescheduled_query_counts_as_the_last_query(db: Database) -> None:
    """Its row is moved by the door, which ends the lease with it."""
    await placed(db)
    await pass_time(db, "pending", 60.0, QUERY)
    held = await claim(db, KEY, 30.0, arm_no=1)
    assert held is not None
    await commit_evidence(db, "A-1", unpaid(), arm_no=1)
    last = await find_last_query(db, KEY)
    assert last is not None
    assert last.began_at == held.leased_at
    assert await claim(db, KEY, 30.0) is not None


# -- postponing --------------------------------------------------------------------------------------------------------


async def test_waiting_for_the_channels_rate_uses_no_attempt(db: Database) -> None:
    await placed(db)
    held = await claim(db, KEY, 30.0)
    assert held is not None
    assert await reschedule(db, held, delay_s=5.0) == 2
    [row] = await rows(db, "pending", "attempt, arm_no, leased_until, due_at - now() < '6 s' AS soon", QUERY)
    assert row == {"attempt": 1, "arm_no": 2, "leased_until": None, "soon": True}


async def test_rows_that_are_put_off_at_once_keep_each_its_own_delay(db: Database) -> None:
    order_nos = ("A-1", "A-2", "A-3")
    leases = []
    for order_no in order_nos:
        await placed(db, order_no)
        leases.append(await claim(db, number(order_no), 30.0))
    held = [lease for lease in leases if lease is not None]
    stale = replace(held[1], arm_no=9)
    put_off = [(held[0], 600.0), (stale, 5.0), (held[2], 1200.0)]
    assert await asyncio.gather(*(reschedule(db, lease, delay_s=delay_s) for lease, delay_s in put_off)) == [2, None, 2]
    found = await rows(db, "pending", "arm_no, leased_at, round(extract(epoch FROM due_at - now()) / 60) AS m", QUERY)
    assert sorted((row["arm_no"], int(row["m"])) for row in found) == [(1, 1), (2, 10), (2, 20)]
    assert [row["leased_at"] is None for row in found].count(True) == 2


async def test_what_was_scheduled_anew_is_not_postponed(db: Database) -> None:
    await placed(db)
    held = await claim(db, KEY, 30.0)
    assert held is not None
    await commit_evidence(db, "A-1", unpaid(), arm_no=1)
    assert await reschedule(db, held, delay_s=5.0) is None
    await commit_evidence(db, "A-1", paid())
    assert await reschedule(db, held, delay_s=5.0) is None


# -- overdue rows ------------------------------------------------------------------------------------------------------


async def overdue_orders(db: Database, orders: int) -> None:
    """A-1 has been due for the longest, by a day more than the next; only their queries."""
    for n in range(1, orders + 1):
        await placed(db, f"A-{n}")
        await pass_time(db, "pending", 86_400.0 * (orders - n + 1), f"order_no = 'A-{n}' AND {QUERY}")


async def test_the_oldest_come_first_and_nothing_is_too_old(db: Database) -> None:
    await overdue_orders(db, 40)
    claimed = [await claim_overdue(db, grace_s=15.0, limit=15, lease_s=30.0) for _ in range(4)]
    assert [len(batch) for batch in claimed] == [15, 15, 10, 0]
    assert [leased.order_no for batch in claimed for leased in batch] == [f"A-{n}" for n in range(1, 41)]


async def test_two_sweeps_take_different_rows(database_url: str) -> None:
    async with opened(database_url) as one, opened(database_url) as two:
        await overdue_orders(one, 40)
        batches = await asyncio.gather(
            *(claim_overdue([one, two][n % 2], grace_s=15.0, limit=7, lease_s=30.0) for n in range(8))
        )
        claimed = [leased.key for batch in batches for leased in batch]
        assert len(claimed) == len(set(claimed)) == 40


async def test_what_is_due_is_left_to_redis_for_the_time_of_grace(db: Database) -> None:
    await placed(db)
    await pass_time(db, "pending", 60.0 + 14.0, QUERY)
    assert await claim_overdue(db, grace_s=15.0, limit=10, lease_s=30.0) == []
    await pass_time(db, "pending", 2.0, QUERY)
    [leased] = await claim_overdue(db, grace_s=15.0, limit=10, lease_s=30.0)
    assert (leased.key, leased.order_no, leased.arm_no) == (KEY, "A-1", 1)


async def test_a_leased_row_is_not_claimed_as_overdue(db: Database) -> None:
    await placed(db)
    await pass_time(db, "pending", 3600.0)
    assert await claim(db, KEY, 30.0) is not None
    claimed = await claim_overdue(db, grace_s=0.0, limit=10, lease_s=30.0)
    assert [leased.kind for leased in claimed] == [PendingKind.DEADLINE]
    await pass_time(db, "pending", 60.0)
    assert len(await claim_overdue(db, grace_s=0.0, limit=10, lease_s=30.0)) == 2


async def test_a_claimed_row_is_leased_like_any_other(db: Database) -> None:
    await placed(db)
    await pass_time(db, "pending", 3600.0, QUERY)
    [leased] = await claim_overdue(db, grace_s=0.0, limit=10, lease_s=30.0)
    assert await claim(db, KEY, 30.0) is None
    await release(db, leased)
    last = await find_last_query(db, KEY)
    assert last is not None
    assert last.began_at == leased.leased_at


async def test_a_row_that_is_locked_by_a_writer_is_skipped(db: Database, database_url: str) -> None:
    """The sweep never waits: it takes what is free."""
    await overdue_orders(db, 3)
    async with connected(database_url) as writer, writer.transaction():
        await writer.execute("SELECT FROM pending WHERE order_no = 'A-1' FOR UPDATE")
        claimed = await claim_overdue(db, grace_s=0.0, limit=10, lease_s=30.0)
    assert [leased.order_no for leased in claimed] == ["A-2", "A-3"]


# -- reminding Redis ---------------------------------------------------------------------------------------------------


async def walked(db: Database, from_s: float, until_s: float) -> list[PendingRow]:
    return [armed async for batch in walk_due(db, from_s=from_s, until_s=until_s) for armed in batch]


async def test_the_walk_finds_what_is_due_within_the_horizon(db: Database) -> None:
    await placed(db)
    assert {armed.key for armed in await walked(db, 0.0, 1900.0)} == {KEY, deadline_key("A-1")}
    [armed] = await walked(db, 0.0, 900.0)
    assert (armed.key, armed.kind, armed.order_no, armed.arm_no) == (KEY, PendingKind.QUERY, "A-1", 1)
    assert 50.0 < armed.delay_s <= 60.0
    assert await walked(db, 100.0, 900.0) == []


async def test_what_is_overdue_is_armed_at_once(db: Database) -> None:
    await placed(db)
    await pass_time(db, "pending", 40 * 86_400.0, QUERY)
    [armed] = await walked(db, -365 * 86_400.0, 60.0)
    assert (armed.key, armed.delay_s) == (KEY, 0.0)


async def test_the_walk_goes_on_from_batch_to_batch(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.postgres.leases.WALK_BATCH", 3)
    for n in range(8):
        await placed(db, f"A-{n}")
    batches = [[armed.key for armed in batch] async for batch in walk_due(db, from_s=0.0, until_s=3600.0)]
    assert [len(batch) for batch in batches] == [3, 3, 3, 3, 3, 1]
    assert len({key for batch in batches for key in batch}) == await count(db, "pending") == 16
