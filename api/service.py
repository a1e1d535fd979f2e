"""Objects that handlers share: the resources of the process, and its memory between requests. Nothing here is truth."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import structlog

from api.http.auth import ApiKeys
from api.http.limits import RefreshLimits
from api.pages.streams import Streams
from core.errors import NodropError
from core.order import OrderState
from flows.refresh import refresh_order
from runtime.resources import Resources

ASKS_MAX = 200
"""Questions to channels under way at once; the channels' own rates are far below what more could bring."""

CANCEL_S = 0.5

log = structlog.get_logger()


class Asks:
    """Questions to channels that a page waits for only so long. They go on without it; it hears by its stream."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._running: set[asyncio.Task[OrderState]] = set()

    async def ask(self, order_no: str, *, wait_s: float, trailing: bool = False) -> OrderState | None:
        """The order after its channel was asked; None when that takes longer than `wait_s`, or too much is going on.

        Raises:
            NotFound, StorageError: as `refresh_order` within `wait_s`.
        """
        if len(self._running) >= ASKS_MAX:
            return None
        task = asyncio.create_task(refresh_order(self._resources, order_no, trailing=trailing))
        self._running.add(task)
        task.add_done_callback(self._ended)
        done, _ = await asyncio.wait({task}, timeout=wait_s)
        return task.result() if done else None

    async def close(self, wait_s: float) -> None:
        """Let what is under way finish within `wait_s`; what is cut off is asked again by the worker."""
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=wait_s)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=CANCEL_S)

    def _ended(self, task: asyncio.Task[OrderState]) -> None:
        self._running.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and not isinstance(error, NodropError):
            log.error("refresh_broke", exc_info=error)


@dataclass(frozen=True, slots=True)
class Service:
    """Made once, at start. `openapi` is the document of all routes, encoded."""

    resources: Resources
    keys: ApiKeys
    limits: RefreshLimits
    streams: Streams
    asks: Asks
    draining: asyncio.Event
    openapi: bytes
