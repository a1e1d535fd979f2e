"""No answer is larger or slower than the client's limits, whatever the far side sends."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import httpx
import pytest

from nodrop_client import (
    AnswerTooLarge,
    AnswerTooSlow,
    AsyncClient,
    Client,
    NoAnswer,
    NotDefinite,
    Retries,
    UnreadableAnswer,
)
from tests.clients.far_side import KEY, NEW, ORDER, URL, Both, Far, answered
from tests.connections import serving

ONCE = Retries(total_s=0)
BODY = json.dumps(ORDER).encode()


class Parts(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body in equal parts, each of which takes a second."""

    def __init__(self, far: Far, part: bytes, count: int) -> None:
        self._far, self._part, self._count = far, part, count
        self.taken = 0
        self.is_closed = False

    def __iter__(self) -> Iterator[bytes]:
        while self.taken < self._count:
            self.taken += 1
            self._far.now += 1
            yield self._part

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self:
            yield part

    def close(self) -> None:
        self.is_closed = True

    async def aclose(self) -> None:
        self.close()


class Streaming(Far):
    """Answers the first request with `count` parts, and the next ones with an order."""

    def __init__(self, part: bytes = b" ", count: int = 1_000_000, packing: str = "identity") -> None:
        super().__init__(answered(ORDER))
        self.parts = Parts(self, part, count)
        self._packing = packing

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if self.requests:
            return super().__call__(request)
        self.requests.append(request)
        return httpx.Response(200, headers={"content-encoding": self._packing}, stream=self.parts)


# -- time --------------------------------------------------------------------------------------------------------------


def test_an_answer_that_does_not_end_is_given_up(both: Both) -> None:
    far = Streaming()
    with pytest.raises(AnswerTooSlow, match="within 30 s") as raised:
        both.call(far, "place", NEW, retries=ONCE)
    assert isinstance(raised.value, NoAnswer), "the outcome is unknown"
    assert (far.parts.taken, far.parts.is_closed) == (31, True)


def test_the_time_is_an_option(both: Both) -> None:
    far = Streaming()
    with pytest.raises(AnswerTooSlow, match=r"within 2\.5 s"):
        both.call(far, "get", "A-1", retries=ONCE, limits={"timeout_s": 2.5})
    assert far.parts.taken == 3


def test_a_call_whose_answer_was_too_slow_is_sent_again(both: Both) -> None:
    far = Streaming()
    assert both.call(far, "place", NEW).order_no == "A-1"
    assert (len(far.requests), far.pauses) == (2, [0.5])


def test_an_answer_in_many_parts_is_whole_in_time(both: Both) -> None:
    far = Streaming(b" ", 29)
    with pytest.raises(UnreadableAnswer, match="not JSON"):
        both.call(far, "get", "A-1", retries=ONCE)


async def test_the_time_ends_whatever_of_a_request_is_late() -> None:
    """As a name that is not resolved, or a head that comes byte by byte."""

    class Silent(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            await asyncio.Event().wait()
            raise AssertionError(request)

    async with (
        httpx.AsyncClient(transport=Silent()) as http,
        AsyncClient(URL, KEY, timeout_s=0.01, retries=ONCE, http=http) as client,
    ):
        with pytest.raises(AnswerTooSlow):
            await client.get("A-1")


# -- size --------------------------------------------------------------------------------------------------------------


def test_an_answer_that_is_too_large_is_not_read_to_its_end(both: Both) -> None:
    far = Streaming(bytes(1024), 100)
    with pytest.raises(AnswerTooLarge, match="more than 4096 bytes") as raised:
        both.call(far, "place", NEW, limits={"answer_bytes_max": 4096, "timeout_s": 1000})
    assert (far.parts.taken, far.parts.is_closed, len(far.requests)) == (5, True, 1)
    assert (isinstance(raised.value, UnreadableAnswer), raised.value.status) == (True, 200)


@pytest.mark.parametrize(("spare", "is_taken"), [(0, True), (-1, False)])
def test_the_size_is_an_option(both: Both, spare: int, *, is_taken: bool) -> None:
    far = Streaming(BODY, 1)
    limits = {"answer_bytes_max": len(BODY) + spare}
    if is_taken:
        assert both.call(far, "get", "A-1", limits=limits).order_no == "A-1"
        return
    with pytest.raises(AnswerTooLarge):
        both.call(far, "get", "A-1", limits=limits)


def test_what_counts_is_the_size_without_its_packing(both: Both) -> None:
    packed = gzip.compress(bytes(1024 * 1024))
    assert len(packed) < 4096
    with pytest.raises(AnswerTooLarge):
        both.call(Streaming(packed, 1, "gzip"), "get", "A-1", limits={"answer_bytes_max": 4096})
    assert both.call(Streaming(gzip.compress(BODY), 1, "gzip"), "get", "A-1").order_no == "A-1"


@pytest.mark.parametrize("packing", ["gzip, gzip", "br", "zstd", "unknown"])
def test_a_body_that_is_packed_as_nobody_asked_is_not_unpacked(both: Both, packing: str) -> None:
    """A few kilobytes in layers, or in these forms, may be gigabytes."""
    far = Streaming(b" ", 5, packing)
    with pytest.raises(UnreadableAnswer, match="packed"):
        both.call(far, "get", "A-1")
    assert far.parts.taken == 0


def test_an_error_is_not_larger_either(both: Both) -> None:
    with pytest.raises(AnswerTooLarge) as raised:
        both.call(Far(httpx.Response(503, content=bytes(5000))), "get", "A-1", limits={"answer_bytes_max": 4096})
    assert raised.value.status == 503


def test_a_watch_goes_on_beyond_an_answer_that_is_too_large(both: Both) -> None:
    far = Far(answered(ORDER), httpx.Response(200, content=bytes(5000)))
    with pytest.raises(NotDefinite) as raised:
        both.call(far, "watch", "A-1", timeout_s=60, limits={"answer_bytes_max": 4096})
    assert isinstance(raised.value.__cause__, AnswerTooLarge)
    assert raised.value.order is not None


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
async def test_a_server_that_sends_for_ever_is_left(*, is_async: bool) -> None:
    """Over a real connection, which is closed then: the server notices."""
    is_left = asyncio.Event()

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
        with suppress(ConnectionError):
            while True:
                writer.write(bytes(64 * 1024))
                await writer.drain()
        is_left.set()

    async with serving(send) as port:
        read = _read(f"http://127.0.0.1:{port}", is_async=is_async)
        with pytest.raises(AnswerTooLarge):
            await read
        async with asyncio.timeout(60):
            await is_left.wait()


async def _read(url: str, *, is_async: bool) -> None:
    bytes_max = 1024 * 1024
    if is_async:
        async with AsyncClient(url, KEY, answer_bytes_max=bytes_max) as client:
            await client.get("A-1")
    else:
        with Client(url, KEY, answer_bytes_max=bytes_max) as other:
            await asyncio.to_thread(other.get, "A-1")
