"""Load: a closed loop of clients that wait for responses, an open loop of arrivals, and a wait for a condition."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

POLL_S = 0.05


async def closed_loop(work: Callable[[int], Awaitable[T]], count: int, clients: int, limit_s: float) -> list[T]:
    """Run `work` `count` times by `clients`, each of which begins the next one after its last."""
    numbers = iter(range(count))
    ends_at = time.monotonic() + limit_s
    done: list[T] = []

    async def client() -> None:
        for number in numbers:
            if time.monotonic() > ends_at:
                return
            done.append(await work(number))

    async with asyncio.TaskGroup() as group:
        for _ in range(min(clients, count)):
            group.create_task(client())
    return done


async def open_loop(work: Callable[[int], Awaitable[object]], count: int, per_s: float) -> list[float]:
    """Start `count` arrivals at a fixed rate, without waiting for earlier ones; return the seconds of each.

    The seconds count from the due time of an arrival, so a late start counts as waiting.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    times: list[float] = []

    async def arrive(number: int) -> None:
        due = began + number / per_s
        await asyncio.sleep(due - loop.time())
        await work(number)
        times.append(loop.time() - due)

    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(arrive(number))
    return times


async def wait_until(condition: Callable[[], Awaitable[bool]], limit_s: float, poll_s: float = POLL_S) -> bool:
    """Return whether the condition became true in time."""
    ends_at = time.monotonic() + limit_s
    while not await condition():
        if time.monotonic() > ends_at:
            return False
        await asyncio.sleep(poll_s)
    return True
