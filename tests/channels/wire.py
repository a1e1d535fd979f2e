"""The far side of a connection, byte by byte: what a test wants is what is sent."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import urlsplit


class Asked(NamedTuple):
    """A request as it came: the target exactly as sent, header names in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    raw: bytes


class Answered(NamedTuple):
    """An answer. `Content-Length` is added when it is written."""

    status: int
    headers: dict[str, str]
    body: bytes


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Peer:
    """A server of the test's own. `over` is set at its end, for a talk that waits."""

    port: int = 0
    connections: int = 0
    open_now: int = 0
    open_most: int = 0
    asked: list[Asked] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def listening(
    talk: Callable[[Peer, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[Peer]:
    """Listens on 127.0.0.1 until the block ends."""
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
        server.close()
        await asyncio.wait_for(asyncio.gather(*talks), 5)


def answering(
    *parts: bytes, reset: bool = False
) -> Callable[[Peer, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """Reads one request, sends these bytes, and hangs up, or resets the connection."""

    async def talk(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer.asked.append(await read_request(reader))
        for part in parts:
            writer.write(part)
            await writer.drain()
        if reset:
            reset_connection(writer)

    return talk


def reset_connection(writer: asyncio.StreamWriter) -> None:
    """RST instead of FIN."""
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def read_request(reader: asyncio.StreamReader) -> Asked:
    head = await reader.readuntil(b"\r\n\r\n")
    method, target, headers = _read_head(head)
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Asked(method, target, headers, body, head + body)


def _read_head(head: bytes) -> tuple[str, str, dict[str, str]]:
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    pairs = (line.split(":", 1) for line in lines)
    one, two, _ = first.split(" ", 2)
    return one, two, {name.lower(): value.strip() for name, value in pairs}


def http_answer(answered: Answered) -> bytes:
    """On the wire, with the connection closed after it. A header that is not ASCII goes out as UTF-8."""
    lines = [f"HTTP/1.1 {answered.status} Told", f"content-length: {len(answered.body)}", "connection: close"]
    lines += [f"{name}: {value}" for name, value in answered.headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + answered.body


Spoil = Callable[[Asked, Answered], Answered | bytes | None]
"""What is answered instead: another answer, raw bytes, or None for silence until the caller hangs up."""


def untouched(_: Asked, answered: Answered) -> Answered:
    return answered


class Middleman:
    """Between an adapter and the simulated channel: keeps what passes, and alters the answers as it is told."""

    def __init__(self, behind: str) -> None:
        parts = urlsplit(behind)
        self._behind = (parts.hostname, parts.port)
        self.spoil: Spoil = untouched
        self.passed: list[tuple[Asked, Answered]] = []

    async def talk(self, _: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await read_request(reader)
        answered, was_cut = await self._ask(asked)
        self.passed.append((asked, answered))
        told = b"" if was_cut else self.spoil(asked, answered)
        if told is None:
            await reader.read()
            return
        writer.write(told if isinstance(told, bytes) else http_answer(told))
        await writer.drain()

    async def _ask(self, asked: Asked) -> tuple[Answered, bool]:
        """The true channel's answer, and whether it was cut off."""
        reader, writer = await asyncio.open_connection(*self._behind)
        try:
            writer.write(asked.raw.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
            raw = await reader.read()
        finally:
            writer.close()
        head, _, body = raw.partition(b"\r\n\r\n")
        _, status, headers = _read_head(head)
        kept = {name: headers[name] for name in headers if name not in ("content-length", "connection", "date")}
        return Answered(int(status), kept, body), len(body) < int(headers.get("content-length", "0"))
