"""Clocks and timers of a simulator process. All timers can be cancelled together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]

_ANCHOR = time.time() - time.monotonic()


def utc_now() -> datetime:
    """Return the time that `time.time` has, which a simulated world replaces."""
    return datetime.fromtimestamp(time.time(), UTC)


def steady_s() -> float:
    """Return Unix seconds that never jump: wall time at the start of the process, monotonic since."""
    return _ANCHOR + time.monotonic()


class Timers:
    """Timers of the running loop that can be cancelled together."""

    def __init__(self) -> None:
        self._handles: set[asyncio.TimerHandle] = set()

    def __len__(self) -> int:
        return len(self._handles)

    def after(self, seconds: float, do: Callable[[], object]) -> None:
        """Call `do` once, `seconds` from now."""

        def run() -> None:
            self._handles.discard(handle)
            do()

        handle = asyncio.get_running_loop().call_later(seconds, run)
        self._handles.add(handle)

    def cancel_all(self) -> None:
        for handle in self._handles:
            handle.cancel()
        self._handles.clear()
