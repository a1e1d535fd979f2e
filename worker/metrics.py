"""`GET /metrics` of a worker, on a port of its own: a key of the scope `metrics` opens it, as it does at a web process.

Metrics must not end a worker: a port that another process has is tried again, as at a deploy on one machine.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from contextlib import suppress
from http import HTTPStatus

import structlog

from core.errors import DatabaseUnavailable
from core.settings import Settings
from runtime import metrics
from runtime.exposing import show_process
from runtime.resources import Resources
from storage.postgres.api_keys import Scope, digest_of, find_api_key

HEAD_BYTES_MAX = 8192
HEAD_S = 5.0
SEND_S = 5.0

CONNECTIONS_MAX = 16
"""Prometheus needs one, and a person another."""

RETRY_S = 10.0
"""Pause until a port that is in use is tried again."""

KEYS_MAX = 100

# RFC 6750, as at the web process.
_KEY = re.compile(
    r"^authorization:[ \t]*bearer +([0-9A-Za-z\-._~+/]{1,256}=*)[ \t]*\r$", re.ASCII | re.IGNORECASE | re.MULTILINE
)

log = structlog.get_logger()


async def serve_metrics(resources: Resources, stop: asyncio.Event) -> None:
    """Serve until `stop` on every address that `HOST` has, at `METRICS_PORT`. 0: there is nothing to serve."""
    settings = resources.settings
    is_first = True
    while settings.metrics_port and not stop.is_set():
        try:
            await _serve(resources, settings, stop)
        except OSError as error:
            if is_first:
                log.warning("metrics_port_taken", port=settings.metrics_port, reason=type(error).__name__)
            is_first = False
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), RETRY_S)


async def _serve(resources: Resources, settings: Settings, stop: asyncio.Event) -> None:
    scrapes = Scrapes(resources)
    server = await asyncio.start_server(
        scrapes.answer, settings.host, settings.metrics_port, limit=HEAD_BYTES_MAX, backlog=CONNECTIONS_MAX
    )
    log.info("metrics_served", host=settings.host, port=settings.metrics_port)
    try:
        await stop.wait()
    finally:
        server.close()
        scrapes.close()


class Scrapes:
    """The connections of those who scrape, one request on each."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._open: set[asyncio.StreamWriter] = set()
        self._known: OrderedDict[bytes, None] = OrderedDict()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read one request and answer it. Whatever a stranger sends ends this connection alone."""
        if len(self._open) >= CONNECTIONS_MAX:
            writer.transport.abort()
            return
        self._open.add(writer)
        try:
            async with asyncio.timeout(HEAD_S):
                head = await reader.readuntil(b"\r\n\r\n")
            status, body = await self._response(head.decode("latin-1"))
            async with asyncio.timeout(SEND_S):
                writer.write(_bytes_of(status, body))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            writer.transport.abort()
        finally:
            self._open.discard(writer)

    def close(self) -> None:
        """End the connections that are still open."""
        for writer in self._open:
            writer.transport.abort()

    async def _response(self, head: str) -> tuple[HTTPStatus, bytes]:
        method, _, rest = head.partition(" ")
        if rest.partition(" ")[0].partition("?")[0] != "/metrics":
            return HTTPStatus.NOT_FOUND, b""
        if method != "GET":
            return HTTPStatus.METHOD_NOT_ALLOWED, b""
        match = _KEY.search(head)
        if match is None or not await self._may_read(digest_of(match[1])):
            return HTTPStatus.UNAUTHORIZED, b""
        await show_process(self._resources)
        return HTTPStatus.OK, metrics.exposition()

    async def _may_read(self, digest: bytes) -> bool:
        """Whether this is a key of the scope. While Postgres is down, which metrics must show, one that was lately."""
        try:
            key = await find_api_key(self._resources.db, digest)
        except DatabaseUnavailable:
            return digest in self._known
        self._known.pop(digest, None)
        if key is None or Scope.METRICS not in key.scopes:
            return False
        self._known[digest] = None
        if len(self._known) > KEYS_MAX:
            self._known.popitem(last=False)
        return True


def _bytes_of(status: HTTPStatus, body: bytes) -> bytes:
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Content-Type: {metrics.CONTENT_TYPE}",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "Connection: close",
        *(["WWW-Authenticate: Bearer"] if status is HTTPStatus.UNAUTHORIZED else []),
    ]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body
