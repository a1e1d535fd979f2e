"""The system that is disturbed, the load on it, and what a disturbance may measure and find broken."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from random import Random
from statistics import quantiles
from types import MappingProxyType
from typing import Any, NamedTuple, Self

import msgspec
from msgspec.structs import replace

from cli.progress import Progress
from demo.open_work import list_open_work
from demo.run import CURRENCIES, usual_plan
from demo.service import ROOT, Service
from demo.stack import Stack
from simulator.kernel.faults import FaultProfile
from simulator.shoppers.browser import Browser
from simulator.shoppers.shop import ShopOrder
from simulator.shoppers.visits import Visit, visit
from storage.postgres.database import Database
from tests.scenarios.scenario import Scenario
from tests.servers import eventually

UNIT_S = 0.25
"""A minute. Leases, deadlines of HTTP and times of callbacks keep their length."""

EXPIRES_S = 10
"""The deadline of an order. Some shoppers pay a second before it, others never."""

AT_ONCE_MAX = 64
"""Shoppers at the same time; more wait, and are not counted as arrived."""

VISITS_MAX = 20_000
OVERDUE_S = 2.0
"""Work that is due for longer, and that no process has, waits: `caught_up` measures when there is none."""

CAUGHT_UP_S = 120.0

LOW = FaultProfile(
    lost=0.10,
    late=0.05,
    late_s=3.0,
    doubled=0.05,
    forged=0.02,
    answered_5xx=0.02,
    cut=0.01,
    slow=0.02,
    slow_s=1.0,
    not_found_first=0.05,
)
"""Faults of the channels meanwhile: 10 of 100 callbacks are lost, 3 of 100 calls fail."""

ENVIRONMENT = {"RECONCILE_AT": "off"}

_PAID_AT = """
SELECT order_no, extract(epoch FROM at)::float8 AS at FROM order_events
 WHERE order_no = ANY($1::text[]) AND kind = 'paid'"""

COMMON: Any = {"unit_s": UNIT_S, "accounts": {name: name for name in CURRENCIES}}
"""Arguments of every stack."""


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A measured value. `n`: the number of samples."""

    name: str
    value: float
    unit: str
    n: int = 1


class Ground:
    """A running system, its database read from outside, and the record of what happens to it."""

    def __init__(
        self, stack: Stack, scenario: Scenario, *, name: str, seconds: float, seed: int, progress: Progress
    ) -> None:
        self.stack = stack
        self.scenario = scenario
        self.db: Database = scenario.db
        self.seconds = seconds
        self.seed = seed
        self.random = Random(f"{name}-{seed}")
        self.progress = progress
        self.figures: list[Figure] = []
        self.broken: list[str] = []
        self.done: list[str] = []
        self.logs: list[Path] = []

    @property
    def api_pid(self) -> int:
        """The process id of the first web process."""
        pid = self.stack.apis[0].pid
        assert pid is not None, "the web process has ended"
        return pid

    async def paid_at(self, *orders: ShopOrder) -> dict[str, float]:
        """Return the times at which these orders became paid, in seconds since 1970, by order number."""
        rows = await self.db.fetch(_PAID_AT, [order.order_no for order in orders])
        return {row["order_no"]: row["at"] for row in rows}

    def measure(self, name: str, value: float, unit: str, n: int = 1) -> None:
        self.figures.append(Figure(name=name, value=round(value, 3), unit=unit, n=n))

    def count(self, name: str, number: int, unit: str) -> None:
        """Add to a figure that sums up over the run. Its `n`: how often that was done."""
        before = next((each for each in self.figures if each.name == name), Figure(name=name, value=0, unit=unit, n=0))
        others = [each for each in self.figures if each.name != name]
        self.figures[:] = [*others, replace(before, value=before.value + number, n=before.n + 1)]

    def measure_times(self, name: str, seconds: Sequence[float]) -> None:
        """Record p50, p95, p99 and the largest of these durations; nothing without any."""
        if not seconds:
            return
        cuts = quantiles(seconds, n=100, method="inclusive") if len(seconds) > 1 else [seconds[0]] * 99
        for label, value in (("p50", cuts[49]), ("p95", cuts[94]), ("p99", cuts[98]), ("max", max(seconds))):
            self.measure(f"{name} {label}", value, "s", len(seconds))

    def report_broken(self, sentence: str) -> None:
        """Record what may not be: the run has failed."""
        self.broken.append(sentence)

    def note(self, text: str) -> None:
        """Record a disturbance that happened."""
        self.done.append(text)
        self.progress.write(text)

    def new_service(
        self, name: str, *arguments: str, health_url: str = "", cwd: Path = ROOT, env: Mapping[str, str]
    ) -> Service:
        """Return another process of nodrop beside those of the stack, not started."""
        log = self.stack.directory / f"{name}.log"
        self.logs.append(log)
        return Service(name, *arguments, env=self.stack.environ | dict(env), log=log, health_url=health_url, cwd=cwd)

    @asynccontextmanager
    async def running(self, *services: Service) -> AsyncIterator[None]:
        """Run these processes, and end them as a platform does."""
        try:
            await asyncio.gather(*(service.start() for service in services))
            yield
        finally:
            codes = await asyncio.gather(*(service.stop(60.0) for service in services))
        for service, code in zip(services, codes, strict=True):
            if code != 0:
                self.report_broken(f"{service.name} ended with {code} after SIGTERM")

    async def wait(self, seconds: float) -> None:
        """Let the load go on for so long."""
        await asyncio.sleep(seconds)

    async def caught_up(self, name: str) -> None:
        """Measure the time from now until no work is overdue that no process has."""
        began = time.monotonic()
        try:
            await eventually(self._has_caught_up, CAUGHT_UP_S, 0.2)
        except AssertionError:
            self.report_broken(f"{name}: work is overdue {CAUGHT_UP_S:.0f} s after the disturbance")
        self.measure(f"{name}: nothing overdue after", time.monotonic() - began, "s")

    async def _has_caught_up(self) -> bool:
        rows = await list_open_work(self.db, 0.0)
        return not any(row.due_in_s < -OVERDUE_S and not row.leased_for_s for row in rows)


