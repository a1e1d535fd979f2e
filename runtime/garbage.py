"""Garbage collection of a process that serves: what its start has made stays, and is never looked through again."""

from __future__ import annotations

import gc

CONTAINERS_MAX = 10_000
"""New containers until the young ones are looked through: those of some dozens of requests that are under way. With
Python's 700 that happens several times a request, when nearly nothing is garbage."""


def keep_start() -> None:
    """Call it once, when the process is ready."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(CONTAINERS_MAX, *gc.get_threshold()[1:])
