"""What a network can do to an answer, byte by byte: a proxy between nodrop and the simulated channel or merchant."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from enum import StrEnum
from typing import Self
from urllib.parse import urlsplit

from demo.embedded import free_port

_ENDLESS = b"x" * (3 << 20)


class Way(StrEnum):
    """How a call ends."""

    STRAIGHT = "straight"
    REFUSED = "refused"
    RESET = "reset"
    BLACK_HOLE = "black_hole"
    RESET_IN_BODY = "reset_in_body"
    CUT_IN_BODY = "cut_in_body"
    TRUNCATED = "truncated"
    LENGTH_TOO_SMALL = "length_too_small"
    DRIP = "drip"
    HTML_PAGE = "html_page"
    NO_CONTENT = "no_content"
    REDIRECT = "redirect"
    NOT_HTTP = "not_http"
    ENDLESS = "endless"
    UNSIGNED_PAID = "unsigned_paid"
    UNSIGNED_MISSING = "unsigned_missing"


class CrookedProxy:
    """One address for good, whatever is done there. Tell it what it is `in_front_of` before it is used."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.calls = 0
        self._way = Way.STRAIGHT
        self._behind = ("127.0.0.1", 0)
        self._server: asyncio.Server | None = None
        self._held: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._hang_up()

    def in_front_of(self, url: str) -> None:
        parts = urlsplit(url)
        self._behind = (parts.hostname or "", parts.port or 80)

    async def go(self, way: Way) -> None:
        """From now on every call ends this way, also those on connections that are open."""
        await self._hang_up()
        self._way, self.calls = way, 0
        if way is not Way.REFUSED:
            await self._listen()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", self.port)

    async def _hang_up(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._held):
            task.cancel()
        await asyncio.gather(*self._held, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._held.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._serve(reader, writer)
        finally:
            self._held.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._way is Way.RESET:
            _reset(writer)
            return
        question = await _read_request(reader)
        self.calls += 1
        await self._answer(question, writer)
        await writer.drain()

    async def _answer(self, question: bytes, writer: asyncio.StreamWriter) -> None:
        match self._way:
            case Way.STRAIGHT:
                writer.write(await self._ask(question))
            case Way.BLACK_HOLE:
                await asyncio.Event().wait()
            case Way.RESET_IN_BODY:
                writer.write((await self._ask(question))[:-20])
                await writer.drain()
                _reset(writer)
            case Way.CUT_IN_BODY:
                writer.write((await self._ask(question))[:-20])
            case Way.TRUNCATED:
                head, _, body = (await self._ask(question)).partition(b"\r\n\r\n")
                writer.write(_with_length(head, len(body) - 20) + body[:-20])
            case Way.LENGTH_TOO_SMALL:
                head, _, body = (await self._ask(question)).partition(b"\r\n\r\n")
                writer.write(_with_length(head, len(body) - 20) + body)
            case Way.DRIP:
                for byte in await self._ask(question):
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(0.1)
            case way:
                writer.write(_instead(way, self._behind, question))

    async def _ask(self, question: bytes) -> bytes:
        """The whole answer of what is behind."""
        reader, writer = await asyncio.open_connection(*self._behind)
        try:
            writer.write(question.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
            return await reader.read()
        finally:
            writer.close()


def _instead(way: Way, behind: tuple[str, int], question: bytes) -> bytes:
    """An answer that nobody gave."""
    path = question.split(b" ", 2)[1]
    number = path.split(b"/")[3]
    elsewhere = b"Location: http://%s:%d%s\r\n" % (behind[0].encode(), behind[1], path)
    match way:
        case Way.HTML_PAGE:
            return _http(b"200 OK", b"<!doctype html><h1>Back soon</h1>", b"text/html")
        case Way.NO_CONTENT:
            return b"HTTP/1.1 204 No Content\r\n\r\n"
        case Way.REDIRECT:
            return _http(b"302 Found", b"", b"text/plain", elsewhere)
        case Way.NOT_HTTP:
            return b"220 mail.example ESMTP ready\r\n"
        case Way.ENDLESS:
            return _http(b"200 OK", _ENDLESS)
        case Way.UNSIGNED_MISSING:
            return _http(b"404 Not Found", b'{"code":"PAYMENT_NOT_EXIST","message":"no such payment"}')
        case Way.UNSIGNED_PAID:
            return _http(b"200 OK", _PAID.replace(b"NUMBER", number))
    raise AssertionError(way)


_PAID = (
    b'{"merchant_id":"m-crooked","out_trade_no":"NUMBER","transaction_id":"000000000000000000000000","amount":8888,'
    b'"currency":"CNY","subject":"Tea, 250 g","status":"paid","refunded_amount":0,"paid_at":"2026-11-23T04:00:00Z",'
    b'"expires_at":"2038-01-19T03:14:07Z","pay_url":"http://127.0.0.1:9/pay"}'
)


def _http(status: bytes, body: bytes, content_type: bytes = b"application/json", more: bytes = b"") -> bytes:
    head = b"HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n%sConnection: close\r\n\r\n"
    return head % (status, content_type, len(body), more) + body


def _with_length(head: bytes, length: int) -> bytes:
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length:")]
    return b"\r\n".join([*lines, b"content-length: %d" % length, b"", b""])


async def _read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
    return head + await reader.readexactly(length)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN."""
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
