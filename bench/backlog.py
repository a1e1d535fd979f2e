"""A backlog of queries that are all due at once at an account with a low rate: how long it takes beside the ideal time,
and the busiest second at the channel.
"""

from __future__ import annotations

import time

from bench.buyer import Unexpected
from bench.clones import LATER_S, copy_orders, create_at_channel, place_first
from bench.loops import wait_until
from bench.queries import LEAD_S, NO_SWEEP, has_queried, last_query_s, make_due
from bench.report import Figure, Result, figure
from bench.rig import Rig, open_rig
from bench.sizes import ShowProgress, Sizes

RATE_PER_S = 50
"""Of the account, as nodrop keeps it; the channel itself refuses nothing."""

HOW = (
    f"unpaid payments are made due in the same instant at an account of {RATE_PER_S} calls a second and armed in "
    "Redis; from then until the worker has queried every one; `busiest_second` is what the channel saw, and the ideal "
    "time is the number of payments over the rate"
)


async def measure(sizes: Sizes, show_progress: ShowProgress) -> Result:
    """Measure the time of the backlog, and the busiest second at the channel."""
    began = time.monotonic()
    async with open_rig(rate_per_s=RATE_PER_S, env=NO_SWEEP) as rig:
        show_progress(f"{sizes.backlog} unpaid payments, here and at the channel")
        first = await place_first(rig)
        await copy_orders(rig, sizes.backlog, from_s=LATER_S, until_s=LATER_S)
        await create_at_channel(rig, first)
        show_progress(f"{sizes.backlog} queries due at once, at {RATE_PER_S} calls a second")
        figures = await _work_off(rig, sizes)
        return Result(
            benchmark="backlog",
            how=HOW,
            settings=rig.in_force(),
            seconds=round(time.monotonic() - began, 1),
            figures=figures,
        )


async def _work_off(rig: Rig, sizes: Sizes) -> tuple[Figure, ...]:
    async def is_done() -> bool:
        return bool(await has_queried(rig.db) == sizes.backlog)

    due_at = await make_due(rig, sizes.backlog)
    since = time.time()
    await wait_until(is_done, LEAD_S + sizes.limit_s, poll_s=0.25)
    done = await has_queried(rig.db)
    if done == 0:
        raise Unexpected(f"no query was made within {sizes.limit_s:g} s")
    seconds = await last_query_s(rig.db, due_at)
    seen = await rig.stack.control("GET", "channel", f"/control/arrivals?since={since}")
    return (
        figure("backlog", seconds, "s", done),
        figure("beside_ideal", seconds / (done / RATE_PER_S), "times", done),
        figure("busiest_second", seen["busiest_second"], "calls", done),
    )
