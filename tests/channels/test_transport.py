"""The transport: any network or server fault ends within the deadline as *unavailable* or *unreadable*."""

import asyncio
import gzip
import subprocess
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest

from channels import carrier as carrier_module
from channels.egress_proxy import EgressProxy
from channels.transport import Response, Transport
from core.errors import ChannelNotCalled, ChannelUnavailable, ChannelUnreadable, ConfigurationError, OutcomeUnknown
from tests.channels.wire import Peer, WireResponse, http_bytes, read_request, reset_connection, respond_with, serving
from tests.connections import full_backlog
from tests.servers import ROOT, eventually
from tests.storage.tls_server import self_signed

TIMEOUT_S = 20.0
SHORT_S = 1.0
"""For a test that waits for the deadline."""

OK = http_bytes(WireResponse(200, {}, b"{}"))


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    async with Transport(timeout_s=TIMEOUT_S) as opened:
        yield opened


@pytest.fixture
async def hasty_transport() -> AsyncIterator[Transport]:
    async with Transport(timeout_s=SHORT_S) as opened:
        yield opened


async def get(transport: Transport, url: str, **headers: str) -> Response:
    return await transport.call("GET", f"{url}/v1/x", headers=headers)


async def test_exactly_the_given_bytes_are_sent_and_the_raw_response_is_returned(transport: Transport) -> None:
    body = b'{"a" :\t1}\n\xff\x00'
    prepared = WireResponse(404, {"Sandbox-Signature": "t=1"}, b'\xff{"b": 2}\r\n')
    async with serving(respond_with(http_bytes(prepared))) as peer:
        answer = await transport.call("POST", f"{peer.url}/a%7Cb?c=%20d", headers={"X-One": "1"}, body=body)
    assert (answer.status, answer.body) == (404, prepared.body)
    assert answer.headers["sandbox-signature"] == "t=1"
    assert (peer.requests[0].method, peer.requests[0].target, peer.requests[0].body) == ("POST", "/a%7Cb?c=%20d", body)
    assert peer.requests[0].headers["x-one"] == "1"


async def test_a_response_in_a_log_line_shows_neither_headers_nor_body() -> None:
    answer = Response(status=200, headers={"sandbox-signature": "canary"}, body=b"canary")
    assert repr(answer) == "Response(200, 6 bytes)"


