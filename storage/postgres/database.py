"""The Postgres side: one small pool, and statements over its connections.

No session state, no LISTEN, no transaction across a channel call: every statement stands alone, so pgbouncer in
transaction mode may stand in front.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import cache
from hashlib import sha256
from typing import Any

import asyncpg
import msgspec
import structlog

from core.errors import ConfigurationError, DatabaseRefused, DatabaseUnavailable
from core.settings import Settings
from storage.postgres.address import Address, read_address
from storage.postgres.faults import NOT_HERE, UNAVAILABLE, mapped_faults

CONNECTIONS_MAX = 4
"""Per process: small plans of hosted Postgres allow twenty connections in all."""

PING_TIMEOUT_S = 2.0
_CAN_WRITE = "SELECT current_setting('transaction_read_only') = 'off'"
"""On in a standby, and where an operator has closed the server to writers."""

_RUN_KEPT = "SELECT run_kept($1, $2, $3)"

log = structlog.get_logger()

_encoder = msgspec.json.Encoder()

STATEMENT_TIMEOUT_S = 10.0
ACQUIRE_TIMEOUT_S = 10.0
RELEASE_TIMEOUT_S = 0.5
"""For the end of a cancelled statement; a server that does not answer that either loses the connection."""

CLOSE_TIMEOUT_S = 2.0
HELD_S = 1.0
"""A connection waits so long for its next statement. To take one from asyncpg's pool and to put it back costs more
than a small statement: a task, two time-outs and a queue."""

CONNECT_TIMEOUT_S = 5.0
EXPIRE_GAP_S = 1.0
"""All connections are opened anew at most once a second, as long as the server says that it is not the one."""

_STARTUP_PARAMETERS = {
    "application_name": "nodrop",
    "timezone": "UTC",
    "jit": "off",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "plan_cache_mode": "force_generic_plan",
}
"""Compiling a plan costs more than our statements take. A plan that was made while a table was small stays when it is
large: so it finds its rows by an index from the beginning, and is no other for other parameters. See
docs/decisions/0020-plans-that-do-not-depend-on-statistics.md."""


async def connect(address: Address, *, statement_cache_size: int = 100) -> asyncpg.Connection:
    """One connection, outside the pool: for migrations and tools.

    Raises:
        DatabaseUnavailable: it cannot be reached, or its certificate is not trusted.
    """
    with mapped_faults(address):
        return await asyncpg.connect(**_connect_arguments(address, statement_cache_size))


@asynccontextmanager
async def answering_within(seconds: float) -> AsyncIterator[None]:
    """A limit that is shorter than that of a statement. Raises DatabaseUnavailable."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise DatabaseUnavailable(f"Postgres did not answer within {seconds:.1f} s") from None


