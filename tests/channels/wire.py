"""HTTP servers that send exactly the bytes of a test, and a proxy that alters responses."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import urlsplit

from tests.connections import stop_listening


class WireRequest(NamedTuple):
    """A received request: the target exactly as sent, header names in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    raw: bytes


class WireResponse(NamedTuple):
    """A response. `Content-Length` is added when it is written."""

    status: int
    headers: dict[str, str]
    body: bytes


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Peer:
    """A server for one test. `over` is set at its end, for a talk that waits."""

    port: int = 0
    connections: int = 0
    open_now: int = 0
    open_most: int = 0
    requests: list[WireRequest] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def serving(
    talk: Callable[[Peer, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[Peer]:
    """Serve on 127.0.0.1 until the block ends."""
    peer = Peer()
    talks: set[asyncio.Task[None]] = set()

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer.connections += 1
        peer.open_now += 1
        peer.open_most = max(peer.open_most, peer.open_now)
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await talk(peer, reader, writer)
        finally:
            peer.open_now -= 1
            writer.close()

    def start(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(accepted(reader, writer))
        talks.add(task)
        task.add_done_callback(talks.discard)

    server = await asyncio.start_server(start, "127.0.0.1", 0)
    peer.port = server.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        peer.over.set()
        await asyncio.wait_for(await stop_listening(server), 60)
        await asyncio.gather(*talks)


def always(
    response: bytes, *, then_close: bool = False
) -> Callable[[Peer, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """Send this response to every request of a connection."""

    async def talk(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not reader.at_eof():
            peer.requests.append(await read_request(reader))
            writer.write(response)
            await writer.drain()
            if then_close:
                return

    return talk


def respond_with(
    *parts: bytes, reset: bool = False
) -> Callable[[Peer, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """Read one request, send these bytes, and close or reset the connection."""

    async def talk(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer.requests.append(await read_request(reader))
        for part in parts:
            writer.write(part)
            await writer.drain()
        if reset:
            reset_connection(writer)

    return talk


def reset_connection(writer: asyncio.StreamWriter) -> None:
    """Send RST instead of FIN."""
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def read_request(reader: asyncio.StreamReader) -> WireRequest:
    head = await reader.readuntil(b"\r\n\r\n")
    method, target, headers = _read_head(head)
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return WireRequest(method, target, headers, body, head + body)


def _read_head(head: bytes) -> tuple[str, str, dict[str, str]]:
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    pairs = (line.split(":", 1) for line in lines)
    one, two, _ = first.split(" ", 2)
    return one, two, {name.lower(): value.strip() for name, value in pairs}


def http_bytes(response: WireResponse) -> bytes:
    """The response as bytes, with the connection closed after it. Headers that are not ASCII are UTF-8."""
    lines = [f"HTTP/1.1 {response.status} Status", f"content-length: {len(response.body)}", "connection: close"]
    lines += [f"{name}: {value}" for name, value in response.headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + response.body


Alter = Callable[[WireRequest, WireResponse], WireResponse | bytes | None]
"""Replacement of a response: another response, raw bytes, or None for silence until the caller hangs up."""


def untouched(_: WireRequest, response: WireResponse) -> WireResponse:
    return response


class Proxy:
    """A proxy between an adapter and the simulated channel that records exchanges and alters responses."""

    def __init__(self, behind: str) -> None:
        parts = urlsplit(behind)
        self._behind = (parts.hostname, parts.port)
        self.alter: Alter = untouched
        self.exchanges: list[tuple[WireRequest, WireResponse]] = []

    async def talk(self, _: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await read_request(reader)
        response, was_cut = await self._ask(request)
        self.exchanges.append((request, response))
        altered = b"" if was_cut else self.alter(request, response)
        if altered is None:
            await reader.read()
            return
        writer.write(altered if isinstance(altered, bytes) else http_bytes(altered))
        await writer.drain()

    async def _ask(self, request: WireRequest) -> tuple[WireResponse, bool]:
        """The simulated channel's response, and whether it was cut off."""
        reader, writer = await asyncio.open_connection(*self._behind)
        try:
            writer.write(request.raw.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
            raw = await reader.read()
        finally:
            writer.close()
        head, _, body = raw.partition(b"\r\n\r\n")
        _, status, headers = _read_head(head)
        kept = {name: headers[name] for name in headers if name not in ("content-length", "connection", "date")}
        return WireResponse(int(status), kept, body), len(body) < int(headers.get("content-length", "0"))
