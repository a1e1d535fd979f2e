"""A proxy in front of Postgres that loses connections at random: before a statement arrives, or after it was done and
before its reply.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from random import Random
from typing import Self

from tests.connections import Connections

CHUNK_BYTES = 1 << 16


class RandomCuts:
    """Forwards to the port of Postgres. While `share` is above 0, so many of the chunks that clients send are the last
    of their connection: half of them arrive and are not answered, half never arrive.
    """

    def __init__(self, random: Random) -> None:
        self.share = 0.0
        self.before = 0
        self.after = 0
        self.port = 0
        self._random = random
        self._target = 0
        self._connections = Connections(self._serve)

    async def __aenter__(self) -> Self:
        self.port = await self._connections.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connections.close()

    def lead_to(self, port: int) -> None:
        self._target = port

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            server, to_server = await asyncio.open_connection("127.0.0.1", self._target)
            replying = asyncio.create_task(_copy(server, writer))
            try:
                await self._forward(reader, to_server, server, replying)
            finally:
                replying.cancel()
                await asyncio.gather(replying, return_exceptions=True)
                to_server.close()
                writer.transport.abort()

    async def _forward(
        self,
        reader: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
        server: asyncio.StreamReader,
        replying: asyncio.Task[None],
    ) -> None:
        while data := await reader.read(CHUNK_BYTES):
            if self._random.random() >= self.share:
                to_server.write(data)
                await to_server.drain()
            elif self._random.random() < 0.5:
                self.before += 1
                return
            else:
                replying.cancel()
                await asyncio.gather(replying, return_exceptions=True)
                to_server.write(data)
                await server.read(1)  # a reply begins when the statement is committed
                self.after += 1
                return


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
        writer.close()
