"""Redis of a world: fakeredis with the real Lua in this process, reached by the product's own client code.

Its clock is the world's, whatever clock the process has that calls it. Delays, lost connections and a server that
refuses, hangs, is read-only, full, flushed or restarted are made here.
"""

from __future__ import annotations

import asyncio
import errno
from contextlib import suppress
from contextvars import Context
from hashlib import sha1
from itertools import count
from random import Random
from typing import Any

from fakeredis import FakeServer
from fakeredis import _msgs as msgs
from fakeredis._commands import command
from fakeredis._helpers import SimpleError
from fakeredis._socket import AsyncFakeSocket
from fakeredis._socket._resp import convert_to_resp2
from fakeredis.aioredis import FakeAsyncRedisConnection, FakeReader, FakeWriter
from fakeredis.commands_mixins import scripting_mixin
from fakeredis.commands_mixins.scripting_mixin import LUA_MODULE
from fakeredis.model import is_write_command
from redis.asyncio import BlockingConnectionPool
from redis.exceptions import TimeoutError as RedisTimeoutError

import storage.redis.client as client_module
from storage.redis import connection as connection_module
from storage.redis.address import RedisAddress
from storage.redis.connection import ACQUIRE_TIMEOUT_S
from tests.simulation.accidents import Accident, Accidents, State
from tests.simulation.calls import name_of_commands
from tests.simulation.events import Events
from tests.simulation.processes import loop_of_world
from tests.simulation.rest import Rest

_DELAY_S = 0.0002
"""Mean time of the way to Redis, and of the way back."""

_INFO = b"redis_version:7.4.1\r\nmaxmemory_policy:noeviction\r\n"

GROWS = frozenset("set mset msetnx zadd hset incrby decrby rpush hincrby incr decr".split())
"""Commands of ours that a server without memory refuses."""

_READ_ONLY = "READONLY You can't write against a read only replica."
_FULL = "OOM command not allowed when used memory > 'maxmemory'."


class Redis:
    """The server of one world. Its state is changed by the world's schedule."""

    def __init__(self, random: Random, events: Events, accidents: Accidents, rest: Rest) -> None:
        self.accidents = accidents
        self._rest = rest
        self.fake: Any = FakeServer(version=(7, 4))
        vars(self.fake)["simulated"] = self
        self._is_read_only = False
        self._is_full = False
        self.commands = 0
        self.delay_s = _DELAY_S
        self._random = random
        self._events = events
        self._state = State.UP
        self._connections: dict[Connection, None] = {}  # in their order: that of a set is by address
        self._kept: list[tuple[AsyncFakeSocket, bytes]] = []
        self.compiled: dict[bytes, Any] = {}
        """Scripts that Lua has compiled, by their texts."""
        self._changed = asyncio.Event()

    @property
    def state(self) -> State:
        return self._state

    def be(self, state: State) -> None:
        """Change the state. One that refuses has closed every connection."""
        self._events.note("redis", state=state)
        self._rest.trouble()
        self._state = state
        if state is State.REFUSING:
            self.cut_all()
            self._kept.clear()
        if state is State.UP:
            kept, self._kept = self._kept, []
            for socket, data in kept:
                self.run(socket, data)
        self._changed.set()
        self._changed = asyncio.Event()

    def be_read_only(self, is_read_only: bool) -> None:
        """Refuse writes from now on, as a replica does, or take them again."""
        self._events.note("redis", read_only=is_read_only)
        self._rest.trouble()
        self._is_read_only = is_read_only

    def be_full(self, is_full: bool) -> None:
        """Refuse what needs memory from now on, or take it again."""
        self._events.note("redis", full=is_full)
        self._rest.trouble()
        self._is_full = is_full

    def refusal_of(self, command: str) -> str | None:
        """The error of a command that is refused now."""
        if self._is_read_only and is_write_command(command.encode()):
            return _READ_ONLY
        return _FULL if self._is_full and command in GROWS else None

    def flush(self) -> None:
        """FLUSHALL."""
        self._events.note("redis", state="flushed")
        self._rest.trouble()
        self._clear()

    def restart(self, *, is_empty: bool) -> None:
        """Close every connection and forget the scripts; with `is_empty` all data, too."""
        self._events.note("redis", state="restarted", empty=is_empty)
        self.cut_all()
        self.fake.script_cache.clear()
        if is_empty:
            self._clear()

    def _clear(self) -> None:
        with self.fake.lock:
            for database in self.fake.dbs.values():
                database.clear()

    def cut_all(self) -> None:
        """Close every connection."""
        self._rest.trouble()
        for connection in list(self._connections):
            connection.cut()

    def forget_dead(self) -> None:
        """Close the connections of processes that have ended, as their system does."""
        for connection in [each for each in self._connections if each.owner is not None and each.owner.is_dead]:
            self.closed(connection)

    def travel_s(self) -> float:
        """A time of one way to it."""
        return self._random.expovariate(1.0) * self.delay_s

    async def answer(self) -> None:
        """Wait until it takes connections. Raises ConnectionRefusedError while nothing listens."""
        while self._state is State.FROZEN:
            await self._changed.wait()
        if self._state is State.REFUSING:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "nothing listens")

    def run(self, socket: AsyncFakeSocket, data: bytes) -> None:
        """Do commands now, by the clock of the server; later, while it hangs."""
        if self._state is State.FROZEN:
            self._kept.append((socket, data))
            return
        self.commands += 1
        if socket.responses is not None:  # not `sendall`: what a killed process has sent before is done, too
            _OWN.run(socket._parser.send, data)

    def opened(self, connection: Connection) -> None:
        self._connections[connection] = None

    def closed(self, connection: Connection) -> None:
        """Its socket is gone: a subscriber that stayed would be sent every message."""
        if connection._sock is not None:
            with self.fake.lock:
                connection._sock.kill()
        self._connections.pop(connection, None)


