"""Faults of a merchant's host in one delivery: they do not reach the next one, nor another host's."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path

import pytest
from msgspec.structs import replace

from flows.notify import Delivery, Notifier, push_notification
from tests import connections
from tests.channels.wire import Peer, read_request, respond_with, serving
from tests.connections import full_backlog
from tests.flows.conftest import FlowHarness
from tests.flows.test_egress import stub_resolver
from tests.flows.test_notify import OK, SETTINGS, deliver, outgoing_notification, paid_order, row_of
from tests.storage.tls_server import Certificate, self_signed, server_context

ANY = replace(SETTINGS, notify_allow_nets="127.0.0.0/8", notify_timeout_s=10.0)
COOKIES = (
    "HTTP/1.1 200 OK\r\n"
    "Set-Cookie: täglich=茶; Path=/\r\n"
    "Set-Cookie: session={number}; Path=/; Max-Age=86400\r\n"
    'Alt-Svc: h2=":443"\r\nStrict-Transport-Security: max-age=31536000\r\n'
    "Content-Length: 0\r\n\r\n"
)


async def test_no_cookie_of_a_merchant_is_kept() -> None:
    """One in UTF-8 made every later delivery to its host fail, and ever-new ones made requests grow."""

    async def set_cookies(merchant: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            merchant.requests.append(await read_request(reader))
            writer.write(COOKIES.format(number=len(merchant.requests)).encode())
            await writer.drain()

    async with serving(set_cookies) as merchant, serving(respond_with(OK)) as other, Notifier(ANY) as notifier:
        for _ in range(3):
            assert (await notifier.deliver(outgoing_notification(merchant.url))).ok
        assert (await notifier.deliver(outgoing_notification(other.url))).ok
    heads = [request.raw.partition(b"\r\n\r\n")[0] for request in (*merchant.requests, *other.requests)]
    assert [b"cookie" in head.lower() for head in heads] == [False] * 4
    assert len({len(head) for head in heads}) == 1


# -- the deadline ----------------------------------------------------------------------------------------------------


async def test_the_whole_delivery_has_one_deadline() -> None:
    """A header that never ends comes in pieces, each long before any time limit of a read."""

    async def drip(merchant: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        while not merchant.over.is_set():
            writer.write(b"x")
            await writer.drain()
            await asyncio.wait([asyncio.ensure_future(merchant.over.wait())], timeout=0.02)

    async with serving(drip) as merchant, asyncio.timeout(60):
        delivery = await deliver(merchant.url, replace(ANY, notify_timeout_s=0.5))
    assert delivery == Delivery(ok=False, status="timed_out")


@pytest.mark.parametrize("error", [RuntimeError, ValueError, UnicodeEncodeError, KeyError])
async def test_any_error_of_a_delivery_is_a_failed_one_and_at_last_a_dead_letter(
    harness: FlowHarness, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise error(*(("utf-8", "é", 0, 1, "made up") if error is UnicodeEncodeError else ()))

    monkeypatch.setattr("flows.notify.MerchantHttp.post", broken)
    notification_id = await paid_order(harness, "http://127.0.0.1:9/hook")
    async with Notifier(ANY) as notifier:
        assert await push_notification(harness.resources, notifier, notification_id, 1) == error.__name__
        row = await row_of(harness, notification_id)
        assert (row["attempt"], 235 < row["due_in_s"] <= 240) == (2, True)
        await harness.resources.db.execute("UPDATE notifications SET attempt = 16, due_at = now()")
        await push_notification(harness.resources, notifier, notification_id, row["arm_no"])
    row = await row_of(harness, notification_id)
    assert (row["is_dead"], row["last_status"]) == (True, error.__name__)


# -- several addresses -----------------------------------------------------------------------------------------------


async def test_the_second_address_is_used_if_the_first_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(respond_with(OK)) as merchant:
        stub_resolver(monkeypatch, ["127.0.0.2", "127.0.0.1"])
        assert (await deliver(f"http://merchant.example:{merchant.port}/", ANY)).ok
    assert len(merchant.requests) == 1


async def test_the_second_address_is_used_if_the_first_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.merchant_http.CONNECT_S", 0.1)
    async with serving(respond_with(OK)) as merchant:
        stub_resolver(monkeypatch, ["127.0.0.2", "127.0.0.3", "127.0.0.1"])
        with full_backlog("127.0.0.2", merchant.port):
            assert (await deliver(f"http://merchant.example:{merchant.port}/", ANY)).ok


async def test_a_merchant_that_has_the_request_gets_no_other_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first address took the request: whether it was handled is unknown, and the next attempt asks again."""
    async with serving(respond_with(b"")) as merchant:
        stub_resolver(monkeypatch, ["127.0.0.1", "127.0.0.1", "127.0.0.1"])
        delivery = await deliver(f"http://merchant.example:{merchant.port}/", ANY)
    assert (delivery.ok, len(merchant.requests)) == (False, 1)


