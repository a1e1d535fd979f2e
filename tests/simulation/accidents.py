"""The states of a store, and accidents on the way to it: at one statement in so many the connection is cut or the
process killed, before the store has acted or after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

from tests.simulation.processes import Process
from tests.simulation.rest import Rest

Applies = Callable[[str, float], bool]
"""Whether a fault of this name and share happens, as `tests.simulation.faults.FaultBook.applies`."""


class State(StrEnum):
    """The state of a store."""

    UP = "up"
    REFUSING = "refusing"
    FROZEN = "frozen"
    """It accepts connections and answers nothing until its end; then it does what it was sent."""


class Accident(StrEnum):
    CUT_BEFORE = "cut before"
    CUT_AFTER = "cut after"
    CRASH_BEFORE = "crash before"
    CRASH_AFTER = "crash after"


class Cuts(Protocol):
    """A connection that can be cut."""

    def cut(self) -> None: ...


class Accidents:
    """The accidents of one store. Half of each share comes before the store acts, half after it."""

    def __init__(self, store: str, applies: Applies, rest: Rest) -> None:
        self.cut_share = 0.0
        self.crash_share = 0.0
        self._store = store
        self._applies = applies
        self._rest = rest

    def draw(self, process: Process, name_of: Callable[[], str]) -> Accident | None:
        """The accident of the next call of this process."""
        if not self.cut_share and not self.crash_share:
            return None
        name = process.name_of_call(self._store, name_of())
        shares = {
            Accident.CUT_BEFORE: self.cut_share,
            Accident.CUT_AFTER: self.cut_share,
            Accident.CRASH_BEFORE: self.crash_share,
            Accident.CRASH_AFTER: self.crash_share,
        }
        return next((kind for kind, share in shares.items() if self._applies(f"{name} {kind}", share / 2)), None)

    async def happen(self, accident: Accident, process: Process, connection: Cuts) -> None:
        """Let it happen now. It does not return to a process that it has killed."""
        self._rest.trouble()
        if accident in (Accident.CUT_BEFORE, Accident.CUT_AFTER):
            connection.cut()
            return
        process.crash()
        await asyncio.get_running_loop().create_future()
