"""Bytes on a connection to the server, and what comes back."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress

from core.settings import Settings

WITHIN_S = 20.0


class Wire:
    """One connection, from an address of this machine."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, settings: Settings, source: str = "127.0.0.1") -> "Wire":
        return cls(*await asyncio.open_connection(settings.host, settings.port, local_addr=(source, 0)))

    async def send(self, sent: bytes | Iterable[bytes]) -> None:
        """In these pieces. A connection that is closed meanwhile is no fault: what came back says why."""
        with suppress(ConnectionError):
            for piece in (sent,) if isinstance(sent, bytes) else sent:
                self._writer.write(piece)
                await self._writer.drain()

    async def read_response(self) -> bytes:
        """One whole response that has a Content-Length; what there is when the connection ends before."""
        async with asyncio.timeout(WITHIN_S):
            try:
                head = await self._reader.readuntil(b"\r\n\r\n")
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                return head + await self._reader.readexactly(int(length.split(b":")[1]))
            except asyncio.IncompleteReadError as ended:
                return ended.partial
            except ConnectionError:
                return b""

    async def read_until(self, text: bytes) -> bytes:
        async with asyncio.timeout(WITHIN_S):
            return await self._reader.readuntil(text)

    async def read_all(self) -> bytes:
        """Everything until the server closes or resets the connection."""
        came = b""
        with suppress(ConnectionError):
            async with asyncio.timeout(WITHIN_S):
                while block := await self._reader.read(65_536):
                    came += block
        return came

    def close(self) -> None:
        self._writer.close()


async def exchange(settings: Settings, sent: bytes | Iterable[bytes]) -> bytes:
    """Everything that comes back on a new connection until the server closes or resets it."""
    wire = await Wire.open(settings)
    try:
        await wire.send(sent)
        return await wire.read_all()
    finally:
        wire.close()
