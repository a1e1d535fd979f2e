"""The web process and the workers die at random, and are started again as a platform does."""

from __future__ import annotations

import time
from collections import Counter

from tests.chaos.ground import Disturbance, Ground, open_stack

GAPS_S = (2.0, 10.0)
DOWN_S = 1.0


async def disturb(ground: Ground) -> None:
    """Kill one process after another with SIGKILL, each 2 to 10 s, in a short run more often."""
    until = time.monotonic() + ground.seconds
    shortest, longest = (min(gap, ground.seconds / share) for gap, share in zip(GAPS_S, (6, 3), strict=True))
    kills: Counter[str] = Counter()
    while time.monotonic() < until:
        await ground.wait(ground.random.uniform(shortest, longest))
        service = ground.random.choice([*ground.stack.apis, *ground.stack.workers])
        await service.kill()
        ground.note(f"{service.name} killed")
        kills[service.name] += 1
        await ground.wait(ground.random.uniform(0.0, DOWN_S))
        await service.start()
    ground.measure("kills", kills.total(), "times")
    await ground.caught_up("after the last kill")


DISTURBANCE = Disturbance(
    "kill", "kill -9 of the web process and the workers, each 2 to 10 s", 60.0, disturb, open_stack
)
