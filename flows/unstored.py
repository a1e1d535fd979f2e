"""Callbacks that are not stored: they are not about money of this world, or Postgres is away."""

from __future__ import annotations

from contextlib import suppress

import structlog

from core.errors import DatabaseUnavailable, RedisUnavailable
from runtime.accounts import answering_despite_lag
from runtime.resources import Resources
from storage.postgres import callbacks
from storage.redis.client import Patience
from storage.redis.parked_callbacks import ParkedCallback

STORE_S = 3.0
"""Time for reading the account and storing a callback. Its channel gives it up after five seconds: parking and the
response take the rest."""

PARK_S = 1.0

log = structlog.get_logger()


async def count_ignored(resources: Resources, account: str, reason: str) -> None:
    """Count a callback that is not stored. It is acknowledged also when Postgres is down: nothing is lost with it."""
    log.info("callback_ignored", account=account, reason=reason)
    with suppress(DatabaseUnavailable):
        async with answering_despite_lag(STORE_S):
            await callbacks.count_callback(resources.db, account, reason)


async def park_callback(resources: Resources, parked: ParkedCallback) -> None:
    """Park a callback in Redis. Its channel must send it again all the same."""
    try:
        async with Patience(PARK_S):
            await resources.parked.park(parked)
    except (RedisUnavailable, TimeoutError):
        log.error("callback_not_parked", account=parked.account, reason="redis_unavailable")
    else:
        log.warning("callback_parked", account=parked.account)
