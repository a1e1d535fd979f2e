"""CPU seconds of each process, from /proc. Without /proc there are no such figures."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

from bench.report import MS, Figure, figure
from demo.embedded.child import children_of
from demo.service import Service
from demo.stack import Stack

OURS = ("api", "worker", "postgres", "redis")
"""Processes of a deployment. The simulator and the client are shown apart; they share the cores."""

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_OWN, _REAPED = slice(11, 13), slice(13, 15)
"""Fields 14 to 17 of proc(5)'s stat, counted after the name: user and system time, own and of ended children."""


class CpuMeter:
    """CPU since the meter was made."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._before = used(stack)

    def figures(self, n: int, per: str) -> tuple[Figure, ...]:
        """Return CPU milliseconds for each of `n` orders, callbacks …, by process; `cpu_ours` is the sum of `OURS`."""
        now = used(self._stack)
        spent = {name: now[name] - self._before[name] for name in now}
        if not spent or n == 0:
            return ()
        shown = {"ours": sum(spent[name] for name in OURS)} | spent
        return tuple(figure(f"cpu_{name}", seconds / n * MS, f"CPU ms/{per}", n) for name, seconds in shown.items())


def used(stack: Stack) -> dict[str, float]:
    """Return CPU seconds of each part since its start; empty without /proc."""
    if not Path("/proc/self/stat").exists():
        return {}
    return {
        "api": _sum_of_families(stack.apis),
        "worker": _sum_of_families(stack.workers),
        "postgres": _sum((stack.postgres.pid, *children_of(stack.postgres.pid))),
        "redis": _sum((stack.redis.pid,)),
        "simulator": _sum(service.pid for service in stack.simulators),
        "client": _sum((os.getpid(),)),
    }


def _sum_of_families(services: Iterable[Service]) -> float:
    """A service of processes that fork counts with its children."""
    pids = [service.pid for service in services if service.pid is not None]
    return _sum(chain(pids, *map(children_of, pids)))


def _sum(pids: Iterable[int | None]) -> float:
    return sum(cpu_seconds(pid) for pid in pids if pid is not None)


def thread_seconds(pid: int) -> dict[str, float]:
    """Return CPU seconds of the threads of a process, by their names; empty without /proc."""
    used_by: dict[str, float] = defaultdict(float)
    for status in Path(f"/proc/{pid}/task").glob("[0-9]*/stat"):
        name, _, fields = status.read_text().partition("(")[2].rpartition(")")
        used_by[name] += sum(map(int, fields.split()[_OWN])) / _TICKS_PER_S
    return dict(used_by)


def fine_cpu_seconds(pid: int) -> float:
    """Return the CPU of a process of one thread, in nanoseconds instead of ticks where the kernel counts them."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    except (FileNotFoundError, ProcessLookupError):
        return cpu_seconds(pid)


def cpu_seconds(pid: int) -> float:
    """Return the CPU of a process and of its reaped children: an ended backend of Postgres still counts."""
    try:
        fields: Sequence[str] = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(map(int, (*fields[_OWN], *fields[_REAPED]))) / _TICKS_PER_S
