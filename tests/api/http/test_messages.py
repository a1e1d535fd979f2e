"""Every part of a message over raw sockets: request line, head, body, chunks and trailers. Each has its limit."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from api.http import protocol
from api.http.protocol import FRAMING_BYTES_MAX, HEAD_BYTES_MAX, TARGET_BYTES_MAX
from api.http.route import JSON_BODY_BYTES_MAX
from api.routes import FORM_BODY_BYTES_MAX
from core.settings import Settings
from tests.api.conftest import terms, token_of
from tests.api.http.wire import Wire, exchange
from tests.servers import Process, eventually

POST = b"POST /callbacks/anything HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
CLOSE = b"Connection: close\r\n"


def pieces(sent: bytes, size: int) -> Iterator[bytes]:
    for at in range(0, len(sent), size):
        yield sent[at : at + size]


def status(response: bytes) -> bytes:
    return response[9:12]


def head_of(size: int) -> bytes:
    """A whole head of this many bytes."""
    begin, end = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Long: ", b"\r\n\r\n"
    return begin + b"a" * (size - len(begin) - len(end)) + end


# -- the request line and the head -------------------------------------------------------------------------------------


async def test_a_head_is_taken_up_to_its_limit_however_it_is_cut(process: Process, settings: Settings) -> None:
    """In one packet, 120 KiB were served."""
    for piece in (1 << 20, 1000):
        assert status(await exchange(settings, pieces(head_of(HEAD_BYTES_MAX), piece))) == b"200"
        for size in (HEAD_BYTES_MAX + 1, 120 * 1024):
            response = await exchange(settings, pieces(head_of(size), piece))
            assert status(response) in (b"400", b""), "a reset may overtake the response"


async def test_a_request_line_has_a_limit_of_its_own(process: Process, settings: Settings) -> None:
    for size, expected in ((TARGET_BYTES_MAX, b"404"), (TARGET_BYTES_MAX + 1, b"400")):
        target = b"/" + b"a" * (size - 1)
        request = b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n" + CLOSE + b"\r\n"
        assert status(await exchange(settings, request)) == expected, size


async def test_one_host_is_expected(process: Process, settings: Settings) -> None:
    for host, version, expected in (
        (b"", b"1.1", b"400"),
        (b"Host: a\r\nHost: b\r\n", b"1.1", b"400"),
        (b"Host: a\r\nHost: a\r\n", b"1.1", b"400"),
        (b"Host: a, b\r\n", b"1.1", b"400"),
        (b"Host: a b\r\n", b"1.1", b"400"),
        (b"Host: a@b\r\n", b"1.1", b"400"),
        (b"Host:\r\n", b"1.1", b"400"),
        (b"Host: a\r\n", b"1.1", b"200"),
        (b"Host: [::1]:8000\r\n", b"1.1", b"200"),
        (b"", b"1.0", b"200"),
        (b"Host: a\r\nHost: b\r\n", b"1.0", b"400"),
    ):
        request = b"GET /healthz HTTP/" + version + b"\r\n" + host + CLOSE + b"\r\n"
        assert status(await exchange(settings, request)) == expected, request


async def test_empty_lines_between_requests_do_not_keep_a_connection(
    served: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parser begins no message at them, so nobody had a deadline for the next one."""
    monkeypatch.setattr(protocol, "HEAD_TIMEOUT_S", 0.2)
    wire = await Wire.open(settings)
    await wire.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert status(await wire.read_response()) == b"200"
    await wire.send(b"\r\n\r\n")
    assert await wire.read_all() == b""
    wire.close()


async def test_some_requests_may_be_sent_ahead_and_not_thousands(process: Process, settings: Settings) -> None:
    one = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
    assert (await exchange(settings, (one + b"\r\n") * 4 + one + CLOSE + b"\r\n")).count(b"HTTP/1.1 200") == 5
    assert (await exchange(settings, (one + b"\r\n") * 5000)).count(b"HTTP/1.1 200") < 200


# -- the body ----------------------------------------------------------------------------------------------------------


async def test_a_body_is_taken_up_to_its_limit_however_it_is_cut(
    process: Process, settings: Settings, http: httpx.AsyncClient
) -> None:
    key = b"Authorization: " + http.headers["authorization"].encode() + b"\r\nContent-Type: application/json\r\n"
    for target, headers, limit, expected in (
        (b"/callbacks/anything", b"", settings.callback_body_bytes_max, b"401"),
        (b"/v1/orders", key, JSON_BODY_BYTES_MAX, b"400"),
        (b"/o/none/refresh", b"", FORM_BODY_BYTES_MAX, b"404"),
    ):
        head = b"POST " + target + b" HTTP/1.1\r\nHost: x\r\n" + CLOSE + headers
        for size, taken in ((limit, expected), (limit + 1, b"413")):
            body = b"x" * size
            whole = head + b"Content-Length: %d\r\n\r\n" % size + body
            chunked = head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % size + body + b"\r\n0\r\n\r\n"
            for sent, piece in ((whole, 1 << 20), (whole, 9000), (chunked, 1 << 20), (chunked, 9000)):
                assert status(await exchange(settings, pieces(sent, piece))) == taken, (target, size, piece)


