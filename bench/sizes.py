"""Sizes of the benchmarks, limited in count and, by `limit_s`, in time."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

ShowProgress = Callable[[str], None]
"""Shows a line of progress."""


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of each benchmark. A measurement ends after `limit_s`; its work up to then counts."""

    orders: int = 1500
    clients: tuple[int, ...] = ()
    callbacks: int = 1800
    queries: int = 10_000
    backlog: int = 500
    channel_queries: int = 400
    channel_callbacks: int = 2000
    deliveries: int = 240
    rows: int = 100_000
    repeats: int = 3
    limit_s: float = 30.0
    jobs: int = 100_000
    requests: int = 20_000
    pages: int = 200
    streams: int = 1000
    queues: tuple[str, ...] = ()
    profile: str = ""
