"""A name that resolves to something else the second time, or to several things at once."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from core.settings import Settings
from flows.notify import Notifier
from storage.postgres.notifications import Outgoing
from tests.connections import serving

SECRET = "whsec_" + "A" * 44

Resolver = Callable[[dict[str, list[list[str]]]], list[str]]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    """Replace the system's resolver: each name has a list of responses, the last one repeated. Return the lookups."""

    def install(responses: dict[str, list[list[str]]]) -> list[str]:
        lookups: list[str] = []
        loop = asyncio.get_running_loop()

        async def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[Any, ...]]:
            lookups.append(host)
            if host not in responses:
                raise socket.gaierror
            found = responses[host].pop(0) if len(responses[host]) > 1 else responses[host][0]
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

        monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
        return lookups

    return install


@asynccontextmanager
async def merchant() -> AsyncIterator[tuple[int, list[bytes]]]:
    """Answers 200 on 127.0.0.1; the heads of the requests it got."""
    heads: list[bytes] = []

    async def response(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()

    async with serving(response) as port:
        yield port, heads


def outgoing(url: str) -> Outgoing:
    return Outgoing(id="msg_1", order_no="A-1", version=3, type="order.paid", url=url, body=b"{}", attempt=1, arm_no=1)


async def deliver(url: str) -> tuple[bool, str]:
    settings = Settings(notify_secrets=SECRET, notify_allow_nets="127.0.0.1/32", notify_timeout_s=2.0)
    async with Notifier(settings) as notifier:
        delivery = await notifier.deliver(outgoing(url))
    return delivery.ok, delivery.status


async def test_the_address_that_was_checked_is_the_one_connected_to(resolver: Resolver) -> None:
    """The second response would be an internal address; there is no second lookup, and Host still has the name."""
    lookups = resolver({"merchant.example": [["127.0.0.1"], ["127.0.0.9"]]})
    async with merchant() as (port, heads):
        assert await deliver(f"http://merchant.example:{port}/hook") == (True, "200")

    assert lookups.count("merchant.example") == 1
    assert len(heads) == 1
    assert f"host: merchant.example:{port}".encode() in heads[0].lower()


async def test_a_name_is_judged_anew_at_every_delivery(resolver: Resolver) -> None:
    resolver({"merchant.example": [["127.0.0.1"], ["127.0.0.9"]]})
    async with merchant() as (port, heads):
        assert await deliver(f"http://merchant.example:{port}/hook") == (True, "200")
        assert await deliver(f"http://merchant.example:{port}/hook") == (False, "address_refused")

    assert len(heads) == 1


@pytest.mark.parametrize(
    "found",
    [["127.0.0.1", "10.0.0.5"], ["10.0.0.5", "127.0.0.1"], ["169.254.169.254"], ["::ffff:10.0.0.5"], []],
)
async def test_one_refused_address_refuses_the_name(resolver: Resolver, found: list[str]) -> None:
    resolver({"merchant.example": [found]})
    async with merchant() as (port, heads):
        assert await deliver(f"http://merchant.example:{port}/hook") == (False, "address_refused")

    assert heads == []
