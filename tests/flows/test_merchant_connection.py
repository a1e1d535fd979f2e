"""Connections to merchants: when one is used again, what a response may be, and the same on the loop of the product."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from channels.http_connection import Connection
from flows.notify import Notifier
from runtime.resolver import Loop
from tests.channels.wire import Peer, always, read_request, respond_with, serving
from tests.flows.test_deliveries import ANY, serving_tls
from tests.flows.test_egress import stub_resolver
from tests.flows.test_notify import outgoing_notification
from tests.storage.tls_server import self_signed

KEPT = b"HTTP/1.1 204 No Content\r\n\r\n"
ROUNDS = 3


async def statuses(url: str, *, rounds: int = ROUNDS) -> list[str]:
    """Statuses of deliveries one after another, by one notifier."""
    async with Notifier(ANY) as notifier:
        return [(await notifier.deliver(outgoing_notification(url))).status for _ in range(rounds)]


@pytest.mark.parametrize(
    "response",
    [
        KEPT,
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_a_connection_is_used_again(response: bytes) -> None:
    async with serving(always(response)) as merchant:
        assert all(status.startswith("2") for status in await statuses(merchant.url))
    assert (merchant.connections, len(merchant.requests)) == (1, ROUNDS)


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nmore",
        b"HTTP/1.1 200 OK\r\nContent-Length: 400000\r\n\r\n" + bytes(400_000),
    ],
)
async def test_a_connection_that_ends_or_says_too_much_is_used_once(response: bytes) -> None:
    """Bytes that come after a response are not taken for the next one."""
    async with serving(always(response)) as merchant:
        assert await statuses(merchant.url) == ["200"] * ROUNDS
    assert merchant.connections == ROUNDS


async def test_a_connection_that_the_merchant_has_closed_is_not_used_again() -> None:
    async with serving(always(KEPT, then_close=True)) as merchant:
        assert await statuses(merchant.url) == ["204"] * ROUNDS
    assert merchant.connections == ROUNDS


@pytest.mark.parametrize("last", [b"", b"HTTP/1.1 500 No\r\n"])
async def test_an_end_that_the_loop_has_not_seen_yet_is_seen(last: bytes) -> None:
    """The kernel has it. A request over such a connection would have an unknown outcome."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as server:
        _, connection = await loop.create_connection(Connection, *server.getsockname())
        merchant, _ = server.accept()
        merchant.sendall(KEPT)  # before it is asked for: nothing reads it until then
        assert (await connection.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")).status == 204
        await connection.drain()
        assert (connection.is_free, connection.is_quiet) == (True, True)
        merchant.recv(1000)
        merchant.sendall(last)
        merchant.close()
        assert (connection.is_free, connection.is_quiet) == (True, False)
        connection.abort()


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok",
    ],
)
async def test_a_response_that_can_be_read_in_two_ways_is_none(response: bytes) -> None:
    async with serving(respond_with(response)) as merchant:
        assert await statuses(merchant.url, rounds=1) == ["RemoteProtocolError"]


# -- the loop of the product, TLS and the proxy ------------------------------------------------------------------------


@asynccontextmanager
async def relaying(port: int) -> AsyncIterator[Peer]:
    """A proxy that notes each CONNECT and carries what follows to a port of this machine."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def talk(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer.requests.append(await read_request(reader))
        there, back = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(carry(reader, back), carry(there, writer))

    async with serving(talk) as peer:
        yield peer


@pytest.mark.parametrize("through_proxy", [False, True])
def test_tls_proves_the_name_on_the_loop_of_the_product(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, through_proxy: bool
) -> None:
    certificate = self_signed("one.example")
    trusting = ssl.create_default_context(cadata=certificate.pem)
    monkeypatch.setattr(ssl, "create_default_context", lambda: trusting)
    monkeypatch.setattr("flows.egress.is_allowed", lambda *_, **__: True)

    async def deliver_thrice() -> tuple[list[str], list[str]]:
        async with serving_tls(certificate, tmp_path) as port, relaying(port) as proxy:
            way = f"http://127.0.0.1:{proxy.port}" if through_proxy else ""
            address = "93.184.215.14" if through_proxy else "127.0.0.1"
            stub_resolver(monkeypatch, *([[address]] * ROUNDS))
            async with Notifier(replace(ANY, egress_proxy=way)) as notifier:
                names = ("one.example", "two.example", "one.example")
                urls = [f"https://{name}:{port}/" for name in names]
                results = [(await notifier.deliver(outgoing_notification(url))).status for url in urls]
            return results, [request.target.partition(":")[0] for request in proxy.requests]

    with asyncio.Runner(loop_factory=Loop) as runner:
        results, targets = runner.run(deliver_thrice())
    assert results == ["200", "ConnectError", "200"]
    assert targets == (["93.184.215.14"] * 2 if through_proxy else [])
