"""Serve an application with uvicorn: inside a test as a context manager, or as a process until a signal."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager, suppress
from typing import NamedTuple

import uvicorn

from simulator.kit.asgi import App

SHUTDOWN_S = 3
"""Time for open responses after SIGTERM; platforms give 10 s or more."""

CONNECTIONS_MAX = 4096


class Tls(NamedTuple):
    """Paths of certificate and key, in PEM."""

    certificate: str
    key: str


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process that embeds it owns the signals."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._end = asyncio.Event()

    def end(self) -> None:
        self.should_exit = True
        self._end.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        """Return at once when the server ends: uvicorn looks ten times a second, each server of a test in turn."""
        seconds = 0
        while not await self.on_tick(10 * seconds):  # each tenth tick renews the header with the date
            seconds = (seconds + 1) % 86_400
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._end.wait()


class _IntendedCutFilter(logging.Filter):
    """Drops uvicorn's log line about a response that was cut on purpose."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "returned without completing response" not in record.getMessage()


_intended_cut_filter = _IntendedCutFilter()


@asynccontextmanager
async def serving(app: App, *, host: str = "127.0.0.1", port: int = 0, tls: Tls | None = None) -> AsyncIterator[str]:
    """Serve until the block ends; yield the base URL. Port 0 is a free one."""
    logging.getLogger("uvicorn.error").addFilter(_intended_cut_filter)
    listener = _listen(host, port)
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        interface="asgi3",
        proxy_headers=False,
        server_header=False,
        date_header=False,  # the application has a clock of its own
        access_log=False,
        log_config=None,
        limit_concurrency=CONNECTIONS_MAX,
        timeout_keep_alive=60,
        timeout_graceful_shutdown=SHUTDOWN_S,
        ssl_certfile=None if tls is None else tls.certificate,
        ssl_keyfile=None if tls is None else tls.key,
    )
    server = _Server(config)
    # The socket listens already: a connection from before the server's first loop turn is served then.
    task = asyncio.create_task(server.serve(sockets=[listener]))
    shown = f"[{host}]" if ":" in host else host
    try:
        yield f"{'http' if tls is None else 'https'}://{shown}:{listener.getsockname()[1]}"
    finally:
        app.stopping.set()
        server.end()
        await task


@asynccontextmanager
async def serving_all(*servers: AbstractAsyncContextManager[str]) -> AsyncIterator[list[str]]:
    """Start these servers one by one and end them together, for each takes a tenth of a second; yield their URLs."""
    stacks = [AsyncExitStack() for _ in servers]
    try:
        yield [await stack.enter_async_context(server) for stack, server in zip(stacks, servers, strict=True)]
    finally:
        await asyncio.gather(*(stack.aclose() for stack in stacks))


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket with explicit TCP: else asyncio sets no TCP_NODELAY, which costs 40 ms a response."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    return listener


def on_signal() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set from now on: to be called before a process reports that it has started."""
    loop, signalled = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled.set)
    return signalled
