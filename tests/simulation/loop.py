"""The event loop of a world: its clock jumps to the next timer when nothing is ready, so a day passes in the time that
its work takes. Nothing real is waited for here.

A handle that belongs to a dead process is never run: its tasks stand at their awaits for ever, and no `finally` of them
runs. Tasks and futures have numbers for hashes, so that sets of them have the same order in each run.
"""

from __future__ import annotations

import asyncio
import heapq
import signal
import socket
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from tests.simulation.clock import CURRENT, REAL_MONOTONIC, TIME

if TYPE_CHECKING:
    from tests.simulation.processes import Process

T = TypeVar("T")

ADDRESS_OF_NAMES = "203.0.113.7"
"""Of every host that is no address: a name leads to the world's network, whatever it is."""

CANCELLED_MAX = 100
"""Cancelled timers that may lie in the heap until it is made anew."""


class NothingLeft(Exception):
    """No timer and nothing ready: whatever still waits would wait for ever."""


class Connects(Protocol):
    """The network of a world, as the loop uses it."""

    async def create_connection(self, factory: Callable[[], Any], host: str, port: int) -> tuple[Any, Any]: ...


_numbers = count()


class NumberedTask(asyncio.Task[T]):
    """A task that sets sort by its number, and its process."""

    def __init__(self, coro: Coroutine[Any, Any, T], *, process: Process | None, **options: Any) -> None:
        self._number = next(_numbers)
        self.process = process
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self._number


class NumberedFuture(asyncio.Future[Any]):
    """A future that sets sort by its number."""

    def __init__(self, *, loop: asyncio.AbstractEventLoop) -> None:
        self._number = next(_numbers)
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self._number


class WorldLoop(asyncio.BaseEventLoop):
    """The loop of a world. `network` is set before anybody connects."""

    def __init__(self) -> None:
        super().__init__()
        self.network: Connects | None = None
        self._timers: list[tuple[float, int, Any]] = []
        self._cancelled = 0
        self._own: Any = self
        """Fields of asyncio's own loop, which its annotations do not know."""

    def time(self) -> float:
        return TIME.seconds

    def current_process(self) -> Process | None:
        return cast("Process | None", CURRENT.get())

    def _run_once(self) -> None:
        """One turn: what is ready and due. With nothing ready the next timer is now."""
        own = self._own
        ready, timers = own._ready, self._timers
        if not ready and not own._stopping:
            while timers and timers[0][2]._cancelled:
                heapq.heappop(timers)
            if not timers:
                raise NothingLeft
            TIME.seconds = max(TIME.seconds, timers[0][0])
        while timers and timers[0][0] <= TIME.seconds:
            timer = heapq.heappop(timers)[2]
            timer._scheduled = False
            ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            process = handle._context.get(CURRENT)
            if process is not None and process.is_dead:
                process.remains.append(handle)
                continue
            handle._run()

    # -- handles. asyncio's own are compared in Python, and look for mistakes that its tests are for.

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> asyncio.Handle:  # type: ignore[override]
        handle = asyncio.Handle(callback, args, self, context)
        self._own._ready.append(handle)
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(TIME.seconds + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Timers of one instant come in the order in which they were set."""
        timer: Any = asyncio.TimerHandle(when, callback, args, self, context)
        timer._scheduled = True
        heapq.heappush(self._timers, (when, next(_numbers), timer))
        return cast("asyncio.TimerHandle", timer)

    def _timer_handle_cancelled(self, handle: Any) -> None:
        """Make the heap anew when most of it is cancelled."""
        self._cancelled += handle._scheduled  # not those that have been due
        if self._cancelled > CANCELLED_MAX and 2 * self._cancelled > len(self._timers):
            self._timers[:] = [entry for entry in self._timers if not entry[2]._cancelled]
            heapq.heapify(self._timers)
            self._cancelled = 0

    # -- tasks of processes

    def create_task(  # type: ignore[override]
        self, coro: Any, *, name: str | None = None, context: Context | None = None, **_: Any
    ) -> NumberedTask[Any]:
        """A task of the process that makes it, also in a context that is empty."""
        process = self.current_process()
        if context is None:
            context = copy_context()
        elif process is not None and CURRENT not in context:  # a new one; those of the world say that they are
            context.run(CURRENT.set, process)
        task: NumberedTask[Any] = NumberedTask(coro, process=process, loop=self, name=name, context=context)
        if process is not None:
            process.tasks.add(task)
            task.add_done_callback(process.tasks.discard)
        return task

    def create_future(self) -> NumberedFuture:
        return NumberedFuture(loop=self)

    # -- the outside

    async def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None, **_: Any) -> Any:
        """Connect over the network of the world. There is no TLS in it."""
        if self.network is None:
            raise ConnectionRefusedError("this world has no network")
        return await self.network.create_connection(protocol_factory, host, port)

    async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> list[Any]:
        """An address is itself, a name is `ADDRESS_OF_NAMES`."""
        try:
            return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        except socket.gaierror:
            return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (ADDRESS_OF_NAMES, port))]

    def run_in_executor(  # type: ignore[override]
        self, _executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Do the work now: threads have no order."""
        result: asyncio.Future[T] = self.create_future()
        try:
            result.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - it is raised where the result is awaited
            result.set_exception(error)
        return result

    def add_signal_handler(  # type: ignore[override]
        self, sig: int, callback: Callable[..., object], *args: Any
    ) -> None:
        """Keep it for a signal of the world to this process."""
        process = self.current_process()
        if process is not None:
            process.handlers[signal.Signals(sig)] = lambda: callback(*args)

    def remove_signal_handler(self, sig: int) -> bool:
        process = self.current_process()
        return process is not None and process.handlers.pop(signal.Signals(sig), None) is not None

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)


class RealLoop(asyncio.SelectorEventLoop):
    """A loop with the real clock, for the socket of Postgres. It runs while the world's loop stands."""

    def __init__(self) -> None:
        super().__init__()
        self._own: Any = self

    def time(self) -> float:
        return REAL_MONOTONIC()

    def _run_once(self) -> None:
        """One turn, which looks at the socket only when nothing is ready: a system call less, three times a statement.
        Timers are looked at when the socket has been silent for a second.
        """
        own = self._own
        if not own._ready:
            events = own._selector.select(SILENCE_S)
            if not events:
                own.call_soon(_nothing)
                super()._run_once()  # type: ignore[misc]
                return
            own._process_events(events)
        for _ in range(len(own._ready)):
            handle = own._ready.popleft()
            if not handle._cancelled:
                handle._run()

    def run_inside(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it to its end in the middle of a turn of another loop, for which no time passes."""
        outer = asyncio._get_running_loop()
        task = None if outer is None else asyncio.current_task(outer)
        if outer is not None and task is not None:
            asyncio.tasks._leave_task(outer, task)
        asyncio._set_running_loop(self)
        try:
            running = self.create_task(work)
            while not running.done():
                self._run_once()
            return running.result()
        finally:
            asyncio._set_running_loop(outer)
            if outer is not None and task is not None:
                asyncio.tasks._enter_task(outer, task)


SILENCE_S = 1.0


def _nothing() -> None: ...
