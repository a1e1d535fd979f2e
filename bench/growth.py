"""Cost of an order, a claim and a look of the sweep for Postgres, on top of many pending rows.

Three kinds of databases: `analysed` after each growth, as autovacuum leaves it; `never` analysed, with new connections
after each growth; `grown` as `never`, but by the connection that made its plans while the tables were empty.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

from bench.cpu import fine_cpu_seconds
from bench.door import ACCOUNT, LEASE_S, TABLES, pay_one, place_one
from bench.report import MS, Figure, Result, figure, of_repeats
from bench.sizes import ShowProgress, Sizes
from core.order import PaymentKey
from demo.embedded import EmbeddedPostgres, temporary_directory
from demo.embedded.child import children_of
from storage.postgres import pending
from storage.postgres.address import read_address
from storage.postgres.database import Database
from storage.postgres.migrate import migrate

HOW = (
    "statements of one connection, one after another, on tables with so many rows in `pending`; a claim leases the row "
    "of a payment, an idle sweep looks and finds nothing, a busy one claims 100 overdue rows; CPU of Postgres, medians "
    "of three blocks; a ratio is of a block on the largest table by one on the smallest, in turns; autovacuum is off; "
    "visits are pages of tables and indexes, found in memory or read"
)
SMALLEST = 1000
BLOCKS = 3
PAIRS = 16
"""Blocks on the largest and on the smallest table, each first in half of them: single ones differ by a tenth."""
ORDERS = 100
CLAIMS = 100
LOOKS = 100
BATCHES = 4
BATCH = 100
WARM_UP = 20
CHUNK = 10_000
"""Orders copied by one statement, within its time-out."""

FIRST = "growth"

# Each copy has the two rows of `pending` that an open order has. Triggers and foreign keys would only repeat what the
# first order has passed.
_COPY = """
SET LOCAL session_replication_role = replica;
INSERT INTO {table}
SELECT copy.* FROM (SELECT * FROM {table} WHERE order_no = '{order_no}') AS t,
       generate_series({first}, {last}) AS i,
       LATERAL jsonb_populate_record(t::{table}, jsonb_build_object('order_no', 'grown-' || i, {changes})) AS copy"""
_CHANGES = {
    "orders": "'page_token', 'grown-' || i, 'created_at', now() - make_interval(secs => 600000 - i)",
    "payments": "'out_trade_no', 'grown-' || i",
    "order_events": "'out_trade_no', 'grown-' || i",
    "pending": "'out_trade_no', 'grown-' || i, 'due_at', now() + make_interval(secs => 36000 + i % 36000)",
}
_MAKE_OVERDUE = """
UPDATE pending SET due_at = now() - make_interval(secs => 60), leased_until = NULL
 WHERE channel_account = $1 AND out_trade_no = ANY($2)"""
_FLUSH_COUNTS = "SELECT pg_stat_force_next_flush()"
_VISITS = """
SELECT (SELECT sum(heap_blks_hit + heap_blks_read) FROM pg_statio_user_tables)::bigint
     + (SELECT sum(idx_blks_hit + idx_blks_read) FROM pg_statio_user_indexes)::bigint"""
_PUT_OFF = """
UPDATE pending SET due_at = now() + make_interval(secs => 36000), leased_until = NULL
 WHERE channel_account = $1 AND out_trade_no = ANY($2)"""


class Operation(NamedTuple):
    """Work that is measured, `times` times a block. `prepare` comes before a block and is not measured."""

    name: str
    work: Callable[[int], Awaitable[None]]
    times: int
    prepare: Callable[[], Awaitable[None]] | None = None


class Grown(NamedTuple):
    """A database that grows."""

    server: EmbeddedPostgres
    name: str

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Database]:
        db = Database(read_address(self.server.url(self.name), ""))
        await db.open()
        try:
            yield db
        finally:
            await db.close()


async def measure(sizes: Sizes, show_progress: ShowProgress) -> Result:
    """Measure CPU milliseconds of each operation, by the number of pending rows and the kind of database."""
    began = time.monotonic()
    figures: list[Figure] = []
    ratios: list[Figure] = []
    with temporary_directory() as directory, EmbeddedPostgres(directory / "postgres") as server:
        for is_analysed in (True, False):
            async with (
                _created(server, "large") as (large, large_db),
                _created(server, "small") as (small, small_db),
            ):
                figures += await _grow(large, large_db, sizes.rows, show_progress, is_analysed=is_analysed)
                show_progress("the largest and the smallest table in turns")
                await _copy(small_db, 0, min(SMALLEST, sizes.rows), is_analysed=is_analysed)
                async with (
                    _by_kind(large, large_db, is_analysed=is_analysed) as large_kinds,
                    _by_kind(small, small_db, is_analysed=is_analysed) as small_kinds,
                ):
                    for kind, db in large_kinds.items():
                        ratios += await _compare(server, kind, db, small_kinds[kind])
    return Result(
        benchmark="growth",
        how=HOW,
        settings={"rows": sizes.rows},
        seconds=round(time.monotonic() - began, 1),
        figures=(*figures, *ratios),
    )


@asynccontextmanager
async def _created(server: EmbeddedPostgres, name: str) -> AsyncIterator[tuple[Grown, Database]]:
    """A new database, and connections that made their plans while its tables were empty."""
    grown = Grown(server, name)
    server.create_database(name)
    await migrate(server.url(name))
    async with grown.opened() as db:
        for table in TABLES:
            await db.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
    async with grown.opened() as first_db:
        await place_one(first_db, FIRST)
        for number in range(WARM_UP):
            await pay_one(first_db, f"first-{number}")
        yield grown, first_db
    server.drop_database(name)


@asynccontextmanager
async def _by_kind(grown: Grown, first_db: Database, *, is_analysed: bool) -> AsyncIterator[dict[str, Database]]:
    async with grown.opened() as db:
        yield {"analysed": db} if is_analysed else {"never": db, "grown": first_db}


async def _grow(
    grown: Grown, first_db: Database, largest: int, show_progress: ShowProgress, *, is_analysed: bool
) -> list[Figure]:
    """Measure after each growth, tenfold from SMALLEST on."""
    figures: list[Figure] = []
    there = 0
    for rows in _steps(largest):
        show_progress(f"{rows} pending rows, {'analysed' if is_analysed else 'never analysed'}")
        await _copy(first_db, there, rows, is_analysed=is_analysed)
        there = rows
        async with _by_kind(grown, first_db, is_analysed=is_analysed) as kinds:
            for kind, db in kinds.items():
                figures += await _measure(grown.server, db, kind, rows)
    return figures


def _steps(rows: int) -> list[int]:
    steps = []
    size = min(SMALLEST, rows)
    while size < rows:
        steps.append(size)
        size *= 10
    return [*steps, rows]


async def _copy(db: Database, there: int, rows: int, *, is_analysed: bool) -> None:
    """Copy orders until so many rows are pending."""
    for start in range(there // 2 + 1, rows // 2 + 1, CHUNK):
        last = min(start + CHUNK - 1, rows // 2)
        for table, changes in _CHANGES.items():
            sql = _COPY.format(table=table, order_no=FIRST, changes=changes, first=start, last=last)
            await db.execute(sql, timeout_s=60.0)
    if is_analysed:
        for table in TABLES:
            await db.execute(f"VACUUM (ANALYZE) {table}", timeout_s=300.0)
    await db.execute("CHECKPOINT", timeout_s=300.0)  # writing the copies is not the cost of what follows
    await db.execute(_FLUSH_COUNTS)


async def _measure(server: EmbeddedPostgres, db: Database, kind: str, rows: int) -> list[Figure]:
    """CPU of Postgres for one of each operation, the median of several blocks."""
    figures = []
    for each in _operations(db, f"{kind}-{rows}"):
        await _warm_up(each)
        spent = [await _spent_ms(server, each, number) for number in range(BLOCKS)]
        figures.append(of_repeats(f"{each.name}_{kind}_{rows}", spent, "CPU ms", each.times))
    figures.append(await _count_visits(db, kind, rows))
    return figures


async def _count_visits(db: Database, kind: str, rows: int) -> Figure:
    order, *_ = _operations(db, f"{kind}-visits-{rows}")
    await _warm_up(order)
    before = await _visits(db)
    for number in range(order.times):
        await order.work(number)
    return figure(f"visits_{kind}_{rows}", (await _visits(db) - before) / order.times, "pages/order", order.times)


async def _visits(db: Database) -> int:
    await db.execute(_FLUSH_COUNTS)
    return int(await db.fetchval(_VISITS))


async def _compare(server: EmbeddedPostgres, kind: str, large: Database, small: Database) -> list[Figure]:
    """The cost on the largest table against that on the smallest, block by block in turns."""
    figures = []
    pairs = zip(_operations(large, f"{kind}-turns"), _operations(small, f"{kind}-turns"), strict=True)
    for on_large, on_small in pairs:
        await _warm_up(on_large)
        await _warm_up(on_small)
        ratios = []
        for number in range(PAIRS):
            if number % 2:
                small_ms = await _spent_ms(server, on_small, number)
                large_ms = await _spent_ms(server, on_large, number)
            else:
                large_ms = await _spent_ms(server, on_large, number)
                small_ms = await _spent_ms(server, on_small, number)
            ratios.append(large_ms / small_ms if small_ms else 1.0)
        figures.append(of_repeats(f"growth_{on_large.name}_{kind}", ratios, "times the smallest", PAIRS))
    return figures


def _operations(db: Database, prefix: str) -> tuple[Operation, ...]:
    """Orders are new ones, whose numbers begin with `prefix`; all else is done to copies."""
    numbers = [f"grown-{number}" for number in range(1, BATCH * BATCHES + 1)]

    async def order(number: int) -> None:
        await pay_one(db, f"{prefix}-{number}")

    async def claim(number: int) -> None:
        await pending.claim(db, PaymentKey(ACCOUNT, numbers[number % len(numbers)]), LEASE_S)

    async def look(_number: int) -> None:
        await pending.claim_overdue(db, grace_s=1e6, limit=BATCH, lease_s=LEASE_S)

    async def sweep(_number: int) -> None:
        await pending.claim_overdue(db, grace_s=0.0, limit=BATCH, lease_s=LEASE_S)

    async def make_overdue() -> None:
        await db.execute(_MAKE_OVERDUE, ACCOUNT, numbers)

    async def put_off() -> None:
        await db.execute(_PUT_OFF, ACCOUNT, numbers)

    return (
        Operation("order", order, ORDERS),
        Operation("claim", claim, CLAIMS, put_off),
        Operation("idle_sweep", look, LOOKS, put_off),
        Operation("busy_sweep", sweep, BATCHES, make_overdue),
    )


async def _warm_up(operation: Operation) -> None:
    """So that plans are made."""
    if operation.prepare is not None:
        await operation.prepare()
    for number in range(min(WARM_UP, operation.times)):
        await operation.work(number - WARM_UP)


async def _spent_ms(server: EmbeddedPostgres, operation: Operation, block: int) -> float:
    """CPU of Postgres for one of a block."""
    if operation.prepare is not None:
        await operation.prepare()
    before = _cpu_s(server)
    for number in range(operation.times):
        await operation.work(block * operation.times + number)
    return (_cpu_s(server) - before) / operation.times * MS


def _cpu_s(server: EmbeddedPostgres) -> float:
    return sum(map(fine_cpu_seconds, (server.pid, *children_of(server.pid))))
