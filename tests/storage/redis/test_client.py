import asyncio
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from signal import SIGKILL
from time import monotonic

import pytest
from arq.connections import create_pool
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from structlog.testing import capture_logs

from core.errors import ConfigurationError, RedisUnavailable
from core.settings import read_settings
from demo.embedded import Child, EmbeddedRedis, free_port
from storage.redis.address import read_redis_address, redis_address
from storage.redis.checks import check_redis
from storage.redis.client import (
    Call,
    Run,
    Script,
    close_redis,
    open_job_redis,
    open_redis,
    redis_errors,
    redis_settings,
    run_together,
)
from storage.redis.connection import CONNECTIONS_MAX
from tests.connections import serving
from tests.servers import eventually
from tests.storage.redis.tools import calls_of, client_of, frozen
from tests.storage.tls_server import REDIS_SERVER

# -- reading the address -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://localhost", ("localhost", 6379, None, None, 0)),
        ("redis://localhost:6380/", ("localhost", 6380, None, None, 0)),
        ("redis://:secret@127.0.0.1:1/3", ("127.0.0.1", 1, None, "secret", 3)),
        ("redis://default:p%40ss%2Fw%23rd%25@[::1]:6379?db=4", ("::1", 6379, "default", "p@ss/w#rd%", 4)),
        ("redis://a%3Ab:c@localhost/1?db=2&ssl_cert_reqs=none", ("localhost", 6379, "a:b", "c", 2)),
        (" redis://LOCALHOST/0\n", ("localhost", 6379, None, None, 0)),
    ],
)
def test_an_address_is_read_as_platforms_write_it(url: str, expected: tuple[object, ...]) -> None:
    found = read_redis_address(url)
    assert (found.host, found.port, found.username, found.password, found.database) == expected


@pytest.mark.parametrize(
    "url",
    ["", "localhost:6379", "http://localhost", "redis://", "redis:///0", "redis://u:p#w@localhost", "redis://[::1"],
)
def test_text_that_is_no_address_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^REDIS_URL: set it to rediss://"):
        read_redis_address(url)


