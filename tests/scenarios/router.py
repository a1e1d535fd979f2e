"""One public address in front of several processes, like a platform's router."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Self

from demo.embedded import free_port
from tests.connections import Connections


class Router:
    """A TCP proxy. The end of a process closes its connections; the next one goes to a running process."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._targets: tuple[int, ...] = ()
        self._connections = Connections(self._serve)

    async def __aenter__(self) -> Self:
        await self._connections.listen(self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connections.close()

    async def lead_to(self, *ports: int) -> None:
        """Route new connections to the first port that accepts them; open connections are closed."""
        self._targets = ports
        await self._connections.cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for port in self._targets:
            with suppress(OSError):
                behind, to_behind = await asyncio.open_connection("127.0.0.1", port)
                break
        else:
            return
        ways = [asyncio.create_task(_copy(reader, to_behind)), asyncio.create_task(_copy(behind, writer))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            to_behind.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
