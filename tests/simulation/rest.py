"""The rest of a world: while nothing has gone wrong lately, periodic loops of the processes run seldom.

A loop that looks each second for what a fault has left finds nothing while there was none. So as long as no process was
started or ended and no store was in trouble for `TROUBLE_S`, each waits for `REST_S` at least. Every trouble wakes them
all, and from then on they keep their own intervals.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import runtime.loop
import worker.lane
from runtime.loop import first_wait_s
from storage.redis import changes, delay_queue
from tests.simulation.clock import TIME

TROUBLE_S = 60.0
REST_S = 600.0
"""Less than the time that jobs are armed ahead."""

DEEP_S = 3600.0
LANE_REST_S = 3600.0
"""The longest sleep of a lane that hears nudges: it sleeps until its next job is due."""


class Rest:
    """Whether the loops of a world rest."""

    def __init__(self) -> None:
        self._until = 0.0
        self._woken = asyncio.Event()
        self._rest_s = REST_S

    def deepen(self, rest_s: float = DEEP_S) -> None:
        """Rest for so long from now on: nothing is expected any more but late queries, and they may be later."""
        self._rest_s = rest_s

    @property
    def is_allowed(self) -> bool:
        return TIME.seconds >= self._until

    def trouble(self, seconds: float = TROUBLE_S) -> None:
        """Something goes wrong now, or will until so many seconds from now."""
        self._until = max(self._until, TIME.seconds + seconds)
        self._woken.set()
        self._woken = asyncio.Event()

    async def pause(self, stop: asyncio.Event, seconds: float) -> None:
        """As `runtime.loop.pause`: longer while the world rests."""
        if not self.is_allowed or seconds >= self._rest_s:
            await _wait(stop, seconds)
            return
        woken = self._woken
        waits = {asyncio.ensure_future(stop.wait()), asyncio.ensure_future(woken.wait())}
        try:
            await asyncio.wait(waits, timeout=self._rest_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if woken.is_set() and not stop.is_set():
            await _wait(stop, first_wait_s(str(TIME.seconds), seconds))

    def replace_pauses(self) -> None:
        """Let all loops of this process wait so, and lanes sleep until a job is due or a nudge comes."""
        runtime.loop.pause = self.pause
        for module in (delay_queue, worker.lane):
            vars(module)["NUDGED_S"] = LANE_REST_S
        changes.SILENCE_S = REST_S


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
