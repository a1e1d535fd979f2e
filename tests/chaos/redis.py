"""Redis freezes, turns read-only, is full, restarts empty, is flushed, and is away."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from signal import SIGCONT, SIGSTOP
from types import MappingProxyType

from tests.chaos.ground import Disturbance, Ground, open_stack
from tests.chaos.probes import CHANNEL_WAITS_S, Callbacks, counted
from tests.storage.redis.tools import client_of

SENT_MAX, SENT_PER_S = 20, 4
"""Genuine callbacks while Redis is in each state, each about an order of its own, which is then queried."""


@asynccontextmanager
async def frozen(ground: Ground) -> AsyncIterator[None]:
    """Let it accept connections and answer nothing."""
    os.kill(ground.stack.redis.pid, SIGSTOP)
    try:
        yield
    finally:
        os.kill(ground.stack.redis.pid, SIGCONT)


@asynccontextmanager
async def read_only(ground: Ground) -> AsyncIterator[None]:
    """Make it a replica of nobody, as after a failover."""
    async with client_of(ground.stack.redis.url) as redis:
        await redis.replicaof("127.0.0.1", "1")
        try:
            yield
        finally:
            await redis.replicaof("NO", "ONE")


@asynccontextmanager
async def full(ground: Ground) -> AsyncIterator[None]:
    """Let it refuse writes, by `maxmemory` under `noeviction`."""
    async with client_of(ground.stack.redis.url) as redis:
        await redis.config_set("maxmemory", "1")
        try:
            yield
        finally:
            await redis.config_set("maxmemory", "0")


@asynccontextmanager
async def restarted(ground: Ground) -> AsyncIterator[None]:
    """Restart it once: it comes back empty."""
    await asyncio.to_thread(ground.stack.redis.restart)
    yield


@asynccontextmanager
async def flushed(ground: Ground) -> AsyncIterator[None]:
    """Empty it once."""
    await ground.stack.flush_redis()
    yield


@asynccontextmanager
async def down(ground: Ground) -> AsyncIterator[None]:
    """Keep it away: connections are refused."""
    await asyncio.to_thread(ground.stack.redis.kill)
    try:
        yield
    finally:
        await asyncio.to_thread(ground.stack.redis.start)


Fault = Callable[[Ground], AbstractAsyncContextManager[None]]

SHARES: MappingProxyType[Fault, float] = MappingProxyType(
    {frozen: 0.1, read_only: 0.1, full: 0.1, restarted: 0.05, flushed: 0.05, down: 0.5}
)
"""Shares of the run's time; the rest is between them."""


async def disturb(ground: Ground) -> None:
    """Bring Redis into each state. Genuine callbacks must be acknowledged then, and work caught up with afterwards."""
    callbacks = Callbacks(ground)
    counts = {fault: max(5, min(SENT_MAX, int(share * ground.seconds * SENT_PER_S))) for fault, share in SHARES.items()}
    await callbacks.prepare(sum(counts.values()))
    for fault, share in SHARES.items():
        name, seconds = fault.__name__.replace("_", "-"), share * ground.seconds
        ground.note(f"Redis {name} for {seconds:.1f} s")
        async with fault(ground):
            answers = await callbacks.send_for(seconds, seconds / counts[fault])
        refused = [answer for answer in answers if answer.status != 200]
        if refused:
            ground.report_broken(f"Redis {name}: callbacks were answered {counted(refused)}")
        ground.measure_times(f"{name}: acknowledged", [answer.seconds for answer in answers])
        late = sum(answer.seconds > CHANNEL_WAITS_S for answer in answers)
        ground.measure(f"{name}: later than {CHANNEL_WAITS_S:.0f} s", late, "callbacks", len(answers))
        await ground.caught_up(name)
    await callbacks.check_stored()
    await callbacks.close()


DISTURBANCE = Disturbance(
    "redis", "Redis frozen, read-only, full, restarted, flushed, and down for a minute", 120.0, disturb, open_stack
)
