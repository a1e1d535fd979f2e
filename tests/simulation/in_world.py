"""Parts of a world in a test's own process: the loop and the time, while clocks and chance stay the machine's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, TypeVar

from core.settings import read_settings
from tests.simulation.accidents import Accidents
from tests.simulation.clock import CURRENT, TIME
from tests.simulation.events import Events
from tests.simulation.loop import WorldLoop
from tests.simulation.postgres import Postgres
from tests.simulation.processes import Process
from tests.simulation.redis import Redis
from tests.simulation.rest import Rest

T = TypeVar("T")


def in_world(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run it on the loop of a world, whose time begins at nought. The test has no loop of its own."""
    TIME.seconds = 0.0
    _processes.clear()
    loop = WorldLoop()
    token = CURRENT.set(None)
    try:
        return loop.run_until_complete(main())
    finally:
        loop.run_until_complete(_end_remains())
        CURRENT.reset(token)
        loop.close()


async def _end_remains() -> None:
    """End the tasks of all processes in an orderly way: this process goes on, and would collect them as garbage."""
    while _processes:
        process = _processes.pop()
        process.is_dead = False
        for handle in process.remains:
            asyncio.get_running_loop().call_soon(handle._run)
        tasks = list(process.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def new_process(name: str = "worker") -> Process:
    """A process that runs nothing yet."""
    process = Process(name, "worker", 1, read_settings({}), Events())
    _processes.append(process)
    return process


_processes: list[Process] = []


def never(_name: str, _share: float) -> bool:
    return False


def new_postgres(url: str, applies: Callable[[str, float], bool] = never) -> Postgres:
    rest = Rest()
    return Postgres(url, 1, Random(1), Events(), Accidents("statement", applies, rest), rest)


def new_redis(applies: Callable[[str, float], bool] = never) -> Redis:
    rest = Rest()
    return Redis(Random(1), Events(), Accidents("command", applies, rest), rest)
