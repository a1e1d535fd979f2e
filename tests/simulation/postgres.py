"""Postgres of a world: the real server and the real SQL over one real connection, with the world's time.

Each statement runs to its end while the world stands, so statements never overlap and a run depends on its seed alone.
What a process sees before and after its statement is made here: delays, lost connections, a server that refuses, hangs
or is read-only. `now()` and the like are functions in `public`, which is before `pg_catalog` in the search path; they
read the time that was set before the statement.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import asyncpg

from demo.embedded import EmbeddedPostgres
from storage.postgres.migrate import migrate
from tests.simulation.accidents import Accident, Accidents, State
from tests.simulation.calls import name_of_statement
from tests.simulation.clock import FIRST_S, TIME
from tests.simulation.events import Events
from tests.simulation.loop import RealLoop
from tests.simulation.processes import Process, loop_of_world
from tests.simulation.rest import Rest

TEMPLATE = "simulated"

_OPTIONS = (
    "--autovacuum=off",
    "--synchronous_commit=off",
    "--full_page_writes=off",
    "--wal_level=minimal",
    "--max_wal_senders=0",
    "--max_wal_size=4GB",
    "--shared_buffers=64MB",
    "--checkpoint_timeout=1h",
)

_SETTINGS = {
    "search_path": "public, pg_catalog",
    "simulated.now": str(FIRST_S),
    "simulated.began": str(FIRST_S),
    "simulated.seed": "",
}

CLOCKS = ("now", "clock_timestamp", "statement_timestamp", "transaction_timestamp")
"""Functions that read the time of a world. Other forms would read the machine's: the product has none of them."""

_OTHERS = """
CREATE SEQUENCE simulated_uuids;
CREATE FUNCTION pg_postmaster_start_time() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE
    AS $$ SELECT to_timestamp(current_setting('simulated.began')::float8) $$;
CREATE FUNCTION gen_random_uuid() RETURNS uuid LANGUAGE sql VOLATILE
    AS $$ SELECT md5(current_setting('simulated.seed') || nextval('simulated_uuids'))::uuid $$"""

# Functions whose own search path has pg_catalog first, where it is not written.
_OWN_PATHS = """
SELECT format('ALTER FUNCTION %s SET search_path = public, pg_catalog, pg_temp', oid::regprocedure)
  FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND proconfig::text LIKE '%search_path%'"""

_DELAY_S = 0.0004
"""Mean time of the way to Postgres, and of the way back."""

_CUT = "connection was closed in the middle of operation"

COMMAND_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 5.0
"""As `storage.postgres.database` has them, which asyncpg keeps in its own pool."""


# -- servers and databases, in the process that starts worlds ----------------------------------------------------------


