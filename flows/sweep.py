"""The sweep: rows in Postgres that are overdue and not leased, whatever happened to Redis and to the workers.

Reads the temporary table, the inbox, the outbox and the refunds; never `orders`. Rows are claimed by lease with SKIP
LOCKED, so any number of sweeps work side by side, oldest first and without a look-back limit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import structlog
from msgspec import Struct
from msgspec.structs import asdict

from core.errors import NodropError
from core.evidence import Source
from core.order import PendingKind
from flows.callback import compensate_claimed
from flows.close import close_leased
from flows.notify import Notifier, push_claimed
from flows.query import query_leased
from flows.refund import refund_leased
from runtime.resources import Resources
from storage.postgres import callbacks, notifications, pending, refunds
from storage.postgres.callbacks import StoredCallback
from storage.postgres.notifications import Outgoing
from storage.postgres.pending import Leased
from storage.postgres.refunds import LeasedRefund

CONCURRENCY = 32
"""Rows under way at once: enough to keep a channel busy, few enough to spare one that hangs."""

log = structlog.get_logger()
_T = TypeVar("_T")


class Swept(Struct, frozen=True, kw_only=True):
    """Number of rows that one sweep has worked on, by table."""

    pending: int = 0
    callbacks: int = 0
    notifications: int = 0
    refunds: int = 0

    @property
    def total(self) -> int:
        return self.pending + self.callbacks + self.notifications + self.refunds

    @property
    def most(self) -> int:
        """The largest of these numbers: a full batch means that there is more."""
        return max(self.pending, self.callbacks, self.notifications, self.refunds)


async def sweep_once(resources: Resources, notifier: Notifier) -> Swept:
    """One batch of each kind. A full batch means that there is more: sweep again at once.

    Raises:
        DatabaseUnavailable: nothing could be claimed.
    """
    settings = resources.settings
    grace_s, limit, lease_s = settings.sweep_grace_s, settings.sweep_batch, settings.lease_s
    to_handle = await callbacks.claim_overdue(resources.db, grace_s=grace_s, limit=limit, lease_s=lease_s)
    to_query = await pending.claim_overdue(resources.db, grace_s=grace_s, limit=limit, lease_s=lease_s)
    to_push = await notifications.claim_overdue(resources.db, grace_s=grace_s, limit=limit, lease_s=lease_s)
    to_refund = await refunds.claim_overdue(resources.db, grace_s=grace_s, limit=limit, lease_s=lease_s)

    async def resolve(leased: Leased) -> object:
        if leased.kind is PendingKind.DEADLINE:
            return await close_leased(resources, leased)
        return await query_leased(resources, leased, by=Source.SWEEP)

    async def compensate(stored: StoredCallback) -> object:
        return await compensate_claimed(resources, stored)

    async def push(outgoing: Outgoing) -> object:
        return await push_claimed(resources, notifier, outgoing)

    async def give_back(leased: LeasedRefund) -> object:
        return await refund_leased(resources, leased)

    await asyncio.gather(
        _each(to_handle, compensate), _each(to_query, resolve), _each(to_push, push), _each(to_refund, give_back)
    )
    swept = Swept(pending=len(to_query), callbacks=len(to_handle), notifications=len(to_push), refunds=len(to_refund))
    if swept.total:
        log.info("swept", **asdict(swept))
    return swept


async def _each(rows: Sequence[_T], work: Callable[[_T], Awaitable[object]]) -> None:
    """Work on all rows, some at a time. A row that fails keeps its lease until it ends, and is claimed again."""
    slots = asyncio.Semaphore(CONCURRENCY)

    async def one(row: _T) -> None:
        async with slots:
            try:
                await work(row)
            except NodropError as error:
                log.warning("sweep_row_failed", reason=type(error).__name__)
            except Exception:  # a bug of ours in one row must not keep the sweep from the others
                log.exception("sweep_row_broke")

    await asyncio.gather(*(one(row) for row in rows))
