"""Ports for servers that restart on the same port."""

import os
import secrets
import socket
from itertools import count
from typing import Final

from demo.embedded.errors import EmbeddedError

# Below the range for outgoing connections of Linux (from 32768) and macOS (from 49152). Otherwise a client that retries
# a stopped server can get the server's own port, connect to itself, and block the server's restart.
_PORTS: Final = range(20_000, 32_000)


_SHARES: Final = 120
_picks: Final = count()


def free_port() -> int:
    """Return a port of 127.0.0.1 that is not in use and is never given to an outgoing connection.

    It is bound seconds later, so each process takes its own share of the ports in turn before any other.
    """
    share = _PORTS[os.getpid() % _SHARES :: _SHARES]
    for attempt in range(1000):
        port = share[next(_picks) % len(share)] if attempt < len(share) else secrets.choice(_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise EmbeddedError(f"no free port from {_PORTS.start} to {_PORTS.stop - 1}")
