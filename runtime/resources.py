"""Resources of a process, opened in one place for api, worker and cli."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

import structlog

from channels.egress_proxy import egress_proxy
from channels.kit.single_flight import SingleFlight
from channels.transport import Transport
from core.admission import Admission
from core.errors import StorageError
from core.lifecycle import Rules
from core.order import OrderState
from core.rollups import Tally
from core.settings import Settings, require
from runtime.accounts import Accounts
from runtime.clock import Clock
from runtime.identity import check_identity
from runtime.refusals import Refusals
from storage.postgres.database import Database
from storage.redis.address import redis_address
from storage.redis.admission.shared import SharedAdmission
from storage.redis.changes import Changes
from storage.redis.checks import check_redis
from storage.redis.client import JobRedis, close_redis, open_job_redis
from storage.redis.delay_queue import DelayQueue, FollowUps
from storage.redis.parked_callbacks import ParkedCallbacks
from storage.sealing import Sealer

REQUIRED_SETTINGS = ("database_url", "redis_url", "public_url", "nodrop_master_keys")
"""Settings without which no process can work."""

Tallies = defaultdict[Tally, int]

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Everything that the flows need. None of it connects before it is used, so a process starts without its stores."""

    settings: Settings
    db: Database
    redis: JobRedis
    queue: DelayQueue
    parked: ParkedCallbacks
    changes: Changes
    follow_ups: FollowUps
    admission: Admission
    accounts: Accounts
    sealer: Sealer
    clock: Clock
    rules: Rules
    """Rules of this deployment, for decisions that are about no account."""
    compensation_delay_s: float
    """Delay until a stored callback is handled again if it was not handled in its request: the first gap of n²."""
    callback_kept_s: float
    """For how long the payment of a stored callback is looked for: a day of units."""
    confirm_slots: asyncio.Semaphore
    """Slots for callbacks that are confirmed within their requests; the others are left to their compensation."""
    refreshing: SingleFlight[str, OrderState] = field(default_factory=SingleFlight)
    """Refreshes in flight in this process, by order number."""
    refusals: Refusals = field(default_factory=Refusals)
    """Refused callbacks that are to be written."""
    tallies: Tallies = field(default_factory=lambda: defaultdict(int))
    """Counts of this process since it began, for the roll-ups: calls of channels, refused callbacks, deliveries.
    Whoever counts adds to it in place."""


@asynccontextmanager
async def open_resources(settings: Settings, *, clock: Clock | None = None) -> AsyncIterator[Resources]:
    """Open them in order and close them in reverse. `clock` None: the system's.

    Raises:
        ConfigurationError: names every variable that is missing or wrong.
    """
    require(settings, *REQUIRED_SETTINGS)
    sealer = Sealer.from_setting(settings.nodrop_master_keys)
    address = redis_address(settings)
    proxy = egress_proxy(settings)
    db = Database.from_settings(settings)
    clock = clock or Clock()
    async with AsyncExitStack() as stack:
        await db.open()
        stack.push_async_callback(db.close)
        redis = open_job_redis(address)
        stack.push_async_callback(close_redis, redis)
        await _check_stores(db, redis)
        transport = await stack.enter_async_context(
            Transport(timeout_s=settings.channel_timeout_s, proxy=proxy, clock=clock)
        )
        admission = SharedAdmission(redis, processes=settings.processes, has_older=True)
        rules = Rules(backoff=settings.backoff(), payable_margin_s=settings.payable_margin_s)
        queue = DelayQueue(redis, horizon_s=settings.arm_horizon_s)
        yield Resources(
            settings=settings,
            db=db,
            redis=redis,
            queue=queue,
            parked=ParkedCallbacks(redis, sealer),
            changes=Changes(redis),
            follow_ups=FollowUps(redis, queue),
            admission=admission,
            accounts=Accounts(db, sealer, transport, settings, admission),
            sealer=sealer,
            clock=clock,
            rules=rules,
            compensation_delay_s=rules.backoff.gap_s(1),
            callback_kept_s=rules.backoff.day_s,
            confirm_slots=asyncio.Semaphore(settings.callback_confirm_slots),
        )


async def _check_stores(db: Database, redis: JobRedis) -> None:
    """Check what only an operator can mend. A store that is down may come up later, and nothing waits for it.

    Raises:
        ConfigurationError: names the variable.
    """
    is_checked = True
    for event, check in (("postgres_not_checked", db.check), ("redis_not_checked", partial(check_redis, redis))):
        try:
            await check()
        except StorageError as error:
            is_checked = False
            log.warning(event, reason=type(error).__name__)
    if is_checked:
        with suppress(StorageError):  # it is checked at the next start
            await check_identity(db, redis)
