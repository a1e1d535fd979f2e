"""Pools of connections that are kept from test to test.

A new connection takes 6 ms of CPU on both sides and prepares all its statements anew. The application of a test opens
four at its start.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import asyncpg

_MAKE_AS_NEW = "RESET ALL; SELECT pg_stat_force_next_flush()"
"""No setting of a test stays, and Postgres has counted what it wrote before its database is emptied."""


class KeptPools:
    """The pools of one event loop to databases that are lent, by the arguments with which they were made."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._databases: set[str] = set()
        self._kept: dict[str, list[asyncpg.Pool]] = {}

    def keep(self, name: str) -> None:
        """Keep pools to this database from now on."""
        self._databases.add(name)

    def let_go(self, name: str) -> bool:
        """Keep none to this database, which is to be dropped or is for tests of sessions. True: there were some."""
        self._databases.discard(name)
        keys = [key for key in self._kept if f"'{name}'" in key]
        pools = [pool for key in keys for pool in self._kept.pop(key)]
        for pool in pools:
            self._loop.call_soon_threadsafe(pool.terminate)
        return bool(pools)

    def pids(self) -> list[int]:
        """The sessions of all that is kept."""
        return [each.get_server_pid() for pools in self._kept.values() for pool in pools for each in _open(pool)]

    @contextmanager
    def replacing_pools(self) -> Iterator[None]:
        """Let `Database.open` take a pool that is kept, and its end keep it."""
        create = asyncpg.create_pool

        async def create_or_take(**arguments: Any) -> asyncpg.Pool | _Lent:
            pool = create(**arguments)
            if asyncio.get_running_loop() is not self._loop or arguments["database"] not in self._databases:
                return await pool
            key = str(sorted((name, str(value)) for name, value in arguments.items()))
            kept = self._kept.setdefault(key, [])
            while kept:
                free = kept.pop()
                if not free.is_closing():
                    return _Lent(free, kept)
            return _Lent(await pool, kept)

        with patch.object(asyncpg, "create_pool", create_or_take):
            yield


class _Lent:
    """The part of a pool that `Connections` uses. Its end is that of the loan."""

    def __init__(self, pool: asyncpg.Pool, kept: list[asyncpg.Pool]) -> None:
        self._pool = pool
        self._kept = kept
        self._is_over = False
        self.get_size, self.get_max_size = pool.get_size, pool.get_max_size
        self.release, self.expire_connections = pool.release, pool.expire_connections

    def is_closing(self) -> bool:
        return self._is_over or bool(self._pool.is_closing())

    def acquire(self) -> asyncpg.pool.PoolAcquireContext:
        """A context that is awaited or entered, as of a pool."""
        if self._is_over:
            raise asyncpg.InterfaceError("pool is closed")
        return self._pool.acquire()

    async def close(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        await asyncio.gather(*(holder.wait_until_released() for holder in self._pool._holders))
        try:
            for connection in _open(self._pool):
                await connection.execute(_MAKE_AS_NEW)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):  # the test has ended it
            self._pool.terminate()
        else:
            if not self._pool.is_closing():
                self._kept.append(self._pool)

    def terminate(self) -> None:
        self._is_over = True
        self._pool.terminate()


def _open(pool: asyncpg.Pool) -> list[Any]:
    """Its connections, unused."""
    connections = [holder._con for holder in pool._holders]
    return [connection for connection in connections if connection is not None and not connection.is_closed()]
