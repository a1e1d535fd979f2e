"""Orders from placing to paid: throughput of a deployment, and the cost of an order by process and by count.

One after another on an idle system, by many clients at once, and arriving at a fixed rate.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from bench.buyer import Buyer, Purchase, Unexpected
from bench.counts import count
from bench.cpu import CpuMeter
from bench.loops import closed_loop, open_loop, wait_until
from bench.profile import Work, write_profile
from bench.report import Figure, Result, figure, latencies
from bench.rig import Rig, open_rig
from bench.sizes import ShowProgress, Sizes

HOW = (
    "over HTTP: a client places an order, pays it at the channel, has the channel call back until that is "
    "acknowledged; lone: one order after another; N: N clients, each begins anew, CPU, commits and WAL until every "
    "notification is delivered; open: at a fixed rate, 70 % of the best, latency from when an order was due; "
    "statements, transactions and commands are those of other orders, less what an idle system does"
)
CLIENTS = (16, 64, 256)
LONE = 50
COUNTED = 256
"""Orders whose statements are counted, at each number of clients."""

LOAD = 0.7
WARM_UP = 50
SETTLE_S = 90.0
"""More than a minute: by then compensation has paid an order."""

# Statements of the benchmark itself begin with `bench.counts.OWN`.
_OPEN = """/* bench */
SELECT count(*) FILTER (WHERE status <> 'paid') AS unpaid,
       (SELECT count(*) FROM notifications WHERE delivered_at IS NULL) AS undelivered
  FROM orders WHERE order_no LIKE 'order-%'"""
_WRITE_COUNTERS = """/* bench */
SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS commits,
       (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::float8 AS wal"""


async def measure(sizes: Sizes, show_progress: ShowProgress) -> Result:
    """Measure orders per second, latencies, and CPU, commits, WAL, statements and commands of an order."""
    began = time.monotonic()
    levels = sizes.clients or CLIENTS
    async with open_rig() as rig, Buyer(rig) as buyer:
        await warm_up(rig, buyer, min(WARM_UP, sizes.orders), levels[0])
        show_progress("orders one after another")
        figures = list(await _sell_alone(rig, buyer, min(LONE, sizes.orders)))
        for clients in levels:
            show_progress(f"{sizes.orders} orders by {clients} clients")
            sold = await sell(rig, buyer, sizes.orders, clients, sizes.limit_s)
            counted = await _count(rig, buyer, min(COUNTED, sizes.orders), clients)
            figures += named((*sold, *counted), str(clients))
        rate = LOAD * max(each.value for each in figures if each.name.startswith("orders_per_s"))
        show_progress(f"orders at {rate:.0f} a second")
        figures += await _sell_at(rig, buyer, min(sizes.orders, max(1, int(rate * sizes.limit_s))), rate)
    if sizes.profile:
        show_progress("the same for a profile")
        await write_profile(Path(sizes.profile, "orders.txt"), partial(_prepare_profile, sizes, levels[-1]))
    return Result(
        benchmark="orders",
        how=HOW,
        settings=rig.in_force() | {"clients": ", ".join(map(str, levels))},
        seconds=round(time.monotonic() - began, 1),
        figures=tuple(figures),
    )


async def warm_up(rig: Rig, buyer: Buyer, orders: int, clients: int) -> None:
    """Sell some orders that are not measured."""
    await closed_loop(lambda i: buyer.buy(f"order-warm-{i:05d}"), orders, clients, SETTLE_S)
    await settle(rig)


async def sell(rig: Rig, buyer: Buyer, orders: int, clients: int, limit_s: float) -> tuple[Figure, ...]:
    """Sell in a closed loop. `finished_per_s` counts until every order is paid and every notification delivered."""
    before, meter, requests = await _write_counters(rig), CpuMeter(rig.stack), buyer.requests
    started = time.perf_counter()
    done: list[Purchase] = await closed_loop(lambda i: buyer.buy(f"order-{clients}-{i:08d}"), orders, clients, limit_s)
    elapsed_s = time.perf_counter() - started
    n, (unpaid, _) = len(done), await _left(rig)
    await settle(rig)
    finished_s = time.perf_counter() - started
    cpu = meter.figures(n, "order")
    commits, wal = (later - earlier for earlier, later in zip(before, await _write_counters(rig), strict=True))
    return (
        figure("orders_per_s", n / elapsed_s, "orders/s", n),
        figure("finished_per_s", n / finished_s, "orders/s", n),
        figure("paid_when_acknowledged", (n - unpaid) / n, "share", n),
        figure("requests_repeated", buyer.requests - requests - n, "requests", n),
        *_latencies(done),
        *cpu,
        figure("commits", commits / n, "commits/order", n),
        figure("wal", wal / n, "bytes/order", n),
    )


async def _prepare_profile(sizes: Sizes, clients: int, rig: Rig) -> Work:
    async def work() -> int:
        async with Buyer(rig) as buyer:
            sold = await sell(rig, buyer, sizes.orders, clients, sizes.limit_s)
            return sold[0].n

    async with Buyer(rig) as buyer:
        await warm_up(rig, buyer, min(WARM_UP, sizes.orders), clients)
    return work


def named(figures: Iterable[Figure], suffix: str) -> list[Figure]:
    """Return the figures under names that end in how the orders came."""
    return [replace(each, name=f"{each.name}_{suffix}") for each in figures]


async def _sell_alone(rig: Rig, buyer: Buyer, orders: int) -> list[Figure]:
    done = await closed_loop(lambda i: buyer.buy(f"order-lone-{i:08d}"), orders, 1, SETTLE_S)
    await settle(rig)
    return named((*_latencies(done), *await _count(rig, buyer, orders, 1)), "lone")


async def _count(rig: Rig, buyer: Buyer, orders: int, clients: int) -> tuple[Figure, ...]:
    """Sell orders that are counted and not timed."""

    async def work() -> int:
        await closed_loop(lambda i: buyer.buy(f"order-c{clients}-{i:08d}"), orders, clients, SETTLE_S)
        await settle(rig)
        return orders

    return await count(rig, work)


async def _sell_at(rig: Rig, buyer: Buyer, orders: int, per_s: float) -> list[Figure]:
    done: list[Purchase] = []

    async def buy(number: int) -> None:
        done.append(await buyer.buy(f"order-open-{number:08d}"))

    from_due = await open_loop(buy, orders, per_s)
    await settle(rig)
    figures = (figure("rate", per_s, "orders/s", orders), *_latencies(done), *latencies("due_to_done", from_due))
    return named(figures, "open")


def _latencies(done: list[Purchase]) -> tuple[Figure, ...]:
    return (
        *latencies("place", [one.placed_s for one in done]),
        *latencies("callback", [one.acknowledged_s for one in done]),
        *latencies("order", [one.total_s for one in done]),
    )


async def settle(rig: Rig) -> None:
    """Wait until every order that was bought is paid and notified."""

    async def is_settled() -> bool:
        return await _left(rig) == (0, 0)

    if not await wait_until(is_settled, SETTLE_S):
        raise Unexpected(f"orders that were acknowledged are not paid and notified within {SETTLE_S:g} s")


async def _write_counters(rig: Rig) -> tuple[int, float]:
    row = await rig.db.fetchrow(_WRITE_COUNTERS)
    assert row is not None, "a SELECT without FROM has a row"
    return row["commits"], row["wal"]


async def _left(rig: Rig) -> tuple[int, int]:
    row = await rig.db.fetchrow(_OPEN)
    assert row is not None, "an aggregate has a row"
    return row["unpaid"], row["undelivered"]
