"""Connections to channels: when one is used again, where a body ends, certificates, and the tunnel of a proxy."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from channels import carrier
from channels.egress_proxy import EgressProxy
from channels.http_connection import Connection
from channels.transport import Transport
from core.errors import ChannelUnavailable, OutcomeUnknown
from runtime.resolver import Loop
from tests.channels.wire import Peer, always, read_request, serving
from tests.flows.test_deliveries import serving_tls
from tests.flows.test_merchant_connection import relaying
from tests.servers import eventually
from tests.storage.tls_server import Certificate, self_signed

TIMEOUT_S = 20.0
ROUNDS = 3


async def bodies(url: str, *, rounds: int = ROUNDS) -> list[bytes]:
    """Bodies of POST requests one after another, by one transport."""
    async with Transport(timeout_s=TIMEOUT_S) as transport:
        return [(await transport.call("POST", url, headers={}, body=b"x")).body for _ in range(rounds)]


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok",
    ],
)
async def test_a_connection_is_used_again(response: bytes) -> None:
    async with serving(always(response)) as channel:
        assert await bodies(channel.url) == [b"ok"] * ROUNDS
    assert (channel.connections, len(channel.requests)) == (1, ROUNDS)


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokmore",
    ],
)
async def test_a_connection_that_ends_or_says_too_much_is_used_once(response: bytes) -> None:
    """Bytes that come after a response are not taken for the next one."""
    async with serving(always(response)) as channel:
        assert await bodies(channel.url) == [b"ok"] * ROUNDS
    assert channel.connections == ROUNDS


async def test_a_body_without_a_length_ends_with_its_connection() -> None:
    async with serving(always(b"HTTP/1.1 200 OK\r\n\r\nok", then_close=True)) as channel:
        assert await bodies(channel.url) == [b"ok"] * ROUNDS


async def test_a_connection_that_the_channel_has_ended_is_not_used_again() -> None:
    """Otherwise a request would be sent that nobody answers, and its outcome would be unknown."""
    ok = always(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", then_close=True)
    async with serving(ok) as channel, Transport(timeout_s=TIMEOUT_S) as transport:
        for _ in range(ROUNDS):
            await transport.call("POST", channel.url, headers={}, body=b"x")
            await eventually(lambda: channel.open_now == 0)
    assert (channel.connections, len(channel.requests)) == (ROUNDS, ROUNDS)


async def test_a_connection_that_waited_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carrier, "KEPT_S", 0.0)
    async with serving(always(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")) as channel:
        assert await bodies(channel.url) == [b"ok"] * ROUNDS
    assert channel.connections == ROUNDS


@pytest.mark.parametrize("name", ["X-One\r\nX-Two", "X One", "X:One"])
async def test_a_header_of_two_lines_is_not_sent(name: str) -> None:
    async with serving(always(b"")) as channel, Transport(timeout_s=TIMEOUT_S) as transport:
        for headers in ({name: "1"}, {"X-One": "1\r\nX-Two: 2"}, {"X-One": "é"}):
            with pytest.raises(OutcomeUnknown, match="not_http"):
                await transport.call("GET", channel.url, headers=headers)
    assert channel.connections == 0


async def test_an_address_is_sent_encoded_where_http_needs_it() -> None:
    ok = always(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    async with serving(ok) as channel, Transport(timeout_s=TIMEOUT_S) as transport:
        for path in ("", "?a=/b", "/a%20b c?d=\r\né#f"):
            await transport.call("GET", channel.url + path, headers={})
    assert [request.target for request in channel.requests] == ["/", "/?a=/b", "/a%20b%20c?d=%0D%0A%C3%A9"]


@pytest.mark.parametrize("piece", [b"X: x\r\n" * 100, b"x" * 1000], ids=["many trailers", "a long one"])
async def test_trailers_without_end_are_not_read(piece: bytes) -> None:
    async def talk(_peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: ")
        while True:
            writer.write(piece)
            await writer.drain()

    async with serving(talk) as channel:
        with pytest.raises(ChannelUnavailable, match="RemoteProtocolError"):
            await bodies(channel.url)


async def test_a_body_in_chunks_of_a_byte_is_read() -> None:
    size = 100_000
    chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * size + b"0\r\n\r\n"
    async with serving(always(chunks)) as channel:
        assert await bodies(channel.url, rounds=1) == [b"x" * size]


# -- TLS and the proxy -------------------------------------------------------------------------------------------------


async def statuses(urls: list[str], root: Certificate | None, proxy: EgressProxy | None) -> list[str]:
    """Of a call to each, by one transport; otherwise the reason why there is none."""
    found = []
    pem = None if root is None else root.pem.encode()
    async with Transport(timeout_s=TIMEOUT_S, root_pem=pem, proxy=proxy) as transport:
        for url in urls:
            try:
                found.append(str((await transport.call("GET", url, headers={})).status))
            except ChannelUnavailable as error:
                found.append(error.detail)
    return found


@pytest.mark.parametrize("loop_factory", [Loop, asyncio.new_event_loop], ids=["ours", "asyncio's"])
def test_a_server_proves_its_name_by_a_trusted_certificate(
    tmp_path: Path, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    certificate = self_signed("localhost")

    async def call() -> None:
        async with serving_tls(certificate, tmp_path) as port:
            urls = [f"https://{host}:{port}/" for host in ("localhost", "127.0.0.1", "localhost")]
            assert await statuses(urls, certificate, None) == ["200", "not_connected", "200"]
            assert await statuses(urls[:1], self_signed("localhost"), None) == ["not_connected"]
            assert await statuses(urls[:1], None, None) == ["not_connected"]

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(call())


@pytest.mark.parametrize("loop_factory", [Loop, asyncio.new_event_loop], ids=["ours", "asyncio's"])
def test_a_server_behind_the_proxy_proves_its_name_too(
    tmp_path: Path, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """Its name is looked up by the proxy alone, and a kept connection has its tunnel."""
    certificate = self_signed("one.example")

    async def call() -> list[str]:
        async with serving_tls(certificate, tmp_path) as port, relaying(port) as peer:
            way = EgressProxy(host="127.0.0.1", port=peer.port, user="user", password="p@ss")
            urls = [f"https://{name}:{port}/" for name in ("one.example", "two.example", "one.example")]
            assert await statuses(urls, certificate, way) == ["200", "not_connected", "200"]
            assert {request.headers["proxy-authorization"] for request in peer.requests} == {"Basic dXNlcjpwQHNz"}
            return [request.target.partition(":")[0] for request in peer.requests]

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        assert runner.run(call()) == ["one.example", "two.example"]


async def test_a_tunnel_that_is_refused_with_a_page_is_refused_at_once() -> None:
    refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 9\r\n\r\n<h1>no</h"
    async with serving(always(refusal)) as peer:
        way = EgressProxy(host="127.0.0.1", port=peer.port, user="", password="")
        assert await statuses(["https://one.example/"], self_signed("one.example"), way) == ["not_connected"]


@pytest.mark.parametrize("loop_factory", [Loop, asyncio.new_event_loop], ids=["ours", "asyncio's"])
def test_a_request_over_a_connection_that_has_ended_fails_at_once(
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def hang_up(_peer: Peer, _reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        """End the connection."""

    async def call() -> None:
        async with serving(hang_up) as peer:
            loop, lost = asyncio.get_running_loop(), asyncio.Event()

            class Watched(Connection):
                def connection_lost(self, exc: Exception | None) -> None:
                    super().connection_lost(exc)
                    lost.set()

            _, connection = await loop.create_connection(Watched, "127.0.0.1", peer.port)
            await lost.wait()
            with pytest.raises(httpx.ReadError):
                await connection.send(b"GET / HTTP/1.1\r\n\r\n")

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(call())
