"""Clients of Redis with a limit on everything, and the one place where foreign exceptions become ours.

Postgres keeps all work, so whatever is lost in Redis comes late: callers treat `RedisUnavailable` as a delay.
Needs Redis 6.2 or newer (or Valkey) with `maxmemory-policy noeviction`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha1
from typing import Any, cast

import structlog
from arq.connections import ArqRedis, RedisSettings
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, NoScriptError, RedisError, ResponseError

from core.errors import ConfigurationError, RedisUnavailable
from storage.redis.address import RedisAddress
from storage.redis.connection import CONNECT_TIMEOUT_S, CONNECTIONS_MAX, connection_pool
from storage.redis.job_payload import EXPIRES_EXTRA_MS, decode_job, encode_job
from storage.tls import TlsName, explain_tls

VERSION_MIN = (6, 2)

log = structlog.get_logger()

JobRedis = ArqRedis
"""Client of `open_job_redis` under a name of ours: only storage and worker know arq."""


# -- clients -----------------------------------------------------------------------------------------------------------


def open_redis(address: RedisAddress, *, connections_max: int = CONNECTIONS_MAX) -> Redis:
    """Return a client that connects at its first use. Close it with `aclose()`."""
    return Redis.from_pool(connection_pool(address, connections_max))


def open_job_redis(address: RedisAddress, *, connections_max: int = CONNECTIONS_MAX) -> ArqRedis:
    """Return the one client of a process, for arq and everything else. Its jobs are JSON, never pickle.

    `WorkerSettings` of the stock `arq` command take it as `redis_pool`, and so have all modes of TLS and our limits.
    """
    client = ArqRedis(
        connection_pool(address, connections_max),
        job_serializer=encode_job,
        job_deserializer=decode_job,
        expires_extra_ms=EXPIRES_EXTRA_MS,
    )
    client.auto_close_connection_pool = True  # no other client uses this pool
    return client


def redis_settings(address: RedisAddress) -> RedisSettings:
    """Settings for `arq --check`, which takes nothing else. In mode `ca` it also trusts the system's authorities.

    Raises:
        ConfigurationError: arq can neither pin a certificate nor verify one behind Sentinel.
    """
    name = address.tls.name
    if name is TlsName.PIN or (address.sentinels and address.tls.context):
        raise ConfigurationError(
            "REDIS_TLS: the command `arq --check` supports neither pin: nor TLS behind Sentinel; "
            "set REDIS_TLS=ca:<PEM text or path> for it"
        )
    return RedisSettings(
        host=list(address.sentinels) or address.host,
        port=address.port,
        database=address.database,
        username=address.username,
        password=address.password,
        ssl=address.tls.context is not None,
        ssl_cert_reqs="none" if name is TlsName.ENCRYPT_ONLY else "required",
        ssl_ca_data=address.tls.ca_pem or None,
        ssl_check_hostname=name in (TlsName.VERIFY_FULL, TlsName.CA),
        conn_timeout=int(CONNECT_TIMEOUT_S),
        sentinel=bool(address.sentinels),
        sentinel_master=address.sentinel_master,
    )


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
        if isinstance(error.__cause__, AuthenticationError):
            raise ConfigurationError("REDIS_URL: Redis refused the user or the password in it") from error
        if advice := explain_tls(error, variable="REDIS_TLS"):
            raise ConfigurationError(advice) from error
        raise
    version = str(info.get("redis_version", ""))
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < VERSION_MIN:
        raise ConfigurationError(f"REDIS_URL: Redis {version} is too old; 6.2 is the oldest that works")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":  # jobs carry an expiry, so any other policy may evict them before they are due
        log.warning("redis_may_evict_jobs", policy=policy, wanted="noeviction")


# -- edges -------------------------------------------------------------------------------------------------------------


@contextmanager
def redis_errors() -> Iterator[None]:
    """Turn the errors of Redis, of its client and of the network into ours.

    Raises:
        RedisUnavailable: the command may have been executed or not.
        CancelledError: the task was cancelled meanwhile, and redis-py swallowed it: Python's `wait_for`, before 3.12,
            drops a cancellation that comes as its call ends, and a loop around this would go on for ever.
    """
    cancelled_before = _cancellations()
    try:
        with _as_unavailable():
            yield
    finally:
        if _cancellations() > cancelled_before:
            raise asyncio.CancelledError


@contextmanager
def _as_unavailable() -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        raise RedisUnavailable(f"Redis cannot be reached or does not answer ({type(error).__name__})") from error
    except RuntimeError as error:
        # uvloop raises it when a connection that was just found lost is used once more: the same loss.
        if not isinstance(error.__context__, RedisError | OSError):
            raise
        raise RedisUnavailable("Redis cannot be reached or does not answer (closed)") from error


def is_wrong_type(error: RedisUnavailable) -> bool:
    """Whether Redis refused a command because of the key's own type. Any other refusal (MISCONF, NOREPLICAS, OOM,
    READONLY …) is about the server, and passes.
    """
    cause = error.__cause__
    # Not at the beginning: redis-py writes the command before the error of a pipeline.
    return isinstance(cause, ResponseError) and "WRONGTYPE Operation" in str(cause)


def _cancellations() -> int:
    """Return the number of times the running task was cancelled; 0 outside of a task."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no loop runs
        return 0
    return 0 if task is None else task.cancelling()


