"""Checks of Redis at start: its version and settings, and whose it is.

nodrop:{deployment}:id   identity of the deployment that uses this Redis
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast

import structlog
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError
from redis.exceptions import TimeoutError as RedisTimeoutError

from core.errors import ConfigurationError, RedisUnavailable
from storage.redis.client import redis_errors
from storage.tls import explain_tls

VERSION_MIN = (6, 2)
PING_TIMEOUT_S = 2.0
IDENTITY_KEY = "nodrop:{deployment}:id"

log = structlog.get_logger()


async def check_redis(redis: Redis) -> None:
    """Check certificate, password, version and eviction policy at start, when a wrong setting is easily corrected.

    Raises:
        ConfigurationError: certificate, password or version is wrong; names the variable to set.
        RedisUnavailable: Redis may come up later.
    """
    try:
        with redis_errors():
            info = cast("Mapping[str, Any]", await redis.info())
    except RedisUnavailable as error:
        if refusal := _refusal(error):
            raise ConfigurationError(refusal) from error
        raise
    version = str(info.get("redis_version", ""))
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < VERSION_MIN:
        raise ConfigurationError(f"REDIS_URL: Redis {version} is too old; 6.2 is the oldest that works")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":  # jobs carry an expiry, so any other policy may evict them before they are due
        log.warning("redis_may_evict_jobs", policy=policy, wanted="noeviction")


async def find_redis_fault(redis: Redis) -> str | None:
    """The fault of Redis now, in a word: `refused` (user, password or TLS), `no_answer` in time, `unreachable`.
    None: it works.
    """
    try:
        async with asyncio.timeout(PING_TIMEOUT_S):
            with redis_errors():
                await redis.ping()
    except TimeoutError:
        return "no_answer"
    except RedisUnavailable as error:
        if isinstance(error.__cause__, TimeoutError | RedisTimeoutError):
            return "no_answer"
        return "refused" if _refusal(error) else "unreachable"
    return None


def _refusal(error: RedisUnavailable) -> str | None:
    """The sentence that names the variable to change; None: the settings may be right."""
    if isinstance(error.__cause__, AuthenticationError):
        return "REDIS_URL: Redis refuses the user or the password in it"
    return explain_tls(error, variable="REDIS_TLS")


async def keep_identity(redis: Redis, identity: str) -> str:
    """Write the identity if there is none, and return the one that is there. Raises RedisUnavailable."""
    with redis_errors():
        async with redis.pipeline(transaction=False) as pipe:
            pipe.set(IDENTITY_KEY, identity, nx=True)
            pipe.get(IDENTITY_KEY)
            _, kept = await pipe.execute()
    return identity if kept is None else bytes(kept).decode(errors="replace")
