"""The part that the four leased tables share: the walk over what is due, and the clock of a lease."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import pytest

from core.evidence import Source
from core.lifecycle import LatePolicy, Rules, on_query
from core.order import PaymentKey
from storage.postgres import callbacks, inbox, notifications, pending, refunds
from storage.postgres.database import Database
from storage.postgres.leases import WALK_BATCH
from tests.sealed import SEALER
from tests.servers import eventually
from tests.storage.postgres.tools import (
    closed,
    commit_evidence,
    connected,
    count,
    moved,
    number,
    paid,
    pass_time,
    placed,
)

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


class Table(NamedTuple):
    """One leased table: its row of a test, copies of that row, and its module's verbs."""

    name: str
    insert_one: Callable[[Database], Awaitable[Any]]
    copies: str
    claim: Callable[[Database, Any, float], Awaitable[Any]]
    claim_overdue: Callable[..., Awaitable[list[Any]]]
    reschedule: Callable[[Database, Any, int, float], Awaitable[int | None]]
    walk_due: Callable[..., Any]


async def insert_pending(db: Database) -> PaymentKey:
    await placed(db)
    await db.execute("DELETE FROM pending WHERE kind = 'deadline'")
    return number("A-1")


async def insert_callback(db: Database) -> str:
    stored = await inbox.insert_callback(
        db,
        SEALER,
        account="alipay",
        notification_id="evt-0",
        headers={},
        body=b"{}",
        evidence=paid(),
        received_at=None,
        due_s=0.0,
        kept_s=86_400.0,
    )
    return stored.id


async def insert_notification(db: Database) -> str:
    await placed(db)
    notification_id = (await commit_evidence(db, "A-1", paid())).notification_id
    assert notification_id is not None
    return notification_id


async def insert_refund(db: Database) -> str:
    await placed(db)
    await commit_evidence(db, "A-1", closed())
    await db.execute("UPDATE orders SET status = 'closed', closed_at = now(), version = version + 1")
    rules = Rules(late_policy=LatePolicy.REFUND)
    committed = await moved(db, "A-1", lambda state: on_query(state, number("A-1"), paid(), rules, Source.QUERY))
    [refund_no] = committed.refund_nos
    # A statement of thousands of refunds would be summed up again for each of them.
    await db.execute("ALTER TABLE refunds DISABLE TRIGGER guard_refunded")
    return refund_no


TABLES = [
    Table(
        "pending",
        insert_pending,
        """INSERT INTO pending (channel_account, out_trade_no, kind, order_no, attempt, arm_no, due_at)
           SELECT channel_account, 'copy-' || n, kind, order_no, attempt, arm_no, due_at
             FROM pending, generate_series(1, $1::int) AS n""",
        lambda db, key, lease_s: pending.claim(db, key, lease_s, arm_no=1),
        pending.claim_overdue,
        lambda db, row, _, delay_s: pending.reschedule(db, row, delay_s=delay_s),
        pending.walk_due,
    ),
    Table(
        "callbacks",
        insert_callback,
        """INSERT INTO callbacks (channel_account, notification_id, body_hash, received_at, headers, body, evidence,
                                  out_trade_no, due_at)
           SELECT channel_account, 'copy-' || n, body_hash, received_at, headers, body, evidence, out_trade_no, due_at
             FROM callbacks, generate_series(1, $1::int) AS n""",
        lambda db, key, lease_s: callbacks.claim(db, key, lease_s, arm_no=1),
        callbacks.claim_overdue,
        lambda db, row, n, delay_s: callbacks.reschedule(db, row, attempt=n, delay_s=delay_s, outcome="not_yet"),
        callbacks.walk_due,
    ),
    Table(
        "notifications",
        insert_notification,
        """INSERT INTO notifications (id, order_no, version, type, url, body, due_at)
           SELECT 'copy-' || n, order_no, 1000 + n, type, url, body, due_at
             FROM notifications, generate_series(1, $1::int) AS n""",
        lambda db, key, lease_s: notifications.claim(db, key, lease_s, arm_no=1),
        notifications.claim_overdue,
        lambda db, row, n, delay_s: notifications.reschedule(db, row, attempt=n, delay_s=delay_s, status="busy"),
        notifications.walk_due,
    ),
    Table(
        "refunds",
        insert_refund,
        """INSERT INTO refunds (refund_no, channel_account, out_trade_no, order_no, amount, currency, reason, status,
                                requested_at, due_at)
           SELECT 'copy-' || n, channel_account, out_trade_no, order_no, 1, currency, reason, status, requested_at,
                  due_at
             FROM refunds, generate_series(1, $1::int) AS n""",
        lambda db, key, lease_s: refunds.claim(db, key, lease_s, arm_no=1),
        refunds.claim_overdue,
        lambda db, row, n, delay_s: refunds.reschedule(db, row, attempt=n, delay_s=delay_s),
        refunds.walk_due,
    ),
]
every_table = pytest.mark.parametrize("table", TABLES, ids=[table.name for table in TABLES])


