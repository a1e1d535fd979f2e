"""Time that a run spends: functions of api and worker by CPU, statements of Postgres and commands of Redis by time.

Written for people, into a file for each benchmark. The profiled run is one of its own; its figures are not the
report's.
"""

from __future__ import annotations

import os
import signal
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from bench.counts import entries, statement_log
from bench.cpu import thread_seconds
from bench.report import MS
from bench.rig import Rig, open_rig
from bench.sampled import Samples
from demo.stack import Stack

ROWS = 40
STATEMENT_CHARACTERS = 110

Work = Callable[[], Awaitable[int]]
"""Does what is profiled, and returns the number of its orders or queries."""


class SampledStack(Stack):
    """nodrop's processes, each with a sampler that writes to `samples`."""

    def __init__(self, samples: Path, directory: Path, **options: Any) -> None:
        super().__init__(directory, **options)
        self._samples = samples

    def _arguments(self, name: str, module: str) -> tuple[str, ...]:
        return ("bench.sampled", str(self._samples / name), module)


async def write_profile(path: Path, prepare: Callable[[Rig], Awaitable[Work]], **options: Any) -> None:
    """Write the profile of the work that `prepare` returns for a stack of its own."""
    with TemporaryDirectory() as samples:
        async with open_rig(make_stack=partial(SampledStack, Path(samples)), **options) as rig:
            work = await prepare(rig)
            lines = await _profiled(rig, work)
        _write(path, lines, Path(samples))


def _write(path: Path, lines: list[str], samples: Path) -> None:
    for file in sorted(samples.iterdir()):
        lines += _functions(file.name, msgspec.json.decode(file.read_bytes(), type=Samples))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join((*lines, "")))


async def _profiled(rig: Rig, work: Work) -> list[str]:
    pids = {service.name: service.pid or 0 for service in (*rig.stack.apis, *rig.stack.workers)}
    for pid in pids.values():
        os.kill(pid, signal.SIGUSR2)
    threads = {name: thread_seconds(pid) for name, pid in pids.items()}
    async with statement_log(rig) as log:
        offset, commands = log.stat().st_size, await _commands(rig)
        n = await work()
        lines = [f"of {n} orders or queries", *_threads(threads, pids, n)]
        lines += _statements(log, offset, n)
        lines += _redis(commands, await _commands(rig), n)
    return lines


def _threads(before: Mapping[str, Mapping[str, float]], pids: Mapping[str, int], n: int) -> list[str]:
    lines = ["", "CPU ms each, by process and name of thread"]
    for name, pid in pids.items():
        for thread, seconds in sorted(thread_seconds(pid).items()):
            lines.append(f"{(seconds - before[name].get(thread, 0.0)) / n * MS:9.3f}  {name} {thread}")
    return lines


def _statements(log: Path, offset: int, n: int) -> list[str]:
    counts: defaultdict[str, list[float]] = defaultdict(lambda: [0, 0.0])
    for each in entries(log, offset):
        counted = counts[each.text[:STATEMENT_CHARACTERS]]
        counted[0] += each.step in ("execute", "statement")
        counted[1] += each.milliseconds
    rows = [(spent, count, text) for text, (count, spent) in counts.items()]
    total = sum(count for _, count, _ in rows)
    heading = f"Postgres: {total / n:.2f} statements each; ms each, times each, statement (parse, bind and execute)"
    return ["", heading, *_rows(rows, n, 1.0)]


def _redis(before: Mapping[str, Any], after: Mapping[str, Any], n: int) -> list[str]:
    rows = []
    for name, now in after.items():
        then = before.get(name, {"usec": 0, "calls": 0})
        rows.append((now["usec"] - then["usec"], now["calls"] - then["calls"], name.removeprefix("cmdstat_")))
    total = sum(calls for _, calls, _ in rows)
    return ["", f"Redis: {total / n:.1f} commands each; ms each, times each, command", *_rows(rows, n, 1 / MS)]


def _rows(rows: Iterable[tuple[float, float, str]], n: int, unit: float) -> list[str]:
    shown = sorted((row for row in rows if row[1]), reverse=True)[:ROWS]
    return [f"{spent * unit / n:9.3f} {count / n:9.2f}  {text}" for spent, count, text in shown]


def _functions(name: str, samples: Samples) -> list[str]:
    lines = ["", f"{name}: {samples.count} samples of its main thread; % in the function itself, % with what it called"]
    if not samples.count:
        return lines
    for title, counts in (("by the function itself", samples.own), ("with what it called", samples.with_called)):
        lines.append(f"  {title}")
        for function, _ in sorted(counts.items(), key=lambda item: -item[1])[:ROWS]:
            own, called = samples.own.get(function, 0), samples.with_called.get(function, 0)
            lines.append(f"{own / samples.count * 100:9.1f} {called / samples.count * 100:9.1f}  {function}")
    return lines


async def _commands(rig: Rig) -> dict[str, Any]:
    return dict(await rig.redis.info("commandstats"))
