"""One world: a Postgres, a Redis and the processes of a deployment under one clock, and their schedule.

Everything in it depends on the seed alone. The outside, which is channels, merchant, shoppers and the network between
them, is given to it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from random import Random
from typing import Any

from core.settings import read_settings
from runtime.logs import configure_logs
from tests.simulation import clock, entropy, processes
from tests.simulation.accidents import Accidents, Applies
from tests.simulation.events import Events
from tests.simulation.loop import Connects
from tests.simulation.postgres import Postgres, replace_pools
from tests.simulation.processes import Process, loop_of_world
from tests.simulation.redis import Redis, replace_connections
from tests.simulation.rest import Rest

PUBLIC_URL = "http://127.0.0.1:8000"

ENVIRONMENT = {
    "REDIS_URL": "redis://127.0.0.1:6379",
    "PUBLIC_URL": PUBLIC_URL,
    "HOST": "127.0.0.1",
    "NOTIFY_ALLOW_NETS": "127.0.0.0/8",
    "LOG_LEVEL": "info",
}
"""Settings of a deployment; all others have their defaults. Keys and secrets are the caller's."""


class World:
    """See the module. Made by `open_world`."""

    def __init__(self, seed: int, environ: Mapping[str, str], events: Events, applies: Applies) -> None:
        self.seed = seed
        self.environ = dict(environ)
        self.events = events
        self.rest = Rest()
        self.postgres = Postgres(
            environ["DATABASE_URL"],
            seed,
            self.random("postgres"),
            events,
            Accidents("statement", applies, self.rest),
            self.rest,
        )
        self.redis = Redis(self.random("redis"), events, Accidents("command", applies, self.rest), self.rest)
        self.processes: dict[str, Process] = {}
        self.dead: list[Process] = []
        self._starts: Counter[str] = Counter()

    def now(self) -> datetime:
        """The right time, which Postgres has too."""
        return clock.now()

    def random(self, name: str) -> Random:
        """A stream of random numbers of its own: who draws more often changes nothing for the others."""
        return entropy.stream(self.seed, name)

    async def start(self, kind: str, name: str) -> Process:
        """Start a process, `api` or `worker`. One of this name that has ended is replaced.

        An api process serves on return, unless it was ended before.
        """
        former = self.processes.get(name)
        if former is not None:
            self.dead.append(former)
        self._starts[name] += 1
        settings = read_settings(self.environ)
        process = Process(name, kind, self._starts[name], settings, self.events)
        self.processes[name] = process
        self.rest.trouble()
        process.ended.add_done_callback(lambda _: self._clear_up())
        process.begin()
        up: asyncio.Future[Any] = asyncio.ensure_future(process.up.wait())
        waited_for: set[asyncio.Future[Any]] = {up, process.ended}
        await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
        up.cancel()
        return process

    def _clear_up(self) -> None:
        """A process has ended."""
        self.rest.trouble()
        self.redis.forget_dead()
        self.postgres.forget_dead()


@asynccontextmanager
async def open_world(
    seed: int,
    *,
    database_url: str,
    environ: Mapping[str, str],
    network: Connects | None = None,
    applies: Applies | None = None,
) -> AsyncIterator[World]:
    """A world whose processes are not started. `environ`: settings of all its processes beside `ENVIRONMENT`.

    `applies` draws the accidents on the way to the stores; None: they are drawn by the seed.
    """
    events = Events()
    world = World(seed, {**ENVIRONMENT, "DATABASE_URL": database_url, **environ}, events, applies or _drawn_by(seed))
    configure_logs(world.environ["LOG_LEVEL"], events)  # type: ignore[arg-type]  # it can be written to
    loop_of_world().network = network
    replace_pools(world.postgres)
    replace_connections(world.redis)
    processes.replace_outermost()
    world.rest.replace_pauses()
    try:
        yield world
    finally:
        for process in world.processes.values():
            process.crash()
        world.postgres.close()


def _drawn_by(seed: int) -> Applies:
    random = entropy.stream(seed, "accidents")
    return lambda _, share: random.random() < share
