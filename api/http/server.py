"""uvicorn with additions: a deadline and a cap for request heads, an end for readers that take nothing, a drain.

uvicorn itself has no time-out for headers that never end and no cap on them, exits with 143 on SIGTERM, and waits for
open streams until it kills them.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any

import structlog
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.http.request import Receive, Scope, Send
from core.settings import Settings

Application = Callable[[Scope, Receive, Send], Awaitable[None]]

HEAD_TIMEOUT_S = 10.0
HEAD_BYTES_MAX = 32 * 1024
"""nginx takes 32 KiB of headers; a channel sends two."""

UNTAKEN_TIMEOUT_MS = 30_000
CONNECTIONS_MAX = 3000
"""2,000 streams, 512 requests, and those that keep their connection for the next one."""

BACKLOG = 1024
KEEP_ALIVE_S = 20

LINGER_SHARE = 0.2
LINGER_MAX_S = 2.0
"""How long a draining process still accepts: routers need a moment to notice that it is not ready any more."""

CLOSE_S = 1.5
"""Kept of the grace for closing the stores."""


log = structlog.get_logger()


class Protocol(HttpToolsProtocol):
    """One connection. A request's head must arrive within ten seconds of the connection or of its first byte."""

    _head_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _in_head = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        _limit_untaken(transport)
        self._begin_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX:
                self.send_400_response("Request head too large.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._begin_head()

    def on_headers_complete(self) -> None:
        self._end_head()
        super().on_headers_complete()

    def _begin_head(self) -> None:
        self._end_head()
        self._in_head, self._head_bytes = True, 0
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._close_late_head)

    def _end_head(self) -> None:
        self._in_head = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _close_late_head(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()


def _limit_untaken(transport: asyncio.Transport) -> None:
    """Let the kernel drop a peer that takes nothing for half a minute, acknowledged or not. Linux only."""
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    sock: Any = transport.get_extra_info("socket")
    if option is not None and sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, option, UNTAKEN_TIMEOUT_MS)


class Server(uvicorn.Server):
    """Drains on SIGTERM: not ready and no streams at once, no new connections a little later, exit code 0 at last."""

    def __init__(self, config: uvicorn.Config, draining: asyncio.Event, *, linger_s: float) -> None:
        super().__init__(config)
        self._draining = draining
        self._linger_s = linger_s
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's
        """Runs between two bytecodes, so it only leaves a note for the loop. A second Ctrl-C does not wait.

        The signal is not kept: uvicorn would raise it again in the end, and an orderly exit is 0.
        """
        if self._draining.is_set() and sig == signal.SIGINT:
            self.force_exit = self.should_exit = True
        elif self._loop is not None:
            self._loop.call_soon_threadsafe(self.drain)

    def drain(self) -> None:
        """Begin to end. A second call has no effect."""
        if not self._draining.is_set():
            log.info("api_draining")
            self._draining.set()
            asyncio.get_running_loop().call_later(self._linger_s, self._stop)

    def _stop(self) -> None:
        self.should_exit = True


def make_server(app: Application, settings: Settings, draining: asyncio.Event) -> Server:
    """The server with all limits set here. uvicorn trusts no proxy: `TRUSTED_PROXY_HOPS` is read by the application."""
    grace_s = settings.shutdown_grace_s
    linger_s = min(LINGER_MAX_S, grace_s * LINGER_SHARE)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=Protocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=CONNECTIONS_MAX,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, int(grace_s - linger_s - CLOSE_S)),
    )
    return Server(config, draining, linger_s=linger_s)
