"""A raw HTTP client: sockets that stay open and the bytes of one request, nothing parsed but the end of a response."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import cast

LIMIT_S = 120.0
END = b"\r\n\r\nok"


class _Connection(asyncio.Protocol):
    def __init__(self, request: bytes, left: Iterator[int], ended: asyncio.Future[None]) -> None:
        self._request = request
        self._left = left
        self._ended = ended
        self._answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is of no such class
        self._next()

    def data_received(self, data: bytes) -> None:
        self._answer += data
        if self._answer.endswith(END):
            if not self._answer.startswith(b"HTTP/1.1 200"):
                self._ended.set_exception(RuntimeError(self._answer.decode()))
            self._answer = b""
            self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._ended.done():
            self._ended.set_exception(exc or RuntimeError("the server closed a connection"))

    def _next(self) -> None:
        if self._ended.done():
            return
        if next(self._left, None) is None:
            self._ended.set_result(None)
            self._transport.close()
        else:
            self._transport.write(self._request)


async def call_all(port: int, method: str, body: bytes, count: int, clients: int) -> None:
    """Send so many requests over `clients` connections, each of which waits for its response before the next.

    Raises:
        RuntimeError: a response was another than 200 with `ok`.
        TimeoutError: they took longer than `LIMIT_S`.
    """
    loop = asyncio.get_running_loop()
    request = b"%s / HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: %d\r\n\r\n%s" % (method.encode(), len(body), body)
    left = iter(range(count))
    ends: list[asyncio.Future[None]] = [loop.create_future() for _ in range(clients)]
    for ended in ends:
        await loop.create_connection(lambda ended=ended: _Connection(request, left, ended), "127.0.0.1", port)  # type: ignore[misc]
    async with asyncio.timeout(LIMIT_S):
        await asyncio.gather(*ends)
