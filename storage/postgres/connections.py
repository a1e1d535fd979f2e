"""Connections of a process: those of asyncpg's pool, each held a moment for the next statement.

To take a connection from that pool and to put it back costs as much as a small statement: a task, two time-outs and a
queue. A held one costs nothing. It goes back after a moment, after an error, and when somebody waits for one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import Any

import asyncpg

HELD_S = 1.0
ACQUIRE_TIMEOUT_S = 10.0
RELEASE_TIMEOUT_S = 0.5
"""For the end of a cancelled statement; a server that does not answer that either loses the connection."""

CLOSE_TIMEOUT_S = 2.0

STATEMENT_ELSEWHERE = (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError)
"""Errors behind a pooler, which has given the session with a statement to another client."""

# Faults after which the outcome is unknown: nothing, everything or a part was done.
UNAVAILABLE = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the server ended between two statements
    asyncpg.OperatorInterventionError,  # shut down, started up, a statement cancelled
    asyncpg.InvalidAuthorizationSpecificationError,  # its password is being changed
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientResourcesError,  # too many connections, a full disk
    asyncpg.PostgresSystemError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.TransactionRollbackError,  # a deadlock
    *STATEMENT_ELSEWHERE,
    OSError,
    TimeoutError,
)


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
