"""No statement on an order's way reads a whole table, whatever Postgres knows of it when it makes the plan."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from core.deliveries import Attempt
from core.dispute import DisputeState
from core.lifecycle import on_deadline
from core.order import OrderStatus, deadline_key
from storage.postgres import (
    accounts,
    alert_facts,
    callbacks,
    database,
    deliveries,
    endpoints,
    inbox,
    notifications,
    open_work,
    pending,
    refund_approvals,
    refunds,
    retention,
)
from storage.postgres.cases import list_cases
from storage.postgres.database import Database
from storage.postgres.disputes import list_disputes
from storage.postgres.inbox import StoredCallback
from storage.postgres.notifications import Outgoing
from storage.postgres.orders import (
    find_named_payment,
    find_state,
    find_state_by_page_token,
    find_state_by_payment,
    list_orders,
    timeline,
)
from storage.postgres.payments import find_payments_by_ids
from storage.postgres.search import find_by_number, order_of
from tests.sealed import SEALER
from tests.storage.postgres.plans import TABLES, hashing_plans, read_so_far, wide_plans
from tests.storage.postgres.tools import (
    RULES,
    closed,
    commit_evidence,
    moved,
    number,
    opened,
    paid,
    placed,
    started,
    unpaid,
)

ORDERS = 5
TRIED = Attempt(no=1, at=datetime(2026, 11, 23, tzinfo=UTC), latency_ms=12, status="200", answer="ok")
ROWS = 20_000
SLACK = ROWS // 10
"""Old versions of rows are read for a while: more or less of them, but not a tenth of a table."""

# Rows as one order leaves them behind, and all that waits is due in a month. Triggers and foreign keys would only
# repeat what the first order has passed.
_LATER = "'due_at', now() + interval '30 days', 'leased_until', NULL"
_COPIES = {
    "orders": "'order_no', 'copy-' || i, 'page_token', 'page-' || i",
    "payments": "'order_no', 'copy-' || i, 'out_trade_no', 'n-' || i, 'channel_transaction_id', 't-' || i",
    "pending": f"'order_no', 'copy-' || i, 'out_trade_no', 'n-' || i, {_LATER}",
    "order_events": "'order_no', 'copy-' || i",
    "observations": "'order_no', 'copy-' || i",
    "cases": "'order_no', 'copy-' || i, 'id', 1000000 + i",
    "refunds": f"""'refund_no', 'r-' || i, 'order_no', 'copy-' || i, 'out_trade_no', 'n-' || i,
                   'channel_refund_no', 're-' || i, {_LATER}""",
    "notifications": f"'order_no', 'copy-' || i, 'id', 'msg-' || i, 'delivered_at', NULL, {_LATER}",
    "callbacks": f"""'id', gen_random_uuid(), 'notification_id', 'evt-' || i, 'out_trade_no', 'n-' || i,
                     'handled_at', NULL, {_LATER}""",
}


# -- what an order and its operators do --------------------------------------------------------------------------------


async def pay_one(db: Database, order_no: str) -> None:
    """One order from its placing to its notification, as the flows send their statements."""
    key = number(order_no)
    await placed(db, order_no)
    stored = await receive(db, order_no, lease_s=20.0)
    assert stored.leased is not None
    assert await find_state_by_payment(db, key) is not None
    committed = await commit_evidence(db, order_no, paid(order_no))
    assert await callbacks.finish(db, stored.id, "paid")
    assert committed.notification_id is not None
    assert await notifications.claim(db, committed.notification_id, 20.0, arm_no=1) is not None
    assert await notifications.finish(db, committed.notification_id, "200", arm_no=1, record=TRIED)
    state = await find_state(db, order_no)
    assert state is not None
    assert state.order.status is OrderStatus.PAID


async def receive(db: Database, order_no: str, **changes: Any) -> StoredCallback:
    return await inbox.insert_callback(
        db,
        SEALER,
        account="alipay",
        notification_id=f"evt-{order_no}",
        headers={},
        body=b"{}",
        evidence=paid(order_no),
        received_at=None,
        **{"due_s": 60.0, "kept_s": 86_400.0, **changes},
    )


async def query_one(db: Database, order_no: str) -> None:
    """An order that is asked about, put off, closed after its time, and paid late all the same."""
    key = number(order_no)
    await placed(db, order_no)
    held = await pending.claim(db, key, 20.0)
    assert held is not None
    await pending.note_answer(db, key, is_verified=True)
    await pending.release(db, held)
    assert await pending.find_last_query(db, key) is not None
    await commit_evidence(db, order_no, unpaid(order_no), arm_no=1)
    held = await pending.claim(db, key, 20.0)
    assert held is not None
    assert await pending.reschedule(db, held, delay_s=60.0) == held.arm_no + 1
    await started(db, order_no, number(order_no, "twin"))
    await commit_evidence(db, order_no, closed(order_no))
    await pending.claim(db, deadline_key(order_no), 20.0, arm_no=1)
    await pending.claim_with_order(db, key, 20.0, arm_no=1)
    await moved(db, order_no, lambda state: on_deadline(state, RULES))
    await commit_evidence(db, order_no, paid(order_no))
    await commit_evidence(db, order_no, paid(key=number(order_no, "twin")), key=number(order_no, "twin"))


async def sweep(db: Database, order_no: str) -> None:
    """Work that is overdue is claimed and put off, and what is due soon is armed."""
    stored = await receive(db, order_no, due_s=-60.0)
    await placed(db, order_no)
    await commit_evidence(db, order_no, paid(order_no))
    claims = (callbacks.claim_overdue, notifications.claim_overdue, pending.claim_overdue, refunds.claim_overdue)
    for claim_overdue in claims:
        await claim_overdue(db, grace_s=30.0, limit=100, lease_s=20.0)
    for outgoing in await notifications.claim_overdue(db, grace_s=0.0, limit=100, lease_s=20.0):
        await notifications.reschedule(db, outgoing, attempt=2, delay_s=3000.0, status="503", record=TRIED)
    await notifications.claim_overdue_resent(db, grace_s=0.0, limit=100, lease_s=20.0)
    await endpoints.let_go(db, limit=10, gap_s=0.1)
    await callbacks.reschedule(db, stored, attempt=2, delay_s=-60.0, outcome="error")
    await callbacks.claim(db, stored.id, 20.0, arm_no=2)
    await callbacks.find_others(db, stored, [stored.evidence.out_trade_no])
    assert await callbacks.finish(db, stored.id, "paid")
    for walk_due in (pending.walk_due, callbacks.walk_due, notifications.walk_due, refunds.walk_due):
        async for _ in walk_due(db, from_s=-60.0, until_s=30.0):
            pass
    assert await refunds.claim(db, f"none-of-{order_no}", 20.0, arm_no=1) is None
    await retention.delete_callbacks(db, keep_days=30)
    await retention.delete_notifications(db, keep_days=30)
    await retention.find_left_payers(db, 100)


async def look_around(db: Database, order_no: str) -> None:
    """An operator's lists, pages and searches, at their beginning and further on."""
    _, cursor = await list_orders(db, limit=2)
    await list_orders(db, limit=2, cursor=cursor)
    await list_orders(db, limit=2, account="alipay")
    await list_cases(db, order_no=order_no)
    _, cursor = await list_cases(db, limit=2)
    await list_cases(db, limit=2, cursor=cursor)
    await list_cases(db, limit=2, open_only=False)
    _, cursor = await list_cases(db, oldest_first=True, limit=2)
    await list_cases(db, oldest_first=True, limit=2, cursor=cursor)
    await list_cases(db, oldest_first=True, limit=2, unassigned_only=True)
    await list_cases(db, oldest_first=True, limit=2, open_only=False)
    await list_cases(db, oldest_first=True, order_no=order_no)
    await list_cases(db, oldest_first=True, order_no=order_no, open_only=False)
    for state in (None, DisputeState.LOST):
        await list_disputes(db, limit=2, state=state)
    await notifications.list_dead_letters(db, 2)
    await open_work.count_open_work(db)
    await accounts.count_open_work(db, "alipay", limit=2)
    for open_only in (True, False):
        await refund_approvals.list_approvals(db, open_only=open_only, limit=2)
    await refund_approvals.approvals_of(db, order_no)
    for listed in deliveries.Listed.UNDELIVERED, deliveries.Listed.DEAD, deliveries.Listed.DELIVERED:
        choice = deliveries.Choice(listed=listed)
        _, cursor = await deliveries.list_notifications(db, choice, limit=2)
        await deliveries.list_notifications(db, choice, cursor=cursor, limit=2)
    [first, *_] = await deliveries.notifications_of_order(db, order_no)
    assert await deliveries.find_notification(db, first.id) is not None
    assert await deliveries.find_body(db, first.id)
    await send_again(db, first.id)
    assert await find_state_by_page_token(db, f"page-token-of-{order_no}", days=90) is not None
    assert await find_payments_by_ids(db, "alipay", [f"alipay-{order_no}", f"t-alipay-{order_no}"])
    assert await refunds.find_by_channel_numbers(db, "alipay", [f"there-{order_no}", "there-2"]) == {}
    assert order_of(await find_by_number(db, f"alipay-{order_no}")) == order_no
    assert await find_by_number(db, f"there-{order_no}") == []
    assert await find_named_payment(db, "alipay", paid(order_no)) is not None
    assert await timeline(db, order_no)