class Database:
    """A pool of at most four connections. Opening it connects to nothing, so a process starts without Postgres."""

    def __init__(self, address: Address, *, statement_cache_size: int = 100, startup_parameters: bool = True) -> None:
        self._address = address
        self._statement_cache_size = statement_cache_size
        self._startup_parameters = startup_parameters and statement_cache_size > 0
        self._connections: Connections | None = None
        self._expired_at = -EXPIRE_GAP_S
        self.process: str | None = None
        """The name under which leases are taken, once this process beats; None: they end by themselves alone."""
        self.gatherings: dict[Any, Any] = {}
        """The `Gathering` of each `Gathered` statement that was called."""

    @classmethod
    def from_settings(cls, settings: Settings) -> Database:
        """The database of `DATABASE_URL`.

        Raises:
            ConfigurationError: names the variable and what to set.
        """
        address = read_address(settings.database_url, settings.database_tls)
        return cls(
            address,
            statement_cache_size=settings.statement_cache_size,
            startup_parameters=settings.startup_parameters,
        )

    async def open(self) -> None:
        pool = await asyncpg.create_pool(
            **_connect_arguments(self._address, self._statement_cache_size),
            server_settings=_STARTUP_PARAMETERS if self._startup_parameters else {},
            min_size=0,
            max_size=CONNECTIONS_MAX,
            # Nothing sets session state, so there is nothing to reset: half the cost of a statement.
            reset=_nothing,
            max_inactive_connection_lifetime=300,
        )
        self._connections = Connections(pool)

    async def close(self) -> None:
        if self._connections is not None:
            await self._connections.close()

    async def _run(self, method: str, *args: object, **options: Any) -> Any:
        if self._connections is None:
            raise DatabaseUnavailable("the pool is not open")
        try:
            return await self._connections.run(method, *args, **options)
        except Exception as error:
            if isinstance(error, NOT_HERE):
                await self._expire(self._connections)
            with mapped_faults(self._address):
                raise

    async def _expire(self, connections: Connections) -> None:
        """Let every connection be opened anew before its next use."""
        now = asyncio.get_running_loop().time()
        if now - self._expired_at >= EXPIRE_GAP_S and await connections.expire():
            self._expired_at = now
            log.warning("database_connections_expired", host=self._address.host, port=self._address.port)

    async def fetch(self, sql: str, *args: object) -> list[asyncpg.Record]:
        """All rows of one statement, which is its own transaction.

        Raises:
            DatabaseUnavailable: also when the connection was lost and the statement may have been committed.
            InvalidRequest: Postgres cannot hold one of the values.
        """
        rows: list[asyncpg.Record] = await self._run("fetch", sql, *args)
        return rows

    async def fetchrow(self, sql: str, *args: object) -> asyncpg.Record | None:
        """The first row, or None. Raises as `fetch`."""
        row: asyncpg.Record | None = await self._run("fetchrow", sql, *args)
        return row

    async def fetchval(self, sql: str, *args: object) -> Any:
        """The first column of the first row. Raises as `fetch`."""
        return await self._run("fetchval", sql, *args)

    async def fetch_text(self, sql: str, *args: str | None) -> Any:
        """`fetchval` of a large statement that makes a text of texts. Raises as `fetch`.

        Without prepared statements of our own, the server's session keeps its plan for all clients of a pooler.
        """
        if self._statement_cache_size:
            return await self.fetchval(sql, *args)
        return await self.fetchval(_RUN_KEPT, _kept_name(sql), sql, args)

    async def execute(self, sql: str, *args: object, timeout_s: float = STATEMENT_TIMEOUT_S) -> int:
        """The number of rows that it changed. Raises as `fetch`."""
        tag: str = await self._run("execute", sql, *args, timeout=timeout_s)
        return int(tag.rsplit(" ", 1)[-1]) if tag[-1:].isdigit() else 0

    async def executemany(self, sql: str, rows: Sequence[Sequence[object]]) -> None:
        """One statement for many rows, atomically. Raises as `fetch`."""
        await self._run("executemany", sql, rows)

    async def find_fault(self) -> str | None:
        """The reason why Postgres takes no writes now, in a word; None: it takes them.

        `refused`: `DatabaseRefused`; `no_answer`: in time; `read_only`: it is asked on new connections from now on;
        `unreachable`: anything else.
        """
        try:
            async with asyncio.timeout(PING_TIMEOUT_S):
                can_write = bool(await self.fetchval(_CAN_WRITE))
        except DatabaseRefused:
            return "refused"
        except TimeoutError:
            return "no_answer"
        except DatabaseUnavailable:
            return "unreachable"
        if not can_write and self._connections is not None:
            await self._expire(self._connections)
        return None if can_write else "read_only"

    async def check(self) -> None:
        """Connect at the start of a process, when a wrong setting is easily corrected.

        Raises:
            ConfigurationError: Postgres refuses the user, the password, the database or the TLS of the settings.
            DatabaseUnavailable: it may come up later.
        """
        try:
            await self.fetchval(_CAN_WRITE)
        except DatabaseRefused as error:
            raise ConfigurationError(error.detail) from error


# -- connections, held for the next statement --------------------------------------------------------------------------


