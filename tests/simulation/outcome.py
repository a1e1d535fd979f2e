"""The result of a world, as its process prints it."""

from __future__ import annotations

import msgspec

from tests.simulation.faults import Happened
from tests.simulation.oracle import Figures, Found


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a world. `digest` is that of all its events: the same seed has the same one. `after_s` are the
    seconds from paid at the channel to paid here, of each payment that became paid, the shortest first.
    """

    seed: int
    profile: str
    net: str = "nodrop"
    orders: int
    found: tuple[Found, ...]
    figures: Figures
    faults: tuple[Happened, ...]
    digest: str
    cpu_s: float
    real_s: float
    virtual_s: float
    statements: int
    commands: int
    after_s: tuple[float, ...] = ()
    stories: dict[str, tuple[str, ...]] = {}
