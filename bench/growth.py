"""What an order, a claim and a look of the sweep cost Postgres on top of many pending rows.

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
from bench.report import MS, Figure, Result, of_repeats
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
    "of three blocks; autovacuum is off"
)
SMALLEST = 1000
BLOCKS = 3
ORDERS = 100
CLAIMS = 100
"""Each of another row: three blocks have fewer claims than the smallest table has rows."""
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
    "orders": "'page_token', 'grown-' || i",
    "payments": "'out_trade_no', 'grown-' || i",
    "order_events": "'out_trade_no', 'grown-' || i",
    "pending": "'out_trade_no', 'grown-' || i, 'due_at', now() + make_interval(secs => 36000 + i % 36000)",
}
_MAKE_OVERDUE = """
UPDATE pending SET due_at = now() - make_interval(secs => 60), leased_until = NULL
 WHERE channel_account = $1 AND out_trade_no = ANY($2)"""
_PUT_OFF = """
UPDATE pending SET due_at = now() + make_interval(secs => 36000), leased_until = NULL
 WHERE channel_account = $1 AND out_trade_no = ANY($2)"""


class Grown(NamedTuple):
    """A database that grows; `orders` are the copies in it."""

    server: EmbeddedPostgres
    name: str

    def open(self) -> Database:
        return Database(read_address(self.server.url(self.name), ""))


async def measure(sizes: Sizes, show_progress: ShowProgress) -> Result:
    """Measure CPU milliseconds of each operation, by the number of pending rows and the kind of database."""
    began = time.monotonic()
    figures: list[Figure] = []
    with temporary_directory() as directory, EmbeddedPostgres(directory / "postgres") as server:
        for is_analysed in (True, False):
            grown = Grown(server, "analysed" if is_analysed else "never")
            await _create(grown)
            async with _opened(grown) as db:
                figures += await _grow(grown, db, sizes, show_progress, is_analysed=is_analysed)
            server.drop_database(grown.name)
    return Result(
        benchmark="growth",
        how=HOW,
        settings={"rows": sizes.rows},
        seconds=round(time.monotonic() - began, 1),
        figures=(*figures, *_ratios(figures)),
    )


async def _create(grown: Grown) -> None:
    grown.server.create_database(grown.name)
    await migrate(grown.server.url(grown.name))
    async with _opened(grown) as db:
        for table in TABLES:
            await db.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")


@asynccontextmanager
async def _opened(grown: Grown) -> AsyncIterator[Database]:
    db = grown.open()
    await db.open()
    try:
        yield db
    finally:
        await db.close()


async def _grow(
    grown: Grown, first_db: Database, sizes: Sizes, show_progress: ShowProgress, *, is_analysed: bool
) -> list[Figure]:
    """Measure after each growth, tenfold from SMALLEST on. `first_db` makes its plans before."""
    figures: list[Figure] = []
    await place_one(first_db, FIRST)
    for number in range(WARM_UP):
        await pay_one(first_db, f"small-{number}")
    there = 0
    for rows in _steps(sizes.rows):
        show_progress(f"{rows} pending rows, {'analysed' if is_analysed else 'never analysed'}")
        await _copy(first_db, there, rows // 2)
        there = rows // 2
        if is_analysed:
            for table in TABLES:
                await first_db.execute(f"VACUUM (ANALYZE) {table}", timeout_s=300.0)
        await first_db.execute("CHECKPOINT", timeout_s=300.0)  # writing the copies is not the cost of what follows
        async with _opened(grown) as db:
            figures += await _measure(grown.server, db, grown.name, rows)
        if not is_analysed:
            figures += await _measure(grown.server, first_db, "grown", rows)
    return figures


def _steps(rows: int) -> list[int]:
    steps = []
    size = min(SMALLEST, rows)
    while size < rows:
        steps.append(size)
        size *= 10
    return [*steps, rows]


async def _copy(db: Database, there: int, orders: int) -> None:
    for start in range(there + 1, orders + 1, CHUNK):
        last = min(start + CHUNK - 1, orders)
        for table, changes in _CHANGES.items():
            sql = _COPY.format(table=table, order_no=FIRST, changes=changes, first=start, last=last)
            await db.execute(sql, timeout_s=60.0)


async def _measure(server: EmbeddedPostgres, db: Database, kind: str, rows: int) -> list[Figure]:
    numbers = [f"grown-{number}" for number in range(1, min(rows // 2, BATCH * BATCHES) + 1)]

    async def order(number: int) -> None:
        await pay_one(db, f"{kind}-{rows}-{number}")

    async def claim(number: int) -> None:
        await pending.claim(db, PaymentKey(ACCOUNT, numbers[number % len(numbers)]), LEASE_S)

    async def look(_number: int) -> None:
        await pending.claim_overdue(db, grace_s=1e6, limit=BATCH, lease_s=LEASE_S)

    async def make_overdue() -> None:
        await db.execute(_MAKE_OVERDUE, ACCOUNT, numbers)

    async def sweep(_number: int) -> None:
        await pending.claim_overdue(db, grace_s=0.0, limit=BATCH, lease_s=LEASE_S)

    figures = [
        await _blocks(server, f"{name}_{kind}_{rows}", work, count, prepare)
        for name, work, count, prepare in (
            ("order", order, ORDERS, None),
            ("claim", claim, CLAIMS, None),
            ("idle_sweep", look, LOOKS, None),
            ("busy_sweep", sweep, BATCHES, make_overdue),
        )
    ]
    await db.execute(_PUT_OFF, ACCOUNT, numbers)
    return figures


async def _blocks(
    server: EmbeddedPostgres,
    name: str,
    work: Callable[[int], Awaitable[None]],
    count: int,
    prepare: Callable[[], Awaitable[None]] | None,
) -> Figure:
    """CPU of Postgres for each of `count`, the median of several blocks; before, some so that plans are made."""
    for number in range(min(WARM_UP, count)):
        await work(number - WARM_UP)
    spent = []
    for block in range(BLOCKS):
        if prepare is not None:
            await prepare()
        before = _cpu_s(server)
        for number in range(count):
            await work(block * count + number)
        spent.append((_cpu_s(server) - before) / count * MS)
    return of_repeats(name, spent, "CPU ms", count)


def _cpu_s(server: EmbeddedPostgres) -> float:
    return sum(map(fine_cpu_seconds, (server.pid, *children_of(server.pid))))


def _ratios(figures: list[Figure]) -> list[Figure]:
    """The cost on the largest table against that on the smallest."""
    by_kind: dict[str, list[Figure]] = {}
    for each in figures:
        by_kind.setdefault(each.name.rpartition("_")[0], []).append(each)
    return [
        of_repeats(f"growth_{name}", [grown[-1].value / grown[0].value], "times the first", 1)
        for name, grown in by_kind.items()
        if grown[0].value
    ]