@every_table
async def test_a_walk_finds_more_rows_than_a_batch_also_when_all_are_due_at_once(db: Database, table: Table) -> None:
    await table.insert_one(db)
    await db.execute(table.copies, WALK_BATCH + 6)
    batches = [
        [str(row.key if table.name == "pending" else row.id) for row in batch]
        async for batch in table.walk_due(db, until_s=3600.0)
    ]
    assert [len(batch) for batch in batches] == [WALK_BATCH, 7]
    assert len({key for batch in batches for key in batch}) == await count(db, table.name) == WALK_BATCH + 7


@every_table
async def test_a_walk_goes_from_the_oldest_to_the_end_of_its_window(
    db: Database, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.postgres.leases.WALK_BATCH", 2)
    await table.insert_one(db)
    await db.execute(table.copies, 9)
    # Ten rows: overdue by 2 days, by 1 day, due now, in 1 day … in 7 days.
    spread = f"""UPDATE {table.name} t SET due_at = clock_timestamp() + make_interval(days => r.n - 3)
                   FROM (SELECT ctid, row_number() OVER ()::int AS n FROM {table.name}) r WHERE t.ctid = r.ctid"""  # noqa: S608 - ours
    await db.execute(spread)
    delays = [row.delay_s async for batch in table.walk_due(db, until_s=4.5 * 86_400.0) for row in batch]
    assert [round(delay_s / 86_400.0) for delay_s in delays] == [0, 0, 0, 1, 2, 3, 4]
    later = [row.delay_s async for b in table.walk_due(db, from_s=0.5 * 86_400.0, until_s=2.5 * 86_400.0) for row in b]
    assert [round(delay_s / 86_400.0) for delay_s in later] == [1, 2]


@every_table
async def test_a_job_claims_no_row_before_it_is_due(db: Database, table: Table) -> None:
    """A job only reminds: one that somebody wrote into Redis would use up the attempts of its row within seconds."""
    key = await table.insert_one(db)
    for wait_s, is_due in ((60.0, False), (2.0, False), (0.5, True)):
        sql = f"UPDATE {table.name} SET due_at = clock_timestamp() + make_interval(secs => $1)"  # noqa: S608 - ours
        await db.execute(sql, wait_s)
        assert (await table.claim(db, key, 60.0) is not None) is is_due, wait_s


@every_table
async def test_a_row_that_the_sweep_postpones_does_not_wait_for_the_grace_again(db: Database, table: Table) -> None:
    """The sweep leaves a row to its job for a while. One that it postpones has waited for that."""
    await table.insert_one(db)
    await pass_time(db, table.name, 100.0)
    [row] = await table.claim_overdue(db, grace_s=15.0, limit=10, lease_s=30.0)
    assert await table.reschedule(db, row, 1, 2.0) == 2
    assert await table.claim_overdue(db, grace_s=15.0, limit=10, lease_s=30.0) == []
    await pass_time(db, table.name, 2.0)
    [row] = await table.claim_overdue(db, grace_s=15.0, limit=10, lease_s=30.0)
    if table.name != "pending":  # whose next attempt is the door's
        await table.reschedule(db, row, 2, 240.0)
        await pass_time(db, table.name, 250.0)
        assert await table.claim_overdue(db, grace_s=15.0, limit=10, lease_s=30.0) == []


@every_table
async def test_a_lease_that_waited_for_a_lock_is_as_long_as_it_says(
    db: Database, database_url: str, table: Table
) -> None:
    """`now()` would count from before the wait."""
    key = await table.insert_one(db)
    await db.execute(f"UPDATE {table.name} SET due_at = clock_timestamp()")  # noqa: S608 - ours
    async with connected(database_url) as writer:
        async with writer.transaction():
            await writer.execute(f"SELECT FROM {table.name} FOR UPDATE")
            claiming = asyncio.ensure_future(table.claim(db, key, 60.0))
            assert await eventually(lambda: writer.fetchval(WAITING))
            released_at = await writer.fetchval("SELECT clock_timestamp()")
        assert await claiming is not None
        leased_until = await writer.fetchval(f"SELECT leased_until FROM {table.name}")  # noqa: S608 - ours
    assert (leased_until - released_at).total_seconds() >= 60.0
