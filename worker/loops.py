"""What runs beside the lanes: the sweep first, and the upkeep of Redis, of the accounts, the parked callbacks and the
partitions.

Each loop outlives Postgres and Redis going away, and says so once, not at every turn.
"""

from __future__ import annotations

import asyncio

from flows.callback import DRAIN_BATCH, drain_parked
from flows.notify import Notifier
from flows.rearm import arm_window, rearm_after_flush
from flows.reconcile.daily import reconcile_due
from flows.sweep import sweep_once
from flows.undelivered import ask_undelivered
from runtime.accounts import KEEP_CURRENT_S
from runtime.loop import every
from runtime.resources import Resources
from storage.postgres.observations import keep_partitions

OBSERVATIONS_KEEP_DAYS = 90
HOUSEKEEPING_S = 3600.0
RECONCILE_LOOK_S = 60.0


async def sweep(resources: Resources, notifier: Notifier, stop: asyncio.Event) -> None:
    """Overdue rows of pending, inbox, outbox and refunds; needs Postgres alone."""

    async def turn() -> bool:
        swept = await sweep_once(resources, notifier)
        return swept.most >= resources.settings.sweep_batch

    await every("sweep", resources.settings.sweep_interval_s, turn, stop)


async def rearm(resources: Resources, stop: asyncio.Event) -> None:
    """Notice a flush of Redis within a second, or a sweep's interval if that is shorter."""

    async def turn() -> bool:
        await rearm_after_flush(resources)
        return False

    await every("rearm", min(1.0, resources.settings.sweep_interval_s), turn, stop)


async def arm_ahead(resources: Resources, stop: asyncio.Event) -> None:
    """Arm what comes within the horizon, a third of it at a time: so everything is armed before it is due."""
    horizon_s = resources.settings.arm_horizon_s

    async def turn() -> bool:
        await arm_window(resources, from_s=0.0, until_s=horizon_s)
        return False

    await every("arm_ahead", horizon_s / 3, turn, stop)


async def drain(resources: Resources, stop: asyncio.Event) -> None:
    """Parked callbacks into the inbox as soon as Postgres is back."""

    async def turn() -> bool:
        return await drain_parked(resources) >= DRAIN_BATCH

    await every("drain", min(1.0, resources.settings.sweep_interval_s), turn, stop)


async def keep_current(resources: Resources, stop: asyncio.Event) -> None:
    """What accounts verify with is renewed before it is needed, in every process that asks channels."""

    async def turn() -> bool:
        await resources.accounts.keep_current()
        return False

    await every("keep_current", KEEP_CURRENT_S, turn, stop)


async def undelivered(resources: Resources, stop: asyncio.Event) -> None:
    """What channels know that they could not call back about."""

    async def turn() -> bool:
        await ask_undelivered(resources)
        return False

    await every("undelivered", resources.settings.undelivered_interval_s, turn, stop)


async def keep_house(resources: Resources, stop: asyncio.Event) -> None:
    """Partitions of observations: made ahead, dropped when old."""

    async def turn() -> bool:
        await keep_partitions(resources.db, keep_days=OBSERVATIONS_KEEP_DAYS)
        return False

    await every("keep_house", HOUSEKEEPING_S, turn, stop)


async def reconcile_daily(resources: Resources, stop: asyncio.Event) -> None:
    """Channels' statements against our payments: every account's of yesterday, when `RECONCILE_AT` has come."""

    async def turn() -> bool:
        return await reconcile_due(resources)

    await every("reconcile", RECONCILE_LOOK_S, turn, stop)
