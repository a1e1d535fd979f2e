"""Plan of a worker or producer of jobs that do nothing, its two roles, and the record of the runs.

Needs uvloop beside the standard library: most of those who use it run in an environment of their own.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from array import array
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import uvloop

VARIABLE = "PEER_PLAN"
FLUSH_S = 0.01
CHUNK = 5000
"""Jobs that a producer enqueues in one call, where there is such a call."""

AT_ONCE = 100
"""Enqueuing calls under way, where a call is for one job."""

RECORD_BYTES = 16


class Plan(NamedTuple):
    """Jobs 0 to `jobs`. `begin_at` 0: all are due at once; else Unix seconds from which `per_s` become due."""

    redis_url: str
    records: str
    jobs: int
    begin_at: float
    per_s: float

    def due_at(self, number: int) -> float:
        """Return Unix seconds; 0 for a job that is due at once."""
        return self.begin_at + number / self.per_s if self.begin_at else 0.0

    def delay_s(self, number: int) -> float:
        return max(0.0, self.due_at(number) - time.time())

    def chunks(self) -> Iterator[range]:
        return (range(at, min(at + CHUNK, self.jobs)) for at in range(0, self.jobs, CHUNK))


def read_plan() -> Plan:
    return Plan(**json.loads(os.environ[VARIABLE]))


class Records:
    """Number and time of every run. A thread writes them to the file: a job costs no system call."""

    def __init__(self, path: str) -> None:
        self._values = array("d")
        self._file = Path(path).open("ab", buffering=0)  # noqa: SIM115 -- until the process is killed
        threading.Thread(target=self._write_forever, daemon=True).start()

    def add(self, number: int) -> None:
        self._values.extend((number, time.time()))

    def _write_forever(self) -> None:
        written = 0
        while True:
            time.sleep(FLUSH_S)
            if new := self._values[written:]:
                self._file.write(new.tobytes())
                written += len(new)


def read_records(path: Path) -> list[tuple[int, float]]:
    """Return number and Unix seconds of every run, in their order."""
    data = path.read_bytes() if path.exists() else b""
    values = array("d", data[: len(data) // RECORD_BYTES * RECORD_BYTES])
    return [(int(values[at]), values[at + 1]) for at in range(0, len(values), 2)]


def run_role(
    work: Callable[[Plan, Records], Coroutine[Any, Any, None]], produce: Callable[[Plan], Coroutine[Any, Any, None]]
) -> None:
    """Run the role that the command names: `work` until it is killed, or `produce`."""
    plan = read_plan()
    uvloop.run(work(plan, Records(plan.records)) if sys.argv[1] == "work" else produce(plan))


async def for_each(numbers: range, act: Callable[[int], Awaitable[object]]) -> None:
    """Call it for every number, `AT_ONCE` at a time."""
    left = iter(numbers)

    async def client() -> None:
        for number in left:
            await act(number)

    await asyncio.gather(*(client() for _ in range(AT_ONCE)))
