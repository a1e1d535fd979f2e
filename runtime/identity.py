"""The identity of the deployment, in Postgres and in Redis: two deployments on one Redis delete each other's work."""

from __future__ import annotations

from core.errors import ConfigurationError
from storage.postgres.database import Database
from storage.postgres.identity import find_identity
from storage.redis.checks import IDENTITY_KEY, keep_identity
from storage.redis.client import JobRedis


async def check_identity(db: Database, redis: JobRedis) -> None:
    """Compare both, and write it into a Redis that has none: a new one, or one that was flushed.

    Raises:
        ConfigurationError: this Redis is another deployment's.
        DatabaseUnavailable, RedisUnavailable: one of them is not known now.
    """
    ours = await find_identity(db)
    if ours is None or await keep_identity(redis, ours) == ours:
        return
    raise ConfigurationError(
        "REDIS_URL: another deployment uses this Redis, with another database. Set it to a Redis or a database number"
        f" of this deployment alone; if the other one is gone, delete the key {IDENTITY_KEY} there"
    )
