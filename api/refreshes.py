"""Refreshes that a page awaits for a limited time only. They continue without it, and its stream shows the result."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

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
        self._awaited: dict[str, object] = {}

    async def come_back(self, order_no: str, *, wait_s: float) -> None:
        """Refresh for a buyer who comes back. That the channels call it unpaid counts only if they say so within
        `wait_s`, and nobody goes on to pay meanwhile: until then the buyer sees no page.

        Raises:
            NotFound, StorageError: as `refresh_order` within `wait_s`.
        """
        mine = self._awaited[order_no] = object()

        def is_awaited() -> bool:
            return self._awaited.get(order_no) is mine

        try:
            refreshing = refresh_order(self._resources, order_no, trailing=True, is_awaited=is_awaited)
            await self._wait(refreshing, wait_s)
        finally:
            if is_awaited():
                self.go_on(order_no)

    def go_on(self, order_no: str) -> None:
        """Note that a buyer may pay from now on, or has come back: what the channels were asked before is old."""
        self._awaited.pop(order_no, None)

    async def refresh(self, order_no: str, *, wait_s: float) -> OrderState | None:
        """The order after a query of its channel; None when that takes longer than `wait_s`, or too many are under way.

        Raises:
            NotFound, StorageError: as `refresh_order` within `wait_s`.
        """
        return await self._wait(refresh_order(self._resources, order_no), wait_s)

    async def _wait(self, refreshing: Coroutine[Any, Any, OrderState], wait_s: float) -> OrderState | None:
        if len(self._running) >= REFRESHES_MAX:
            refreshing.close()
            return None
        task = asyncio.create_task(refreshing)
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
