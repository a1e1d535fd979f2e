"""A flush of Redis with many pending payments: time until it is noticed, and until all are armed again."""

from __future__ import annotations

import time

from bench.buyer import Unexpected
from bench.clones import copy_orders, place_first
from bench.cpu import CpuMeter
from bench.loops import wait_until
from bench.report import Figure, Result, of_repeats
from bench.rig import Rig, open_rig
from bench.sizes import ShowProgress, Sizes
from core.jobs import Lane

HOW = (
    "FLUSHALL while every row of the table is due within the next half hour: until the worker's first job is back, and "
    "until its epoch key says that all are"
)
FROM_S, UNTIL_S = 600.0, 1700.0
POLL_S = 0.01
NOTICE_LIMIT_S = 30.0


async def measure(sizes: Sizes, show_progress: ShowProgress) -> Result:
    """Measure seconds to notice and to arm, jobs per second, and CPU of a row."""
    began = time.monotonic()
    async with open_rig() as rig:
        orders = max(1, sizes.rows // 2)
        show_progress(f"{orders} orders with a query and a deadline each")
        await place_first(rig)
        await copy_orders(rig, orders - 1, from_s=FROM_S, until_s=UNTIL_S)
        runs = []
        for repeat in range(1, sizes.repeats + 1):
            show_progress(f"flush {repeat} of {sizes.repeats}")
            runs.append(await _flush(rig, orders * 2, sizes.limit_s))
        return Result(
            benchmark="rearm",
            how=HOW,
            settings=rig.in_force(),
            seconds=round(time.monotonic() - began, 1),
            figures=_figures(runs, orders * 2),
        )


_Run = dict[str, tuple[float, str]]
"""Figures of one flush: value and unit by name."""


async def _flush(rig: Rig, rows: int, limit_s: float) -> _Run:
    async def is_noticed() -> bool:
        return (await rig.queue.depth(Lane.QUERIES)).queued > 0

    async def is_armed() -> bool:
        return (await rig.queue.epoch()).armed

    meter = CpuMeter(rig.stack)
    await rig.stack.flush_redis()
    flushed = time.perf_counter()
    is_done = await wait_until(is_noticed, NOTICE_LIMIT_S, POLL_S)
    noticed = time.perf_counter()
    is_done = is_done and await wait_until(is_armed, limit_s, POLL_S)
    armed = time.perf_counter()
    queued = (await rig.queue.depth(Lane.QUERIES)).queued
    if not is_done or queued != rows:
        raise Unexpected(f"{queued} of {rows} rows were armed again in {armed - flushed:.1f} s")
    cpu = {each.name: (each.value, each.unit) for each in meter.figures(rows, "row")}
    return {
        "notice": (noticed - flushed, "s"),
        "rearm": (armed - noticed, "s"),
        "rows_per_s": (rows / (armed - noticed), "rows/s"),
        **cpu,
    }


def _figures(runs: list[_Run], rows: int) -> tuple[Figure, ...]:
    return tuple(of_repeats(name, [run[name][0] for run in runs], unit, rows) for name, (_, unit) in runs[0].items())