RESP = 2

_numbers = count()

_OWN = Context()
"""The context of the server: no process, so no wrong clock."""


class Socket(AsyncFakeSocket):
    """fakeredis's end of a connection, with `INFO`, and with the refusals of a server that is read-only or full.

    Its number is its hash: subscribers are in a set, and get a message in its order.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._number = next(_numbers)
        super().__init__(*args, **options)

    def __hash__(self) -> int:
        return self._number

    @command(name="INFO", fixed=(), repeat=(bytes,))
    def info(self, *_sections: bytes) -> bytes:
        return _INFO

    def hrandfield(self, key: Any, *args: bytes) -> Any:
        """As Redis, whose answer for no hash is an empty list if a count is given."""
        return super().hrandfield(key, *args) or ([] if args else None)

    def eval(self, script: bytes, numkeys: int, *keys_and_args: bytes) -> Any:
        """As fakeredis, for a third of the cost: a script is compiled once, and Lua collects its garbage by itself."""
        server: Any = self._server
        server.script_cache[sha1(script, usedforsecurity=False).hexdigest().encode()] = script
        lua = self._get_server_runtime(server)
        function = server.simulated.compiled.get(script)
        if function is None:
            function = server.simulated.compiled[script] = lua.compile(script)
        server._lua_current_socket[0] = self
        server._lua_set_keys_argv(lua.table_from(keys_and_args[:numkeys]), lua.table_from(keys_and_args[numkeys:]))
        self._script_resp = 2
        try:
            result = function()
        except LUA_MODULE.LuaError as error:
            raise SimpleError(f"ERR {error}") from error
        finally:
            self._script_resp = None
        return self._convert_lua_result(result, nested=False)

    def _run_command(self, func: Any, sig: Any, args: Any, from_script: bool) -> Any:
        server: Any = self._server
        simulated: Redis = server.simulated
        refusal = simulated.refusal_of(sig.name)
        if refusal is not None:
            raise SimpleError(refusal)
        if self._pubsub or self._resp_version != RESP or (from_script and msgs.FLAG_NO_SCRIPT in sig.flags):
            return super()._run_command(func, sig, args, from_script)
        return self._run_plainly(func, sig, args)

    def _run_plainly(self, func: Any, sig: Any, args: Any) -> Any:
        """As fakeredis, without messages about keys and without looking at the types of its own results."""
        items: list[Any] = []
        self._subkey_events = []
        try:
            applied = sig.apply(args, self._db, self.version)
            if len(applied) == 1:
                return applied[0]
            values, items = applied
            result = func(*values)
            if msgs.FLAG_SKIP_CONVERT_TO_RESP2 not in sig.flags:
                result = convert_to_resp2(result, self.server_type)
        except SimpleError as error:
            result = error
        for item in items:
            item.writeback(remove_empty_val=msgs.FLAG_LEAVE_EMPTY_VAL not in sig.flags)
        return result


class Connection(FakeAsyncRedisConnection):
    """A connection of one process, over which commands and answers travel."""

    def __init__(self, *, simulated: Redis, **options: Any) -> None:
        self._simulated = simulated
        self.owner = loop_of_world().current_process()
        self._is_cut = False
        self._is_answered = True
        super().__init__(server=simulated.fake, **options)

    def cut(self) -> None:
        """Close it from the other end. Commands under way may be done or not."""
        self._is_cut = True
        self._simulated.closed(self)
        socket = self._sock
        if socket is not None:
            _OWN.run(socket._response_available.set)

    async def _connect(self) -> None:
        async with asyncio.timeout(self.socket_connect_timeout):
            await asyncio.sleep(self._simulated.travel_s())
            await self._simulated.answer()
        self._is_cut = False
        self._sock = Socket(
            self._server,
            self.db,
            client_class=self._client_class,
            lua_modules=self._lua_modules,
            client_info=self._client_info,
        )
        self._reader = FakeReader(self._sock)
        self._writer = FakeWriter(self._sock)
        self._simulated.opened(self)

    async def disconnect(self, nowait: bool = False, **options: Any) -> None:  # noqa: FBT002 - redis-py's
        self._simulated.closed(self)
        await super().disconnect(nowait=nowait, **options)

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:  # noqa: ARG002, FBT002
        if not self.is_connected:
            await self.connect()  # type: ignore[no-untyped-call]
        socket = self._sock
        data = command if isinstance(command, bytes) else b"".join(command)
        process = loop_of_world().current_process()
        accident = None if process is None else self._simulated.accidents.draw(process, lambda: name_of_commands(data))
        try:
            await asyncio.sleep(self._simulated.travel_s())
            if process is not None and accident in (Accident.CUT_BEFORE, Accident.CRASH_BEFORE):
                await self._simulated.accidents.happen(accident, process, self)
            if self._is_cut:
                self._raise_cut()
        except BaseException:
            await self.disconnect(nowait=True)
            raise
        if socket is not None:
            self._simulated.run(socket, data)
        self._is_answered = False
        if process is not None and accident in (Accident.CUT_AFTER, Accident.CRASH_AFTER):
            await self._simulated.accidents.happen(accident, process, self)

    async def read_response(self, *args: Any, **options: Any) -> Any:
        if not self._is_answered:
            self._is_answered = True
            try:
                await asyncio.sleep(self._simulated.travel_s())
            except BaseException:
                await self.disconnect(nowait=True)
                raise
        return await super().read_response(*args, **options)

    async def _read_response(self, *, timeout: float | None = None, **_: Any) -> Any:  # noqa: ASYNC109 - redis-py's
        """The next answer. None: there is none within the time that the caller gave."""
        socket: Any = self._sock
        if socket is None or not await self._is_answer_there(
            socket, self.socket_timeout if timeout is None else timeout
        ):
            if timeout is not None and socket is not None:
                return None
            raise RedisTimeoutError("Timeout reading from the server")
        if socket.responses.empty():
            self._raise_cut()
        return socket.responses.get_nowait()

    async def _is_answer_there(self, socket: Socket, within_s: float | None) -> bool:
        """Wait for an answer, or for the end of the connection."""
        if not socket.responses.empty() or self._is_cut:
            return True
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while socket.responses.empty() and not self._is_cut:
                    socket._response_available.clear()
                    await socket._response_available.wait()
        return not socket.responses.empty() or self._is_cut

    async def can_read_destructive(self) -> bool:
        """Whether it has something unread. Raises when it was closed while nobody used it."""
        if self._is_cut:
            self._raise_cut()
        return self._sock is not None and not self._sock.responses.empty()

    def _raise_cut(self) -> None:
        raise self._connection_error_class("Connection closed by server.")


def replace_connections(server: Redis) -> None:
    """Let every client of this process have connections to this server."""

    def connection_pool(address: RedisAddress, connections_max: int) -> BlockingConnectionPool:
        limits = {
            **connection_module._connection(address),
            "max_connections": connections_max,
            "timeout": ACQUIRE_TIMEOUT_S,
        }
        return BlockingConnectionPool(connection_class=Connection, simulated=server, **limits)

    vars(client_module)["connection_pool"] = connection_pool
    vars(scripting_mixin)["_check_for_lua_globals"] = _nothing  # the tests of the scripts check that


def _nothing(*_: object) -> None: ...