Call = tuple[Sequence[str], Sequence[str | int | bytes]]
"""The keys and the arguments of one run of a script."""


class Script:
    """A Lua script, sent by its hash, or by its text to a server that does not know it (new, restarted, failed over).

    A call whose answer was lost is repeated, so every script must be safe to run twice.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = sha1(text.encode(), usedforsecurity=False).hexdigest()

    async def run(self, redis: Redis, call: Call, *, if_unknown: Call | None = None) -> Any:
        """Run it once, in one round trip; with `if_unknown` instead of `call` if the server did not know it."""
        try:
            return (await self._send(redis, [call], by_hash=True))[0]
        except NoScriptError:
            return (await self._send(redis, [if_unknown or call], by_hash=False))[0]

    async def run_all(self, redis: Redis, calls: Sequence[Call]) -> list[Any]:
        """Run it for each call, all in one round trip."""
        try:
            return await self._send(redis, calls, by_hash=True)
        except NoScriptError:
            return await self._send(redis, calls, by_hash=False)

    async def _send(self, redis: Redis, calls: Sequence[Call], *, by_hash: bool) -> list[Any]:
        pipe: Any  # redis-py's annotations know no numbers and no bytes here
        async with redis.pipeline(transaction=False) as pipe:
            for keys, args in calls:
                if by_hash:
                    pipe.evalsha(self.sha, len(keys), *keys, *args)
                else:
                    pipe.eval(self.text, len(keys), *keys, *args)
            results: list[Any] = await pipe.execute()
            return results


LINK_GAPS_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Gaps between tries while Redis does not answer; the last one repeats."""


class RedisLink:
    """Connection of the place `of`, which is logged with `fields`. It counts as up until it is first lost."""

    def __init__(self, of: str, **fields: str) -> None:
        self._fields = {"of": of, **fields}
        self._failures = 0

    @property
    def is_up(self) -> bool:
        return self._failures == 0

    def up(self) -> None:
        """Redis answered."""
        if not self.is_up:
            self._failures = 0
            log.info("redis_link_restored", **self._fields)

    def lost(self, error: BaseException) -> float:
        """Redis did not answer; return the seconds to wait before the next try: 0.1, 0.2, 0.5, 1, 2, 5, 5 …"""
        if self.is_up:
            log.warning("redis_link_lost", error=type(error.__cause__ or error).__name__, **self._fields)
        gap_s = LINK_GAPS_S[min(self._failures, len(LINK_GAPS_S) - 1)]
        self._failures += 1
        return gap_s
