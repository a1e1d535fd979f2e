"""One run of one worker of a delay queue: a private Redis, its jobs, the worker's process, what became of the jobs."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL

from bench.buyer import Unexpected
from bench.loops import wait_until
from bench.peers.queue.plan import RECORD_BYTES, VARIABLE, Plan, read_records
from bench.slow_link import SlowLink, slow_link
from core.settings import Settings
from demo.embedded import Child, EmbeddedRedis, temporary_directory
from demo.embedded.child import STOP_S, children_of, tail
from demo.service import ROOT
from storage.redis.address import redis_address
from storage.redis.client import JobRedis, Script, open_job_redis

POLL_S = 0.02
START_S = 30.0
"""Time for a worker's first job."""

STALL_S = 3.0
"""A worker that has run nothing for so long has left the rest."""

LEASE_S = 35.0
"""The longest lease of any of them: what was left runs again before."""

PRODUCE_S = 300.0
LEAD_S = 3.0
ENQUEUED_PER_S = 1000.0
LEADS = (1, 3, 9)
"""Paced jobs are all enqueued before the first is due: time for a process to start, and for a library that takes
a call for each job. Where that was too short, the run begins anew with more."""

SPINNERS = 7
SPIN = "while True: pass"


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A queue. `command` is its program, `share` its part of the jobs, for it may be slow.

    `unfinished` is Lua that returns the number of jobs that are not yet finished, leased ones too.
    """

    name: str
    command: tuple[str, ...]
    share: float
    unfinished: str


@dataclass(frozen=True, kw_only=True)
class Load:
    """Jobs of one run: all due at once, or `per_s` of them in a second."""

    count: int
    per_s: float = 0.0
    delay_s: float = 0.0
    starved: bool = False


@dataclass(frozen=True, kw_only=True)
class Ran:
    """A run: CPU is that of `measured` of the runs, the seconds and `late_s` those of all jobs within the limit.

    A job that did not run within the limit is as late as the end. `left`: unfinished when nothing ran any more;
    0 while jobs still ran.
    """

    measured: int
    worker_s: float
    redis_s: float
    runs: int
    seconds: float
    enqueued_per_s: float
    late_s: tuple[float, ...]
    left: int
    twice: int


async def run_peer(peer: Peer, load: Load, limit_s: float) -> Ran:
    """Run the jobs of one load.

    Raises:
        Unexpected: the worker or the producer failed.
    """
    with temporary_directory() as directory, EmbeddedRedis(directory / "redis") as server:
        async with slow_link(server.port, load.delay_s) as link:
            run = _Run(peer, load, directory, server, link)
            return await (run.paced if load.per_s else run.at_once)(limit_s)


class _Run:
    def __init__(self, peer: Peer, load: Load, directory: Path, server: EmbeddedRedis, link: SlowLink) -> None:
        self._peer = peer
        self._load = load
        self._server = server
        self._link = link
        self._directory = directory
        self._records = directory / "records"
        self._worker: Child | None = None

    async def at_once(self, limit_s: float) -> Ran:
        """All jobs are in Redis before the worker starts. CPU counts from its first jobs: a start costs no job."""
        plan = self._plan(0.0)
        enqueued_per_s = await self._produce(plan)
        with self._working(plan):
            return await self._watch(plan, limit_s, enqueued_per_s)

    async def paced(self, limit_s: float) -> Ran:
        """The worker waits for the jobs, which are enqueued before the first is due."""
        for patience in LEADS:
            slow_s = (1 - self._peer.share) * self._load.count / ENQUEUED_PER_S
            plan = self._plan(time.time() + patience * (LEAD_S + slow_s))
            with self._working(plan):
                enqueued_per_s = await self._produce(plan)
                if time.time() < plan.begin_at:
                    with self._starving():
                        await asyncio.sleep(plan.begin_at - time.time())
                        return await self._watch(plan, limit_s + plan.jobs / plan.per_s, enqueued_per_s)
            await self._flush()
        raise Unexpected(f"{self._peer.name} enqueues too slowly for {self._load.per_s:g} jobs a second")

    def _plan(self, begin_at: float) -> Plan:
        load = self._load
        return Plan(self._server.url, str(self._records), load.count, begin_at, load.per_s or 1.0)

    async def _produce(self, plan: Plan) -> float:
        """Enqueue all jobs over a fast link; return how many in a second, without the start of the process."""
        child = self._child("produce", plan)
        began = time.monotonic()
        await self._wait(lambda: child.exit_code is not None, PRODUCE_S)
        if child.exit_code != 0:
            _kill(child)
            raise Unexpected(f"{self._peer.name} could not enqueue: {tail(child.log)}")
        return plan.jobs / (time.monotonic() - began)

    @contextmanager
    def _working(self, plan: Plan) -> Iterator[None]:
        if self._load.delay_s:
            plan = plan._replace(redis_url=plan.redis_url.replace(f":{self._server.port}/", f":{self._link.port}/"))
        self._worker = self._child("work", plan)
        try:
            yield
        finally:
            _kill(self._worker)

    @contextmanager
    def _starving(self) -> Iterator[None]:
        """Put the worker on a core that others keep busy, if the load says so: it has started, and waits for jobs."""
        if not self._load.starved:
            yield
            return
        with ExitStack() as stack:
            for _ in range(SPINNERS):
                spinner = Child((sys.executable, "-c", SPIN), log=self._directory / "spinner.log", cwd=self._directory)
                stack.callback(_kill, spinner)
                _pin(spinner.pid)
            for pid in self._family():
                _pin(pid)
            yield

    def _child(self, role: str, plan: Plan) -> Child:
        env = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", VARIABLE: json.dumps(plan._asdict())}
        log = self._directory / f"{role}.log"
        return Child((*self._peer.command, role), log=log, cwd=ROOT, env=env)

    def _runs(self) -> int:
        return self._records.stat().st_size // RECORD_BYTES if self._records.exists() else 0

    def _family(self) -> tuple[int, ...]:
        assert self._worker is not None
        return (self._worker.pid, *children_of(self._worker.pid))

    def _cpu_s(self) -> tuple[float, float]:
        return sum(map(_cpu_s, self._family())), _cpu_s(self._server.pid)

    async def _watch(self, plan: Plan, limit_s: float, enqueued_per_s: float) -> Ran:
        await self._wait(lambda: self._runs() > 0, START_S)
        first, before, began = self._runs(), self._cpu_s(), time.time()
        is_over = await self._wait_for(plan.jobs, limit_s)
        last, after, ended = self._runs(), self._cpu_s(), time.time()
        if first == last:  # too short: then the start of the worker counts as well
            first, before = 0, (0.0, 0.0)
        left = await self._left() if is_over else 0
        if left:
            await self._wait(lambda: self._runs() >= plan.jobs + left, LEASE_S)
        records = read_records(self._records)
        at = dict(reversed(records))
        in_time = [ran_at for ran_at in at.values() if ran_at <= ended]
        late = [min(at.get(number, ended), ended) - (plan.due_at(number) or began) for number in range(plan.jobs)]
        return Ran(
            measured=last - first,
            worker_s=after[0] - before[0],
            redis_s=after[1] - before[1],
            runs=len(in_time),
            seconds=max(in_time, default=began) - (self._link.used_at or min(in_time, default=began)),
            enqueued_per_s=enqueued_per_s,
            late_s=tuple(late),
            left=left,
            twice=len(records) - len(at),
        )

    async def _wait_for(self, count: int, limit_s: float) -> bool:
        """Return when so many have run or nothing has run for a while; False if the limit was over before."""
        ends_at, runs, changed_at = time.monotonic() + limit_s, 0, time.monotonic()
        while (now := time.monotonic()) < ends_at and now - changed_at < STALL_S and runs < count:
            await asyncio.sleep(POLL_S)
            if (new := self._runs()) > runs:
                runs, changed_at = new, now
        return now < ends_at

    @staticmethod
    async def _wait(is_true: Callable[[], bool], limit_s: float) -> None:
        async def condition() -> bool:
            return is_true()

        await wait_until(condition, limit_s, POLL_S)

    async def _left(self) -> int:
        """Return the jobs that are unfinished, once nothing runs any more: an end may be a round trip behind."""
        left, changed_at = -1, time.monotonic()
        async with self._redis() as redis:
            while left and time.monotonic() - changed_at < STALL_S:
                await asyncio.sleep(POLL_S)
                now_left = int(await Script(f"return {self._peer.unfinished}").run(redis, ([], [])))
                if now_left != left:
                    left, changed_at = now_left, time.monotonic()
        return left

    async def _flush(self) -> None:
        async with self._redis() as redis:
            await redis.flushall()
        self._records.unlink(missing_ok=True)

    @asynccontextmanager
    async def _redis(self) -> AsyncIterator[JobRedis]:
        redis = open_job_redis(redis_address(Settings(redis_url=self._server.url)))
        try:
            yield redis
        finally:
            await redis.aclose()


def _pin(pid: int) -> None:
    """Let a process with its threads run on one core only."""
    core = min(os.sched_getaffinity(0))
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})


def _cpu_s(pid: int) -> float:
    """Return the CPU of a process by Linux's clock of it: /proc has ticks, too coarse for a short run."""
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


def _kill(child: Child) -> None:
    """Kill a process with those that it forked: its session is its own."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        child.wait(STOP_S)
