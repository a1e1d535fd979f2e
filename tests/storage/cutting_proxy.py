"""A TCP proxy in front of Postgres that loses connections at the worst moments."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from enum import StrEnum
from urllib.parse import urlsplit

from tests.connections import serving
from tests.servers import eventually

CHUNK_BYTES = 65536


class Cut(StrEnum):
    """before: the marked statement never arrives. after: it arrives and its reply never does."""

    BEFORE = "before"
    AFTER = "after"


class CuttingProxy:
    """Forwards both directions until a client's bytes hold `mark`; then it cuts that connection.

    With `Cut.AFTER` the statement is forwarded, its answer is held back, and the connection is cut once `is_done` says
    that the server has done it.
    """

    def __init__(self, url: str) -> None:
        self._server = urlsplit(url)
        self._cuts: list[tuple[bytes, Cut, Callable[[], Awaitable[bool]]]] = []
        self.done = 0

    def cut_once(self, mark: str, cut: Cut, is_done: Callable[[], Awaitable[bool]]) -> None:
        """For the next connection that says `mark`, and for it alone; several are worked off in turn."""
        self._cuts.append((mark.encode(), cut, is_done))

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = self._server.port
        assert port is not None
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)
        down = asyncio.create_task(_forward(up_reader, writer))
        try:
            while chunk := await reader.read(CHUNK_BYTES):
                if self._cuts and self._cuts[0][0] in chunk:
                    await self._lose(chunk, down, up_writer)
                    return
                up_writer.write(chunk)
                await up_writer.drain()
        except OSError:  # the client has gone
            return
        finally:
            down.cancel()
            for side in (writer, up_writer):
                side.transport.abort()

    async def _lose(self, chunk: bytes, down: asyncio.Task[None], up_writer: asyncio.StreamWriter) -> None:
        _, cut, is_done = self._cuts.pop(0)
        if cut is Cut.AFTER:
            down.cancel()
            up_writer.write(chunk)
            await up_writer.drain()
            await eventually(is_done)
        self.done += 1


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def cutting_proxy(url: str) -> AsyncIterator[tuple[CuttingProxy, str]]:
    """The proxy, and the address by which Postgres is reached through it."""
    proxy = CuttingProxy(url)
    async with serving(proxy.handle) as port:
        yield proxy, url.replace(f":{urlsplit(url).port}/", f":{port}/")
