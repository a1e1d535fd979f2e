"""Postgres and Redis of a world: their clock is its clock, and each trouble is what a process would see."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import count
from typing import Any

import asyncpg
import pytest

import storage.redis.client as client_module
from core.errors import DatabaseUnavailable, RedisUnavailable
from core.settings import read_settings
from storage.postgres.database import Database
from storage.redis.address import read_redis_address
from storage.redis.client import close_redis, open_job_redis, redis_errors
from tests.simulation.accidents import State
from tests.simulation.clock import FIRST_S, TIME
from tests.simulation.in_world import in_world, never, new_postgres, new_process, new_redis
from tests.simulation.postgres import Cluster, Postgres, replace_pools
from tests.simulation.processes import Process
from tests.simulation.redis import Redis, replace_connections

_numbers = count()

_INSERT = "INSERT INTO notify_secrets (host, secrets, sealed) VALUES ($1, 1, '\\x00')"
_COUNT = "SELECT count(*) FROM notify_secrets"


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take back what a world replaces for good."""
    monkeypatch.setattr(asyncpg, "create_pool", asyncpg.create_pool)
    monkeypatch.setattr(client_module, "connection_pool", vars(client_module)["connection_pool"])


@pytest.fixture(scope="module")
def url(worlds: Cluster) -> str:
    return worlds.new_database("stores")


@asynccontextmanager
async def database_of(server: Postgres) -> AsyncIterator[Database]:
    """A database as the processes of a world open it, with an empty table."""
    replace_pools(server)
    db = Database.from_settings(read_settings({"DATABASE_URL": server.url}))
    await db.open()
    await db.execute("DELETE FROM notify_secrets")
    try:
        yield db
    finally:
        server.close()


@asynccontextmanager
async def client_of(server: Redis) -> AsyncIterator[Any]:
    replace_connections(server)
    client = open_job_redis(read_redis_address("redis://127.0.0.1:6379"))
    try:
        yield client
    finally:
        await close_redis(client)


# -- Postgres ----------------------------------------------------------------------------------------------------------


def test_postgres_has_the_time_of_the_world_in_queries_and_in_defaults(url: str) -> None:
    async def main() -> None:
        async with database_of(new_postgres(url)) as db:
            await asyncio.sleep(3600.0)
            times = await db.fetchrow("SELECT now(), clock_timestamp(), statement_timestamp(), transaction_timestamp()")
            assert times is not None
            assert set(times.values()) == {datetime.fromtimestamp(FIRST_S + 3600, UTC)}
            await db.execute(_INSERT, "a.example")
            await asyncio.sleep(86_400.0)
            stored = await db.fetchrow("SELECT created_at, now() - created_at AS age FROM notify_secrets")
            assert stored is not None
            assert stored["created_at"] == times[0]
            assert stored["age"].total_seconds() == 86_400.0

    in_world(main)


def test_numbers_that_postgres_makes_are_the_same_in_each_run(worlds: Cluster) -> None:
    async def main() -> list[str]:
        async with database_of(new_postgres(worlds.new_database(f"numbers_{next(_numbers)}"))) as db:
            return [str(await db.fetchval("SELECT gen_random_uuid()")) for _ in range(2)]

    first, second = in_world(main), in_world(main)
    assert first == second
    assert len(set(first)) == 2


def _when(kind: str) -> Callable[[str, float], bool]:
    """Draws accidents of one kind alone."""
    return lambda name, share: share > 0 and name.endswith(kind)


@pytest.mark.parametrize(("kind", "is_done"), [("before", False), ("after", True)])
def test_a_statement_that_is_cut_off_is_done_or_not(url: str, kind: str, is_done: bool) -> None:
    async def main() -> None:
        server = new_postgres(url, _when(f"cut {kind}"))
        async with database_of(server) as db:
            server.accidents.cut_share = 1.0
            with pytest.raises(DatabaseUnavailable):
                await new_process().serve(db.execute(_INSERT, "a.example"))
            assert server.run("fetchval", _COUNT) == int(is_done)

    in_world(main)


@pytest.mark.parametrize(("kind", "is_done"), [("before", False), ("after", True)])
def test_a_process_that_is_killed_at_its_statement_hears_nothing_of_it(url: str, kind: str, is_done: bool) -> None:
    async def main() -> None:
        server = new_postgres(url, _when(f"crash {kind}"))
        async with database_of(server) as db:
            server.accidents.crash_share = 1.0
            process = new_process()
            task = process.spawn(db.execute(_INSERT, "a.example"))
            await asyncio.sleep(3600.0)
            assert process.is_dead
            assert not task.done()
            assert server.run("fetchval", _COUNT) == int(is_done)

    in_world(main)


