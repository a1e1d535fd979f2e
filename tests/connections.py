"""The connections of a TCP server that a test puts between two others."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


class Connections:
    """A server on 127.0.0.1. Each connection is served by a task of its own, and closed at the end of that task."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def listen(self, port: int = 0, *, tls: ssl.SSLContext | None = None) -> int:
        """Accept connections at this port, or at a free one. Return the port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", port, ssl=tls)
        return int(self._server.sockets[0].getsockname()[1])

    async def cut(self) -> None:
        """End all connections that are open now."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        """Refuse connections, and end all that were accepted, also one that is not served yet."""
        server, self._server = self._server, None
        if server is not None:
            all_closed = await stop_listening(server)
            await self.cut()
            await all_closed

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection. No coroutine: one that is cancelled before it starts would leave its connection open."""
        if self._server is None:
            writer.transport.abort()
            return
        task = asyncio.create_task(self._run(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(partial(self._end, writer))

    async def _run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._serve(reader, writer)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    def _end(self, writer: asyncio.StreamWriter, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        writer.transport.abort()


@asynccontextmanager
async def serving(serve: Serve, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """The port of a server on 127.0.0.1. Nothing that it accepted is open after the block."""
    connections = Connections(serve)
    port = await connections.listen(tls=tls)
    try:
        yield port
    finally:
        await connections.close()


async def stop_listening(server: asyncio.Server) -> asyncio.Task[None]:
    """Close the listener. The task that is returned ends when every connection that it accepted is closed.

    A connection that was accepted a moment ago gets its transport first. After the close Python 3.11 gives it none, and
    leaves its socket to the garbage collector: the warning fails a test that has nothing to do with it.
    """
    loop = asyncio.get_running_loop()
    all_closed = asyncio.create_task(server.wait_closed())  # after the close Python 3.11 would not wait
    for listener in server.sockets:
        loop.remove_reader(listener)
    await asyncio.sleep(0)
    server.close()
    return all_closed


@contextmanager
def full_backlog(address: str, port: int) -> Iterator[None]:
    """A listener that takes no connection more: whoever connects gets no answer, as from a host that is away."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((address, port))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with suppress(BlockingIOError):
                waiting.connect((address, port))
        yield
