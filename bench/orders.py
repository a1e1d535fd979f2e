"""Orders from placing to paid: throughput of a deployment, and the cost of an order by process."""

from __future__ import annotations

import time

from bench.buyer import Buyer, Purchase, Unexpected
from bench.cpu import CpuMeter
from bench.loops import closed_loop, wait_until
from bench.report import Figure, Result, figure, latencies
from bench.rig import Rig, open_rig
from bench.sizes import ShowProgress, Sizes

HOW = (
    "closed loop over HTTP: each client places an order, pays it at the channel, has the channel call back until that "
    "is acknowledged, and begins anew; CPU, commits and WAL until every merchant's notification is delivered"
)
WARM_UP = 50
SETTLE_S = 90.0
"""More than a minute: by then compensation has paid an order."""

_OPEN = """
SELECT count(*) FILTER (WHERE status <> 'paid') AS unpaid,
       (SELECT count(*) FROM notifications WHERE delivered_at IS NULL) AS undelivered
  FROM orders WHERE order_no LIKE 'order-%'"""
# The next transaction number counts transactions that wrote: each waited for the disk once.
_WRITE_COUNTERS = """
SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS commits,
       (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::float8 AS wal"""


async def measure(sizes: Sizes, show_progress: ShowProgress) -> Result:
    """Measure orders per second, latencies, and CPU, commits and WAL of an order."""
    began = time.monotonic()
    async with open_rig() as rig, Buyer(rig) as buyer:
        await closed_loop(lambda i: buyer.buy(f"warm-{i:011d}"), min(WARM_UP, sizes.orders), sizes.clients, SETTLE_S)
        await wait_until(lambda: _is_settled(rig), SETTLE_S)
        show_progress(f"{sizes.orders} orders by {sizes.clients} clients")
        figures = await _sell(rig, buyer, sizes)
        return Result(
            benchmark="orders",
            how=HOW,
            settings=rig.in_force() | {"clients": sizes.clients},
            seconds=round(time.monotonic() - began, 1),
            figures=figures,
        )


async def _sell(rig: Rig, buyer: Buyer, sizes: Sizes) -> tuple[Figure, ...]:
    counters, meter, requests = await _write_counters(rig), CpuMeter(rig.stack), buyer.requests
    started = time.perf_counter()
    done: list[Purchase] = await closed_loop(
        lambda i: buyer.buy(f"order-{i:010d}"), sizes.orders, sizes.clients, sizes.limit_s
    )
    elapsed_s = time.perf_counter() - started
    n = len(done)
    at_once = n - (await _left(rig))[0]
    if not await wait_until(lambda: _is_settled(rig), SETTLE_S):
        raise Unexpected(f"orders that were acknowledged are not paid and notified within {SETTLE_S:g} s")
    cpu = meter.figures(n, "order")
    commits, wal = (after - before for before, after in zip(counters, await _write_counters(rig), strict=True))
    return (
        figure("orders_per_s", n / elapsed_s, "orders/s", n),
        figure("paid_when_acknowledged", at_once / n, "share", n),
        figure("requests_repeated", buyer.requests - requests - n, "requests", n),
        *latencies("place", [one.placed_s for one in done]),
        *latencies("callback", [one.acknowledged_s for one in done]),
        *latencies("order", [one.total_s for one in done]),
        *cpu,
        figure("commits", commits / n, "commits/order", n),
        figure("wal", wal / n, "bytes/order", n),
    )


async def _write_counters(rig: Rig) -> tuple[int, float]:
    row = await rig.db.fetchrow(_WRITE_COUNTERS)
    assert row is not None, "a SELECT without FROM has a row"
    return row["commits"], row["wal"]


async def _left(rig: Rig) -> tuple[int, int]:
    row = await rig.db.fetchrow(_OPEN)
    assert row is not None, "an aggregate has a row"
    return row["unpaid"], row["undelivered"]


async def _is_settled(rig: Rig) -> bool:
    return await _left(rig) == (0, 0)
