"""One HTTP exchange, for callbacks, shops and browsers: no proxy, no redirects, no decompression, bounded in every way.

pyreqwest is used directly: through its httpx transport an exchange costs four to five times as much, and the sender of
callbacks is the busiest part of a channel process.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import PyreqwestError

CONNECTIONS_MAX = 512


class Answer(NamedTuple):
    """A whole answer; of the body no more than was asked for. `location` is empty when there is none."""

    status: int
    location: str
    body: bytes


class NoAnswer(Exception):
    """There was no whole answer in time: refused, cut, too late, or no address at all."""


def http_client() -> Client:
    """To be closed with `await client.close()`."""
    builder = ClientBuilder().follow_redirects(enable=False).no_proxy().http1_only().max_connections(CONNECTIONS_MAX)
    return builder.gzip(enable=False).brotli(enable=False).zstd(enable=False).deflate(enable=False).build()


async def exchange(
    client: Client,
    method: str,
    url: str,
    *,
    headers: dict[str, str],
    within_s: float,
    body_bytes_max: int,
    body: bytes | None = None,
) -> Answer:
    """Sends and reads; raises NoAnswer. A longer body is cut off: what is said beyond is of no interest."""
    got = b""
    try:
        request = client.request(method, url).headers(headers)
        if body is not None:
            request = request.body_bytes(body)
        async with asyncio.timeout(within_s), request.build_streamed() as response:
            while len(got) <= body_bytes_max and (chunk := await response.body_reader.read()) is not None:
                got += bytes(chunk)
            return Answer(response.status, response.headers.get("location") or "", got)
    except (PyreqwestError, TimeoutError, ValueError) as error:
        raise NoAnswer(type(error).__name__) from error
