"""Twenty minutes of normal load with all faults low: what memory each process takes, and how that grows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from demo.embedded.child import children_of
from tests.chaos.ground import Disturbance, Ground, anonymous_bytes, open_stack

SAMPLES = 120
WARM = 1 / 4
"""Share of the run after which memory is compared: pools, caches and statements are there."""

LEAK_MIB_PER_H = 120.0
LEAK_MIB = 24.0
"""A leak grows as fast as this, and by as much within the run. Figures of a quiet process swing far below."""


async def disturb(ground: Ground) -> None:
    """Let the load go on, and read the memory of each process again and again."""
    samples: dict[str, list[tuple[float, float]]] = {}
    began = time.monotonic()
    for number in range(1, SAMPLES + 1):
        await asyncio.sleep(max(0.0, began + number * ground.seconds / SAMPLES - time.monotonic()))
        for name, size in _sizes(ground).items():
            samples.setdefault(name, []).append((time.monotonic() - began, size / 2**20))
    for name, points in samples.items():
        warm = [point for point in points if point[0] >= WARM * ground.seconds]
        growth = slope(warm) * 3600
        ground.measure(f"{name}: memory at the end", points[-1][1], "MiB")
        ground.measure(f"{name}: growth", growth, "MiB/h", len(warm))
        grown = slope(warm) * (warm[-1][0] - warm[0][0])
        if name in _ours(ground) and growth > LEAK_MIB_PER_H and grown > LEAK_MIB:
            ground.report_broken(f"{name} grows by {growth:.0f} MiB/h")


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the growth of the second value by one of the first, by least squares; 0 for fewer than two points."""
    count = len(points)
    mean_x, mean_y = (sum(values) / max(1, count) for values in zip(*points, strict=True)) if points else (0.0, 0.0)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


def _ours(ground: Ground) -> dict[str, int | None]:
    return {service.name: service.pid for service in (*ground.stack.apis, *ground.stack.workers)}


def _sizes(ground: Ground) -> dict[str, int]:
    """Return the memory of each process, of Postgres that of all its processes together."""
    postgres = ground.stack.postgres.pid
    sizes = {name: anonymous_bytes(pid) for name, pid in _ours(ground).items() if pid is not None}
    sizes["redis"] = anonymous_bytes(ground.stack.redis.pid)
    sizes["postgres"] = sum(anonymous_bytes(pid) for pid in (postgres, *children_of(postgres)))
    return sizes


DISTURBANCE = Disturbance(
    "soak", "twenty minutes of normal load with all faults low: memory of each process", 1200.0, disturb, open_stack
)