class Cluster:
    """A server for worlds, with a migrated template."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        self._server = server

    def prepare(self) -> None:
        """Make the template."""
        self._server.create_database(TEMPLATE)
        asyncio.run(_make_template(self._server.url(TEMPLATE)))

    def new_database(self, name: str) -> str:
        """URL of a new, empty database."""
        self._server.create_database(name, TEMPLATE)
        return self._server.url(name)

    def drop_database(self, name: str) -> None:
        self._server.drop_database(name)


@contextmanager
def cluster(directory: Path) -> Iterator[Cluster]:
    """A server until the block ends. Nothing of it survives a crash of the machine."""
    server = EmbeddedPostgres(directory, fsync=False, max_connections=40)
    server._options = (*server._options, *_OPTIONS)  # type: ignore[assignment]
    with server:
        made = Cluster(server)
        made.prepare()
        yield made


async def _make_template(url: str) -> None:
    connection = await asyncpg.connect(url, ssl=False, server_settings=_SETTINGS)
    try:
        for name, value in _SETTINGS.items():
            await connection.execute(f"ALTER DATABASE {TEMPLATE} SET {name} = {value or repr(value)}")
        for name in CLOCKS:
            await connection.execute(
                f"CREATE FUNCTION {name}() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE"
                " AS $$ SELECT to_timestamp(current_setting('simulated.now')::float8) $$"
            )
        await connection.execute(_OTHERS)
    finally:
        await connection.close()
    await migrate(url)
    connection = await asyncpg.connect(url, ssl=False)
    try:
        for row in await connection.fetch(_OWN_PATHS):
            await connection.execute(row[0])
    finally:
        await connection.close()


# -- the server as a world sees it -------------------------------------------------------------------------------------


class Kept(NamedTuple):
    """A statement that has come to a frozen server."""

    method: str
    args: tuple[Any, ...]
    process: Process
    answer: asyncio.Future[Any]

    @property
    def is_left(self) -> bool:
        """Whether nobody waits for its answer."""
        return self.process.is_dead or self.answer.done()

    def end(self, result: Any) -> None:
        if self.answer.done():
            return
        if isinstance(result, Exception):
            self.answer.set_exception(result)
        else:
            self.answer.set_result(result)


class Postgres:
    """The server of one world. Its state is changed by the world's schedule."""

    def __init__(self, url: str, seed: int, random: Random, events: Events, accidents: Accidents, rest: Rest) -> None:
        self.accidents = accidents
        self._rest = rest
        self.url = url
        self._seed = seed
        self._random = random
        self._events = events
        self._loop = RealLoop()
        self._connection: Any = None
        self._set_at = ""
        self._state = State.UP
        self._changed = asyncio.Event()
        self._pools: list[Pool] = []
        self._kept: list[Kept] = []
        self.statements = 0
        self.delay_s = _DELAY_S

    # -- the real connection

    def open(self, server_settings: dict[str, str]) -> None:
        """Connect with the settings that the product gives its own connections."""
        if self._connection is not None:
            return
        parts = urlsplit(self.url)
        self._connection = self._loop.run_inside(
            asyncpg.connect(
                host=parts.hostname,
                port=parts.port,
                user=parts.username,
                password=parts.password,
                database=parts.path.lstrip("/"),
                ssl=False,
                statement_cache_size=1000,
                max_cached_statement_lifetime=0,
                server_settings={**server_settings, **_SETTINGS, "simulated.seed": str(self._seed)},
            )
        )
        self._set("simulated.began", f"{TIME.unix_s():.6f}")

    def close(self) -> None:
        if self._connection is not None:
            self._loop.run_inside(self._connection.close())
            self._connection = None
        self._loop.close()

    def run(self, method: str, *args: Any) -> Any:
        """Run a statement now, while the world stands. Raises as asyncpg."""
        self.statements += 1
        return self._loop.run_inside(self._run(method, args))

    async def _run(self, method: str, args: tuple[Any, ...]) -> Any:
        now = f"{TIME.unix_s():.6f}"
        if now != self._set_at:
            await self._connection.execute(f"SET simulated.now = '{now}'")
            self._set_at = now
        return await getattr(self._connection, method)(*args)

    def _set(self, name: str, value: str) -> None:
        self._loop.run_inside(self._connection.execute(f"SET {name} = '{value}'"))

    # -- its state

    @property
    def state(self) -> State:
        return self._state

    def be(self, state: State) -> None:
        """Change the state. One that refuses has closed every connection."""
        self._events.note("postgres", state=state)
        self._rest.trouble()
        self._state = state
        if state is State.REFUSING:
            self.cut_all()
        if state is not State.FROZEN:
            self._do_kept()
        self._changed.set()
        self._changed = asyncio.Event()

    def be_read_only(self, is_read_only: bool) -> None:
        """Refuse writes from now on, as a standby does, or take them again."""
        self._events.note("postgres", read_only=is_read_only)
        self._rest.trouble()
        self._set("default_transaction_read_only", "on" if is_read_only else "off")

    def restart(self) -> None:
        """Close every connection, and have begun anew."""
        self._events.note("postgres", state="restarted")
        self.cut_all()
        self._set("simulated.began", f"{TIME.unix_s():.6f}")

    def cut_all(self) -> None:
        """Terminate every backend."""
        self._rest.trouble()
        for pool in self._pools:
            pool.cut()

    async def answer(self) -> None:
        """Wait until it answers. Raises ConnectionRefusedError while nothing listens."""
        while self._state is State.FROZEN:
            await self._changed.wait()
        if self._state is State.REFUSING:
            raise ConnectionRefusedError("nothing listens")

    def travel_s(self) -> float:
        """A time of one way to it."""
        return self._random.expovariate(1.0) * self.delay_s

    def forget_dead(self) -> None:
        """Close the pools of processes that have ended."""
        self._pools = [pool for pool in self._pools if pool.owner is None or not pool.owner.is_dead]

    async def take(self, method: str, args: tuple[Any, ...], process: Process) -> Any:
        """Do what came over a connection when it answers again. Raises as asyncpg."""
        if self._state is State.REFUSING:
            raise asyncpg.ConnectionDoesNotExistError(_CUT)
        kept = Kept(method, args, process, asyncio.get_running_loop().create_future())
        self._kept.append(kept)
        return await kept.answer

    def do_if_it_came(self, method: str, args: tuple[Any, ...]) -> None:
        """Do what nobody waits for any more, if it was here before its end: one in two."""
        if self._random.random() < 0.5 and self._state is State.UP:
            with suppress(asyncpg.PostgresError):
                self.run(method, *args)

    def _do_kept(self) -> None:
        """Do what has come while it was frozen, or lose it."""
        kept, self._kept = self._kept, []
        for each in kept:
            if each.is_left:
                self.do_if_it_came(each.method, each.args)
            elif self._state is State.REFUSING:
                each.end(asyncpg.ConnectionDoesNotExistError(_CUT))
            else:
                try:
                    each.end(self.run(each.method, *each.args))
                except asyncpg.PostgresError as error:
                    each.end(error)

    def new_pool(self, server_settings: dict[str, str], max_size: int) -> Pool:
        self.open(server_settings)
        pool = Pool(self, max_size)
        self._pools.append(pool)
        return pool


