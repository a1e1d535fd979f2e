"""Simulated processes: groups of tasks, each opened by the product's own start code, with resources of its own.

A crash is what SIGKILL is: from that moment no task of the process runs again, at whatever await it stands, and none of
its `finally` blocks. The tasks stay referenced until the world ends, because their coroutines would else be closed.
"""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any, TypeVar

import api.application
import worker.__main__ as worker_main
from api.application import open_application
from api.http.request import LoopLag
from core.settings import Settings
from runtime.resources import open_resources
from tests.simulation.clock import CURRENT
from tests.simulation.events import Events
from tests.simulation.loop import WorldLoop

T = TypeVar("T")

Main = Callable[["Process"], Coroutine[Any, Any, None]]

Application = Callable[[Any, Any, Any], Coroutine[Any, Any, None]]
"""Of ASGI."""


class Crashed(ConnectionResetError):
    """The process at the other end has ended."""


class Process:
    """One process, from its start to its crash or stop. `app` is there while an api process serves.

    `skew_s` is how far its wall clock is ahead, and may be changed at any time. `ended` is done at its end.
    `number`: it is the first of its name, the second …
    """

    def __init__(self, name: str, kind: str, number: int, settings: Settings, events: Events) -> None:
        self.name = name
        self.kind = kind
        self.label = f"{name}.{number}"
        self.settings = settings
        self.skew_s = 0.0
        self.is_dead = False
        self.app: Application | None = None
        self.tasks: set[asyncio.Task[Any]] = set()
        self.remains: list[Any] = []
        """Handles that were due after the crash."""

        self._calls: Counter[str] = Counter()
        self.handlers: dict[signal.Signals, Callable[[], object]] = {}
        self.up = asyncio.Event()
        self._events = events
        self._context = copy_context()
        self._context.run(CURRENT.set, self)
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self.stopping = asyncio.Event()

    def name_of_call(self, kind: str, name: str) -> str:
        """Name of its next such call, `statement api-0.1 inbox.store #3`: other calls in between do not change it."""
        call = f"{kind} {self.label} {name}"
        self._calls[call] += 1
        return f"{call} #{self._calls[call]}"

    def spawn(self, coro: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run it in this process: it dies with it."""
        if self.is_dead:
            coro.close()
            raise Crashed(f"{self.label} has ended")
        context: Context = self._context.copy()
        return context.run(self._loop.create_task, coro)

    async def serve(self, request: Coroutine[Any, Any, T]) -> T:
        """Let it answer a request of somebody outside. Raises Crashed if it ends before."""
        serving = self.spawn(request)
        waited_for: set[asyncio.Future[Any]] = {serving, self.ended}
        await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
        if not serving.done():
            raise Crashed(f"{self.label} has ended")
        return serving.result()

    def begin(self) -> None:
        """Start it. Without its stores it starts, too."""
        self._events.note("start", process=self.label)
        main = self.spawn(_MAINS[self.kind](self))
        main.add_done_callback(self._on_end, context=Context())

    def crash(self) -> None:
        """End it as SIGKILL does, in the middle of whatever it does."""
        if self.is_dead:
            return
        self._events.note("crash", process=self.label, tasks=len(self.tasks))
        self._end()

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._events.note("sigterm", process=self.label)
        self.stopping.set()
        handler = self.handlers.get(signal.SIGTERM)
        if handler is not None:
            self._context.copy().run(handler)

    def _on_end(self, main: asyncio.Task[None]) -> None:
        error = None if main.cancelled() else main.exception()
        self._events.note("end", process=self.label, error=type(error).__name__)
        self._end()
        if error is not None:
            raise error

    def _end(self) -> None:
        self.is_dead = True
        self.app = None
        if not self.ended.done():
            self.ended.set_result(None)


async def _run_api(process: Process) -> None:
    """As `api.__main__.serve`, without a server: the network calls the application."""
    async with open_resources(process.settings) as resources:
        await resources.clock.begin(resources.db)
        draining = asyncio.Event()
        async with open_application(resources, draining) as app:
            process.app = app
            process.up.set()
            await process.stopping.wait()
            draining.set()
            process.app = None


async def _run_worker(process: Process) -> None:
    process.up.set()
    await worker_main.run(process.settings, None)


_MAINS: dict[str, Main] = {"api": _run_api, "worker": _run_worker}


def replace_outermost() -> None:
    """Replace what a process asks of its machine and what no world needs."""
    for module, name, value in (
        (worker_main, "keep_start", _nothing),  # to freeze all objects costs as much as some orders
        (api.application, "LoopLag", _NoLag),  # no process is late where code takes no time
    ):
        vars(module)[name] = value


def _nothing() -> None: ...


class _NoLag(LoopLag):
    def watch(self) -> None:
        """Watch nothing: a timer each 0.1 s would be most of an idle day."""


def loop_of_world() -> WorldLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, WorldLoop), "a world runs on its own loop"
    return loop
