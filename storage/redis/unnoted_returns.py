"""Returns of buyers from a channel that Postgres could not note. Whoever came back may have paid, so while one is kept
here no page of its order says *waiting*.

    nodrop:{returns}:unnoted   hash: four digits of a page token's SHA-256 → ''

Nobody can say whether a token is one while Postgres is down. So there are 65,536 fields at most, and no token among
them: orders that share one are taken for returned too. They stay until no order of that time is open.
"""

from __future__ import annotations

from hashlib import sha256

import structlog
from redis.asyncio import Redis

from core.errors import RedisUnavailable
from storage.redis.client import Patience, redis_errors

TIMEOUT_S = 2.0
KEPT_MS = 31 * 86_400_000

_UNNOTED = "nodrop:{returns}:unnoted"

log = structlog.get_logger()


class UnnotedReturns:
    """The returns that this process could not note, and in Redis those of all processes."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._here: set[str] = set()

    async def add(self, page_token: str) -> None:
        """Keep a return. While Redis is away too, only this process knows of it."""
        field = _field(page_token)
        self._here.add(field)
        try:
            async with Patience(TIMEOUT_S):
                with redis_errors():
                    await self._redis.hset(_UNNOTED, field, "")  # type: ignore[misc]  # annotated for both
                    await self._redis.pexpire(_UNNOTED, KEPT_MS)
        except (RedisUnavailable, TimeoutError) as error:
            log.warning("return_kept_here_only", error=type(error).__name__)

    async def may_have(self, page_token: str) -> bool:
        """Whether one of this order may be kept. While Redis is away, nobody knows that there is none."""
        field = _field(page_token)
        if field in self._here:
            return True
        try:
            async with Patience(TIMEOUT_S):
                with redis_errors():
                    return bool(await self._redis.hexists(_UNNOTED, field))  # type: ignore[misc]  # as above
        except (RedisUnavailable, TimeoutError):
            return True


def _field(page_token: str) -> str:
    return sha256(page_token.encode()).hexdigest()[:4]
