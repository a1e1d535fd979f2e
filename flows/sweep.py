"""The sweep: rows in Postgres that are overdue and not leased, whatever happened to Redis and to the workers.

Reads the temporary table, the inbox, the outbox and the refunds; never `orders`. Each kind has a loop of its own, so
that one that hangs delays no other. Rows are claimed by lease with SKIP LOCKED, so any number of sweeps work side by
side, oldest first and without a look-back limit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import structlog

from core.decision import Outcome
from core.errors import NodropError
from core.evidence import Source
from core.order import PendingKind
from core.settings import Settings
from flows.close import close_leased
from flows.compensation import compensate_claimed
from flows.notify import Notifier, push_claimed
from flows.query import query_leased
from flows.refund import refund_leased
from runtime.resources import Resources
from storage.postgres import callbacks, notifications, pending, refunds
from storage.postgres.pending import Leased

CONCURRENCY = 32
"""Rows of one kind under way at once: enough to keep a channel busy, few enough to spare one that hangs."""

REFILL_PART = 4
"""One part of so many of the slots is worth another claim: a claim costs a statement, whatever it finds."""

POSTPONED = (Outcome.NOT_YET, "busy")
"""Results of rows that wait for their channel or host, and have used no attempt."""

LOOK_AGAIN_S = 1.0

SOON_S = 0.25
"""Pause before the next look while rows of the last one are under way."""

log = structlog.get_logger()


class Kind(NamedTuple):
    """The rows of one table: `claim` leases at most so many overdue ones, `work` does what one is due for, and `slots`
    of them are under way at once.
    """

    name: str
    claim: Callable[[int], Awaitable[Sequence[Any]]]
    work: Callable[[Any], Awaitable[object]]
    slots: int = CONCURRENCY


def swept_kinds(resources: Resources, notifier: Notifier) -> tuple[Kind, ...]:
    """All kinds of rows that a sweep works on."""
    settings, db = resources.settings, resources.db

    def claiming(claim_overdue: Callable[..., Awaitable[Sequence[Any]]]) -> Callable[[int], Awaitable[Sequence[Any]]]:
        async def claim(limit: int) -> Sequence[Any]:
            return await claim_overdue(db, grace_s=settings.sweep_grace_s, limit=limit, lease_s=settings.lease_s)

        return claim

    return (
        Kind("callbacks", claiming(callbacks.claim_overdue), partial(compensate_claimed, resources)),
        Kind("pending", claiming(pending.claim_overdue), partial(_resolve, resources)),
        # Deliveries mostly wait, each for another host: as many as in the lane, so that a hundred that hang take half.
        Kind(
            "notifications",
            claiming(notifications.claim_overdue),
            partial(push_claimed, resources, notifier),
            max(CONCURRENCY, settings.max_jobs),
        ),
        Kind(
            "resent",
            claiming(notifications.claim_overdue_resent),
            partial(push_claimed, resources, notifier),
            max(CONCURRENCY, settings.max_jobs),
        ),
        Kind("refunds", claiming(refunds.claim_overdue), partial(refund_leased, resources)),
    )


async def sweep_once(settings: Settings, kind: Kind, stop: asyncio.Event) -> int:
    """One turn: work on the overdue rows of one kind until none is left. Returns their number.

    A row is leased only when its work begins. While some rows hang, the others of the kind have the remaining slots.

    Raises:
        DatabaseUnavailable: nothing could be claimed; what was claimed before is done.
    """
    count = 0
    running: set[asyncio.Task[None]] = set()
    try:
        while not stop.is_set():
            limit = min(kind.slots - len(running), settings.sweep_batch)
            rows = await kind.claim(limit) if limit else ()
            count += len(rows)
            begun = {asyncio.create_task(_work(kind, row, settings.lease_s)) for row in rows}
            running |= begun
            if not running:
                break
            if len(rows) == limit:
                await _wait_for_slots(running, kind.slots - kind.slots // REFILL_PART, settings.sweep_interval_s)
            elif begun:  # what is done soon may have made more due, whatever hangs
                await asyncio.wait(begun, timeout=min(SOON_S, settings.sweep_interval_s))
            else:
                await asyncio.wait(running, timeout=settings.sweep_interval_s)
            running = {task for task in running if not task.done()}
    except asyncio.CancelledError:
        for task in running:
            task.cancel()
        raise
    finally:
        await asyncio.gather(*running, return_exceptions=True)
    if count:
        log.info("swept", kind=kind.name, count=count)
    return count


async def sweep_again(settings: Settings, kind: Kind, stop: asyncio.Event) -> bool:
    """One turn, and a short pause if a row of it was postponed: its channel or host may be free long before the next
    turn. Returns whether to look again.
    """
    is_postponed = False

    async def work(row: object) -> None:
        nonlocal is_postponed
        result = await kind.work(row)
        is_postponed = is_postponed or result in POSTPONED

    await sweep_once(settings, kind._replace(work=work), stop)
    if is_postponed:
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), min(LOOK_AGAIN_S, settings.sweep_interval_s))
    return is_postponed


async def _wait_for_slots(running: set[asyncio.Task[None]], most: int, within_s: float) -> None:
    """Wait until at most so many rows are under way, or for `within_s` seconds."""
    until = asyncio.get_running_loop().time() + within_s
    while len(running) > most and (left_s := until - asyncio.get_running_loop().time()) > 0:
        _, running = await asyncio.wait(running, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)


async def _work(kind: Kind, row: object, lease_s: float) -> None:
    """Work on one row while its lease lasts. One that fails keeps it until then, and is claimed again."""
    try:
        async with asyncio.timeout(lease_s):
            await kind.work(row)
    except (NodropError, TimeoutError) as error:
        log.warning("sweep_row_failed", kind=kind.name, reason=type(error).__name__)
    except Exception:  # a bug of ours in one row must not keep the sweep from the others
        log.exception("sweep_row_broke", kind=kind.name)


async def _resolve(resources: Resources, leased: Leased) -> object:
    if leased.kind is PendingKind.DEADLINE:
        return await close_leased(resources, leased)
    return await query_leased(resources, leased, by=Source.SWEEP)