def test_an_accident_has_the_same_name_whatever_else_its_process_calls(url: str) -> None:
    async def main(others: int) -> list[str]:
        names: list[str] = []
        server = new_postgres(url, lambda name, _: bool(names.append(name)))  # type: ignore[func-returns-value]
        async with database_of(server) as db:
            process = new_process()
            server.accidents.crash_share = 0.5
            for host in ("a.example", "b.example"):
                for _ in range(others):
                    await process.serve(db.fetchval("SELECT 1"))
                await process.serve(db.execute(_INSERT, host))
        return [name for name in names if "INSERT" in name and name.endswith("crash before")]

    alone, among_others = in_world(lambda: main(0)), in_world(lambda: main(3))
    assert alone == [f"statement worker.1 INSERT INTO notify_secrets #{nth} crash before" for nth in (1, 2)]
    assert among_others == alone


def test_a_server_that_refuses_has_closed_its_connections(url: str) -> None:
    async def main() -> None:
        server, process = new_postgres(url), new_process()
        async with database_of(server) as db:
            assert await process.serve(db.fetchval("SELECT 1")) == 1
            server.be(State.REFUSING)
            for _ in range(2):
                with pytest.raises(DatabaseUnavailable):
                    await process.serve(db.fetchval("SELECT 1"))
            server.be(State.UP)
            assert await process.serve(db.fetchval("SELECT 1")) == 1

    in_world(main)


def test_a_frozen_server_answers_late_who_still_waits(url: str) -> None:
    async def main() -> None:
        server, process = new_postgres(url), new_process()
        async with database_of(server) as db:
            await process.serve(db.fetchval("SELECT 1"))
            server.be(State.FROZEN)
            waiting = asyncio.ensure_future(process.serve(db.execute(_INSERT, "waits.example")))
            await asyncio.sleep(9.0)
            assert not waiting.done()
            server.be(State.UP)
            assert await waiting == 1
            server.be(State.FROZEN)
            with pytest.raises(DatabaseUnavailable):
                await process.serve(db.execute(_INSERT, "gives-up.example"))
            assert TIME.seconds > 19.0, "the limit of a statement"

    in_world(main)


def test_a_frozen_server_does_some_of_what_a_killed_process_has_sent(url: str) -> None:
    async def main() -> None:
        server, process = new_postgres(url), new_process()
        async with database_of(server) as db:
            await asyncio.gather(*(process.serve(db.fetchval("SELECT 1")) for _ in range(4)))
            server.be(State.FROZEN)
            for number in range(4):
                process.spawn(db.execute(_INSERT, f"{number}.example"))
            await asyncio.sleep(1.0)
            process.crash()
            server.be(State.UP)
            assert 0 < server.run("fetchval", _COUNT) < 4

    in_world(main)


def test_a_server_that_is_read_only_or_restarted_says_so(url: str) -> None:
    async def main() -> None:
        server, process = new_postgres(url), new_process()
        async with database_of(server) as db:
            server.be_read_only(True)
            with pytest.raises(DatabaseUnavailable, match="ReadOnly"):
                await process.serve(db.execute(_INSERT, "a.example"))
            assert await process.serve(db.find_fault()) == "read_only"
            server.be_read_only(False)
            began = await db.fetchval("SELECT pg_postmaster_start_time()")
            await asyncio.sleep(60.0)
            server.restart()
            assert await db.fetchval("SELECT pg_postmaster_start_time()") > began

    in_world(main)


def test_connections_that_are_let_go_are_opened_anew_before_their_next_use(url: str) -> None:
    async def main() -> None:
        server, process = new_postgres(url), new_process()
        async with database_of(server):
            pool = server.new_pool({}, 4)

            async def use() -> bool:
                idle, busy = await pool.acquire(), await pool.acquire()
                await pool.release(idle)
                await pool.expire_connections()
                await pool.release(busy)
                others = [await pool.acquire(), await pool.acquire()]
                return idle.is_closed() and not {idle, busy} & set(others)

            assert await process.serve(use())
            assert pool.get_size() == 2

    in_world(main)


def test_a_process_has_four_connections(url: str) -> None:
    async def main() -> None:
        server, process = new_postgres(url), new_process()
        async with database_of(server) as db:
            server.be(State.FROZEN)
            for number in range(6):
                process.spawn(db.execute(_INSERT, f"{number}.example"))
            await asyncio.sleep(4.0)
            server.be(State.UP)
            assert server.run("fetchval", _COUNT) <= 4
            await asyncio.sleep(4.0)
            assert server.run("fetchval", _COUNT) == 6

    in_world(main)


