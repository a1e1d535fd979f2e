"""No statement on an order's way reads a whole table, also on tables that Postgres has never analysed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from core.order import OrderStatus
from storage.postgres import callbacks, inbox, notifications, pending
from storage.postgres.database import Database
from storage.postgres.orders import find_state, find_state_by_payment
from tests.sealed import SEALER
from tests.storage.postgres.tools import commit_evidence, number, opened, paid, placed

TABLES = (
    "orders",
    "payments",
    "pending",
    "order_events",
    "cases",
    "observations_default",
    "refunds",
    "callbacks",
    "notifications",
)
ORDERS = 200
ROWS = 100_000

# Rows as one order leaves them behind. Triggers and foreign keys would only repeat what the first order has passed.
_COPIES = {
    "orders": "'order_no', 'copy-' || i, 'page_token', 'page-' || i",
    "payments": "'order_no', 'copy-' || i, 'out_trade_no', 'n-' || i, 'channel_transaction_id', 't-' || i",
    "order_events": "'order_no', 'copy-' || i",
    "notifications": "'order_no', 'copy-' || i, 'id', 'msg-' || i",
    "callbacks": "'id', gen_random_uuid(), 'notification_id', 'evt-' || i, 'out_trade_no', 'n-' || i",
}


async def pay_one(db: Database, order_no: str) -> None:
    """One order from its placing to its notification, as the flows send their statements."""
    key = number(order_no)
    await placed(db, order_no)
    stored = await inbox.insert_callback(
        db,
        SEALER,
        account=key.channel_account,
        notification_id=f"evt-{order_no}",
        headers={},
        body=b"{}",
        evidence=paid(order_no),
        received_at=None,
        due_s=60.0,
        kept_s=86_400.0,
    )
    assert await find_state_by_payment(db, key) is not None
    assert await pending.claim(db, key, 20.0) is not None
    committed = await commit_evidence(db, order_no, paid(order_no))
    assert await callbacks.finish(db, stored.id, "paid")
    assert committed.notification_id is not None
    assert await notifications.claim(db, committed.notification_id, 20.0, arm_no=1) is not None
    assert await notifications.finish(db, committed.notification_id, "200")
    state = await find_state(db, order_no)
    assert state is not None
    assert state.order.status is OrderStatus.PAID


@asynccontextmanager
async def never_analysed(url: str) -> AsyncIterator[Database]:
    """A database whose tables autovacuum leaves alone, and one connection to it."""
    async with opened(url) as db:
        for table in TABLES:
            await db.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
        # With a world, each payment's transaction is looked up at the other accounts in it.
        await db.execute(
            "INSERT INTO accounts (name, channel, sealed, world) VALUES ('alipay', 'alipay', '', 'alipay live'),"
            " ('twin', 'alipay', '', 'alipay live')"
        )
        yield db


async def scans(db: Database) -> dict[str, int]:
    """Sequential scans of each table so far."""
    await db.execute("SELECT pg_stat_force_next_flush()")
    rows = await db.fetch("SELECT relname, seq_scan FROM pg_stat_user_tables WHERE relname = ANY($1)", TABLES)
    return {row["relname"]: row["seq_scan"] for row in rows}


async def copy_first(db: Database) -> None:
    for table, changes in _COPIES.items():
        copies = f"""
            SET LOCAL session_replication_role = replica;
            INSERT INTO {table}
            SELECT copy.* FROM (SELECT * FROM {table} LIMIT 1) AS t, generate_series(1, {ROWS}) AS i,
                   LATERAL jsonb_populate_record(t::{table}, jsonb_build_object({changes})) AS copy"""  # noqa: S608 - ours
        await db.execute(copies)


async def test_orders_of_a_fresh_database_read_no_table_whole(new_database_url: str) -> None:
    async with never_analysed(new_database_url) as db:
        before = await scans(db)
        for n in range(ORDERS):
            await pay_one(db, f"A-{n}")
        after = await scans(db)
        assert after == before


async def test_plans_made_on_empty_tables_read_no_large_table_whole(new_database_url: str) -> None:
    async with never_analysed(new_database_url) as db:
        for n in range(20):
            await pay_one(db, f"A-{n}")
        await copy_first(db)
        before = await scans(db)
        for n in range(20, 20 + ORDERS):
            await pay_one(db, f"A-{n}")
        after = await scans(db)
        assert after == before
