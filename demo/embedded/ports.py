"""Ports for servers that come back on the port they had."""

import secrets
import socket
from typing import Final

from demo.embedded.errors import EmbeddedError

# Below the range from which Linux (32768) and macOS (49152) take ports for outgoing connections. A client that keeps
# trying to reach a server that is down would else sooner or later be given the server's own port, connect to itself,
# and keep the server from coming back.
_PORTS: Final = range(20_000, 32_000)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, and that no outgoing connection is given while a server is down."""
    for _ in range(1000):
        port = secrets.choice(_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise EmbeddedError(f"no free port from {_PORTS.start} to {_PORTS.stop - 1}")