async def test_a_drip_of_bytes_does_not_stretch_the_deadline(hasty_transport: Transport) -> None:
    """Each byte comes within the read time-out, but the response never ends."""

    async def drip(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not peer.over.is_set():
            writer.write(b"x")
            await writer.drain()
            await asyncio.wait([asyncio.ensure_future(peer.over.wait())], timeout=0.05)

    async with serving(drip) as peer, asyncio.timeout(30 * SHORT_S):  # it would drip for ever
        with pytest.raises(ChannelUnavailable, match="timed_out"):
            await get(hasty_transport, peer.url)


async def test_a_drip_of_header_bytes_does_not_stretch_the_deadline_either(hasty_transport: Transport) -> None:
    async def drip(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        while not peer.over.is_set():
            writer.write(b"x")
            await writer.drain()
            await asyncio.wait([asyncio.ensure_future(peer.over.wait())], timeout=0.05)

    async with serving(drip) as peer, asyncio.timeout(30 * SHORT_S):  # it would drip for ever
        with pytest.raises(ChannelUnavailable, match="timed_out"):
            await get(hasty_transport, peer.url)


async def test_no_response_is_a_time_out(hasty_transport: Transport) -> None:
    async def silent(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await peer.over.wait()

    async with serving(silent) as peer:
        with pytest.raises(ChannelUnavailable, match="timed_out"):
            await get(hasty_transport, peer.url)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_unreadable_and_never_followed(transport: Transport, status: int) -> None:
    async with serving(respond_with(OK)) as elsewhere:
        prepared = WireResponse(status, {"Location": f"{elsewhere.url}/elsewhere"}, b"")
        async with serving(respond_with(http_bytes(prepared))) as peer:
            with pytest.raises(ChannelUnreadable, match=f"status_{status}"):
                await get(transport, peer.url)
        assert elsewhere.connections == 0


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 599])
async def test_429_and_5xx_are_unavailable_with_any_body(transport: Transport, status: int) -> None:
    async with serving(respond_with(http_bytes(WireResponse(status, {}, b'{"status":"paid"}')))) as peer:
        with pytest.raises(ChannelUnavailable, match=f"status_{status}"):
            await get(transport, peer.url)


async def test_proxy_variables_are_not_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client reads them when it is made, so it is made after they are set."""
    async with serving(respond_with(OK)) as proxy, serving(respond_with(OK)) as peer:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        async with Transport(timeout_s=TIMEOUT_S) as transport:
            assert (await get(transport, peer.url)).status == 200
        assert (proxy.connections, peer.connections) == (0, 1)


async def test_no_cookie_is_kept(transport: Transport) -> None:
    """All accounts share the client, so a cookie of one would be sent for the others."""
    prepared = WireResponse(200, {"Set-Cookie": "session=one; Path=/"}, b"{}")
    async with serving(respond_with(http_bytes(prepared))) as peer:
        for _ in range(2):
            await get(transport, peer.url)
    assert [request.headers.get("cookie") for request in peer.requests] == [None, None]


async def test_a_cookie_that_is_no_ascii_spoils_its_own_response_alone(transport: Transport) -> None:
    head = "HTTP/1.1 200 OK\r\nSet-Cookie: täglich=茶; Path=/\r\nContent-Length: 2\r\n\r\n{}".encode()
    heads = [head, OK]

    async def talk(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer.requests.append(await read_request(reader))
        writer.write(heads[len(peer.requests) - 1])
        await writer.drain()

    async with serving(talk) as peer:
        with pytest.raises(ChannelUnreadable, match="not_http"):
            await get(transport, peer.url)
        assert (await get(transport, peer.url)).status == 200
    assert [request.headers.get("cookie") for request in peer.requests] == [None, None]


def test_a_file_of_authorities_that_holds_none_is_not_replaced_by_the_system_s(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    directory = tmp_path / "authorities"
    directory.mkdir()
    (directory / "00000000.0").write_text(self_signed("other.test").pem)
    monkeypatch.setenv("SSL_CERT_DIR", str(directory))
    (tmp_path / "empty.pem").touch()
    for name in ("missing.pem", "empty.pem", "."):
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / name))
        with pytest.raises(ConfigurationError, match=r"^SSL_CERT_FILE: "):
            Transport(timeout_s=TIMEOUT_S)


async def test_a_host_is_called_through_the_egress_proxy_and_this_machine_is_not() -> None:
    async with serving(respond_with(OK)) as proxy, serving(respond_with(OK)) as peer:
        way = EgressProxy(host="127.0.0.1", port=proxy.port, user="user", password="p@ss")
        async with Transport(timeout_s=TIMEOUT_S, proxy=way) as transport:
            assert (await get(transport, "http://channel.test")).status == 200
            with pytest.raises(ChannelUnavailable):  # the proxy of this test opens no tunnel
                await get(transport, "https://channel.test")
            assert (await get(transport, peer.url)).status == 200
    assert [(request.method, request.target) for request in proxy.requests] == [
        ("GET", "http://channel.test/v1/x"),
        ("CONNECT", "channel.test:443"),
    ]
    assert {request.headers["proxy-authorization"] for request in proxy.requests} == {"Basic dXNlcjpwQHNz"}
    assert len(peer.requests) == 1


TWO_ADDRESSES = "127.0.0.2 two.test\n127.0.0.1 two.test\n"
CALL = """
import asyncio, sys
from channels.egress_proxy import EgressProxy
from channels.transport import Transport
async def main():
    async with Transport(timeout_s=20) as transport:
        print((await transport.call("GET", sys.argv[1], headers={})).status)
asyncio.run(main())
"""


@pytest.mark.parametrize("first", ["refuses", "does not answer"])
async def test_the_second_address_of_a_host_is_called_if_the_first_is_dead(tmp_path: Path, first: str) -> None:
    """The resolver is the system's, so a process has a hosts file of its own."""
    hosts = tmp_path / "hosts"
    hosts.write_text(TWO_ADDRESSES)
    mounted = ("unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', str(hosts))
    if subprocess.run([*mounted, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not mount a hosts file")
    async with serving(respond_with(OK)) as peer:
        with full_backlog("127.0.0.2", peer.port) if first == "does not answer" else nullcontext():
            process = await asyncio.create_subprocess_exec(
                *mounted, sys.executable, "-c", CALL, f"http://two.test:{peer.port}/", cwd=ROOT, stdout=PIPE
            )
            out, _ = await process.communicate()
    assert out == b"200\n"


async def test_requests_accept_no_compression(transport: Transport) -> None:
    async with serving(respond_with(OK)) as peer:
        await get(transport, peer.url)
    assert peer.requests[0].headers["accept-encoding"] == "identity"
    assert peer.requests[0].headers["user-agent"].startswith("nodrop/")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "GZIP", "identity, gzip"])
async def test_a_compressed_response_is_refused_without_unpacking_it(transport: Transport, encoding: str) -> None:
    bomb = gzip.compress(bytes(1 << 20))
    async with serving(respond_with(http_bytes(WireResponse(200, {"Content-Encoding": encoding}, bomb)))) as peer:
        with pytest.raises(ChannelUnreadable, match="compressed"):
            await get(transport, peer.url)


async def test_a_response_over_the_cap_is_refused_while_it_streams(transport: Transport) -> None:
    """The server sends the cap and the network buffers, not the promised gigabyte."""
    sent_bytes = 0

    async def endless(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent_bytes
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n")
        while not peer.over.is_set():
            writer.write(bytes(65_536))
            await writer.drain()
            sent_bytes += 65_536

    async with serving(endless) as peer:
        with pytest.raises(ChannelUnreadable, match="oversized"):
            await transport.call("GET", peer.url, headers={}, response_bytes_max=100_000)
    assert sent_bytes < 32 << 20


async def test_a_response_of_exactly_the_cap_is_read(transport: Transport) -> None:
    async with serving(respond_with(http_bytes(WireResponse(200, {}, bytes(1000))))) as peer:
        answer = await transport.call("GET", peer.url, headers={}, response_bytes_max=1000)
    assert len(answer.body) == 1000
    async with serving(respond_with(http_bytes(WireResponse(200, {}, bytes(1001))))) as peer:
        with pytest.raises(ChannelUnreadable, match="oversized"):
            await transport.call("GET", peer.url, headers={}, response_bytes_max=1000)


async def test_a_refused_connection_is_unavailable(transport: Transport) -> None:
    async with serving(respond_with(OK)) as peer:
        pass
    with pytest.raises(ChannelUnavailable, match="not_connected"):
        await get(transport, peer.url)


async def test_a_host_that_has_no_address_is_unavailable(transport: Transport) -> None:
    with pytest.raises(ChannelUnavailable):
        await get(transport, "http://no-such-host.invalid")


async def test_a_server_without_tls_is_unavailable(hasty_transport: Transport) -> None:
    async with serving(respond_with(OK)) as peer:
        with pytest.raises(ChannelUnavailable):
            await get(hasty_transport, peer.url.replace("http:", "https:"))


CUT: dict[str, Callable[[Peer, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]] = {
    "closed before a byte": respond_with(b""),
    "reset before a byte": respond_with(b"", reset=True),
    "closed in the headers": respond_with(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "closed in the body": respond_with(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", b'"status"'),
    "reset in the body": respond_with(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", b'"status"', reset=True),
    "closed within a chunk": respond_with(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n{"),
    "closed before the last chunk": respond_with(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"),
    "a chunk of no size": respond_with(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n"),
    "a length that is no number": respond_with(b"HTTP/1.1 200 OK\r\nContent-Length: ten\r\n\r\n{}"),
    "another protocol": respond_with(b"220 mail.example ESMTP ready\r\n"),
    "HTTP/2 unasked": respond_with(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "two megabytes of headers": respond_with(b"HTTP/1.1 200 OK\r\nX: " + b"a" * (2 << 20) + b"\r\n\r\n{}"),
    "a header that is no text": respond_with(
        b"HTTP/1.1 200 OK\r\nSandbox-Signature: v1=\xe9\r\nContent-Length: 0\r\n\r\n"
    ),
    "a header in UTF-8": respond_with(
        "HTTP/1.1 200 OK\r\nSandbox-Signature: v1=é\r\nContent-Length: 0\r\n\r\n".encode()
    ),
}


@pytest.mark.parametrize("cut", CUT)
async def test_a_broken_response_is_an_unknown_outcome_and_no_other_error(transport: Transport, cut: str) -> None:
    """No exception of httpx or pyreqwest gets out."""
    async with serving(CUT[cut]) as peer:
        with pytest.raises(OutcomeUnknown):
            await get(transport, peer.url)


@pytest.mark.parametrize("ending", ["close", "reset"])
async def test_a_long_response_that_breaks_off_midway_is_unavailable(transport: Transport, ending: str) -> None:
    """The headers have arrived by then, and errors come from reading the body."""

    async def breaks_off(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        for _ in range(4):
            writer.write(bytes(100_000))
            await writer.drain()
            await asyncio.wait([asyncio.ensure_future(peer.over.wait())], timeout=0.03)
        if ending == "reset":
            reset_connection(writer)

    async with serving(breaks_off) as peer:
        with pytest.raises(ChannelUnavailable):
            await get(transport, peer.url)


async def test_a_body_longer_than_its_length_is_cut_at_the_length(transport: Transport) -> None:
    """The rest is not taken for the next response."""
    async with serving(respond_with(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\n")) as peer:
        assert (await get(transport, peer.url)).body == b"{}"
        assert (await get(transport, peer.url)).body == b"{}"
        assert peer.connections == 2


@pytest.mark.parametrize(
    "url",
    ["ftp://127.0.0.1/", "http://127.0.0.1:99999/", "http://[::1/", "nonsense", "http://exa mple/", "http://\x00/"],
)
async def test_an_invalid_address_is_an_unknown_outcome(transport: Transport, url: str) -> None:
    with pytest.raises(OutcomeUnknown):
        await transport.call("GET", url, headers={})


async def test_no_more_connections_are_opened_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carrier_module, "CONNECTIONS_MAX", 3)

    async def slow(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await asyncio.wait([asyncio.ensure_future(peer.over.wait())], timeout=0.03)
        writer.write(OK)
        await writer.drain()

    async with Transport(timeout_s=TIMEOUT_S) as transport, serving(slow) as peer:
        answers = await asyncio.gather(*(get(transport, peer.url) for _ in range(12)))
        assert [answer.status for answer in answers] == [200] * 12
        assert peer.open_most <= 3


async def test_a_cancelled_call_returns_its_connection_by_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise callbacks over their budget would leave no connection for the next ones."""
    monkeypatch.setattr(carrier_module, "CONNECTIONS_MAX", 2)

    async def silent_first(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer.requests.append(await read_request(reader))
        if peer.requests[-1].target == "/silent":
            await peer.over.wait()
        writer.write(OK)
        await writer.drain()

    async with serving(silent_first) as peer, Transport(timeout_s=SHORT_S) as transport:
        calls = [asyncio.create_task(transport.call("GET", f"{peer.url}/silent", headers={})) for _ in range(2)]
        await eventually(lambda: len(peer.requests) == 2)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

        async def is_answered() -> bool:
            with suppress(ChannelUnavailable):
                return (await get(transport, peer.url)).status == 200
            return False

        await eventually(is_answered)


async def test_a_call_that_no_connection_was_free_for_was_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its outcome is known to us alone: the channel has not kept silent."""
    monkeypatch.setattr(carrier_module, "CONNECTIONS_MAX", 1)
    monkeypatch.setattr(carrier_module, "CONNECT_TIMEOUT_S", 0.2)

    async def silent(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer.requests.append(await read_request(reader))
        await peer.over.wait()
        writer.close()

    async with serving(silent) as peer, Transport(timeout_s=SHORT_S) as transport:
        first = asyncio.create_task(get(transport, peer.url))
        await eventually(lambda: len(peer.requests) == 1)
        with pytest.raises(ChannelNotCalled, match="no_connection_free"):
            await get(transport, peer.url)
        await asyncio.gather(first, return_exceptions=True)
        assert len(peer.requests) == 1


# -- the channel's time ------------------------------------------------------------------------------------------------

DATE = {"Date": "Mon, 23 Nov 2026 04:00:00 GMT"}
AT = 1_795_406_400.0


class Witnessed:
    """A clock that collects what channels say."""

    def __init__(self) -> None:
        self.heard: list[float] = []

    def read(self) -> float:
        return 1000.0

    def witness(self, _host: str, at: float) -> None:
        self.heard.append(at)


@pytest.mark.parametrize(
    ("headers", "heard"),
    [
        (DATE, [AT]),
        (DATE | {"Age": "0"}, []),
        ({}, []),
        ({"Date": "yesterday"}, []),
        ({"Date": "Mon, 23 Nov 99999999999999999999 04:00:00 GMT"}, []),
        ({"Date": "Mon, 23 Nov 2026 04:00:00 -99999999999999999999"}, []),
    ],
)
async def test_the_time_of_a_response_is_a_witness_unless_a_cache_kept_it(
    headers: dict[str, str], heard: list[float]
) -> None:
    clock = Witnessed()
    response = http_bytes(WireResponse(200, headers, b"{}"))
    async with Transport(timeout_s=TIMEOUT_S, clock=clock) as transport, serving(respond_with(response)) as peer:
        for _ in range(3):
            assert (await get(transport, peer.url)).status == 200
        assert transport.time() == 1000.0
    assert clock.heard == heard, "and no more than one a minute"