# -- certificates ----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def serving_tls(certificate: Certificate, directory: Path) -> AsyncIterator[int]:
    """The port of a merchant with TLS, which keeps its connections open."""

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                await read_request(reader)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                await writer.drain()

    async with connections.serving(respond, tls=server_context(certificate, directory)) as port:
        yield port


async def test_a_second_name_at_one_address_proves_its_own_certificate(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The open connection of the first name is not used for the second: its certificate is not for that one."""
    certificate = self_signed("one.example")
    trusting = ssl.create_default_context(cadata=certificate.pem)
    monkeypatch.setattr(ssl, "create_default_context", lambda: trusting)
    async with serving_tls(certificate, tmp_path) as port, Notifier(ANY) as notifier:
        stub_resolver(monkeypatch, *([["127.0.0.1"]] * 3))
        names = ("one.example", "two.example", "one.example")
        deliveries = [await notifier.deliver(outgoing_notification(f"https://{name}:{port}/")) for name in names]
    assert [delivery.status for delivery in deliveries] == ["200", "ConnectError", "200"]


# -- the proxy -------------------------------------------------------------------------------------------------------


def proxy(status: bytes = b"200 OK") -> AbstractAsyncContextManager[Peer]:
    """A proxy that notes each CONNECT and connects to the merchant, or refuses."""

    async def talk(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await read_request(reader)
        peer.requests.append(request)
        writer.write(b"HTTP/1.1 " + status + b"\r\n\r\n")
        await writer.drain()
        if status.startswith(b"200"):
            peer.requests.append(await read_request(reader))
            writer.write(OK)
            await writer.drain()

    return serving(talk)


async def test_public_hosts_are_reached_through_the_proxy_at_the_judged_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Plain http is for opened networks, so the delivery is made by hand: the bytes show."""
    async with proxy() as peer:
        settings = replace(ANY, egress_proxy=f"http://user:p%40ss@127.0.0.1:{peer.port}")
        monkeypatch.setattr("flows.egress.is_allowed", lambda *_, **__: True)
        stub_resolver(monkeypatch, ["93.184.215.14"])
        assert (await deliver("http://merchant.example/hook", settings)).ok
    connect, post = peer.requests
    assert (connect.method, connect.target) == ("CONNECT", "93.184.215.14:80")
    assert connect.headers["proxy-authorization"] == "Basic dXNlcjpwQHNz"
    assert (post.method, post.headers["host"]) == ("POST", "merchant.example")
    assert "proxy-authorization" not in post.headers


async def test_opened_networks_are_reached_without_the_proxy() -> None:
    async with proxy() as peer, serving(respond_with(OK)) as merchant:
        settings = replace(ANY, egress_proxy=f"http://127.0.0.1:{peer.port}")
        assert (await deliver(merchant.url, settings)).ok
    assert (peer.connections, merchant.connections) == (0, 1)


@pytest.mark.parametrize("status", [b"403 Forbidden", b"407 Login", b"x" * 20_000])
async def test_a_proxy_that_refuses_is_a_failed_delivery(monkeypatch: pytest.MonkeyPatch, status: bytes) -> None:
    async with proxy(status) as peer:
        settings = replace(ANY, egress_proxy=f"http://127.0.0.1:{peer.port}")
        stub_resolver(monkeypatch, ["93.184.215.14"])
        delivery = await deliver("https://merchant.example/hook", settings)
    assert delivery == Delivery(ok=False, status="ProxyError")


# -- the limit of what is kept ---------------------------------------------------------------------------------------


async def test_connections_are_kept_for_so_many_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.merchant_http.HOSTS_MAX", 2)
    async with serving(respond_with(OK)) as merchant, Notifier(ANY) as notifier:
        stub_resolver(monkeypatch, *([["127.0.0.1"]] * 4))
        for name in ("one", "two", "three", "one"):
            assert (await notifier.deliver(outgoing_notification(f"http://{name}.example:{merchant.port}/"))).ok
        assert list(notifier._http._pools) == ["three.example", "one.example"]
