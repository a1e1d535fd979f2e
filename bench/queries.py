"""Delayed queries that are all due at once, as after an outage: the worker's throughput and the cost of a query."""

from __future__ import annotations

import time
from datetime import datetime
from functools import partial
from pathlib import Path

from bench.buyer import Unexpected
from bench.clones import LATER_S, arm_copies, copy_orders, create_at_channel, place_first
from bench.cpu import CpuMeter
from bench.loops import wait_until
from bench.profile import Work, write_profile
from bench.report import Figure, Result, figure
from bench.rig import Rig, open_rig
from bench.sizes import ShowProgress, Sizes
from core.order import PendingKind
from storage.postgres.database import Database

HOW = (
    "unpaid payments are made due in the same instant and armed in Redis; from then until the worker has queried "
    "every one at the channel and scheduled its next attempt; the sweep is off"
)
LEAD_S = 3.0
"""Seconds from arming to the due time of all."""

NO_SWEEP = {"SWEEP_GRACE_S": "3600"}

_DUE = """/* bench */
UPDATE pending SET due_at = now() + make_interval(secs => $1)
 WHERE kind = 'query' AND order_no LIKE 'clone-%'
RETURNING due_at"""
_DONE = "/* bench */ SELECT count(*) FROM pending WHERE kind = 'query' AND attempt > 1 AND order_no LIKE 'clone-%'"
_SECONDS = """/* bench */
SELECT extract(epoch FROM max(at) - $1::timestamptz)::float8
  FROM observations WHERE order_no LIKE 'clone-%' AND at >= $1"""


async def measure(sizes: Sizes, show_progress: ShowProgress) -> Result:
    """Measure queries per second, CPU of a query, and calls to the channel."""
    began = time.monotonic()
    async with open_rig(env=NO_SWEEP) as rig:
        show_progress(f"{sizes.queries} unpaid payments, here and at the channel")
        await _place_all(rig, sizes)
        show_progress(f"{sizes.queries} queries due at once")
        figures = await _query_all(rig, sizes)
    if sizes.profile:
        show_progress("the same for a profile")
        await write_profile(Path(sizes.profile, "queries.txt"), partial(_prepare_profile, sizes), env=NO_SWEEP)
    return Result(
        benchmark="queries",
        how=HOW,
        settings=rig.in_force(),
        seconds=round(time.monotonic() - began, 1),
        figures=figures,
    )


async def _place_all(rig: Rig, sizes: Sizes) -> None:
    first = await place_first(rig)
    await copy_orders(rig, sizes.queries, from_s=LATER_S, until_s=LATER_S)
    await create_at_channel(rig, first)


async def _prepare_profile(sizes: Sizes, rig: Rig) -> Work:
    async def work() -> int:
        return (await _query_all(rig, sizes))[0].n

    await _place_all(rig, sizes)
    return work


async def make_due(rig: Rig, count: int) -> datetime:
    """Make all copies due in `LEAD_S`, with a job in Redis for each; return that instant.

    Raises:
        Unexpected: some had a job before, which comes at another time.
    """
    due_at: datetime = await rig.db.fetchval(_DUE, LEAD_S)
    armed = await arm_copies(rig, until_s=LEAD_S, only=PendingKind.QUERY)
    if armed != count:
        raise Unexpected(f"{armed} of {count} queries were armed")
    return due_at


async def has_queried(db: Database) -> int:
    """Return how many copies were queried."""
    done: int = await db.fetchval(_DONE)
    return done


async def last_query_s(db: Database, due_at: datetime) -> float:
    """Return the seconds from the due time to the last query."""
    seconds: float = await db.fetchval(_SECONDS, due_at)
    return seconds


async def _query_all(rig: Rig, sizes: Sizes) -> tuple[Figure, ...]:
    async def is_done() -> bool:
        return bool(await has_queried(rig.db) == sizes.queries)

    due_at = await make_due(rig, sizes.queries)
    meter = CpuMeter(rig.stack)
    await wait_until(is_done, LEAD_S + sizes.limit_s, poll_s=0.25)
    done = await has_queried(rig.db)
    if done == 0:
        raise Unexpected(f"none of {sizes.queries} queries was made within {sizes.limit_s:g} s")
    cpu = meter.figures(done, "query")
    seconds = await last_query_s(rig.db, due_at)
    calls = await rig.stack.control("GET", "channel", "/control/counters")
    return (
        figure("queries_per_s", done / seconds, "queries/s", done),
        figure("last_one_late", seconds, "s", done),
        figure("channel_calls", calls.get("calls_query", 0) / done, "calls/query", done),
        *cpu,
    )
