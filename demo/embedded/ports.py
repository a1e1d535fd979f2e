"""Ports for servers that restart on the same port."""

import secrets
import socket
from typing import Final

from demo.embedded.errors import EmbeddedError

# Below the range for outgoing connections of Linux (from 32768) and macOS (from 49152). Otherwise a client that retries
# a stopped server can get the server's own port, connect to itself, and block the server's restart.
_PORTS: Final = range(20_000, 32_000)


def free_port() -> int:
    """Return a port of 127.0.0.1 that is not in use and is never given to an outgoing connection."""
    for _ in range(1000):
        port = secrets.choice(_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise EmbeddedError(f"no free port from {_PORTS.start} to {_PORTS.stop - 1}")
