"""Ports for servers that restart on the same port."""

import os
import secrets
import socket
from functools import lru_cache
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

    It is bound seconds later, so each process takes the ports of a share of its own in turn before any other.
    """
    share = _share_of(os.getpid())
    for attempt in range(1000):
        port = share[next(_picks) % len(share)] if attempt < len(share) else secrets.choice(_PORTS)
        if is_free(port):
            return port
    raise EmbeddedError(f"no free port from {_PORTS.start} to {_PORTS.stop - 1}")


@lru_cache(maxsize=1)
def _share_of(pid: int) -> range:
    """Return ports that no other process picks while this one lives: it keeps the share's first port bound.

    Process ids alone are not enough: those of two processes that start at once may be a multiple of `_SHARES` apart.
    """
    for number in range(pid, pid + _SHARES):
        lock, *_ = share = _PORTS[number % _SHARES :: _SHARES]
        holder = socket.socket()
        try:
            holder.bind(("127.0.0.1", lock))
        except OSError:
            holder.close()
            continue
        holder.detach()  # the kernel closes it when the process has ended
        return share[1:]
    return _PORTS


def is_free(port: int, *, is_reused: bool = False) -> bool:
    """Whether this port of 127.0.0.1 is not in use. `is_reused`: connections that have ended do not count."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, is_reused)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
