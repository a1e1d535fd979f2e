"""Redis freezes, turns read-only, is full, restarts empty, is flushed, and is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import MappingProxyType

from demo.stack import Stack
from tests.chaos.ground import Disturbance, Ground, open_stack
from tests.chaos.probes import CHANNEL_WAITS_S, Callbacks
from tests.scenarios.redis_states import State, down, frozen, full, read_only

SENT_MAX, SENT_PER_S = 20, 4
"""Genuine callbacks while Redis is in each state, each about an order of its own, which is then queried."""


@asynccontextmanager
async def restarted(stack: Stack) -> AsyncIterator[None]:
    """Restart it once: it comes back empty."""
    await asyncio.to_thread(stack.redis.restart)
    yield


@asynccontextmanager
async def flushed(stack: Stack) -> AsyncIterator[None]:
    """Empty it once."""
    await stack.flush_redis()
    yield


SHARES: MappingProxyType[State, float] = MappingProxyType(
    {frozen: 0.1, read_only: 0.1, full: 0.1, restarted: 0.05, flushed: 0.05, down: 0.5}
)
"""Shares of the run's time; the rest is between them."""


async def disturb(ground: Ground) -> None:
    """Bring Redis into each state. Genuine callbacks must be acknowledged then, and work caught up with afterwards."""
    counts = {state: max(5, min(SENT_MAX, int(share * ground.seconds * SENT_PER_S))) for state, share in SHARES.items()}
    async with Callbacks(ground, sum(counts.values())) as callbacks:
        for state, share in SHARES.items():
            name, seconds = state.__name__.replace("_", "-"), share * ground.seconds
            ground.note(f"Redis {name} for {seconds:.1f} s")
            async with state(ground.stack):
                answers = await callbacks.expect_acknowledged(name, seconds, counts[state])
            late = sum(answer.seconds > CHANNEL_WAITS_S for answer in answers)
            ground.measure(f"{name}: later than {CHANNEL_WAITS_S:.0f} s", late, "callbacks", len(answers))
            await ground.caught_up(name)


DISTURBANCE = Disturbance(
    "redis", "Redis frozen, read-only, full, restarted, flushed, and down for a minute", 120.0, disturb, open_stack
)
