"""The Postgres side: one small pool, `DATABASE_URL` as a PaaS hands it out, and foreign exceptions mapped once.

No session state, no LISTEN, no transaction across a channel call: every statement stands alone, so pgbouncer in
transaction mode may stand in front.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import asyncpg
import msgspec
import structlog

from core.errors import ConfigurationError, DatabaseUnavailable, InvalidRequest, RowLocked
from core.settings import Settings
from storage.closed import is_closed_handle
from storage.postgres.connections import STATEMENT_ELSEWHERE, UNAVAILABLE, Connections
from storage.tls import TlsMode, explain_tls, tls_mode

CONNECTIONS_MAX = 4
"""Per process: small plans of hosted Postgres allow twenty connections in all."""

PING_TIMEOUT_S = 2.0
_CAN_WRITE = "SELECT current_setting('transaction_read_only') = 'off'"
"""On in a standby, and where an operator has closed the server to writers."""

_RUN_KEPT = "SELECT run_kept($1, $2, $3)"

log = structlog.get_logger()

_encoder = msgspec.json.Encoder()

STATEMENT_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 5.0
EXPIRE_GAP_S = 1.0
"""All connections are opened anew at most once a second, as long as the server says that it is not the one."""

# Errors of a server that is there and is not the one any more: a former primary, one that shuts down or starts. Other
# connections lead to it too, and the name of the host may lead elsewhere by now.
_NOT_HERE = (
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.DatabaseDroppedError,
    asyncpg.InvalidCatalogNameError,
)

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

# Values that Postgres cannot hold: NUL in a text, a number beyond its type, a key too long for its index.
_NOT_STORABLE = (asyncpg.DataError, asyncpg.ProgramLimitExceededError)


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """Where Postgres is. `tls` is settled; connection parameters that poolers and drivers add to URLs are dropped."""

    host: str
    port: int
    user: str
    password: str | None
    database: str
    tls: TlsMode

    def __repr__(self) -> str:
        """Without the password."""
        return f"Address({self.host}:{self.port}/{self.database}, tls={self.tls!r})"


def read_address(url: str, tls: str, *, variable: str = "DATABASE_URL") -> Address:
    """`DATABASE_URL` with `DATABASE_TLS`. `sslmode`, `channel_binding` and other parameters of other
    drivers are ignored.

    Raises:
        ConfigurationError: names the variable and what to set.
    """
    form = f"{variable}: set it to postgres://user:password@host:5432/database, with what is special percent-encoded"
    try:
        parts = urlsplit(url)
        port = parts.port or 5432
    except ValueError:  # its text may hold the password
        raise ConfigurationError(form) from None
    if parts.scheme not in ("postgres", "postgresql") or not parts.path.strip("/"):
        raise ConfigurationError(form)
    query = dict(parse_qsl(parts.query))
    host = parts.hostname or query.get("host") or "127.0.0.1"
    return Address(
        host=unquote(host),
        port=port,
        user=unquote(parts.username or query.get("user") or "postgres"),
        password=None if parts.password is None else unquote(parts.password),
        database=unquote(parts.path.lstrip("/")),
        tls=tls_mode(tls, variable="DATABASE_TLS", host=host, default_plain=False),
    )


async def connect(address: Address, *, statement_cache_size: int = 100) -> asyncpg.Connection:
    """One connection, outside the pool: for migrations and tools.

    Raises:
        DatabaseUnavailable: it cannot be reached, or its certificate is not trusted.
    """
    with mapped_faults(address):
        return await asyncpg.connect(**_connect_arguments(address, statement_cache_size))


@contextmanager
def mapped_faults(address: Address) -> Iterator[None]:
    """The one place where faults of asyncpg become ours.

    Raises:
        DatabaseUnavailable, InvalidRequest: as `Database.fetch`.
    """
    try:
        yield
    except asyncpg.LockNotAvailableError as error:
        raise RowLocked(_reason(error, address)) from error
    except UNAVAILABLE as error:
        raise DatabaseUnavailable(_reason(error, address)) from error
    except RuntimeError as error:
        if not is_closed_handle(error):
            raise
        raise DatabaseUnavailable(_reason(error, address)) from error
    except _NOT_STORABLE as error:  # whose text holds the value
        raise InvalidRequest(f"a value that cannot be stored ({type(error).__name__})") from None


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
            if isinstance(error, _NOT_HERE):
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

    async def fetch_text(self, sql: str, *args: str) -> Any:
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

    async def can_write(self) -> bool:
        """Whether Postgres answers now and takes writes. One that does not is asked on new connections from now on."""
        try:
            async with asyncio.timeout(PING_TIMEOUT_S):
                can_write = bool(await self.fetchval(_CAN_WRITE))
        except (DatabaseUnavailable, TimeoutError):
            return False
        if not can_write and self._connections is not None:
            await self._expire(self._connections)
        return can_write


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


def _reason(error: BaseException, address: Address) -> str:
    """The reason for a person, without user or password."""
    where = f"Postgres at {address.host}:{address.port}"
    if "rejected SSL upgrade" in str(error):
        return f"{where} offers no TLS: set DATABASE_TLS=private if that network is private"
    if "startup parameter" in str(error):  # of pgbouncer and its like
        return f"{where} refuses our start-up parameters: set STARTUP_PARAMETERS=false, as for every pooler"
    if isinstance(error, STATEMENT_ELSEWHERE):
        return f"{where} keeps no prepared statements for its clients: set STATEMENT_CACHE_SIZE=0"
    explained = explain_tls(error, variable="DATABASE_TLS")
    return f"{where}: {explained or type(error).__name__}"
