"""A platform's router in front of the API: it loses answers on request, and answers 503 while no process listens."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from typing import Self

from tests.connections import Connections

UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class FaultyRouter:
    """A TCP proxy to one port. `losses`: so many of the next answers reach nobody, and their connections end."""

    def __init__(self, port: int) -> None:
        self.losses = 0
        self.unavailable = 0
        self.forwarded: list[bytes] = []
        self._port = port
        self._connections = Connections(self._serve)
        self.url = ""

    async def __aenter__(self) -> Self:
        self.url = f"http://127.0.0.1:{await self._connections.listen()}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connections.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while await self._exchange(reader, writer):
                pass

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Forward one request on a connection of its own; return whether the client may send another."""
        request = await _message(reader)
        try:
            behind, to_behind = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            self.unavailable += 1
            writer.write(UNAVAILABLE)
            await writer.drain()
            return False
        self.forwarded.append(request.partition(b" HTTP/")[0])
        try:
            to_behind.write(request)
            answer = await _message(behind)
        finally:
            to_behind.close()
        if self.losses:
            self.losses -= 1
            return False
        writer.write(answer)
        await writer.drain()
        return True


async def _message(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: *([0-9]+)", head.lower())
    return head + await reader.readexactly(int(length[1]) if length else 0)
