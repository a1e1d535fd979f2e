"""The sweep's claim of overdue rows in a large table."""

from __future__ import annotations

import time

from bench.clones import copy_orders, place_first
from bench.report import Result, figure, latencies
from bench.rig import Rig, open_rig
from bench.sizes import ShowProgress, Sizes
from storage.postgres import pending
from storage.postgres.pending import Leased

HOW = (
    "the sweep's own claim against Postgres without a worker; idle: nothing is overdue; busy: everything is, a batch a "
    "time, each put off before the next as its query would; behind_leases: the claim behind many rows under way"
)
OVERDUE_S = 3600.0
IDLE_GRACE_S = 10 * OVERDUE_S
PUT_OFF_S = 1200.0
CLAIMS = 200
LEASED_SHARE = 10
"""One of this many rows is leased for `behind_leases`, as after the end of many workers."""


async def measure(sizes: Sizes, show_progress: ShowProgress) -> Result:
    """Measure milliseconds of a claim, by the number of overdue rows."""
    began = time.monotonic()
    async with open_rig(workers=0) as rig:
        orders = max(1, sizes.rows // 2)
        show_progress(f"{orders} orders with a query and a deadline each")
        await place_first(rig)
        await copy_orders(rig, orders, from_s=-2 * OVERDUE_S, until_s=-OVERDUE_S, with_deadlines=True)
        batch = rig.settings.sweep_batch
        claims = min(CLAIMS, max(1, orders // batch))
        show_progress(f"{claims} claims of {batch} rows")
        idle = [(await _claim(rig, IDLE_GRACE_S, batch))[0] for _ in range(CLAIMS)]
        busy = [await _claim_and_put_off(rig, batch) for _ in range(claims)]
        await _claim(rig, 0.0, 2 * orders // LEASED_SHARE)
        behind, rows = await _claim(rig, 0.0, batch)
        return Result(
            benchmark="sweep",
            how=HOW,
            settings=rig.in_force() | {"rows": 2 * orders, "batch": batch},
            seconds=round(time.monotonic() - began, 1),
            figures=(
                *latencies("idle", idle),
                *latencies("busy", busy),
                figure("behind_leases", behind * 1000, "ms", len(rows)),
            ),
        )


async def _claim(rig: Rig, grace_s: float, limit: int) -> tuple[float, list[Leased]]:
    started = time.perf_counter()
    rows = await pending.claim_overdue(rig.db, grace_s=grace_s, limit=limit, lease_s=rig.settings.lease_s)
    return time.perf_counter() - started, rows


async def _claim_and_put_off(rig: Rig, batch: int) -> float:
    seconds, rows = await _claim(rig, rig.settings.sweep_grace_s, batch)
    for leased in rows:
        await pending.reschedule(rig.db, leased, delay_s=PUT_OFF_S)
    return seconds
