"""A link to a server on this machine whose answers come later, as from another data centre."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

READ_BYTES = 1 << 18


@dataclass
class SlowLink:
    """The port of 127.0.0.1 to connect to, and when that was first done, in Unix seconds; 0: not yet."""

    port: int = 0
    used_at: float = 0.0


@asynccontextmanager
async def slow_link(port: int, delay_s: float) -> AsyncIterator[SlowLink]:
    """Yield a link to `port` of 127.0.0.1; every answer is `delay_s` late, and none waits for another."""
    tasks: set[asyncio.Task[None]] = set()
    link = SlowLink()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        link.used_at = link.used_at or time.time()
        with suppress(asyncio.CancelledError):  # at the end; the server of asyncio would print it
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(_carry(reader, far_writer, 0.0), _carry(far_reader, writer, delay_s))
        tasks.discard(task)

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    link.port = server.sockets[0].getsockname()[1]
    try:
        yield link
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
    """Carry bytes one way until their sender closes. They are read at once and written when they are due, in order."""
    loop = asyncio.get_running_loop()
    due: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def write() -> None:
        while (entry := await due.get())[1]:
            await asyncio.sleep(entry[0] - loop.time())
            writer.write(entry[1])

    writing = asyncio.ensure_future(write())
    try:
        with suppress(ConnectionError):
            while data := await reader.read(READ_BYTES):
                due.put_nowait((loop.time() + delay_s, data))
        due.put_nowait((0.0, b""))
        await writing
    finally:
        writing.cancel()
        writer.close()
