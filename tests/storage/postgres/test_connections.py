"""Connections of a process: who gets the next one, and when one goes back to asyncpg's pool."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from storage.postgres.address import read_address
from storage.postgres.database import Connections, Database, _is_open, connect
from tests.servers import eventually

pytestmark = pytest.mark.usefixtures("new_sessions")  # whose pool is looked into

CONNECTIONS = 4
PID = "SELECT pg_backend_pid()"
SLEEP = "SELECT pg_sleep(30)"


@pytest.fixture
async def connections(database_url: str) -> AsyncIterator[Connections]:
    db = Database(read_address(database_url, ""))
    await db.open()
    assert db._connections is not None
    yield db._connections
    await db.close()


async def test_the_next_statement_has_the_connection_of_the_last(connections: Connections) -> None:
    pids = [await connections.run("fetchval", PID) for _ in range(5)]
    assert len(set(pids)) == 1
    assert connections._pool.get_idle_size() == 0, "it is held"


async def test_of_many_statements_at_once_each_has_a_connection_and_four_are_open(connections: Connections) -> None:
    pids = await asyncio.gather(*(connections.run("fetchval", PID) for _ in range(50)))
    assert len(set(pids)) <= CONNECTIONS
    assert connections._pool.get_size() <= CONNECTIONS


async def test_a_statement_that_fails_or_is_cancelled_gives_its_connection_back(connections: Connections) -> None:
    for _ in range(3 * CONNECTIONS):
        with pytest.raises(Exception, match="division"):
            await connections.run("fetchval", "SELECT 1 / 0")
        sleeping = asyncio.create_task(connections.run("fetchval", SLEEP))
        await asyncio.sleep(0)
        sleeping.cancel()
        await asyncio.wait({sleeping})
    assert await connections.run("fetchval", "SELECT 1") == 1
    assert connections._free + len(connections._held) == CONNECTIONS


async def test_one_who_is_given_a_connection_and_cancelled_in_the_same_moment_passes_it_on(
    connections: Connections,
) -> None:
    taken = [await connections._take() for _ in range(CONNECTIONS)]
    cancelled, next_one = (asyncio.create_task(connections.run("fetchval", PID)) for _ in range(2))
    await asyncio.sleep(0)
    connections._pass_on(taken.pop())
    cancelled.cancel()
    assert await next_one > 0
    assert cancelled.cancelled()
    for connection in taken:
        connections._pass_on(connection)
    assert len(connections._held) == CONNECTIONS


async def test_one_that_expired_under_its_statement_is_opened_anew(connections: Connections) -> None:
    before = await connections.run("fetchval", PID)
    running = asyncio.create_task(connections.run("fetchval", PID))
    await asyncio.sleep(0)
    assert await connections.expire()
    assert await running == before
    assert await connections.run("fetchval", PID) != before


async def test_one_that_the_server_closed_while_it_was_held_is_not_used_again(
    connections: Connections, database_url: str
) -> None:
    ended = await connections.run("fetchval", PID)
    [held] = connections._held
    other = await connect(read_address(database_url, ""))
    await other.fetchval("SELECT pg_terminate_backend($1)", ended)
    await other.close()
    await eventually(lambda: not _is_open(held))
    assert await connections.run("fetchval", PID) != ended
    assert connections._free + len(connections._held) == CONNECTIONS


async def test_what_is_held_goes_back_to_the_pool_when_there_is_no_work(connections: Connections) -> None:
    """The pool closes it then, after a time."""
    await connections.run("fetchval", PID)
    connections._let_go()
    await asyncio.wait(connections._releases)
    assert (connections._pool.get_idle_size(), connections._free, connections._held) == (1, CONNECTIONS, [])
