"""The time of a world. It stands while code runs, and jumps to the next timer when nothing is left to run.

`install` replaces the functions of `time` before the product is imported, so whoever reads a clock reads this one. The
wall clock of a simulated process may be wrong by its `skew_s`; monotonic clocks never are.
"""

from __future__ import annotations

import time
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Protocol

REAL_MONOTONIC = time.monotonic
"""For waits on real sockets, which Postgres's are."""

FIRST_S = 1_795_402_800
"""Unix seconds at the beginning of a world that names no other: 2026-11-23, 03:00 UTC."""

BOOTED_S = 1000.0
"""Monotonic time at the beginning: clocks that begin at nought hide mistakes with what has never been."""


class Skewed(Protocol):
    """A process that may have a wrong wall clock."""

    skew_s: float


CURRENT: ContextVar[Skewed | None] = ContextVar("simulated_process", default=None)
"""The simulated process whose code runs; None: the world's own."""


class Time:
    """`seconds` since the world began. The loop alone moves it, and never back."""

    __slots__ = ("first_s", "seconds")

    def __init__(self) -> None:
        self.seconds = 0.0
        self.first_s = float(FIRST_S)

    def unix_s(self) -> float:
        """The right time, whatever process runs."""
        return self.first_s + self.seconds


TIME = Time()


def now() -> datetime:
    """The right time."""
    return datetime.fromtimestamp(TIME.unix_s(), UTC)


def _wall_s() -> float:
    process = CURRENT.get()
    seconds = TIME.first_s + TIME.seconds
    return seconds if process is None else seconds + process.skew_s


def _wall_ns() -> int:
    return round(_wall_s() * 1e6) * 1000


def _steady_s() -> float:
    return BOOTED_S + TIME.seconds


def _steady_ns() -> int:
    return round(_steady_s() * 1e6) * 1000


def _of_system(clock: int) -> float:
    return _wall_s() if clock == time.CLOCK_REALTIME else _steady_s()


def _refuse_sleep(_seconds: object) -> None:
    raise AssertionError("nobody sleeps in a world: it would stand")


def install(first_s: float = FIRST_S) -> None:
    """Replace the clocks of this process for good."""
    TIME.first_s = float(first_s)
    for name in ("monotonic", "perf_counter"):
        setattr(time, name, _steady_s)
        setattr(time, f"{name}_ns", _steady_ns)
    time.time, time.time_ns, time.clock_gettime, time.sleep = _wall_s, _wall_ns, _of_system, _refuse_sleep
