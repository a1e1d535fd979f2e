import time
from pathlib import Path
from signal import SIGKILL

import asyncpg
import pytest

from demo.embedded import EmbeddedRedis, free_port
from demo.embedded.child import is_alive
from tests.databases import ReusedDatabase
from tests.kept_pools import KeptPools
from tests.servers import Process, eventually
from tests.storage.postgres.tools import opened


async def test_eventually_returns_the_first_truthy_answer() -> None:
    answers = iter([0, None, "here", "later"])
    assert await eventually(lambda: next(answers), interval_s=0) == "here"


async def test_eventually_awaits_what_has_to_be_awaited() -> None:
    answers = iter([0, 7])

    async def condition() -> int:
        return next(answers)

    assert await eventually(condition, interval_s=0) == 7


async def test_eventually_gives_up_with_the_last_answer() -> None:
    began_at = time.monotonic()
    with pytest.raises(AssertionError, match=r"not within 0.05 s; it returned \[\] at last"):
        await eventually(list, timeout_s=0.05)
    assert time.monotonic() - began_at < 5


async def test_process_is_awaited_by_its_line_port_and_http_answer(tmp_path: Path) -> None:
    port = free_port()
    argv = ("http.server", "--bind", "127.0.0.1", str(port))
    async with Process(*argv, env={"PYTHONUNBUFFERED": "1"}, log=tmp_path / "log") as process:
        assert "Serving HTTP" in await process.wait_for_line("Serving HTTP")
        await process.wait_for_port(port)
        await process.wait_for_http(f"http://127.0.0.1:{port}/Procfile")
        assert await process.terminate() != 0
    assert '"GET /Procfile HTTP/1.1" 200' in process.output()


async def test_waiting_ends_at_once_when_the_process_does(tmp_path: Path) -> None:
    async with Process("no_such_module", env={}, log=tmp_path / "log") as process:
        with pytest.raises(AssertionError, match="No module named no_such_module"):
            await process.wait_for_port(free_port(), timeout_s=60)


async def test_process_is_killed_and_its_output_printed_at_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pytest shows what a failing test printed."""
    async with Process("http.server", "--bind", "127.0.0.1", "0", env={}, log=tmp_path / "log") as process:
        pid = process.pid
    assert not is_alive(pid)
    assert f"-m http.server --bind 127.0.0.1 0 (pid {pid}) ended with -{SIGKILL:d}" in capsys.readouterr().out


async def test_process_sees_nothing_of_our_environment_but_what_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgres://developer")
    show = ("-n", "1", "-r", "1", "-s", "import os; print(*os.environ)")
    async with Process("timeit", *show, env={"GIVEN": "yes"}, log=tmp_path / "log") as process:
        await process.wait()
    assert "GIVEN" in process.output()
    assert "DATABASE_URL" not in process.output()


@pytest.mark.parametrize("_run", [1, 2])
def test_redis_is_empty_at_the_start_of_each_test(redis_url: str, redis_server: EmbeddedRedis, _run: int) -> None:
    import redis

    assert redis_url == redis_server.url
    with redis.Redis.from_url(redis_url, socket_timeout=60) as client:
        assert client.dbsize() == 0
        client.set("left", "behind")


@pytest.mark.parametrize(
    "left_behind",
    [
        "INSERT INTO accounts (name, channel, sealed) VALUES ('left-behind', 'sandbox', '')",
        "CREATE TABLE left_behind ()",
        "ALTER TABLE orders DISABLE TRIGGER USER",
        "SELECT 'nothing'",
    ],
)
async def test_each_test_has_a_migrated_database_of_its_own(database_url: str, left_behind: str) -> None:
    """Also when the test before left a row or another schema there."""
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("SELECT count(*) FROM accounts") == 0
    assert await connection.fetchval("SELECT to_regclass('left_behind')") is None
    assert await connection.fetchval("SELECT bool_and(tgenabled = 'O') FROM pg_trigger")
    await connection.execute(left_behind)
    await connection.close()


async def test_a_session_that_a_test_left_behind_is_ended(reused_database: ReusedDatabase) -> None:
    connection = await asyncpg.connect(reused_database.lend())
    await connection.execute("BEGIN; LOCK TABLE orders")
    reused_database.take_back()
    with pytest.raises(asyncpg.PostgresConnectionError):
        await connection.fetchval("SELECT 1")


@pytest.mark.parametrize("_run", [1, 2])
async def test_sessions_that_are_kept_keep_no_row_and_no_setting(
    reused_database: ReusedDatabase, kept_pools: KeptPools, _run: int
) -> None:
    url = reused_database.lend(keeps_pools=True)
    before = kept_pools.pids()
    async with opened(url) as database:
        assert await database.fetchval("SELECT count(*) FROM accounts") == 0
        assert await database.fetchval("SELECT current_setting('work_mem')") != "77kB"
        assert not before or await database.fetchval("SELECT pg_backend_pid()") in before, "it is not opened anew"
        await database.execute("INSERT INTO accounts (name, channel, sealed) VALUES ('left-behind', 'sandbox', '')")
        await database.execute("SET work_mem = '77kB'")
    reused_database.take_back()
    assert kept_pools.pids()


async def test_a_session_that_is_kept_is_ended_for_tests_of_sessions(
    reused_database: ReusedDatabase, kept_pools: KeptPools
) -> None:
    async with opened(reused_database.lend(keeps_pools=True)) as database:
        await database.fetchval("SELECT 1")
    reused_database.take_back()
    assert kept_pools.pids()
    connection = await asyncpg.connect(reused_database.lend())
    sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'nodrop'"
    assert await connection.fetchval(sql) == 0
    assert kept_pools.pids() == []
    await connection.close()
    reused_database.take_back()