@pytest.mark.parametrize(
    "url", ["redis://localhost/x", "redis://localhost/0/1", "redis://localhost?db=-1", "redis://localhost/٣"]
)
def test_a_database_is_a_number(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^REDIS_URL: its path"):
        read_redis_address(url)


def test_a_port_is_a_number() -> None:
    with pytest.raises(ConfigurationError, match=r"^REDIS_URL: its port"):
        read_redis_address("redis://localhost:65536")


def test_plaintext_to_another_machine_is_refused_unless_its_network_is_private() -> None:
    with pytest.raises(ConfigurationError, match=r"^REDIS_TLS: redis.internal .*REDIS_TLS=private"):
        read_redis_address("redis://:secret@redis.internal:6379")
    assert read_redis_address("redis://redis.internal", "private").tls.context is None
    assert read_redis_address("redis://redis.internal", "encrypt-only").tls.context is not None


def test_rediss_is_verified_even_on_this_machine_and_never_plaintext() -> None:
    assert read_redis_address("rediss://localhost").tls.name == "verify-full"
    with pytest.raises(ConfigurationError, match=r"^REDIS_TLS: REDIS_URL begins with rediss://"):
        read_redis_address("rediss://redis.internal", "private")


def test_errors_and_addresses_show_no_password() -> None:
    assert "secret" not in repr(read_redis_address("redis://:secret@localhost", sentinel_password="secret"))
    for url in (
        "redis://:secret@localhost:x",
        "redis://:secret@elsewhere",
        "redis://:secret@localhost/x",
        "x://:secret@y",
    ):
        with pytest.raises(ConfigurationError) as caught:
            read_redis_address(url)
        assert "secret" not in str(caught.value)


def test_the_settings_name_the_address() -> None:
    found = redis_address(read_settings({"REDIS_URL": "redis://redis.internal/5", "REDIS_TLS": "private"}))
    assert (found.host, found.database) == ("redis.internal", 5)


@pytest.mark.parametrize("text", ["a/b", "user@a:1", "a:x", ":26379"])
def test_sentinels_are_hosts_and_ports(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^REDIS_SENTINELS: "):
        read_redis_address("redis://localhost", "private", sentinels=text)


def test_plaintext_to_sentinels_elsewhere_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^REDIS_TLS: b\.internal"):
        read_redis_address("redis://localhost", sentinels="127.0.0.1:26379, b.internal")


# -- for the stock command ---------------------------------------------------------------------------------------------


async def test_arqs_own_settings_reach_the_same_redis(redis_url: str) -> None:
    async with client_of(redis_url) as redis:
        await redis.set("there", 1)
        arq = await create_pool(redis_settings(read_redis_address(redis_url)))
        assert await arq.get("there") == b"1"
        await arq.aclose(close_connection_pool=True)


@pytest.mark.parametrize(
    ("tls", "expected"),
    [("", ("required", True)), ("encrypt-only", ("none", False))],
)
def test_arqs_own_settings_are_as_strict_as_ours(tls: str, expected: tuple[str, bool]) -> None:
    settings = redis_settings(read_redis_address("rediss://redis.internal", tls))
    assert settings.ssl
    assert (settings.ssl_cert_reqs, settings.ssl_check_hostname) == expected


@pytest.mark.parametrize("given", [{"tls": "pin:" + "0" * 64}, {"tls": "encrypt-only", "sentinels": "a:1"}])
def test_a_mode_that_arqs_own_settings_lack_is_an_error(given: Mapping[str, str]) -> None:
    with pytest.raises(ConfigurationError, match=r"^REDIS_TLS: .*arq --check"):
        redis_settings(read_redis_address("rediss://redis.internal", **given))


# -- clients -----------------------------------------------------------------------------------------------------------


async def test_a_burst_waits_for_one_of_four_connections(redis_url: str) -> None:
    async with client_of(redis_url) as redis:
        before = (await redis.info("stats"))["total_connections_received"]
        assert sorted(await asyncio.gather(*(redis.incr("n") for _ in range(200)))) == list(range(1, 201))
        made = (await redis.info("stats"))["total_connections_received"] - before
    assert made <= CONNECTIONS_MAX


async def test_a_connection_that_breaks_under_a_command_is_made_anew_once() -> None:
    """A router that forgot it says so only then."""
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while commands := await reader.read(1000):
            if b"BREAK" in commands or (b"PING" in commands and connections == 1):
                break
            writer.write(b"+PONG\r\n" * commands.count(b"*"))

    async with serving(serve) as port, client_of(f"redis://127.0.0.1:{port}") as redis:
        assert await redis.ping()
        assert connections == 2
        with pytest.raises(RedisUnavailable), redis_errors():
            await redis.get("BREAK")
        assert connections == 3


async def test_a_frozen_redis_counts_as_unavailable(server_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.redis.connection.SOCKET_TIMEOUT_S", 0.1)
    with EmbeddedRedis(server_directory) as server:
        async with client_of(server.url) as redis:
            await redis.ping()
            with frozen(server.pid):
                began_at = monotonic()
                with pytest.raises(RedisUnavailable), redis_errors():
                    await redis.ping()
                assert monotonic() - began_at < 5  # the limit of a production process
            assert await redis.ping()


async def test_a_wrong_password_stops_the_start_and_names_the_variable(redis_url: str) -> None:
    port = read_redis_address(redis_url).port
    for url in (f"redis://:wrong@127.0.0.1:{port}", f"redis://127.0.0.1:{port}"):
        async with client_of(url) as redis:
            with pytest.raises(ConfigurationError, match=r"^REDIS_URL: Redis refuses"):
                await check_redis(redis)


async def test_a_redis_that_is_not_there_may_come_later(redis_url: str) -> None:
    async with client_of(f"redis://127.0.0.1:{free_port()}") as redis:
        with pytest.raises(RedisUnavailable):
            await check_redis(redis)
    async with client_of(redis_url) as redis:
        await check_redis(redis)


async def test_a_redis_that_may_evict_jobs_is_logged_at_start(server_directory: Path) -> None:
    with EmbeddedRedis(server_directory) as server, capture_logs() as lines:
        async with client_of(server.url) as redis:
            await check_redis(redis)
            await redis.config_set("maxmemory-policy", "volatile-lru")
            await check_redis(redis)
    assert [(line["event"], line["policy"]) for line in lines] == [("redis_may_evict_jobs", "volatile-lru")]


async def test_jobs_of_the_arq_client_are_json_and_its_pool_is_closed_with_it(redis_url: str) -> None:
    redis = open_job_redis(read_redis_address(redis_url))
    await redis.enqueue_job("query_payment", 1, _job_id="x")
    assert (await redis.get("arq:job:x")).startswith(b'{"t":null,"f":"query_payment"')
    await redis.aclose()  # an open connection would warn, and warnings are errors


async def test_connections_that_do_not_end_in_time_keep_no_process_from_ending(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine without a processor for two seconds redis-py gives up, though the socket is closed."""
    redis = open_redis(read_redis_address(redis_url))
    await redis.ping()
    disconnect = redis.connection_pool.disconnect

    async def end_late() -> None:
        await disconnect()
        raise RedisTimeoutError("Timed out closing connection after 2.0")

    monkeypatch.setattr(redis.connection_pool, "disconnect", end_late)
    await close_redis(redis)


async def test_sentinel_names_the_master(server_directory: Path, tmp_path: Path) -> None:
    if not REDIS_SERVER.exists():
        pytest.skip("no redis-server here, which is its own sentinel; on Debian: apt-get install redis-server")
    with EmbeddedRedis(server_directory) as master:
        port = free_port()
        password = read_redis_address(master.url).password
        (tmp_path / "sentinel.conf").write_text(
            f"port {port}\nbind 127.0.0.1\nrequirepass other\nsentinel monitor orders 127.0.0.1 {master.port} 1\n"
            f"sentinel auth-pass orders {password}\n"
        )
        argv = [str(REDIS_SERVER), "sentinel.conf", "--sentinel"]
        child = Child(argv, log=tmp_path / "sentinel.log", cwd=tmp_path)
        redis = open_redis(
            read_redis_address(
                f"redis://:{password}@127.0.0.1:1",  # where nobody listens
                sentinels=f"127.0.0.1:{free_port()},127.0.0.1:{port}",
                sentinel_master="orders",
                sentinel_password="other",
            )
        )

        async def reached() -> bool:
            with suppress(RedisUnavailable), redis_errors():
                return bool(await redis.set("there", 1))
            return False

        await eventually(reached)
        assert len(await asyncio.gather(*(redis.get("there") for _ in range(50)))) == 50
        await redis.aclose()
        async with client_of(master.url) as direct:
            assert await direct.get("there") == b"1"
        child.end(SIGKILL)


# -- scripts and errors ------------------------------------------------------------------------------------------------


async def test_a_script_is_sent_by_hash_and_by_text_to_a_server_that_does_not_know_it(redis_url: str) -> None:
    script = Script("return {KEYS[1], ARGV[1]}")
    async with client_of(redis_url) as redis:
        await redis.script_flush()
        before = await calls_of(redis, "eval")
        assert await script.run(redis, (["k"], [1])) == [b"k", b"1"]
        assert await script.run(redis, (["k"], [1])) == [b"k", b"1"]
        assert await calls_of(redis, "eval") - before == 1


async def test_of_scripts_that_run_together_only_the_unknown_are_sent_again(redis_url: str) -> None:
    known, new = Script("return redis.call('INCR', KEYS[1])"), Script("return {KEYS[1], ARGV[1]}")
    async with client_of(redis_url) as redis:
        await redis.script_flush()
        assert await known.run(redis, (["n"], [])) == 1
        runs: list[Run] = [(new, (["a"], [1])), (known, (["n"], [])), (new, (["b"], [2]))]
        others: list[Call] = [(["a"], ["unknown"]), (["n"], []), (["b"], ["unknown"])]
        results = await run_together(redis, runs, [("GET", "n")], if_unknown=others)
        assert results == [[b"a", b"unknown"], 2, [b"b", b"unknown"], b"2"]
        assert await run_together(redis, runs, if_unknown=others) == [[b"a", b"1"], 3, [b"b", b"2"]]


async def test_an_error_of_one_command_is_raised_after_the_answers_of_all(redis_url: str) -> None:
    async with client_of(redis_url) as redis:
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            await run_together(redis, [], [("SET", "k", "1"), ("HGET", "k", "f"), ("SET", "k", "2")])
        assert await redis.get("k") == b"2"


@pytest.mark.parametrize("error", [ResponseError("secret"), ConnectionResetError("secret"), TimeoutError("secret")])
def test_foreign_errors_become_one_of_ours_without_their_text(error: Exception) -> None:
    with pytest.raises(RedisUnavailable) as caught, redis_errors():
        raise error
    assert caught.value.__cause__ is error
    assert "secret" not in str(caught.value)


def test_touching_a_connection_that_was_lost_is_the_same_loss() -> None:
    """By uvloop's RuntimeError, while the client lets go of what it has found broken; one of our own stays one."""
    touched = RuntimeError("the handler is closed")
    touched.__context__ = ConnectionResetError()
    with pytest.raises(RedisUnavailable), redis_errors():
        raise touched
    with pytest.raises(RuntimeError, match="our own"), redis_errors():
        raise RuntimeError("a mistake of our own")


def test_our_own_mistakes_are_not_disguised() -> None:
    with pytest.raises(ZeroDivisionError), redis_errors():
        raise ZeroDivisionError
