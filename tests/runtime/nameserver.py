"""A nameserver for tests, over UDP on 127.0.0.1: some names have addresses, and some are never answered."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import cast

A, AAAA, NAME_ERROR = 1, 28, 3


class Nameserver(asyncio.DatagramProtocol):
    """`names` has the IPv4 addresses of each name; `silent` are names to which no query is answered."""

    def __init__(self, names: Mapping[str, Sequence[str]], silent: Sequence[str]) -> None:
        self.names = dict(names)
        self.silent = set(silent)
        self.queried: list[str] = []
        self.unanswered = asyncio.Event()
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)  # uvloop's is of no class of asyncio

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        name, kind, end = _question(data)
        self.queried.append(name)
        if self.silent <= set(self.queried):
            self.unanswered.set()
        if name in self.silent:
            return
        addresses = self.names.get(name, []) if kind == A else []
        code = 0 if name in self.names else NAME_ERROR
        head = data[:2] + struct.pack("!HHHHH", 0x8580 | code, 1, len(addresses), 0, 0)
        answers = b"".join(b"\xc0\x0c" + struct.pack("!HHIH", A, 1, 0, 4) + socket.inet_aton(one) for one in addresses)
        assert self._transport is not None
        self._transport.sendto(head + data[12:end] + answers, addr)


@asynccontextmanager
async def nameserver(
    port: int, names: Mapping[str, Sequence[str]], silent: Sequence[str] = ()
) -> AsyncIterator[Nameserver]:
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: Nameserver(names, silent), local_addr=("127.0.0.1", port)
    )
    try:
        yield server
    finally:
        transport.close()


def _question(data: bytes) -> tuple[str, int, int]:
    """Name and type of the query, and the end of its question."""
    labels, at = [], 12
    while data[at]:
        labels.append(data[at + 1 : at + 1 + data[at]].decode().lower())
        at += 1 + data[at]
    return ".".join(labels), int.from_bytes(data[at + 1 : at + 3]), at + 5