async def test_a_body_that_stops_ends_with_408_and_its_connection(
    short_body_timeout: None, served: str, settings: Settings
) -> None:
    for head in (POST + b"\r\n2\r\n{}\r\n", b"POST /callbacks/x HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n{}"):
        assert status(await exchange(settings, head)) == b"408"
        whole = b"POST /callbacks/x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
        came = await exchange(settings, whole + head)
        assert (status(came), b" 408 " in came) == (b"401", True), "the first had no deadline, the second has one"


# -- chunks and trailers -----------------------------------------------------------------------------------------------


async def test_a_trailer_is_never_a_header(process: Process, settings: Settings, http: httpx.AsyncClient) -> None:
    """An API key in a trailer of the same packet was accepted."""
    key = http.headers["authorization"].encode()
    head = b"GET /v1/orders HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
    trailer = b"0\r\nAuthorization: " + key + b"\r\n\r\n"
    authorized = head + b"Authorization: " + key + b"\r\n" + CLOSE + b"\r\n"
    for size in (1 << 20, 1):
        assert status(await exchange(settings, pieces(head + b"\r\n" + trailer, size))) == b"401"
        assert status(await exchange(settings, pieces(authorized + b"0\r\nHost: y\r\n\r\n", size))) == b"200"


async def test_a_trailer_does_not_reach_the_next_request(
    process: Process, settings: Settings, http: httpx.AsyncClient
) -> None:
    key = http.headers["authorization"].encode()
    next_ = b"GET /v1/orders HTTP/1.1\r\nHost: x\r\n" + CLOSE + b"\r\n"
    came = await exchange(settings, POST + b"\r\n2\r\n{}\r\n0\r\nAuthorization: " + key + b"\r\n\r\n" + next_)
    assert came.count(b"HTTP/1.1 401") == 2


TOO_MUCH = {
    "one trailer": b"2\r\n{}\r\n0\r\nX: " + b"a" * 2 * FRAMING_BYTES_MAX,
    "many trailers": b"2\r\n{}\r\n0\r\n" + b"X: a\r\n" * FRAMING_BYTES_MAX,
    "one extension": b"2;x=" + b"a" * 2 * FRAMING_BYTES_MAX,
    "many extensions": (b"1;x=" + b"a" * 1000 + b"\r\n{\r\n") * 100,
    "a long size": b"0" * 2 * FRAMING_BYTES_MAX + b"2\r\n{}\r\n0\r\n\r\n",
}


async def test_trailers_and_extensions_are_bounded(process: Process, settings: Settings) -> None:
    for name, sent in TOO_MUCH.items():
        for size in (1 << 20, 700):
            response = await exchange(settings, pieces(POST + b"\r\n" + sent, size))
            assert status(response) in (b"400", b""), (name, "a reset may overtake the response")


async def test_ordinary_chunks_extensions_and_trailers_are_taken(process: Process, settings: Settings) -> None:
    body = b"5;name=value\r\nhello\r\n" + b"1\r\nx\r\n" * 20_000 + b"0\r\nX-Checksum: 1\r\n\r\n"
    for size in (1 << 20, 1400):
        response = await exchange(settings, pieces(POST + CLOSE + b"\r\n" + body, size))
        assert status(response) == b"401", "it is read to its end, and its signature does not verify"


def peak_kib(process: Process) -> int:
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM:")))


async def test_twenty_five_megabytes_of_trailers_leave_the_memory_as_it_was(
    process: Process, settings: Settings
) -> None:
    await exchange(settings, POST + CLOSE + b"\r\n2\r\n{}\r\n0\r\n\r\n")
    before = peak_kib(process)
    for begin, part in (
        (b"", (b"X-Long: " + b"a" * 1000 + b"\r\n") * 60),
        (b"", b"X: a\r\n" * 10_000),
        (b"X: ", b"a" * 65_536),
    ):
        await exchange(settings, (POST + b"\r\n0\r\n" + begin, *[part] * 400))
    assert peak_kib(process) - before < 16 * 1024


async def test_a_refusal_is_not_mixed_with_a_stream(
    process: Process, settings: Settings, http: httpx.AsyncClient
) -> None:
    """Anything that a reader sends after its request ends the stream, and does not show in it."""
    order = (await http.post("/v1/orders", json=terms())).json()
    wire = await Wire.open(settings)
    await wire.send(f"GET /o/{token_of(order)}/events HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await wire.read_until(b"retry: ")
    await wire.send(b"\x00 this is no request\r\n\r\n")
    assert b"400" not in await wire.read_all()
    wire.close()
    await eventually(lambda: process.output().count("/o/{token}/events") == 1)