class Pool:
    """The part of asyncpg's pool that `storage.postgres.database.Connections` uses, of one process."""

    def __init__(self, server: Postgres, max_size: int) -> None:
        self._server = server
        self.owner = loop_of_world().current_process()
        self._max_size = max_size
        self._idle: list[Connection] = []
        self._all: dict[Connection, None] = {}  # in their order: that of a set is by address
        self._is_closing = False

    def get_size(self) -> int:
        return len(self._all)

    def get_max_size(self) -> int:
        return self._max_size

    def is_closing(self) -> bool:
        return self._is_closing

    async def acquire(self) -> Connection:
        """A connection that is idle, or a new one. Raises OSError, TimeoutError."""
        if self._is_closing:
            raise asyncpg.InterfaceError("pool is closing")
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
            self._all.pop(connection, None)
        if loop_of_world().current_process() is not None:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await asyncio.sleep(self._server.travel_s())
                await self._server.answer()
        connection = Connection(self._server)
        self._all[connection] = None
        return connection

    async def release(self, connection: Connection, *, timeout: float | None = None) -> None:  # noqa: ARG002, ASYNC109
        if connection.is_closed() or connection.is_expired or self._is_closing:
            self._all.pop(connection, None)
        else:
            self._idle.append(connection)

    async def expire_connections(self) -> None:
        """Let every connection be opened anew before its next use."""
        for connection in self._all:
            connection.is_expired = True
        for connection in self._idle:
            connection.cut()

    def cut(self) -> None:
        for connection in self._all:
            connection.cut()

    async def close(self) -> None:
        self.terminate()

    def terminate(self) -> None:
        self._is_closing = True
        self._idle.clear()
        self._all.clear()


class Connection:
    """A connection of one process: a session of its own as far as the process can tell."""

    def __init__(self, server: Postgres) -> None:
        self._server = server
        self.is_expired = False
        self._cut: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def is_closed(self) -> bool:
        return self._cut.done()

    def cut(self) -> None:
        """Terminate its backend. A statement under way may be committed or not."""
        if not self._cut.done():
            self._cut.set_result(None)

    async def fetch(self, sql: str, *args: Any) -> Any:
        return await self._run("fetch", sql, *args)

    async def fetchrow(self, sql: str, *args: Any) -> Any:
        return await self._run("fetchrow", sql, *args)

    async def fetchval(self, sql: str, *args: Any) -> Any:
        return await self._run("fetchval", sql, *args)

    async def execute(self, sql: str, *args: Any, timeout: float = COMMAND_TIMEOUT_S) -> Any:  # noqa: ASYNC109
        return await self._run("execute", sql, *args, timeout_s=timeout)

    async def executemany(self, sql: str, rows: Any) -> Any:
        return await self._run("executemany", sql, rows)

    async def _run(self, method: str, *args: Any, timeout_s: float = COMMAND_TIMEOUT_S) -> Any:
        if self._cut.done():
            raise asyncpg.InterfaceError("connection is closed")
        server = self._server
        process = loop_of_world().current_process()
        if process is None:  # nothing happens to who looks from outside
            return server.run(method, *args)
        accident = server.accidents.draw(process, lambda: name_of_statement(args[0]))
        try:
            await asyncio.sleep(server.travel_s())
        except asyncio.CancelledError:
            server.do_if_it_came(method, args)
            self.cut()
            raise
        if accident in (Accident.CUT_BEFORE, Accident.CRASH_BEFORE):
            await server.accidents.happen(accident, process, self)
        self._check()
        if server.state is State.UP:
            result = server.run(method, *args)
        else:
            async with asyncio.timeout(timeout_s):
                result = await server.take(method, args, process)
        if accident in (Accident.CUT_AFTER, Accident.CRASH_AFTER):
            await server.accidents.happen(accident, process, self)
        await asyncio.sleep(server.travel_s())
        self._check()
        return result

    def _check(self) -> None:
        if self._cut.done():
            raise asyncpg.ConnectionDoesNotExistError(_CUT)


def replace_pools(server: Postgres) -> None:
    """Let every `Database` of this process have a pool of this server."""

    async def create_pool(*, max_size: int, server_settings: dict[str, str], **_: Any) -> Pool:
        return server.new_pool(server_settings, max_size)

    asyncpg.create_pool = create_pool
