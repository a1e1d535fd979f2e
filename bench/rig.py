"""The measured system: the real processes, Postgres with fsync and Redis, with production's intervals.

Limits are high enough not to be measured: 10,000 calls a second for the account. A minute is a minute, the sweep runs
as in production, and all other settings have their defaults.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from core.settings import Settings, read_settings
from demo.embedded import temporary_directory
from demo.stack import Stack
from storage.postgres.database import Database
from storage.redis.address import redis_address
from storage.redis.client import JobRedis, open_job_redis
from storage.redis.delay_queue import DelayQueue

MakeStack = Callable[..., Stack]
"""Makes a stack, called as `Stack` is."""

UNIT_S = 60.0
RATE_PER_S = 10_000
ACCOUNT = "sandbox"

_DURABILITY = """
SELECT string_agg(name || ' ' || setting, ', ' ORDER BY name)
  FROM pg_settings WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit')"""


@dataclass(frozen=True, kw_only=True)
class Rig:
    """The running stack, with access to its stores from outside."""

    stack: Stack
    settings: Settings
    db: Database
    redis: JobRedis
    queue: DelayQueue
    durability: str

    def in_force(self) -> dict[str, str | int | float]:
        """Return the limits and intervals in force, for the report."""
        settings = self.settings
        return {
            "processes": f"{len(self.stack.apis)} api, {len(self.stack.workers)} worker",
            "postgres": self.durability,
            "account_rate_per_s": self.stack.rate_per_s,
            "backoff_unit_s": settings.backoff_unit_s,
            "arm_horizon_s": settings.arm_horizon_s,
            "sweep_interval_s": settings.sweep_interval_s,
            "sweep_grace_s": settings.sweep_grace_s,
            "sweep_batch": settings.sweep_batch,
            "max_jobs": settings.max_jobs,
            "callback_confirm_slots": settings.callback_confirm_slots,
            "callback_confirm_s": settings.callback_confirm_s,
            "log_level": settings.log_level,
        }


@asynccontextmanager
async def open_rig(
    *,
    workers: int = 1,
    rate_per_s: int = RATE_PER_S,
    env: Mapping[str, str] | None = None,
    make_stack: MakeStack = Stack,
) -> AsyncIterator[Rig]:
    """Start a stack for one benchmark, without data of another one."""
    usual = Settings()
    as_in_production = {"SWEEP_INTERVAL_S": str(usual.sweep_interval_s), "SWEEP_GRACE_S": str(usual.sweep_grace_s)}
    with temporary_directory() as directory:
        async with make_stack(
            directory, unit_s=UNIT_S, rate_per_s=rate_per_s, workers=workers, env=as_in_production | dict(env or {})
        ) as stack:
            settings = read_settings(stack.environ)
            db = await stack.open_database()
            redis = open_job_redis(redis_address(settings))
            try:
                queue = DelayQueue(redis, horizon_s=settings.arm_horizon_s)
                durability = str(await db.fetchval(_DURABILITY))
                yield Rig(stack=stack, settings=settings, db=db, redis=redis, queue=queue, durability=durability)
            finally:
                await redis.aclose()
                await db.close()
