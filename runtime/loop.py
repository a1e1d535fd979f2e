"""One loop that takes turns at an interval, and outlives every turn that fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from core.errors import NodropError

log = structlog.get_logger()

RunOnce = Callable[[], Awaitable[bool]]
"""One turn; True when there is more to do at once."""


async def every(name: str, interval_s: float, run_once: RunOnce, stop: asyncio.Event) -> None:
    """Take turns until told to stop. A turn that fails is taken again after the interval."""
    is_failing = False
    while not stop.is_set():
        more = False
        try:
            more = await run_once()
        except NodropError as error:
            if not is_failing:
                log.warning("loop_failing", name=name, reason=type(error).__name__)
            is_failing = True
        except Exception:  # our own bug is told at every turn, and ends neither this loop nor the others
            log.exception("loop_broke", name=name)
            is_failing = True
        else:
            if is_failing:
                log.info("loop_works_again", name=name)
            is_failing = False
        if not more:
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), interval_s)
