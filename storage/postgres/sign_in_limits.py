"""Limits on signing in, in Postgres, so that all processes share them and none forgets them when it starts anew.

Each thing that is limited has one instant. A try moves it ahead by a step, and is refused where that would be further
ahead of now than a burst of tries: so every limit ends by itself, and nobody is kept out for ever.
"""

from __future__ import annotations

from hashlib import sha256
from typing import NamedTuple

from storage.postgres.database import Database

DELETE_MAX = 500

# Check and take are one statement: processes that count the same thing wait for each other's row.
_TAKE = """
INSERT INTO sign_in_limits AS l (key, until) VALUES ($1, now() + make_interval(secs => $2))
ON CONFLICT (key) DO UPDATE SET until = greatest(l.until, now()) + make_interval(secs => $2)
 WHERE greatest(l.until, now()) + make_interval(secs => $2) <= now() + make_interval(secs => $3)"""
_WAIT = """
SELECT extract(epoch FROM until - now())::float8 FROM sign_in_limits WHERE key = $1"""
_GIVE_BACK = "UPDATE sign_in_limits SET until = until - make_interval(secs => $2) WHERE key = $1"
_KEEP = """
INSERT INTO sign_in_limits (key, until) VALUES ($1, now() + make_interval(secs => $2))
ON CONFLICT (key) DO UPDATE SET until = excluded.until"""
_IS_KEPT = "SELECT EXISTS (SELECT FROM sign_in_limits WHERE key = $1 AND until > now())"
_FORGET = "DELETE FROM sign_in_limits WHERE key = $1"
_DELETE = """
DELETE FROM sign_in_limits
 WHERE key = ANY(ARRAY(SELECT key FROM sign_in_limits WHERE until < now() ORDER BY until LIMIT $1)) AND until < now()"""


class Limit(NamedTuple):
    """`burst` tries at once, then one each `step_s` seconds."""

    burst: int
    step_s: float


def key_of(*parts: str) -> bytes:
    """The key of one thing that is limited."""
    return sha256("\0".join(parts).encode()).digest()


async def take(db: Database, key: bytes, limit: Limit) -> float:
    """Count a try. 0: it may be made; else nothing is counted, and these are the seconds until one may be."""
    if await db.execute(_TAKE, key, limit.step_s, limit.burst * limit.step_s) == 1:
        return 0.0
    ahead_s = await db.fetchval(_WAIT, key)
    return max(1.0, (ahead_s or 0.0) + limit.step_s - limit.burst * limit.step_s)


async def give_back(db: Database, key: bytes, limit: Limit) -> None:
    """Undo one `take`."""
    await db.execute(_GIVE_BACK, key, limit.step_s)


async def forget(db: Database, key: bytes) -> None:
    """Undo every `take`."""
    await db.execute(_FORGET, key)


async def keep(db: Database, key: bytes, seconds: float) -> None:
    """Remember a key for so long."""
    await db.execute(_KEEP, key, seconds)


async def is_kept(db: Database, key: bytes) -> bool:
    """Whether `keep` remembers it."""
    return bool(await db.fetchval(_IS_KEPT, key))


async def delete_limits(db: Database) -> int:
    """Delete up to 500 rows that limit nothing any more; return how many."""
    return await db.execute(_DELETE, DELETE_MAX)