# -- Redis -------------------------------------------------------------------------------------------------------------


def test_redis_has_the_right_time_whatever_clock_its_client_has(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    from tests.simulation import clock

    async def main() -> None:
        monkeypatch.setattr(time, "time", clock._wall_s)
        async with client_of(new_redis()) as client:
            process = new_process()
            process.skew_s = 3600.0

            async def times() -> tuple[float, tuple[int, int]]:
                return time.time(), await client.time()

            own, (server_s, _) = await process.serve(times())
            assert own == pytest.approx(FIRST_S + 3600, abs=1.0)
            assert server_s == FIRST_S
            await process.serve(client.set("key", "value", px=10_000))
            await asyncio.sleep(9.0)
            assert await process.serve(client.get("key")) == b"value"
            await asyncio.sleep(2.0)
            assert await process.serve(client.get("key")) is None

    in_world(main)


@pytest.mark.parametrize(("kind", "is_done"), [("before", False), ("after", True)])
def test_a_command_at_which_the_process_is_killed_is_done_or_not(kind: str, is_done: bool) -> None:
    async def main() -> None:
        server = new_redis(_when(f"crash {kind}"))
        async with client_of(server) as client:
            process = new_process()
            await process.serve(client.ping())
            server.accidents.crash_share = 1.0
            process.spawn(client.incr("key"))
            await asyncio.sleep(3600.0)
            assert process.is_dead
            assert await client.get("key") == (b"1" if is_done else None)

    in_world(main)


async def _raises(client: Any, process: Process) -> None:
    async def increase() -> None:
        with redis_errors():
            await client.incr("key")

    with pytest.raises(RedisUnavailable):
        await process.serve(increase())


def test_redis_refuses_hangs_is_read_only_full_and_empty_in_turn() -> None:
    async def main() -> None:
        server, process = new_redis(never), new_process()
        async with client_of(server) as client:
            assert await process.serve(client.incr("key")) == 1
            server.be(State.REFUSING)
            await _raises(client, process)
            server.be(State.UP)
            assert await process.serve(client.incr("key")) == 2
            server.be(State.FROZEN)
            await _raises(client, process)
            assert TIME.seconds > 5.0, "the limit of a socket"
            server.be(State.UP)
            assert await process.serve(client.get("key")) == b"3", "it did what it had been sent"
            server.be_read_only(True)
            await _raises(client, process)
            assert await process.serve(client.get("key")) == b"3"
            server.be_read_only(False)
            server.be_full(True)
            await _raises(client, process)
            assert await process.serve(client.delete("other")) == 0
            server.be_full(False)
            server.restart(is_empty=False)
            assert await process.serve(client.incr("key")) == 4
            server.flush()
            assert await process.serve(client.get("key")) is None

    in_world(main)


def test_a_listener_hears_of_messages_and_of_the_end_of_its_connection() -> None:
    async def main() -> None:
        server, process = new_redis(), new_process()
        async with client_of(server) as client:
            heard: list[bytes] = []

            async def listen() -> None:
                async with client.pubsub() as pubsub:
                    await pubsub.subscribe("news")
                    while True:
                        message = await pubsub.get_message(timeout=15.0)
                        if message is not None and message["type"] == "message":
                            heard.append(message["data"])

            task = process.spawn(listen())
            await asyncio.sleep(100.0)
            await client.publish("news", "one")
            await asyncio.sleep(1.0)
            assert heard == [b"one"]
            server.cut_all()
            await asyncio.sleep(1.0)
            assert not task.done(), "redis-py connects again"
            await client.publish("news", "two")
            await asyncio.sleep(1.0)
            assert heard == [b"one", b"two"]
            process.crash()

    in_world(main)


def test_a_subscriber_that_has_left_or_was_killed_gets_nothing() -> None:
    async def main() -> None:
        server, process = new_redis(), new_process()
        async with client_of(server) as client:

            async def listen() -> None:
                async with client.pubsub() as pubsub:
                    await pubsub.subscribe("news")
                    while True:
                        await pubsub.get_message(timeout=3600.0)

            task = process.spawn(listen())
            await asyncio.sleep(1.0)
            assert await client.publish("news", "one") == 1
            task.cancel()
            await asyncio.sleep(1.0)
            assert await client.publish("news", "two") == 0
            process.spawn(listen())
            await asyncio.sleep(1.0)
            assert await client.publish("news", "three") == 1
            process.crash()
            server.forget_dead()
            assert await client.publish("news", "four") == 0

    in_world(main)
