"""Clients of Redis with a limit on everything, and the one place where foreign exceptions become ours.

Postgres keeps all work, so whatever is lost in Redis comes late: callers treat `RedisUnavailable` as a delay.
Needs Redis 6.2 or newer (or Valkey) with `maxmemory-policy noeviction`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from hashlib import sha1
from types import TracebackType
from typing import Any, Self, TypeVar

import structlog
from arq.connections import ArqRedis, RedisSettings
from hiredis import pack_command
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError

from core.errors import ConfigurationError, RedisUnavailable
from storage.closed import is_closed_handle
from storage.gathering import Gathering
from storage.redis.address import RedisAddress
from storage.redis.connection import CONNECT_TIMEOUT_S, CONNECTIONS_MAX, connection_pool
from storage.redis.job_payload import EXPIRES_EXTRA_MS, decode_job, encode_job
from storage.tls import TlsName

log = structlog.get_logger()

T = TypeVar("T")
R = TypeVar("R")

BATCH_MAX = 500
"""Items of one call: Redis does nothing else meanwhile."""

JobRedis = ArqRedis
"""Client of `open_job_redis` under a name of ours: only storage and worker know arq."""


# -- clients -----------------------------------------------------------------------------------------------------------


def open_redis(address: RedisAddress, *, connections_max: int = CONNECTIONS_MAX) -> Redis:
    """Return a client that connects at its first use. Close it with `close_redis()`."""
    return Redis.from_pool(connection_pool(address, connections_max))


async def close_redis(redis: Redis) -> None:
    """Close its connections. One whose end takes longer than a connect is left to the server: nothing waits on it, and
    a process that stops has no use for the fault.
    """
    with suppress(RedisUnavailable), redis_errors():
        await redis.aclose()


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
        if not (is_closed_handle(error) or isinstance(error.__context__, RedisError | OSError)):
            raise
        raise RedisUnavailable("Redis cannot be reached or does not answer (closed)") from error


def _cancellations() -> int:
    """Return the number of times the running task was cancelled; 0 outside of a task."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no loop runs
        return 0
    return 0 if task is None else task.cancelling()


TICK_S = 0.01
TIMER_S = 0.002
"""A timer of the loop is no more exact than this."""


class Patience:
    """Time-out for an answer of a store that leaves out the lag of this process itself.

    Time is counted in ticks of the event loop, each less what it came late: while this process is busy with something
    else, or gets no processor, no time passes. So it never takes its own lag for the death of Redis. A process that is
    busy all the time is stopped by the time-out of the socket.

    Raises:
        TimeoutError: at the end of the block, which was cancelled after `limit_s`.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._timeout = asyncio.timeout(None)
        self.waited_s = 0.0

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        self._loop = asyncio.get_running_loop()
        self._wait_for_tick()
        return self

    async def __aexit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        await self._timeout.__aexit__(error_type, error, traceback)

    def _wait_for_tick(self) -> None:
        if self.waited_s >= self._limit_s:
            self._timeout.reschedule(self._loop.time())
        else:
            self._timer = self._loop.call_later(TICK_S, self._tick, self._loop.time() + TICK_S)

    def _tick(self, due_at: float) -> None:
        late_s = max(0.0, self._loop.time() - due_at - TIMER_S)
        self.waited_s += max(0.0, TICK_S - late_s)
        self._wait_for_tick()


def gathering(send: Callable[[list[T]], Awaitable[Sequence[R | Exception]]], *, waiting_max: int) -> Gathering[T, R]:
    """Items of all callers that wait, in one call of `send` after another: 600 round trips at once are as many turns of
    four connections, and the last waits for all before it. `RedisUnavailable` is the error of a whole call.
    """
    return Gathering(
        send,
        is_shared=lambda error: isinstance(error, RedisUnavailable),
        full=partial(RedisUnavailable, "too many callers wait for Redis"),
        batch_max=BATCH_MAX,
        waiting_max=waiting_max,
    )


# -- round trips -------------------------------------------------------------------------------------------------------

Command = tuple[str | int | bytes, ...]

_pack: Any = pack_command  # its annotation knows commands of one word

Call = tuple[Sequence[str], Sequence[str | int | bytes]]
"""The keys and the arguments of one run of a script."""


class Script:
    """A Lua script, sent by its hash, or by its text to a server that does not know it (new, restarted, failed over).

    A call whose answer was lost is repeated, so every script must be safe to run twice.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = sha1(text.encode(), usedforsecurity=False).hexdigest()

    async def run(self, redis: Redis, call: Call) -> Any:
        """Run it once, in one round trip."""
        return (await run_together(redis, [(self, call)]))[0]


Run = tuple[Script, Call]


async def run_together(
    redis: Redis, runs: Sequence[Run], commands: Sequence[Command] = (), *, if_unknown: Sequence[Call] = ()
) -> list[Any]:
    """Runs of several scripts, then some commands, all in one round trip.

    A script that the server does not know runs in a second one, with the call of `if_unknown` in its place.
    """
    sent: list[Command] = [("EVALSHA", script.sha, len(keys), *keys, *args) for script, (keys, args) in runs]
    results = await round_trip(redis, [*sent, *commands])
    unknown = [number for number, result in enumerate(results) if isinstance(result, NoScriptError)]
    if unknown:
        texts: list[Command] = []
        for number in unknown:
            script, call = runs[number]
            keys, args = if_unknown[number] if if_unknown else call
            texts.append(("EVAL", script.text, len(keys), *keys, *args))
        for number, result in zip(unknown, await round_trip(redis, texts), strict=True):
            results[number] = result
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results


async def round_trip(redis: Redis, commands: Sequence[Command]) -> list[Any]:
    """Send these commands at once; return the answer of each, or the error with which the server refuses it.

    redis-py's pipeline does the same through more objects and layers, for twice the cost. As there, the commands are
    sent again if the connection was closed: that of an idle one is noticed only now.
    """
    packed = b"".join([_pack(command) for command in commands])
    pool: Any = redis.connection_pool
    connection = await pool.get_connection()
    # One limit for all: redis-py's costs a task for the write and a timer for each answer.
    timeout_s, connection.socket_timeout = connection.socket_timeout, None
    try:
        async with asyncio.timeout(timeout_s):
            try:
                return await _exchange(connection, packed, len(commands))
            except RedisConnectionError:
                await connection.disconnect()
                return await _exchange(connection, packed, len(commands))
    finally:
        connection.socket_timeout = timeout_s
        await pool.release(connection)


async def _exchange(connection: Any, packed: bytes, count: int) -> list[Any]:
    await connection.send_packed_command(packed)
    answers: list[Any] = []
    for _ in range(count):
        try:
            answers.append(await connection.read_response())
        except ResponseError as error:
            answers.append(error)
    return answers


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
