"""How much is measured: bounded in count and, by `limit_s`, in time."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

Say = Callable[[str], None]
"""What goes on, for whoever waits."""


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of each benchmark. No measured stretch goes on for longer than `limit_s`; what was done by then counts."""

    orders: int = 1500
    clients: int = 16
    callbacks: int = 1200
    queries: int = 10_000
    channel_queries: int = 400
    channel_callbacks: int = 2000
    rows: int = 100_000
    repeats: int = 3
    limit_s: float = 30.0
