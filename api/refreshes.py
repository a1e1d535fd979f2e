"""Refreshes that a page awaits for a limited time only. They continue without it, and its stream shows the result."""

from __future__ import annotations

import asyncio

import structlog

from core.errors import NodropError
from core.order import OrderState
from flows.refresh import refresh_order
from runtime.resources import Resources

REFRESHES_MAX = 200
"""At once; the channels' own rates are far below what more could bring."""

CANCEL_S = 0.5

log = structlog.get_logger()


class Refreshes:
    """The refreshes under way for pages of this process."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._running: set[asyncio.Task[OrderState]] = set()

    async def refresh(self, order_no: str, *, wait_s: float, trailing: bool = False) -> OrderState | None:
        """The order after a query of its channel; None when that takes longer than `wait_s`, or too many are under way.

        Raises:
            NotFound, StorageError: as `refresh_order` within `wait_s`.
        """
        if len(self._running) >= REFRESHES_MAX:
            return None
        task = asyncio.create_task(refresh_order(self._resources, order_no, trailing=trailing))
        self._running.add(task)
        task.add_done_callback(self._on_done)
        done, _ = await asyncio.wait({task}, timeout=wait_s)
        return task.result() if done else None

    async def close(self, wait_s: float) -> None:
        """Let those under way finish within `wait_s`; the worker asks again about those that are cut off."""
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=wait_s)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=CANCEL_S)

    def _on_done(self, task: asyncio.Task[OrderState]) -> None:
        self._running.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and not isinstance(error, NodropError):
            log.error("refresh_broke", exc_info=error)
