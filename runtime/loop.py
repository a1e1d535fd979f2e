"""A loop that repeats one piece of work at an interval and survives every run that fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from zlib import crc32

import structlog

from core.errors import NodropError

log = structlog.get_logger()

RunOnce = Callable[[], Awaitable[object]]
"""One run. Only `True` as its result means that there is more to do at once; a count does not."""

NOT_DUE = object()
"""Result of a run that found nothing due: it does not show that a fault before it has passed."""


async def run_periodically(name: str, interval_s: float, run_once: RunOnce, stop: asyncio.Event) -> None:
    """Repeat `run_once` until `stop` is set. A run that fails is repeated after the interval.

    A store that is down is logged once until the loop works again, a bug at every run.
    """
    wait_s = first_wait_s(name, interval_s)
    is_failing = False
    while not stop.is_set():
        result: object = NOT_DUE
        try:
            result = await run_once()
        except NodropError as error:
            if not is_failing:
                log.warning("loop_failing", name=name, reason=type(error).__name__)
            is_failing = True
        except Exception:  # it must end neither this loop nor the others
            log.exception("loop_broke", name=name)
            is_failing = True
        if is_failing and result is not NOT_DUE:
            log.info("loop_works_again", name=name)
            is_failing = False
        if result is not True:
            await pause(stop, wait_s)
            wait_s = interval_s


async def pause(stop: asyncio.Event, seconds: float) -> None:
    """The wait of a loop between two runs, for `stop` to be set or the time to pass."""
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


def first_wait_s(name: str, interval_s: float) -> float:
    """Seconds between the first run and the second, a part of the interval that depends on the name.

    The loops of a process begin together. If they went on together, a dozen statements on as many connections would
    meet at every look, and callbacks would wait for them.
    """
    return interval_s * crc32(name.encode()) / 2**32