async def send_again(db: Database, notification_id: str) -> None:
    """A person sends a delivered notification again, while its endpoint is paused, and resumes that. Of many at once,
    another may be faster.
    """
    await endpoints.pause(db, "https://shop.test/hook", by="kim", reason="they move")
    await endpoints.find_pause(db, "https://shop.test/hook")
    await claim_again(db, notification_id, notifications.hold)
    await endpoints.resume(db, "https://shop.test/hook")
    await endpoints.let_go(db, limit=10, gap_s=0.0)
    await claim_again(db, notification_id, partial(notifications.give_up, status="410", record=TRIED))


async def claim_again(
    db: Database, notification_id: str, end: Callable[[Database, Outgoing], Awaitable[object]]
) -> None:
    for resent in await deliveries.resend(db, [notification_id], is_paced=False):
        outgoing = await notifications.claim(db, notification_id, 20.0, arm_no=resent.arm_no)
        if outgoing is not None:
            await end(db, outgoing)


async def everything(db: Database, name: str) -> None:
    await pay_one(db, f"{name}-paid")
    await query_one(db, f"{name}-late")
    await sweep(db, f"{name}-swept")
    await look_around(db, f"{name}-paid")


# -- what Postgres knows of the tables ---------------------------------------------------------------------------------


@asynccontextmanager
async def analysed(url: str, when: str) -> AsyncIterator[Database]:
    """A database that Postgres analyses once, when its tables are `empty` or `small`, or `never`."""
    async with opened(url) as db:
        for table in TABLES:
            await db.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
        # With a world, each payment's transaction is looked up at the other accounts in it.
        await db.execute(
            "INSERT INTO accounts (name, channel, sealed, world) VALUES ('alipay', 'alipay', '', 'alipay live'),"
            " ('other', 'alipay', '', 'alipay live')"
        )
        if when == "empty":
            await db.execute("VACUUM ANALYZE")
        await everything(db, "first")
        if when == "small":
            await db.execute("VACUUM ANALYZE")
        yield db