class Connections:
    """Runs statements, each on a connection of its own, and so in a transaction of its own."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._free = pool.get_max_size()
        self._held: list[Any] = []
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._epoch = 0
        self._let_go_timer: asyncio.TimerHandle | None = None
        self._releases: set[asyncio.Task[None]] = set()

    async def run(self, method: str, *args: object, **options: Any) -> Any:
        """Call a method of a connection. Raises as asyncpg, and TimeoutError when none is free."""
        connection, epoch = await self._take(), self._epoch
        try:
            result = await getattr(connection, method)(*args, **options)
        except BaseException:
            await self._put_back(connection)
            raise
        if epoch != self._epoch or self._pool.is_closing():
            await self._put_back(connection)
        else:
            self._pass_on(connection)
        return result

    async def expire(self) -> bool:
        """Let every connection be opened anew before its next use. False: there is none."""
        if not self._pool.get_size():
            return False
        self._epoch += 1
        await self._pool.expire_connections()
        self._let_go()
        return True

    async def close(self) -> None:
        self._let_go()
        try:
            await asyncio.wait_for(self._pool.close(), CLOSE_TIMEOUT_S)
        except (TimeoutError, *UNAVAILABLE):
            self._pool.terminate()

    async def _take(self) -> Any:
        """A connection that is held, or that the pool opens, or the next one that becomes free."""
        while self._held:
            connection = self._held.pop()
            if _is_open(connection):
                return connection
            await self._put_back(connection)
        async with asyncio.timeout(ACQUIRE_TIMEOUT_S):
            while not self._free:
                connection = await self._wait()
                if connection is not None:
                    return connection
            self._free -= 1
            return await self._acquire()

    async def _acquire(self) -> Any:
        try:
            return await self._pool.acquire()
        except BaseException:
            self._set_free()
            raise

    async def _wait(self) -> Any:
        """The connection of a statement that has ended; None: there is room for another one."""
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        try:
            return await waiting
        except BaseException:
            if waiting.done() and not waiting.cancelled():  # it was given one in the same moment
                self._pass_on(waiting.result())
            raise

    def _pass_on(self, connection: Any) -> None:
        """Give it to the next one who waits, or hold it. None: give the right to open one."""
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(connection)
                return
        if connection is None:
            return
        self._held.append(connection)
        if self._let_go_timer is None:
            self._let_go_timer = asyncio.get_running_loop().call_later(HELD_S, self._let_go)

    def _set_free(self) -> None:
        self._free += 1
        self._pass_on(None)

    def _let_go(self) -> None:
        """Put back what is held: the pool closes it after a time without work."""
        if self._let_go_timer is not None:
            self._let_go_timer.cancel()
            self._let_go_timer = None
        held, self._held = self._held, []
        for connection in held:
            release = asyncio.get_running_loop().create_task(self._put_back(connection))
            self._releases.add(release)
            release.add_done_callback(self._releases.discard)

    async def _put_back(self, connection: Any) -> None:
        try:
            # Not within `async with`: that waits for a frozen server as long as for a connection.
            with suppress(*UNAVAILABLE):
                await self._pool.release(connection, timeout=RELEASE_TIMEOUT_S)
        finally:
            self._set_free()


def _is_open(connection: Any) -> bool:
    try:
        return not connection.is_closed()
    except asyncpg.InterfaceError:  # it was closed while it was held, and the pool has it back already
        return False


# -- values ------------------------------------------------------------------------------------------------------------


def document(value: Any) -> str:
    """JSON text for a statement, without characters that Postgres cannot hold."""
    try:
        text = _encoder.encode(value).decode()
    except UnicodeEncodeError:
        return _clean_document(value)
    return _clean_document(value) if "\\u0000" in text else text


def storable(text: str) -> str:
    """The text without NUL and half surrogate pairs, which a channel may send: another character takes their place."""
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def _clean_document(value: Any) -> str:
    return _encoder.encode(_clean(msgspec.to_builtins(value))).decode()


def _clean(value: Any) -> Any:
    match value:
        case str():
            return storable(value)
        case list():
            return [_clean(item) for item in value]
        case dict():
            return {_clean(key): _clean(item) for key, item in value.items()}
    return value


# -- connections -------------------------------------------------------------------------------------------------------


@cache
def _kept_name(sql: str) -> str:
    """A name that another release does not give to another statement."""
    return f"nodrop_{sha256(sql.encode()).hexdigest()[:24]}"


async def _nothing(_connection: Any) -> None:
    """Reset nothing."""


def _connect_arguments(address: Address, statement_cache_size: int) -> dict[str, Any]:
    return {
        "host": address.host,
        "port": address.port,
        "user": address.user,
        "password": address.password,
        "database": address.database,
        "ssl": address.tls.context or False,
        "timeout": CONNECT_TIMEOUT_S,
        "command_timeout": STATEMENT_TIMEOUT_S,
        "statement_cache_size": statement_cache_size,
    }