class Load:
    """Shoppers that arrive one after another, at a rate, until it is ended."""

    def __init__(
        self, stack: Stack, *, rate_per_s: float, expires_s: int, seed: int, prefix: str, progress: Progress
    ) -> None:
        self.visits: list[Visit] = []
        self._stack = stack
        self._gap_s = 1.0 / rate_per_s
        self._progress = progress
        self._ended = asyncio.Event()
        self._plan = usual_plan(stack, VISITS_MAX, seed, expires_s=expires_s, order_prefix=prefix)
        self._arriving: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._arriving = asyncio.create_task(self._arrive())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end()

    async def end(self) -> None:
        """Let no more shoppers come, and wait for those that are there."""
        self._ended.set()
        if self._arriving is not None:
            await self._arriving

    async def _arrive(self) -> None:
        places = asyncio.Semaphore(AT_ONCE_MAX)
        async with self._stack.shop() as shop, Browser() as browser, asyncio.TaskGroup() as group:

            async def shopper(index: int) -> None:
                try:
                    self.visits.append(await visit(shop, browser, self._plan, index))
                finally:
                    places.release()
                self._progress.update("shoppers", len(self.visits), index + 1, f"{index + 1} have come")

            for index in range(VISITS_MAX):
                if self._ended.is_set():
                    break
                await places.acquire()
                group.create_task(shopper(index))
                await asyncio.sleep(self._gap_s)


class Disturbance(NamedTuple):
    """A disturbance with its name, one line about it, and its length in seconds in a whole run.

    `open_stack` makes the system for it; `missing` says why it cannot be made on this machine, or an empty text.
    """

    name: str
    summary: str
    seconds: float
    disturb: Callable[[Ground], Awaitable[None]]
    open_stack: Callable[[Path, int], AbstractAsyncContextManager[Stack]]
    rate_per_s: float = 8.0
    missing: Callable[[], str] = lambda: ""


def open_stack(
    directory: Path, seed: int, *, workers: int = 2, fsync: bool = True, env: Mapping[str, str] = MappingProxyType({})
) -> Stack:
    """Return the usual system: a web process, two workers, all channels, a Postgres that syncs its commits."""
    return Stack(directory, seed=seed, workers=workers, fsync=fsync, **COMMON, env=ENVIRONMENT | dict(env))


def anonymous_bytes(pid: int) -> int:
    """Return the memory that is this process's own, by /proc; 0 after its end. Shared memory is not counted."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), 0)


def open_files(pid: int) -> int:
    """Return the number of open files of a process."""
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - a count
