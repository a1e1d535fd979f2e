"""The clients of Redis, with a limit on everything, and the one place where foreign exceptions become ours.

Redis reminds and Postgres remembers: whatever is lost here comes late, so callers treat `RedisUnavailable` as a delay.
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
"""Per process: small plans of hosted Redis allow twenty connections in all. Whoever comes fifth waits for one."""

CONNECT_TIMEOUT_S = 2.0
SOCKET_TIMEOUT_S = 5.0
ACQUIRE_TIMEOUT_S = 5.0
VERSION_MIN = (6, 2)

log = structlog.get_logger()

JobRedis = ArqRedis
"""The client of `open_job_redis`, by a name of ours: only storage and worker know arq."""


# -- clients -----------------------------------------------------------------------------------------------------------


def open_redis(address: RedisAddress, *, connections_max: int = CONNECTIONS_MAX) -> Redis:
    """A client; it connects when it is first used. To be closed with `aclose()`."""
    return Redis.from_pool(_pool(address, connections_max))


def open_job_redis(address: RedisAddress, *, connections_max: int = CONNECTIONS_MAX) -> ArqRedis:
    """The same for arq, and good for everything else: one a process. Its jobs are JSON, never pickle.

    `WorkerSettings` of the stock `arq` command take it as `redis_pool`: then they have all modes of TLS and our limits.
    """
    client = ArqRedis(
        _pool(address, connections_max),
        job_serializer=encode_job,
        job_deserializer=decode_job,
        expires_extra_ms=EXPIRES_EXTRA_MS,
    )
    client.auto_close_connection_pool = True  # the pool is nobody else's
    return client


def redis_settings(address: RedisAddress) -> RedisSettings:
    """For `arq --check` alone, which takes nothing else. In mode `ca` it trusts the system's authorities as well.

    Raises:
        ConfigurationError: arq can neither pin a certificate nor check one behind Sentinel.
    """
    name = address.tls.name
    if name is TlsName.PIN or (address.sentinels and address.tls.context):
        raise ConfigurationError(
            "REDIS_TLS: the command `arq --check` knows neither pin: nor TLS behind Sentinel; "
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
    """Ask for a sign of life at start, when a wrong setting is still somebody's to mend.

    Raises:
        ConfigurationError: the certificate, the password or the version will not do; names what to set.
        RedisUnavailable: it may come up later.
    """
    try:
        with redis_errors():
            info = cast("Mapping[str, Any]", await redis.info())
    except RedisUnavailable as error:
        if isinstance(error.__cause__, AuthenticationError):
            raise ConfigurationError("REDIS_URL: Redis refused the user or the password in it") from error
        if wanted := explain_tls(error, variable="REDIS_TLS"):
            raise ConfigurationError(wanted) from error
        raise
    version = str(info.get("redis_version", ""))
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < VERSION_MIN:
        raise ConfigurationError(f"REDIS_URL: Redis {version} is too old, 6.2 is the oldest that will do")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":  # jobs carry an expiry, so every other policy may throw them away before they are due
        log.warning("redis_may_evict_jobs", policy=policy, wanted="noeviction")


# -- edges -------------------------------------------------------------------------------------------------------------


@contextmanager
def redis_errors() -> Iterator[None]:
    """The one place where what Redis, its client and the network raise becomes ours.

    Raises:
        RedisUnavailable: what was asked may have been done or not.
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
        # uvloop's, when a connection that has just been found lost is touched once more: still the same loss.
        if not isinstance(error.__context__, RedisError | OSError):
            raise
        raise RedisUnavailable("Redis cannot be reached or does not answer (closed)") from error


def _cancellations() -> int:
    """How often the running task was cancelled; 0 outside of one."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no loop runs
        return 0
    return 0 if task is None else task.cancelling()


Call = tuple[Sequence[str], Sequence[str | int | bytes]]
"""The keys and the arguments of one run of a script."""


class Script:
    """A Lua script, sent by its hash, and by its text to a server that does not know it (new, restarted, failed over).

    Whoever loses an answer asks again, so each script must be such that running it twice does no harm.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = sha1(text.encode(), usedforsecurity=False).hexdigest()

    async def run(self, redis: Redis, call: Call, *, if_unknown: Call | None = None) -> Any:
        """Run it once, in one round trip; with `if_unknown` in place of `call` where it was not known."""
        try:
            return (await self._send(redis, [call], by_hash=True))[0]
        except NoScriptError:
            return (await self._send(redis, [if_unknown or call], by_hash=False))[0]

    async def run_all(self, redis: Redis, calls: Sequence[Call]) -> list[Any]:
        """Run it for each of the calls, all in one round trip."""
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
            answers: list[Any] = await pipe.execute()
            return answers


class _TlsConnection(Connection):
    """redis-py makes a context of its own from single settings, which can express neither a pin nor one CA alone."""

    def __init__(self, *, tls: Any, **kwargs: Any) -> None:
        self._tls = tls
        super().__init__(**kwargs)

    def _connection_arguments(self) -> Mapping[str, Any]:
        return {**super()._connection_arguments(), "ssl": self._tls}


class _SentinelTlsConnection(SentinelManagedConnection, _TlsConnection):
    """To the master that the sentinels name."""


class _SentinelPool(SentinelConnectionPool, BlockingConnectionPool):
    """redis-py's pool for Sentinel fails a burst instead of letting it wait, and leaves the sentinels connected."""

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


# A router forgets an idle connection after some minutes: ask after 30 s, and every 10 s, give up after three times.
_KEEPALIVE = (
    {socket.TCP_KEEPIDLE: 30, socket.TCP_KEEPINTVL: 10, socket.TCP_KEEPCNT: 3} if sys.platform == "linux" else {}
)


def _connection(address: RedisAddress) -> dict[str, Any]:
    tls = {"connection_class": _TlsConnection, "tls": address.tls.context} if address.tls.context else {}
    return {
        "socket_timeout": SOCKET_TIMEOUT_S,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        # Not redis-py's `health_check_interval`: where a password is missing it connects again and again, recursively.
        "socket_keepalive": True,
        "socket_keepalive_options": _KEEPALIVE,
        # Once: a pooled connection that the far side has closed in the meantime is only found out by using it.
        "retry": Retry(NoBackoff(), 1),
        "retry_on_error": [RedisConnectionError],
        **tls,
    }
