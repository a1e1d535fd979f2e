"""A proxy between nodrop and the simulated channel or merchant that breaks responses, byte by byte."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from enum import StrEnum
from typing import Self
from urllib.parse import urlsplit

from demo.embedded import free_port
from tests.connections import Connections

_ENDLESS = b"x" * (3 << 20)


class ProxyFault(StrEnum):
    """Faults of a response."""

    NO_FAULT = "no_fault"
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


class FaultyProxy:
    """A proxy with one fixed address. Call `forward_to` before it is used."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.calls = 0
        self._fault = ProxyFault.NO_FAULT
        self._target = ("127.0.0.1", 0)
        self._connections = Connections(self._serve)

    async def __aenter__(self) -> Self:
        await self._connections.listen(self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connections.close()

    def forward_to(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "", parts.port or 80)

    async def set_fault(self, fault: ProxyFault) -> None:
        """Apply this fault to every call from now on; open connections are closed."""
        await self._connections.close()
        self._fault, self.calls = fault, 0
        if fault is not ProxyFault.REFUSED:
            await self._connections.listen(self.port)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            await self._serve_one(reader, writer)

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._fault is ProxyFault.RESET:
            _reset(writer)
            return
        request = await _read_request(reader)
        self.calls += 1
        await self._answer(request, writer)
        await writer.drain()

    async def _answer(self, request: bytes, writer: asyncio.StreamWriter) -> None:
        match self._fault:
            case ProxyFault.NO_FAULT:
                writer.write(await self._forward(request))
            case ProxyFault.BLACK_HOLE:
                await asyncio.Event().wait()
            case ProxyFault.RESET_IN_BODY:
                writer.write((await self._forward(request))[:-20])
                await writer.drain()
                _reset(writer)
            case ProxyFault.CUT_IN_BODY:
                writer.write((await self._forward(request))[:-20])
            case ProxyFault.TRUNCATED:
                head, _, body = (await self._forward(request)).partition(b"\r\n\r\n")
                writer.write(_with_length(head, len(body) - 20) + body[:-20])
            case ProxyFault.LENGTH_TOO_SMALL:
                head, _, body = (await self._forward(request)).partition(b"\r\n\r\n")
                writer.write(_with_length(head, len(body) - 20) + body)
            case ProxyFault.DRIP:
                for byte in await self._forward(request):
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(0.1)
            case fault:
                writer.write(_invented_response(fault, self._target, request))

    async def _forward(self, request: bytes) -> bytes:
        """Return the whole response of the target."""
        reader, writer = await asyncio.open_connection(*self._target)
        try:
            writer.write(request.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
            return await reader.read()
        finally:
            writer.close()


def _invented_response(fault: ProxyFault, target: tuple[str, int], request: bytes) -> bytes:
    """Return a response that is not the target's."""
    path = request.split(b" ", 2)[1]
    number = path.split(b"/")[3]
    location = b"Location: http://%s:%d%s\r\n" % (target[0].encode(), target[1], path)
    match fault:
        case ProxyFault.HTML_PAGE:
            return _http(b"200 OK", b"<!doctype html><h1>Back soon</h1>", b"text/html")
        case ProxyFault.NO_CONTENT:
            return b"HTTP/1.1 204 No Content\r\n\r\n"
        case ProxyFault.REDIRECT:
            return _http(b"302 Found", b"", b"text/plain", location)
        case ProxyFault.NOT_HTTP:
            return b"220 mail.example ESMTP ready\r\n"
        case ProxyFault.ENDLESS:
            return _http(b"200 OK", _ENDLESS)
        case ProxyFault.UNSIGNED_MISSING:
            return _http(b"404 Not Found", b'{"code":"PAYMENT_NOT_EXIST","message":"no such payment"}')
        case ProxyFault.UNSIGNED_PAID:
            return _http(b"200 OK", _PAID.replace(b"NUMBER", number))
    raise AssertionError(fault)


_PAID = (
    b'{"merchant_id":"m-proxied","out_trade_no":"NUMBER","transaction_id":"000000000000000000000000","amount":8888,'
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
