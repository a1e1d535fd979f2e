"""Clients of Redis with a limit on everything, and the one place where foreign exceptions become ours.

Postgres keeps all work, so whatever is lost in Redis comes late: callers treat `RedisUnavailable` as a delay.
Needs Redis 6.2 or newer (or Valkey) with `maxmemory-policy noeviction`.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha1
from typing import Any, cast

import structlog
from arq.connections import ArqRedis, RedisSettings
from redis.asyncio import BlockingConnectionPool, Connection, Redis, Sentinel
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool, SentinelManagedConnection
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoScriptError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError

from core.errors import ConfigurationError, RedisUnavailable
from storage.redis.address import RedisAddress
from storage.redis.job_payload import EXPIRES_EXTRA_MS, decode_job, encode_job
from storage.tls import TlsName, explain_tls

CONNECTIONS_MAX = 4
"""Per process: small plans of hosted Redis allow twenty connections in all. A fifth user waits for one."""

CONNECT_TIMEOUT_S = 2.0
SOCKET_TIMEOUT_S = 5.0
ACQUIRE_TIMEOUT_S = 5.0
VERSION_MIN = (6, 2)

log = structlog.get_logger()

JobRedis = ArqRedis
"""Client of `open_job_redis` under a name of ours: only storage and worker know arq."""


# -- clients -----------------------------------------------------------------------------------------------------------


def open_redis(address: RedisAddress, *, connections_max: int = CONNECTIONS_MAX) -> Redis:
    """Return a client that connects at its first use. Close it with `aclose()`."""
    return Redis.from_pool(_pool(address, connections_max))


def open_job_redis(address: RedisAddress, *, connections_max: int = CONNECTIONS_MAX) -> ArqRedis:
    """Return the one client of a process, for arq and everything else. Its jobs are JSON, never pickle.

    `WorkerSettings` of the stock `arq` command take it as `redis_pool`, and so have all modes of TLS and our limits.
    """
    client = ArqRedis(
        _pool(address, connections_max),
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


class _TlsConnection(Connection):
    """Connection with a TLS context of ours: redis-py's settings can express neither a pin nor one CA alone."""

    def __init__(self, *, tls: Any, **kwargs: Any) -> None:
        self._tls = tls
        super().__init__(**kwargs)

    def _connection_arguments(self) -> Mapping[str, Any]:
        return {**super()._connection_arguments(), "ssl": self._tls}


class _SentinelTlsConnection(SentinelManagedConnection, _TlsConnection):
    """Connection to the master that the sentinels name."""


class _SentinelPool(SentinelConnectionPool, BlockingConnectionPool):
    """Pool that lets a burst wait and disconnects from the sentinels; redis-py's own does neither."""

    async def disconnect(self, inuse_connections: bool = True) -> None:  # noqa: FBT001, FBT002 -- redis-py's signature
        await super().disconnect(inuse_connections)
        if inuse_connections:
            for sentinel in self.sentinel_manager.sentinels:
                await sentinel.connection_pool.disconnect()


def _pool(address: RedisAddress, connections_max: int) -> BlockingConnectionPool:
    limits = {**_connection(address), "max_connections": connections_max, "timeout": ACQUIRE_TIMEOUT_S}
    login: dict[str, Any] = {"username": address.username, "password": address.password, "db": address.database}
    if not address.sentinels:
        return BlockingConnectionPool(host=address.host, port=address.port, **login, **limits)
    manager = Sentinel([])  # type: ignore[no-untyped-call]  # redis-py annotates it in part
    manager.sentinels = [
        Redis.from_pool(BlockingConnectionPool(host=host, port=port, password=address.sentinel_password, **limits))
        for host, port in address.sentinels
    ]
    managed = _SentinelTlsConnection if address.tls.context else SentinelManagedConnection
    arguments = login | limits | {"connection_class": managed}
    return _SentinelPool(address.sentinel_master, manager, **arguments)  # type: ignore[no-untyped-call]  # as above


# Routers forget an idle connection after some minutes: probe after 30 s, then every 10 s, give up after three.
_KEEPALIVE = (
    {socket.TCP_KEEPIDLE: 30, socket.TCP_KEEPINTVL: 10, socket.TCP_KEEPCNT: 3} if sys.platform == "linux" else {}
)


def _connection(address: RedisAddress) -> dict[str, Any]:
    tls = {"connection_class": _TlsConnection, "tls": address.tls.context} if address.tls.context else {}
    return {
        "socket_timeout": SOCKET_TIMEOUT_S,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        # Not redis-py's `health_check_interval`: with a missing password it reconnects recursively.
        "socket_keepalive": True,
        "socket_keepalive_options": _KEEPALIVE,
        # Once: that a pooled connection was closed by the server is noticed only when it is used.
        "retry": Retry(NoBackoff(), 1),
        "retry_on_error": [RedisConnectionError],
        **tls,
    }
