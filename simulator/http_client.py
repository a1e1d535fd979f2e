"""The HTTP client of callbacks and shoppers: no proxy, no redirects, no decompression, nothing but HTTP/1.1."""

from __future__ import annotations

import httpx
from pyreqwest.client import ClientBuilder
from pyreqwest.compatibility.httpx import HttpxTransport

CONNECTIONS_MAX = 512


def http_client(timeout_s: float) -> httpx.AsyncClient:
    """A client whose requests take `timeout_s` seconds at most, body included.

    The transport adds httpx's four time-outs into the one that it has, hence a quarter for each.
    """
    builder = ClientBuilder().follow_redirects(enable=False).no_proxy().http1_only().max_connections(CONNECTIONS_MAX)
    client = builder.gzip(enable=False).brotli(enable=False).zstd(enable=False).deflate(enable=False).build()
    return httpx.AsyncClient(
        transport=HttpxTransport(client),
        timeout=timeout_s / 4,
        trust_env=False,
        headers={"accept-encoding": "identity"},
    )
