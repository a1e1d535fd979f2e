"""Postgres's CPU for the statements of one order, on tables that began empty and were never analysed.

The plans of a connection are made while its tables are small, and stay: this shows whether an order costs more when
there are many.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from bench.cpu import cpu_seconds
from bench.report import MS, Figure, Result, figure
from bench.sizes import ShowProgress, Sizes
from core.decision import Decision, Handled
from core.evidence import Paid, Source
from core.lifecycle import OrderTerms, PaymentTerms, Rules, on_created, on_query, place
from core.order import Checkout, OrderState, PaymentKey
from demo.embedded import EmbeddedPostgres, temporary_directory
from demo.embedded.child import children_of
from storage.postgres import inbox, notifications
from storage.postgres.address import read_address
from storage.postgres.database import Database
from storage.postgres.door.transition import transition, transition_existing
from storage.postgres.migrate import migrate
from storage.sealing import Sealer, new_master_key

HOW = (
    "one connection places orders and pays them through the door, with the statements of their callback, lease and "
    "notification, one after another; in between the tables are filled with copies; autovacuum is off. At last the "
    "same without prepared statements, as behind a pooler that keeps none"
)
ORDERS = 300
LEASE_S = 20.0
ACCOUNT = "sandbox"
RULES = Rules()
SEALER = Sealer.from_setting(new_master_key("bench"))

TABLES = ("orders", "payments", "pending", "order_events", "cases", "refunds", "callbacks", "notifications")

# Copies of one finished order. Triggers and foreign keys would only repeat what that order has passed.
_COPY = """
SET LOCAL session_replication_role = replica;
INSERT INTO {table}
SELECT copy.* FROM (SELECT * FROM {table} LIMIT 1) AS t, generate_series({first}, {last}) AS i,
       LATERAL jsonb_populate_record(t::{table}, jsonb_build_object({changes})) AS copy"""
_CHANGES = {
    "orders": "'order_no', 'copy-' || i, 'page_token', 'copy-' || i",
    "payments": "'order_no', 'copy-' || i, 'out_trade_no', 'n-' || i, 'channel_transaction_id', 't-' || i",
    "order_events": "'order_no', 'copy-' || i",
    "callbacks": "'id', gen_random_uuid(), 'notification_id', 'evt-' || i, 'out_trade_no', 'n-' || i",
    "notifications": "'order_no', 'copy-' || i, 'id', 'msg-' || i",
}
_SCANS = "SELECT sum(seq_scan)::bigint FROM pg_stat_user_tables WHERE relname = ANY($1)"


async def measure(sizes: Sizes, show_progress: ShowProgress) -> Result:
    """CPU milliseconds and sequential scans of an order behind few, some and many others."""
    began = time.monotonic()
    figures: list[Figure] = []
    with temporary_directory() as directory, EmbeddedPostgres(directory / "postgres") as server:
        server.create_database("door")
        await migrate(server.url("door"))
        address = read_address(server.url("door"), "")
        async with _opened(Database(address)) as db:
            for table in TABLES:
                await db.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
            there = 0
            for size in (0, sizes.rows // 4, sizes.rows):
                show_progress(f"{ORDERS} orders behind {size}")
                await _copy(db, there, size)
                there = max(there, size)
                figures += await _pay(db, server, f"behind_{size}", sizes.limit_s)
        show_progress(f"{ORDERS} orders without prepared statements")
        async with _opened(Database(address, statement_cache_size=0)) as db:
            figures += await _pay(db, server, "unprepared", sizes.limit_s)
    return Result(
        benchmark="door",
        how=HOW,
        settings={"rows": sizes.rows},
        seconds=round(time.monotonic() - began, 1),
        figures=tuple(figures),
    )


@asynccontextmanager
async def _opened(db: Database) -> AsyncIterator[Database]:
    await db.open()
    try:
        yield db
    finally:
        await db.close()


async def _pay(db: Database, server: EmbeddedPostgres, name: str, limit_s: float) -> list[Figure]:
    """Place and pay orders within the limit. What the copies left to be written is written before, and several others
    are paid, so that every plan is made.
    """
    await db.execute("CHECKPOINT", timeout_s=limit_s)
    for number in range(20):
        await pay_one(db, f"warm-{name}-{number}")
    scans, spent, began, count = await _scans(db), _cpu_s(server), time.monotonic(), 0
    while count < ORDERS and time.monotonic() - began < limit_s:
        await pay_one(db, f"door-{name}-{count}")
        count += 1
    spent = _cpu_s(server) - spent
    scans = await _scans(db) - scans
    return [
        figure(f"cpu_{name}", spent / count * MS, "CPU ms/order", count),
        figure(f"scans_{name}", scans / count, "sequential scans/order", count),
    ]


async def place_one(db: Database, order_no: str) -> tuple[PaymentKey, OrderState]:
    """Place an order and store its checkout, with the statements of the flows. Returns its payment and the order."""
    key = PaymentKey(ACCOUNT, f"n{order_no}")
    now = datetime.now(UTC)
    terms = OrderTerms(
        order_no=order_no, amount=8888, currency="CNY", subject="A pot of tea", notify_url="https://shop.test/hook"
    )
    payment = PaymentTerms(account=ACCOUNT, out_trade_no=key.out_trade_no)
    checkout = Checkout(kind="redirect", value=f"https://channel.test/pay/{order_no}")

    def decide_new(state: OrderState | None) -> Decision:
        expires_at = now + timedelta(minutes=30)
        return place(terms, payment, state, RULES, now=now, expires_at=expires_at, page_token=f"page-{order_no}")

    def decide_created(state: OrderState) -> Decision:
        return on_created(state, key, checkout=checkout, channel_reference=None, payable_until=None)

    placed = await transition(db, order_no, decide_new, is_new=True)
    created = await transition_existing(db, order_no, decide_created, known=placed.state_after)
    assert created.state_after is not None, "the order was there"
    return key, created.state_after


async def pay_one(db: Database, order_no: str) -> None:
    """The statements of one order until it is paid and notified."""
    key, _ = await place_one(db, order_no)
    evidence = Paid(**key._asdict(), amount=8888, currency="CNY", channel_transaction_id=f"t-{order_no}")
    stored = await inbox.insert_callback(
        db,
        SEALER,
        account=ACCOUNT,
        notification_id=f"evt-{order_no}",
        headers={},
        body=b"{}",
        evidence=evidence,
        received_at=None,
        due_s=60.0,
        kept_s=86_400.0,
        lease_s=LEASE_S,
    )

    def decide_paid(found: OrderState) -> Decision:
        decision = on_query(found, key, evidence, RULES, Source.CALLBACK)
        return replace(decision, handled=Handled(id=stored.id, outcome=decision.outcome))

    committed = await transition_existing(db, order_no, decide_paid, known=stored.state)
    assert committed.notification_id is not None, "the order is paid and has an address to notify"
    await notifications.claim(db, committed.notification_id, LEASE_S, arm_no=1)
    await notifications.finish(db, committed.notification_id, "200")


async def _copy(db: Database, there: int, size: int) -> None:
    if size > there:
        for table, changes in _CHANGES.items():
            await db.execute(_COPY.format(table=table, changes=changes, first=there + 1, last=size))


async def _scans(db: Database) -> int:
    await db.execute("SELECT pg_stat_force_next_flush()")
    return int(await db.fetchval(_SCANS, TABLES))


def _cpu_s(server: EmbeddedPostgres) -> float:
    return sum(cpu_seconds(pid) for pid in (server.pid, *children_of(server.pid)))
