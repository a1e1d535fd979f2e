"""uvicorn with our connections and a drain. uvicorn itself exits with 143 on SIGTERM, and waits for open streams until
it kills them.
"""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine
from errno import EACCES, EADDRINUSE, EADDRNOTAVAIL
from functools import partial
from types import FrameType
from typing import Any

import structlog
import uvicorn

from api.http.protocol import CONNECTIONS_KEPT, CONNECTIONS_MAX, Connections, Protocol
from api.http.request import Receive, Scope, Send
from core.errors import ConfigurationError
from core.settings import Settings

Application = Callable[[Scope, Receive, Send], Awaitable[None]]

OTHER_FILES = 200
"""Stores, channels, the log, libraries."""

BACKLOG = 1024
KEEP_ALIVE_S = 20

LINGER_SHARE = 0.2
LINGER_MAX_S = 2.0
"""Time for which a draining process still accepts: routers need a moment to notice that it is not ready any more."""

CLOSE_S = 1.5
"""Kept of the grace for closing the stores."""


log = structlog.get_logger()


class Server(uvicorn.Server):
    """Drains on SIGTERM: not ready and no streams at once, no new connections a little later, exit code 0 at last."""

    def __init__(self, config: uvicorn.Config, draining: asyncio.Event, *, linger_s: float) -> None:
        super().__init__(config)
        self._draining = draining
        self._linger_s = linger_s
        self._loop: asyncio.AbstractEventLoop | None = None

    def serve(self, sockets: list[socket.socket] | None = None) -> Coroutine[Any, Any, None]:
        self._loop = asyncio.get_running_loop()
        return super().serve(sockets)

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


def listen(settings: Settings) -> list[socket.socket]:
    """Listen on every address that `HOST` has, and at the console's own port if it has one. uvicorn would end the
    process without a reason that its log may show.

    Raises:
        ConfigurationError: a port is in use or may not be used, or the host is not this machine's.
    """
    listeners: list[socket.socket] = []
    ports = {"PORT": settings.port} | ({"OPS_PORT": settings.ops_port} if settings.ops and settings.ops_port else {})
    for name, port in ports.items():
        try:
            _listen(settings.host, port, listeners)
        except OSError as error:
            for listener in listeners:
                listener.close()
            raise ConfigurationError(listening_fault(error, settings.host, name, port)) from error
    return listeners


def _listen(host: str, port: int, listeners: list[socket.socket]) -> None:
    """Add the listeners of one port."""
    for family, kind, protocol, _, address in dict.fromkeys(
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    ):
        listeners.append(listener := socket.socket(family, kind, protocol))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family is socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # the same port of IPv4 is another one
        listener.bind(address)
        listener.listen(BACKLOG)


def listening_fault(error: OSError, host: str, name: str, port: int) -> str:
    if isinstance(error, socket.gaierror) or error.errno == EADDRNOTAVAIL:
        return f"HOST: {host} is no address of this machine; 0.0.0.0 is all of them"
    if error.errno == EADDRINUSE:
        return f"{name}: another process listens on port {port} of {host}; end it or set another port"
    if error.errno == EACCES:
        return f"{name}: this user may not listen on port {port}; set one from 1024 on"
    return f"{name}: port {port} of {host} cannot be listened on ({error.strerror})"


def make_server(app: Application, settings: Settings, draining: asyncio.Event) -> Server:
    """The server with all limits set here, for the sockets of `listen`. uvicorn trusts no proxy: the application reads
    `TRUSTED_PROXY_HOPS`.
    """
    grace_s = settings.shutdown_grace_s
    linger_s = min(LINGER_MAX_S, grace_s * LINGER_SHARE)
    connections = Connections(by_peer=settings.trusted_proxy_hops == 0, connections_max=_connections_max())
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=partial(Protocol, connections=connections),  # type: ignore[arg-type]  # called as the class would be
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, int(grace_s - linger_s - CLOSE_S)),
    )
    return Server(config, draining, linger_s=linger_s)


def _connections_max() -> int:
    """The most connections, within the files that the process may open. The limit for files is raised if it is low."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS_MAX + CONNECTIONS_KEPT + OTHER_FILES
    if resource.RLIM_INFINITY != soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return CONNECTIONS_MAX
    log.warning("open_files_few", count=soft)
    return max(1, soft - CONNECTIONS_KEPT - OTHER_FILES)
