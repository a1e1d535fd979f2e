"""An event loop that looks names up without threads, so that a name that hangs delays nobody else.

uvloop looks names up in threads of libuv, two at a time: two names whose servers do not answer stop all other look-ups
of the process, those of Postgres and Redis too. c-ares sends every query at once, over sockets. It reads what the
system's resolver reads (`/etc/hosts`, `/etc/resolv.conf`) and keeps an answer for its time to live, an hour at most.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import uvloop
from aiodns import DNSResolver
from aiodns.error import DNSError

LOOKUP_TIMEOUT_S = 3.0
QUERY_TIMEOUT_S = 1.0
"""Time of the first query; a nameserver that is known to be quick has less. Then the next is queried, or the same."""

QUERY_TRIES = 4
"""c-ares waits five times the usual time of the nameserver, 0.25 s at least, and twice as long at each new try."""
CONNECT_TIMEOUT_S = 2.0
"""Time for each address of a name but the last, which has what is left of the caller's time."""

AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]
"""Family, type, protocol, an empty name, and the socket address: what `socket.getaddrinfo` returns."""

_T = TypeVar("_T")


class Loop(uvloop.Loop):
    """Loop of the processes that serve. An address as text, `127.1` too, is no name and needs no look-up."""

    def __init__(self, nameservers: Sequence[str] = ()) -> None:
        """`nameservers` replace those of the system, `127.0.0.1:5353`."""
        super().__init__()
        self._nameservers = nameservers
        self._resolver: DNSResolver | None = None

    async def getaddrinfo(  # type: ignore[override]
        self,
        host: str | bytes | None,
        port: int | None,
        *,
        family: int = 0,
        type: int = 0,  # noqa: A002 - asyncio's name
        proto: int = 0,
        flags: int = 0,
    ) -> list[AddressInfo]:
        """Addresses of a name.

        Raises:
            OSError: it has none, or no nameserver answered in time.
        """
        hints = {"family": family, "type": type, "proto": proto}
        numeric = _numeric(host, port, flags, **hints)
        if host is None or numeric:
            return numeric
        return await self._lookup(host.decode("ascii") if isinstance(host, bytes) else host, port, **hints)

    async def create_connection(
        self,
        protocol_factory: Callable[[], Any],
        host: Any = None,  # noqa: ANN401 - None with a socket of the caller's
        port: Any = None,  # noqa: ANN401
        **options: Any,
    ) -> Any:  # noqa: ANN401 - a transport and the protocol
        """Connect to the addresses of a name one after another, until one accepts. Its certificate is for the name."""
        if host is None or _numeric(host, port):
            return await super().create_connection(protocol_factory, host, port, **options)
        if options.get("ssl") and options.get("server_hostname") is None:
            options["server_hostname"] = host
        *others, last = [entry[4][0] for entry in await self.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        for address in others:
            with suppress(OSError):
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    return await super().create_connection(protocol_factory, address, port, **options)
        return await super().create_connection(protocol_factory, last, port, **options)

    async def shutdown_asyncgens(self) -> None:
        """End the look-ups while the loop can still hear of it."""
        if self._resolver is not None:
            await self._resolver.close()
        await super().shutdown_asyncgens()

    async def _lookup(self, host: str, port: int | None, **hints: int) -> list[AddressInfo]:
        if self._resolver is None:
            self._resolver = DNSResolver(
                nameservers=self._nameservers, loop=self, timeout=QUERY_TIMEOUT_S, tries=QUERY_TRIES
            )
        try:
            async with asyncio.timeout(LOOKUP_TIMEOUT_S):
                found = await self._resolver.getaddrinfo(host, port=port, **hints)  # type: ignore[arg-type]
        except (DNSError, TimeoutError) as error:
            raise socket.gaierror(socket.EAI_NONAME, f"{type(error).__name__}: {host} is not resolved") from error
        return [
            (node.family, node.socktype, node.protocol, "", (node.addr[0].decode(), *node.addr[1:]))
            for node in found.nodes
        ]


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """Run a process on such a loop."""
    return uvloop.run(main, loop_factory=Loop)


def _numeric(host: str | bytes | None, port: int | None, flags: int = 0, **hints: int) -> list[Any]:
    """Addresses of a text that is one, without a look-up; none of a name."""
    try:
        return socket.getaddrinfo(host, port, flags=flags | socket.AI_NUMERICHOST, **hints)
    except socket.gaierror:
        return []