async def copy_first(db: Database) -> None:
    for table, changes in _COPIES.items():
        copies = f"""
            SET LOCAL session_replication_role = replica;
            INSERT INTO {table} OVERRIDING SYSTEM VALUE
            SELECT copy.* FROM (SELECT * FROM {table} LIMIT 1) AS t, generate_series(1, {ROWS}) AS i,
                   LATERAL jsonb_populate_record(t::{table}, jsonb_build_object({changes})) AS copy"""  # noqa: S608 - ours
        await db.execute(copies, timeout_s=120.0)


@pytest.mark.parametrize("when", ["never", "empty", "small"])
async def test_an_order_reads_as_much_behind_many_as_behind_none(
    new_database_url: str, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """The plans are made while the tables are empty or small, and stay."""
    monkeypatch.setattr(database, "CONNECTIONS_MAX", 1)
    async with analysed(new_database_url, when) as db:
        began = await read_so_far(db)
        for n in range(ORDERS):
            await everything(db, f"few-{n}")
        few = await read_so_far(db) - began
        await copy_first(db)
        began = await read_so_far(db)
        for n in range(ORDERS):
            await everything(db, f"many-{n}")
        many = await read_so_far(db) - began
    assert (few.scans, many.scans) == ({}, {})
    more = {name: (few.rows.get(name, 0), rows) for name, rows in many.rows.items()}
    assert {name: (a, b) for name, (a, b) in more.items() if b > a + SLACK} == {}


@pytest.mark.parametrize("when", ["never", "small"])
async def test_a_look_for_alerts_reads_what_is_open_and_one_page_of_orders(
    new_database_url: str, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    monkeypatch.setattr(database, "CONNECTIONS_MAX", 1)
    async with analysed(new_database_url, when) as db:
        await copy_first(db)
        long_ago = (
            "SET LOCAL session_replication_role = replica; UPDATE orders SET created_at = created_at - interval '1 h'"
        )
        await db.execute(f"{long_ago}, updated_at = updated_at - interval '1 h'", timeout_s=120.0)
        began = await read_so_far(db)
        await alert_facts.read_stored_facts(db)
        await alert_facts.find_broken(db, [])
        reads = await read_so_far(db) - began
    assert reads.scans == {}
    assert reads.rows["orders"] <= 4 * alert_facts.PAGE
    limits = {"notifications": alert_facts.NOTIFICATIONS_MAX, "cases": alert_facts.CASES_MAX}
    assert {
        name: rows for name, rows in reads.rows.items() if rows > 3 * limits.get(name.partition("_")[0], 2000)
    } == {}


@pytest.mark.parametrize("when", ["never", "empty", "small"])
async def test_no_kept_plan_reads_without_a_condition(new_database_url: str, when: str) -> None:
    """Also of the statements that many callers share."""
    async with analysed(new_database_url, when) as db:
        await asyncio.gather(*(everything(db, f"together-{n}") for n in range(ORDERS)))
        assert await wide_plans(db) == {}


async def test_no_kept_plan_hashes_what_it_guesses_from_a_large_table(new_database_url: str) -> None:
    """With a million analysed rows, memory for thousands was cleared in every statement of the door."""
    async with analysed(new_database_url, "never") as db:
        await copy_first(db)
        await db.execute("VACUUM ANALYZE", timeout_s=120.0)
        await everything(db, "second")
        assert await hashing_plans(db) == {}
