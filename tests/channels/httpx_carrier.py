"""A channel as a function, for tests without a server: from httpx's request to its response."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import httpx

from channels.http_connection import Take


class HttpxCarrier:
    """In the place of `channels.carrier.Carrier`. The request has what would be sent."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport

    async def exchange(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, take: Take
    ) -> tuple[int, dict[str, str]]:
        request = httpx.Request(method, url, headers=dict(headers), content=body)
        response = await self._transport.handle_async_request(request)
        take(response.status_code, await response.aread())
        return response.status_code, {name.lower(): value for name, value in response.headers.items()}

    async def aclose(self) -> None:
        await self._transport.aclose()


def responding(handler: Callable[[httpx.Request], Any]) -> HttpxCarrier:
    """A carrier to the channel that `handler` is."""
    return HttpxCarrier(httpx.MockTransport(handler))
