"""What an order, a claim and a look of the sweep cost Postgres on top of many pending rows.

Three kinds of databases: `analysed` after each growth, as autovacuum leaves it; `never` analysed, with new connections
after each growth; `grown` as `never`, but by the connection that made its plans while the tables were empty.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
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
from storage.postgres.database import Database, read_address
from storage.postgres.migrate import migrate

HOW = (
    "statements of one connection, one after another, on tables with so many rows in `pending`; a claim leases the row "
    "of a payment, an idle sweep looks and finds nothing, a busy one claims 100 overdue rows; CPU of Postgres, medians "
    "of three turns; the ratio is to a database that stays at 1,000 rows, measured in turns; autovacuum is off"
)
SMALLEST = 1000
BLOCKS = 3
ORDERS = 100
CLAIMS = 100
"""Each of another row: all turns have no more claims than there are numbers."""
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


class Side(NamedTuple):
    """One of two databases that are measured in turns. `label` begins the numbers of its orders."""

    db: Database
    label: str
    numbers: list[str]


Work = Callable[[Side, int], Awaitable[None]]
Prepare = Callable[[Side], Awaitable[None]]


async def measure(sizes: Sizes, show_progress: ShowProgress) -> Result:
    """Measure CPU milliseconds of each operation, by the number of pending rows and the kind of database."""
    began = time.monotonic()
    figures: list[Figure] = []
    with temporary_directory() as directory, EmbeddedPostgres(directory / "postgres") as server:
        for name in ("analysed", "never"):
            figures += await _grow(server, name, sizes, show_progress)
    return Result(
        benchmark="growth",
        how=HOW,
        settings={"rows": sizes.rows},
        seconds=round(time.monotonic() - began, 1),
        figures=tuple(figures),
    )


async def _grow(server: EmbeddedPostgres, name: str, sizes: Sizes, show_progress: ShowProgress) -> list[Figure]:
    """Measure after each growth, tenfold from SMALLEST on, beside a database that stays small."""
    figures: list[Figure] = []
    is_analysed, small_name, there = name == "analysed", f"{name}_small", 0
    async with _database(server, name) as first, _database(server, small_name) as small_first:
        await _copy(small_first, 0, min(SMALLEST, sizes.rows) // 2, is_analysed=is_analysed)
        for rows in _steps(sizes.rows):
            show_progress(f"{rows} pending rows, {name}")
            await _copy(first, there, rows // 2, is_analysed=is_analysed)
            there = rows // 2
            async with _opened(server, name) as db, _opened(server, small_name) as small:
                figures += await _measure(server, small, db, name, rows)
            if not is_analysed:
                figures += await _measure(server, small_first, first, "grown", rows)
    return figures


@asynccontextmanager
async def _database(server: EmbeddedPostgres, name: str) -> AsyncIterator[Database]:
    """Yield a connection that made its plans while the tables were empty. The database is dropped at the end."""
    server.create_database(name)
    await migrate(server.url(name))
    async with _opened(server, name) as db:
        for table in TABLES:
            await db.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
        await place_one(db, FIRST)
        for number in range(WARM_UP):
            await pay_one(db, f"small-{number}")
        yield db
    server.drop_database(name)


@asynccontextmanager
async def _opened(server: EmbeddedPostgres, name: str) -> AsyncIterator[Database]:
    db = Database(read_address(server.url(name), ""))
    await db.open()
    try:
        yield db
    finally:
        await db.close()


def _steps(rows: int) -> list[int]:
    steps = []
    size = min(SMALLEST, rows)
    while size < rows:
        steps.append(size)
        size *= 10
    return [*steps, rows]


async def _copy(db: Database, there: int, orders: int, *, is_analysed: bool) -> None:
    for start in range(there + 1, orders + 1, CHUNK):
        last = min(start + CHUNK - 1, orders)
        for table, changes in _CHANGES.items():
            sql = _COPY.format(table=table, order_no=FIRST, changes=changes, first=start, last=last)
            await db.execute(sql, timeout_s=60.0)
    if is_analysed:
        for table in TABLES:
            await db.execute(f"VACUUM (ANALYZE) {table}", timeout_s=300.0)


# -- operations --------------------------------------------------------------------------------------------------------


async def _order(side: Side, number: int) -> None:
    await pay_one(side.db, f"{side.label}-{number}")


async def _claim(side: Side, number: int) -> None:
    await pending.claim(side.db, PaymentKey(ACCOUNT, side.numbers[number % len(side.numbers)]), LEASE_S)


async def _look(side: Side, _number: int) -> None:
    await pending.claim_overdue(side.db, grace_s=1e6, limit=BATCH, lease_s=LEASE_S)


async def _make_overdue(side: Side) -> None:
    await side.db.execute(_MAKE_OVERDUE, ACCOUNT, side.numbers)


async def _sweep(side: Side, _number: int) -> None:
    await pending.claim_overdue(side.db, grace_s=0.0, limit=BATCH, lease_s=LEASE_S)


_OPERATIONS: tuple[tuple[str, Work, int, Prepare | None], ...] = (
    ("order", _order, ORDERS, None),
    ("claim", _claim, CLAIMS, None),
    ("idle_sweep", _look, LOOKS, None),
    ("busy_sweep", _sweep, BATCHES, _make_overdue),
)


async def _measure(server: EmbeddedPostgres, small: Database, db: Database, kind: str, rows: int) -> list[Figure]:
    """Each operation in the small and in the grown database, in turns; the ratio is of one turn."""
    numbers = [f"grown-{number}" for number in range(1, min(SMALLEST, rows) // 2 + 1)][: BATCH * BATCHES]
    sides = [Side(each, f"{kind}-{rows}", numbers) for each in (small, db)]
    figures = []
    for name, work, count, prepare in _OPERATIONS:
        turns = [
            await _turn(server, sides, work, range(n * count, (n + 1) * count), prepare) for n in range(1 + BLOCKS)
        ]
        spent = turns[1:]  # the first made the plans
        figures += [
            of_repeats(f"{name}_{kind}_{rows}", [grown for _, grown in spent], "CPU ms", count),
            of_repeats(f"ratio_{name}_{kind}_{rows}", [grown / at_first for at_first, grown in spent], "times", BLOCKS),
        ]
    for side in sides:
        await side.db.execute(_PUT_OFF, ACCOUNT, numbers)
    return figures


async def _turn(
    server: EmbeddedPostgres, sides: Sequence[Side], work: Work, numbers: range, prepare: Prepare | None
) -> list[float]:
    """CPU milliseconds of Postgres for each of these numbers, for each side."""
    spent = []
    for side in sides:
        if prepare is not None:
            await prepare(side)
        before = _cpu_s(server)
        for number in numbers:
            await work(side, number)
        spent.append((_cpu_s(server) - before) / len(numbers) * MS)
    return spent


def _cpu_s(server: EmbeddedPostgres) -> float:
    return sum(map(fine_cpu_seconds, (server.pid, *children_of(server.pid))))
