"""Names that hang, and what goes on beside them, on the loop of the processes that serve."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from importlib import import_module
from pathlib import Path
from unittest.mock import Mock
from urllib.parse import urlsplit, urlunsplit

import pytest

from demo.embedded import free_port
from runtime.resolver import Loop
from storage.postgres.address import read_address
from storage.postgres.database import connect
from storage.redis.address import read_redis_address
from storage.redis.client import open_redis
from tests.connections import full_backlog
from tests.runtime.nameserver import Nameserver, nameserver
from tests.storage.tls_server import self_signed, server_context

HANGING = [f"hangs-{number}.test" for number in range(8)]
NAMES = {"merchant.test": ["127.0.0.1"], "two.test": ["127.0.0.2", "127.0.0.3"]}


def on_loop(test: Callable[[Nameserver], Awaitable[None]]) -> None:
    """Run the test on such a loop, with a nameserver that does not answer for `HANGING`."""
    port = free_port()

    async def run() -> None:
        async with nameserver(port, NAMES, HANGING) as server, asyncio.timeout(60):
            await test(server)

    with asyncio.Runner(loop_factory=lambda: Loop([f"127.0.0.1:{port}"])) as runner:
        runner.run(run())


def hang(server: Nameserver) -> list[asyncio.Task[object]]:
    loop = asyncio.get_running_loop()
    return [asyncio.create_task(loop.getaddrinfo(name, 443)) for name in server.silent]


async def connected_to(host: str, port: int, tls: ssl.SSLContext | None = None) -> str:
    """The address of the connection to a name."""
    _, writer = await asyncio.open_connection(host, port, ssl=tls)
    address = str(writer.get_extra_info("peername")[0])
    writer.close()
    return address


async def nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


@pytest.fixture(autouse=True)
def long_lookups(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that hangs does so for the whole test."""
    monkeypatch.setattr("runtime.resolver.LOOKUP_TIMEOUT_S", 60.0)
    monkeypatch.setattr("runtime.resolver.QUERY_TRIES", 12)


def test_names_that_hang_delay_no_other_name() -> None:
    async def test(server: Nameserver) -> None:
        hanging = hang(server)
        await server.unanswered.wait()
        found = await asyncio.get_running_loop().getaddrinfo("merchant.test", 443)
        assert {entry[4] for entry in found} == {("127.0.0.1", 443)}
        assert found == await asyncio.get_running_loop().getaddrinfo(b"merchant.test", 443), "as anyio has it"
        assert not any(task.done() for task in hanging)
        for task in hanging:
            task.cancel()

    on_loop(test)


def test_postgres_and_redis_by_name_are_connected_to_while_other_names_hang(database_url: str, redis_url: str) -> None:
    def by_name(url: str) -> str:
        parts = urlsplit(url)
        return urlunsplit(parts._replace(netloc=parts.netloc.replace("127.0.0.1", "merchant.test")))

    async def test(server: Nameserver) -> None:
        hanging = hang(server)
        await server.unanswered.wait()
        postgres = await connect(read_address(by_name(database_url), "private"))
        assert await postgres.fetchval("SELECT 1") == 1
        await postgres.close()
        redis = open_redis(read_redis_address(by_name(redis_url), "private"))
        assert await redis.ping()
        await redis.aclose()
        assert not any(task.done() for task in hanging)
        for task in hanging:
            task.cancel()

    assert "127.0.0.1" in database_url
    assert "127.0.0.1" in redis_url
    on_loop(test)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "2130706433", "0x7f.1"])
def test_an_address_needs_no_lookup(host: str) -> None:
    async def test(names: Nameserver) -> None:
        server = await asyncio.start_server(nothing, "127.0.0.1", 0)
        async with server:
            assert await connected_to(host, server.sockets[0].getsockname()[1]) == "127.0.0.1"
        assert names.queried == []

    on_loop(test)


def test_a_lookup_that_hangs_ends_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.resolver.LOOKUP_TIMEOUT_S", 0.05)

    async def test(server: Nameserver) -> None:
        with pytest.raises(OSError, match="TimeoutError: hangs"):
            await connected_to(HANGING[0], 443)

    on_loop(test)


def test_a_name_without_an_address_is_an_error() -> None:
    async def test(server: Nameserver) -> None:
        with pytest.raises(OSError, match=r"nobody\.test is not resolved"):
            await connected_to("nobody.test", 443)

    on_loop(test)


def test_the_second_address_is_connected_to_if_the_first_refuses() -> None:
    async def test(_: Nameserver) -> None:
        server = await asyncio.start_server(nothing, "127.0.0.3", 0)
        async with server:
            assert await connected_to("two.test", server.sockets[0].getsockname()[1]) == "127.0.0.3"

    on_loop(test)


def test_the_second_address_is_connected_to_if_the_first_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.resolver.CONNECT_TIMEOUT_S", 0.1)

    async def test(_: Nameserver) -> None:
        server = await asyncio.start_server(nothing, "127.0.0.3", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            with full_backlog("127.0.0.2", port):
                assert await connected_to("two.test", port) == "127.0.0.3"

    on_loop(test)


@pytest.mark.parametrize("name", ["merchant.test", "other.test"])
def test_the_certificate_of_a_server_is_for_its_name(name: str, tmp_path: Path) -> None:
    certificate = self_signed(name)
    trusting = ssl.create_default_context(cadata=certificate.pem)

    async def test(_: Nameserver) -> None:
        server = await asyncio.start_server(nothing, "127.0.0.1", 0, ssl=server_context(certificate, tmp_path))
        port = server.sockets[0].getsockname()[1]
        async with server:
            if name == "merchant.test":
                assert await connected_to("merchant.test", port, trusting) == "127.0.0.1"
            else:
                with pytest.raises(ssl.SSLCertVerificationError):
                    await connected_to("merchant.test", port, trusting)

    on_loop(test)


@pytest.mark.parametrize("module", ["api.__main__", "worker.__main__"])
def test_web_and_worker_run_on_this_loop(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loops: list[type] = []

    async def serve(*_: object) -> None:
        loops.append(type(asyncio.get_running_loop()))

    main = import_module(module)
    monkeypatch.setattr(main, "serve" if module.startswith("api") else "run", serve)
    monkeypatch.setattr(main, "start", Mock())
    main.main.main([], standalone_mode=False)
    assert loops == [Loop]
