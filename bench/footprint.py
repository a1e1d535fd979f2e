"""Size of a pending payment: bytes in Redis for its jobs, bytes in Postgres for its rows with indexes."""

from __future__ import annotations

import time

from bench.clones import COPIED, arm_copies, copy_orders, place_first
from bench.report import Figure, Result, figure
from bench.rig import Rig, open_rig
from bench.sizes import ShowProgress, Sizes

HOW = (
    "many pending payments, each with a query and a deadline armed in Redis: used_memory and pg_total_relation_size "
    "before and after; rows are written once, so dead row versions are not in it"
)
FROM_S, UNTIL_S = 600.0, 1700.0
HORIZON_S = 1800.0

_SIZE = "SELECT pg_total_relation_size($1::regclass)"
_HEAP = "SELECT pg_table_size($1::regclass)"


async def measure(sizes: Sizes, show_progress: ShowProgress) -> Result:
    """Measure bytes for each pending payment, by store and table."""
    began = time.monotonic()
    async with open_rig(workers=0) as rig:
        show_progress(f"{sizes.rows} pending payments")
        await place_first(rig)
        redis_before, tables_before = await _redis_bytes(rig), await _table_bytes(rig, _SIZE)
        heaps_before = await _table_bytes(rig, _HEAP)
        await copy_orders(rig, sizes.rows, from_s=FROM_S, until_s=UNTIL_S)
        tables, heaps = await _table_bytes(rig, _SIZE), await _table_bytes(rig, _HEAP)
        show_progress("arming them")
        jobs = await arm_copies(rig, until_s=HORIZON_S)
        in_redis = await _redis_bytes(rig) - redis_before
        grown = {name: tables[name] - tables_before[name] for name in COPIED}
        without_indexes = {name: heaps[name] - heaps_before[name] for name in COPIED}
        return Result(
            benchmark="footprint",
            how=HOW,
            settings=rig.in_force(),
            seconds=round(time.monotonic() - began, 1),
            figures=_figures(sizes.rows, jobs, in_redis, grown, without_indexes),
        )


def _figures(
    payments: int, jobs: int, in_redis: int, grown: dict[str, int], without_indexes: dict[str, int]
) -> tuple[Figure, ...]:
    unit = "bytes/payment"
    per_table = [
        each
        for name in COPIED
        for each in (
            figure(f"postgres_{name}", grown[name] / payments, unit, payments),
            figure(f"postgres_{name}_without_indexes", without_indexes[name] / payments, unit, payments),
        )
    ]
    return (
        figure("redis", in_redis / payments, unit, payments),
        figure("redis_job", in_redis / max(1, jobs), "bytes/job", jobs),
        figure("postgres", sum(grown.values()) / payments, unit, payments),
        *per_table,
    )


async def _redis_bytes(rig: Rig) -> int:
    info = await rig.redis.info("memory")
    return int(info["used_memory"])


async def _table_bytes(rig: Rig, sql: str) -> dict[str, int]:
    return {name: await rig.db.fetchval(sql, name) for name in COPIED}
