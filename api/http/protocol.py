"""One connection under uvicorn: a limit and a deadline for every part of a message, and a place for the connection.

uvicorn itself counts no bytes, has no deadline for a head, and hands trailers over as headers.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from api.http.request import Shares, Waiting, network_of

HEAD_TIMEOUT_S = 10.0
HEAD_BYTES_MAX = 32 * 1024
"""nginx takes 32 KiB of headers; a channel sends two."""

TARGET_BYTES_MAX = 8 * 1024
"""Path and query; a listing's longest has one."""

FRAMING_BYTES_MAX = 16 * 1024
"""Trailers and chunk extensions of a message, together. nodrop uses neither."""

_CHUNK_LINES_BYTES = 24
"""Sizes and line ends of one chunk, which do not count."""

_PIECE_BYTES = 4096
_PIPELINED_MAX = 16

UNTAKEN_TIMEOUT_MS = 30_000

CONNECTIONS_MAX = 3000
"""2,000 streams, 512 requests, and those that keep their connection for the next one."""

CONNECTIONS_KEPT = 200
"""Above the maximum, for health and callbacks."""

PRESSED_HEAD_S = 2.0
"""The longest time that a connection may wait for the next bytes of a head while half of the connections are taken."""

_NO_PLACE = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 2\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class Connections:
    """The connections of this process.

    Once half of the maximum is taken, an address may have a tenth of it: 100 streams, and what a busy backend keeps
    open. `by_peer`: false behind trusted proxies, which are the peers then; only their requests are shared out.
    """

    def __init__(self, *, by_peer: bool, connections_max: int = CONNECTIONS_MAX) -> None:
        all_max = connections_max + CONNECTIONS_KEPT
        per_address_max = connections_max // 10 if by_peer else all_max
        self._connections_max = connections_max
        self._shares = Shares(all_max, per_address_max, free=connections_max // 2)
        self.waiting = Waiting()

    @property
    def is_full(self) -> bool:
        """Whether only health and callbacks are served."""
        return self._shares.count > self._connections_max

    def take(self, address: str) -> bool:
        """Take a place, unless there is none for this address."""
        if self._shares.is_pressed:
            self.waiting.cut(PRESSED_HEAD_S)
        return self._shares.take(address)

    def release(self, address: str) -> None:
        self._shares.release(address)


class Protocol(HttpToolsProtocol):
    """One connection. A request's head must arrive within ten seconds of the connection or of its first byte."""

    def __init__(self, *args: Any, connections: Connections, **more: Any) -> None:
        super().__init__(*args, **more)
        self._connections = connections
        self._address = ""
        self._has_place = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._is_in_head = self._is_at_head = False
        self._head_bytes = 0
        self._framing_bytes = 0
        self._other_bytes = 0

    # -- its place

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._address = network_of(self.client[0] if self.client else "")
        self._has_place = self._connections.take(self._address)
        if not self._has_place:
            transport.write(_NO_PLACE)
            transport.close()
            return
        _limit_untaken(transport)
        self._begin_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        if self._has_place:
            self._connections.release(self._address)
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not (self.pipeline or self._is_in_head or self.transport.is_closing()):
            self._connections.waiting.begin(self, self.transport.close)

    # -- its bytes

    def data_received(self, data: bytes) -> None:
        """Feed the parser in pieces, so that no limit is passed by much before it is looked at."""
        current = self._current
        if not self._is_in_head and (current is None or current.response_complete):
            self._begin_head()  # at any byte: the parser begins no message at empty lines
            self._is_at_head = True
        at = 0
        while at < len(data) and not self.transport.is_closing():
            size = min(_PIECE_BYTES, HEAD_BYTES_MAX - self._head_bytes) if self._is_in_head else _PIECE_BYTES
            super().data_received(data[at : at + size])
            self._count(min(size, len(data) - at))
            at += size

    def send_400_response(self, msg: str) -> None:
        """A response that is under way is not mixed with this one: then the connection just ends."""
        current = self._current
        if self.pipeline or (current is not None and current.response_started and not current.response_complete):
            self.transport.close()
        else:
            super().send_400_response(msg)

    @property
    def _current(self) -> RequestResponseCycle | None:
        """The newest request; uvicorn's annotation leaves out that there is none at first."""
        return self.cycle

    def _count(self, size: int) -> None:
        if self.transport.is_closing():
            return
        if self._is_in_head:
            self._head_bytes += size
            if self._head_bytes >= HEAD_BYTES_MAX:
                self.send_400_response("Request head too large.")
        else:
            self._framing_bytes = max(0, self._framing_bytes + size - self._other_bytes)
            if self._framing_bytes > FRAMING_BYTES_MAX:
                self.send_400_response("Trailers or chunk extensions too large.")
        self._other_bytes = 0
        if len(self.pipeline) > _PIPELINED_MAX:
            self.transport.close()

    # -- its parts, as the parser finds them

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._is_at_head:  # it has begun with these bytes
            self._is_at_head = False
        else:
            self._begin_head()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > TARGET_BYTES_MAX:
            raise ValueError("the request line is too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Trailers are dropped: nobody has checked them when the headers are used."""
        if self._is_in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._end_head()
        self._framing_bytes = 0
        self.scope["state"]["is_full"] = self._connections.is_full
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Note it for a request whose body came with its head: it needs no deadline."""
        self.scope["state"]["is_whole"] = True
        super().on_message_complete()

    def on_chunk_header(self) -> None:
        self._other_bytes += _CHUNK_LINES_BYTES

    def on_body(self, body: bytes) -> None:
        self._other_bytes += len(body)
        super().on_body(body)

    # -- the deadline of a head

    def _begin_head(self) -> None:
        self._end_head()
        self._is_in_head, self._head_bytes = True, 0
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self.transport.close)
        self._connections.waiting.begin(self, self.transport.close)

    def _end_head(self) -> None:
        self._is_in_head = False
        self._connections.waiting.end(self)
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def _limit_untaken(transport: asyncio.Transport) -> None:
    """Let the kernel drop a peer that takes nothing for half a minute, acknowledged or not. Linux only."""
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    sock: Any = transport.get_extra_info("socket")
    if option is not None and sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, option, UNTAKEN_TIMEOUT_MS)
