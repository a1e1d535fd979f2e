"""`WorkerSettings` for the stock `arq` command: `arq worker.arq_settings.QueriesSettings`, `arq --check
worker.arq_settings.FreshSettings`.

They run the same jobs on the same queues, without the sweep, without reconnecting and whatever their clock says: run at
least one `python -m worker` beside them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, cast

from arq.connections import RedisSettings
from arq.worker import func

from core.errors import ConfigurationError
from core.jobs import Lane
from core.settings import read_settings, require
from flows.notify import Notifier
from runtime.clock import CHECK_S
from runtime.logs import configure_logs
from runtime.loop import run_periodically
from runtime.resources import Resources, open_resources
from storage.redis.address import redis_address
from storage.redis.client import open_job_redis, redis_settings
from storage.redis.delay_queue import health_key, queue_name
from storage.redis.job_claims import LOOK_MAX
from storage.redis.job_payload import EXPIRES_EXTRA_MS, decode_job, encode_job
from worker.jobs import FUNCTIONS
from worker.lane import HEALTH_INTERVAL_S, JOB_TIMEOUT_S, POLL_DELAY_S

TRIES_MAX = 1_000_000
"""Attempts are counted in Postgres. arq also counts a crash, a deploy and a time-out, and drops a job past its
maximum."""

_settings = read_settings(os.environ)
require(_settings, "redis_url")
_address = redis_address(_settings)


def _settings_for_check() -> RedisSettings | None:
    """Connection of `arq --check`; None if arq cannot connect as safely as we do. Workers use `redis_pool`."""
    try:
        return redis_settings(_address)
    except ConfigurationError:
        return None


async def _open(ctx: dict[str, Any]) -> None:
    configure_logs(_settings.log_level)
    require(_settings, "notify_secrets")
    stack = ctx["stack"] = AsyncExitStack()
    ctx["resources"] = await stack.enter_async_context(open_resources(_settings))
    await stack.enter_async_context(_kept_clock(ctx["resources"]))
    ctx["notifier"] = await stack.enter_async_context(Notifier.of_process(ctx["resources"]))


@asynccontextmanager
async def _kept_clock(resources: Resources) -> AsyncIterator[None]:
    """Compare the clock until the worker ends."""
    stop = asyncio.Event()
    await resources.clock.begin(resources.db)
    keeping = asyncio.create_task(run_periodically("clock", CHECK_S, partial(resources.clock.keep, resources.db), stop))
    try:
        yield
    finally:
        stop.set()
        await keeping


async def _close(ctx: dict[str, Any]) -> None:
    if "stack" in ctx:
        await ctx["stack"].aclose()


def _settings_of(lane: Lane) -> dict[str, Any]:
    return {
        "functions": [func(cast("Any", function), name=name) for name, function in FUNCTIONS[lane].items()],
        "queue_name": queue_name(lane),
        "health_check_key": health_key(lane),
        "redis_settings": _settings_for_check(),
        "redis_pool": open_job_redis(_address),
        "on_startup": _open,
        "on_shutdown": _close,
        "max_jobs": _settings.max_jobs,
        "job_timeout": JOB_TIMEOUT_S,
        "job_completion_wait": int(_settings.shutdown_grace_s),
        "poll_delay": POLL_DELAY_S,
        "queue_read_limit": LOOK_MAX,
        "keep_result": 0,
        "max_tries": TRIES_MAX,
        "expires_extra_ms": EXPIRES_EXTRA_MS,
        "health_check_interval": HEALTH_INTERVAL_S,
        "job_serializer": encode_job,
        "job_deserializer": decode_job,
        "log_results": False,
    }


FreshSettings = type("FreshSettings", (), _settings_of(Lane.FRESH))
QueriesSettings = type("QueriesSettings", (), _settings_of(Lane.QUERIES))
NotificationsSettings = type("NotificationsSettings", (), _settings_of(Lane.NOTIFICATIONS))
