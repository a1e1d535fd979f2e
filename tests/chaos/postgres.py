"""Postgres restarts again and again, freezes, loses its sessions at random, and its connections around a commit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import asyncpg

from demo.stack import Stack
from tests.chaos.cuts import RandomCuts
from tests.chaos.ground import COMMON, ENVIRONMENT, Disturbance, Ground
from tests.chaos.probes import Callbacks, counted

GAPS_S = (5.0, 40.0)
DOWN_S = 2.0
FROZEN_S = 4.0
CUT_SHARE = 0.03
"""Of the chunks that the processes send to Postgres; an order takes some dozens."""

_TERMINATE = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
 WHERE application_name = 'nodrop' AND random() < 0.5"""
_TERMINATE_BUSY = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
 WHERE application_name = 'nodrop' AND state = 'active' AND query !~ '^SELECT'"""
TERMINATED_TIMES, TERMINATED_GAP_S = 40, 0.02


class ProxiedStack(Stack):
    """A system whose processes reach Postgres through a proxy that may cut them off."""

    def __init__(self, directory: Path, cuts: RandomCuts, **options: Any) -> None:
        super().__init__(directory, **options)
        self.cuts = cuts

    @property
    def environ(self) -> dict[str, str]:
        port = urlsplit(self.database_url).port
        return super().environ | {"DATABASE_URL": self.database_url.replace(f":{port}/", f":{self.cuts.port}/")}


@asynccontextmanager
async def open_proxied_stack(directory: Path, seed: int, **options: Any) -> AsyncIterator[Stack]:
    """Open the usual system, with the proxy in front of its Postgres."""
    async with RandomCuts(Random(seed)) as cuts:
        stack = ProxiedStack(directory, cuts, seed=seed, **{"workers": 2, "env": ENVIRONMENT} | COMMON | options)
        cuts.lead_to(stack.postgres.port)
        async with stack:
            yield stack


async def disturb(ground: Ground) -> None:
    """Do one of the four after another, each several times in a whole run and once in a short one."""
    faults: list[Callable[[Ground], Awaitable[None]]] = [restart, cut, terminate, freeze]
    gaps = [min(gap, ground.seconds / share) for gap, share in zip(GAPS_S, (10, 3), strict=True)]
    done = 0
    async with Callbacks(ground, 20) as callbacks:
        until = time.monotonic() + ground.seconds
        while time.monotonic() < until or done < len(faults):
            await faults[done % len(faults)](ground)
            done += 1
            await callbacks.send_for(ground.random.uniform(*gaps), 0.5)
        ground.progress.write(f"Callbacks meanwhile: {counted(callbacks.answers)}")
        ground.measure("faults", done, "times")
        ground.measure_times("callback answered", [answer.seconds for answer in callbacks.answers])
        await ground.caught_up("after the last fault")


async def restart(ground: Ground) -> None:
    """Shut it down fast or kill it, and start it after up to two seconds."""
    postgres = ground.stack.postgres
    end = ground.random.choice([postgres.stop, postgres.kill])
    down_s = ground.random.uniform(0.0, DOWN_S)
    ground.note(f"Postgres {end.__name__}, down {down_s:.1f} s")
    await asyncio.to_thread(end)
    await ground.wait(down_s)
    await asyncio.to_thread(postgres.start)


async def freeze(ground: Ground) -> None:
    """Let it accept connections and answer nothing for some seconds."""
    seconds = min(FROZEN_S, ground.seconds / 4)
    ground.note(f"Postgres frozen for {seconds:.1f} s")
    with ground.stack.postgres.frozen():
        await ground.wait(seconds)


async def terminate(ground: Ground) -> None:
    """End half of the sessions, then again and again those that are in the middle of a statement that writes."""
    connection = await asyncpg.connect(ground.stack.database_url, ssl=False)
    try:
        ended = await connection.fetchval(_TERMINATE)
        busy = 0
        for _ in range(TERMINATED_TIMES):
            busy += await connection.fetchval(_TERMINATE_BUSY)
            await ground.wait(TERMINATED_GAP_S)
    finally:
        await connection.close()
    ground.note(f"Sessions ended: {ended}, and {busy} in the middle of a statement")
    ground.count("sessions ended in a statement", busy, "sessions")


async def cut(ground: Ground) -> None:
    """Cut connections at random for some seconds, before a statement arrives and after it is committed."""
    assert isinstance(ground.stack, ProxiedStack)
    cuts, seconds = ground.stack.cuts, min(5.0, ground.seconds / 3)
    before, after = cuts.before, cuts.after
    cuts.share = CUT_SHARE
    try:
        await ground.wait(seconds)
    finally:
        cuts.share = 0.0
    ground.note(f"Connections cut: {cuts.before - before} before a statement, {cuts.after - after} after its commit")
    ground.count("connections cut before a statement", cuts.before - before, "connections")
    ground.count("connections cut after a commit", cuts.after - after, "connections")


DISTURBANCE = Disturbance(
    "postgres",
    "Postgres restarted each 5 to 40 s, frozen, its sessions ended and its connections cut around commits",
    100.0,
    disturb,
    open_proxied_stack,
)
