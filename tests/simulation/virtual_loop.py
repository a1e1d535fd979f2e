"""A bare loop in virtual time, for tests of the outside of a world without the product."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

T = TypeVar("T")

EPOCH = datetime(2027, 3, 1, 6, 0, tzinfo=UTC)


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose clock jumps to the next timer when nothing is ready."""

    def __init__(self) -> None:
        self._now_s = 0.0
        super().__init__()
        self.slow_callback_duration = 3600.0

    def time(self) -> float:
        return self._now_s

    def utc_now(self) -> datetime:
        return EPOCH + timedelta(seconds=self._now_s)

    def _run_once(self) -> None:
        ready, scheduled = self._ready, self._scheduled  # type: ignore[attr-defined]
        live = [handle for handle in scheduled if not handle.cancelled()]
        if not ready and live:
            self._now_s = max(self._now_s, min(handle.when() for handle in live))
        super()._run_once()  # type: ignore[misc]


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run in virtual time, and end."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
