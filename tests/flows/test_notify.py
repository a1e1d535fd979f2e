"""The merchant's order service hears of it: signed, to the address that was judged, again until it has heard."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from standardwebhooks import Webhook

from core.errors import ConfigurationError
from core.settings import Settings
from flows.notify import (
    PER_HOST_MAX,
    RETRY_AFTER_MAX_S,
    Delivery,
    Notifier,
    _retry_after_s,
    push_claimed,
    push_notification,
)
from flows.query import query_scheduled
from storage.postgres import notifications
from storage.postgres.notifications import Outgoing, resend_dead_letters
from tests.channels.wire import Peer, WireResponse, http_bytes, read_request, respond_with, serving
from tests.flows.conftest import NOTIFY_SECRETS, FlowHarness
from tests.flows.test_egress import stub_resolver
from tests.servers import eventually

OK = http_bytes(WireResponse(200, {}, b"ok"))
PLAIN = Settings(notify_secrets=NOTIFY_SECRETS[0], notify_allow_nets="127.0.0.1/32", notify_timeout_s=1.0)


def outgoing(url: str, **more: Any) -> Outgoing:
    body = '{"id":"msg_1","type":"order.paid","data":{"subject":"Tee für 茶"}}'.encode()
    plain = Outgoing(id="msg_1", order_no="F-1", version=3, type="order.paid", url=url, body=body, attempt=1, arm_no=1)
    return replace(plain, **more)


async def deliver(url: str, settings: Settings = PLAIN) -> Delivery:
    async with Notifier(settings) as notifier:
        return await notifier.deliver(outgoing(url))


async def told(status: int, **headers: str) -> Delivery:
    """What comes of it when the merchant answers this."""
    answer = http_bytes(WireResponse(status, {name.replace("_", "-"): text for name, text in headers.items()}, b""))
    async with serving(respond_with(answer)) as peer:
        return await deliver(peer.url)


# -- what is sent ------------------------------------------------------------------------------------------------------


async def test_a_merchant_verifies_it_with_the_standard_webhooks_library() -> None:
    async with serving(respond_with(OK)) as peer:
        assert (await deliver(f"{peer.url}/hook?a=b%20c")).ok
    (request,) = peer.requests
    Webhook(NOTIFY_SECRETS[0]).verify(request.body, request.headers)
    assert (request.method, request.target, request.body) == ("POST", "/hook?a=b%20c", outgoing("").body)
    assert request.headers["content-type"] == "application/json"
    assert request.headers["webhook-id"] == "msg_1"
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["host"] == f"127.0.0.1:{peer.port}"
    assert abs(int(request.headers["webhook-timestamp"]) - time.time()) < 5


async def test_with_two_active_secrets_it_verifies_under_either() -> None:
    """So a merchant changes over without missing a notification."""
    async with serving(respond_with(OK)) as peer:
        await deliver(peer.url, replace(PLAIN, notify_secrets=",".join(NOTIFY_SECRETS)))
    (request,) = peer.requests
    assert len(request.headers["webhook-signature"].split(" ")) == 2
    for secret in NOTIFY_SECRETS:
        Webhook(secret).verify(request.body, request.headers)


@pytest.mark.parametrize("secrets", ["whsec_", "whsec_not base64!", "canary", "whsec_Y2FuYXJ5"])
def test_a_secret_that_is_none_stops_the_start_and_is_not_shown(secrets: str) -> None:
    with pytest.raises(ConfigurationError, match="NOTIFY_SECRETS") as caught:
        Notifier(replace(PLAIN, notify_secrets=f"{NOTIFY_SECRETS[0]},{secrets}"))
    assert "canary" not in str(caught.value)


async def test_no_proxy_variable_sends_it_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(respond_with(OK)) as proxy, serving(respond_with(OK)) as peer:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        assert (await deliver(peer.url)).ok
        assert (proxy.connections, peer.connections) == (0, 1)


# -- where it is sent --------------------------------------------------------------------------------------------------


async def test_the_connection_goes_to_the_address_that_was_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: the name has another address as soon as it was looked at. It is looked at once."""
    async with serving(respond_with(OK)) as peer:
        request = stub_resolver(monkeypatch, ["127.0.0.1"], ["10.0.0.5"])
        heard = await deliver(f"http://merchant.example:{peer.port}/hook")
        assert request == ["merchant.example"]
    assert heard.ok
    assert peer.requests[0].headers["host"] == f"merchant.example:{peer.port}"


async def test_a_name_that_turns_private_is_refused_and_nothing_connects(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(respond_with(OK)) as peer:
        stub_resolver(monkeypatch, ["127.0.0.1"], ["127.0.0.2"], ["169.254.169.254"], ["93.184.215.14", "127.0.0.2"])
        url = f"http://merchant.example:{peer.port}/hook"
        assert (await deliver(url)).ok
        for _ in range(3):
            refused = await deliver(url)
            assert (refused.ok, refused.status, refused.is_final) == (False, "address_refused", False)
        assert peer.connections == 1


async def test_without_opened_networks_loopback_is_refused() -> None:
    async with serving(respond_with(OK)) as peer:
        heard = await deliver("https://localhost/hook", replace(PLAIN, notify_allow_nets=""))
        assert (heard.ok, heard.status) == (False, "address_refused")
        heard = await deliver(peer.url, replace(PLAIN, notify_allow_nets=""))
        assert (heard.status, heard.is_final) == ("bad_url", True)
        assert peer.connections == 0


@pytest.mark.parametrize(
    "url",
    ["https://256.1.1.1/", "https://0177.0.0.1/", "https://[v1.x]/", "https://a/" + "b" * 70_000],
)
async def test_a_url_that_no_client_can_call_is_a_dead_letter_and_not_a_crash_for_ever(url: str) -> None:
    """They pass the check of form, or did when the order was placed."""
    async with Notifier(PLAIN) as notifier:
        assert notifier.is_busy(url) is False
        heard = await notifier.deliver(outgoing(url))
    assert heard.ok is False
    assert (heard.status, heard.is_final) == ("bad_url", True)


# -- what counts as heard ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_every_2xx_is_heard(status: int) -> None:
    assert await told(status) == Delivery(ok=True, status=str(status))


@pytest.mark.parametrize("status", [301, 302, 303, 304, 307, 308, 400, 401, 404, 429, 500, 503])
async def test_nothing_else_is_heard_and_none_of_it_is_final(status: int) -> None:
    assert await told(status) == Delivery(ok=False, status=str(status))


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_a_failure_and_never_followed(status: int) -> None:
    async with serving(respond_with(OK)) as elsewhere:
        heard = await told(status, location=f"{elsewhere.url}/hook")
        assert (heard.ok, elsewhere.connections) == (False, 0)


async def test_410_ends_it() -> None:
    assert await told(410) == Delivery(ok=False, status="410", is_final=True)


async def test_retry_after_in_seconds_is_honoured_and_capped_at_a_day() -> None:
    assert (await told(429, retry_after="120")).retry_after_s == 120.0
    assert (await told(503, retry_after="99999999999999999999")).retry_after_s == RETRY_AFTER_MAX_S


async def test_retry_after_as_a_date_is_honoured_and_capped_at_a_day() -> None:
    now = datetime.now(UTC)
    soon = format_datetime(now + timedelta(seconds=300), usegmt=True)
    assert 290 < (await told(429, retry_after=soon)).retry_after_s <= 300
    far = format_datetime(now + timedelta(days=300), usegmt=True)
    assert (await told(429, retry_after=far)).retry_after_s == RETRY_AFTER_MAX_S
    past = format_datetime(now - timedelta(days=1), usegmt=True)
    assert (await told(429, retry_after=past)).retry_after_s == 0.0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "-5",
        "1.5",
        "１２",
        "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
        "Mon, 01 Jan 2038 00:00:00 -99999999999999999999",
        "Mon, 01 Jan 2038 99:99:99 GMT",
        "Mon, 01 Jan 2038 00:00:00",
    ],
)
def test_a_retry_after_that_is_none_is_no_wish(text: str) -> None:
    assert _retry_after_s(text) == 0.0


@given(st.text(max_size=60) | st.from_regex(r"[A-Z][a-z]{2}, \d{1,9} [A-Z][a-z]{2} \d{1,24} \d+:\d+:\d+ [+-]?\w*"))
def test_no_retry_after_raises_or_asks_for_more_than_a_day(text: str) -> None:
    assert 0.0 <= _retry_after_s(text) <= RETRY_AFTER_MAX_S


async def test_a_body_that_is_slow_after_200_is_heard_all_the_same() -> None:
    """The status has said it; who answers so late that the deadline comes in the middle of the body has heard too."""

    async def late(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await asyncio.wait([asyncio.ensure_future(peer.over.wait())], timeout=0.3)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx")
        await peer.over.wait()

    async with serving(late) as peer:
        assert (await deliver(peer.url, replace(PLAIN, notify_timeout_s=0.6))).ok


async def test_an_endless_body_is_not_read_to_its_end() -> None:
    sent = 0

    async def endless(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n")
        while not peer.over.is_set():
            writer.write(bytes(65_536))
            await writer.drain()
            sent += 65_536

    async with serving(endless) as peer:
        assert (await deliver(peer.url)).ok
    assert sent < 32 << 20


async def test_an_endpoint_that_hangs_is_given_up_after_the_deadline_in_all() -> None:
    async def drip(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        while not peer.over.is_set():
            writer.write(b"x")
            await writer.drain()
            await asyncio.wait([asyncio.ensure_future(peer.over.wait())], timeout=0.05)

    began = time.monotonic()
    async with serving(drip) as peer:
        assert (await deliver(peer.url)).status == "timed_out"
        assert time.monotonic() - began < 2.0


BROKEN: dict[str, Callable[[Peer, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]] = {
    "closed at once": respond_with(b""),
    "reset": respond_with(b"", reset=True),
    "no HTTP": respond_with(b"220 mail.example ESMTP ready\r\n"),
    "headers without end": respond_with(b"HTTP/1.1 200 OK\r\nX: " + b"a" * (1 << 20)),
    "a header that is no text": respond_with(b"HTTP/1.1 500 No\r\nRetry-After: \xff\xfe\r\nContent-Length: 0\r\n\r\n"),
}


@pytest.mark.parametrize("broken", BROKEN)
async def test_whatever_the_other_side_does_a_delivery_raises_nothing(broken: str) -> None:
    async with serving(BROKEN[broken]) as peer:
        heard = await deliver(peer.url)
    assert (heard.ok, heard.is_final) == (False, False)


async def test_a_refused_connection_is_tried_again() -> None:
    async with serving(respond_with(OK)) as peer:
        pass
    heard = await deliver(peer.url)
    assert (heard.ok, heard.is_final) == (False, False)


# -- until it was heard ------------------------------------------------------------------------------------------------


@asynccontextmanager
async def merchant(*answers: bytes) -> AsyncIterator[Peer]:
    """Gives these answers, one after the other, and the last one for ever."""
    left = list(answers)

    async def talk(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer.requests.append(await read_request(reader))
        writer.write(left.pop(0) if len(left) > 1 else left[0])
        await writer.drain()

    async with serving(talk) as peer:
        yield peer


async def paid_order(harness: FlowHarness, url: str) -> str:
    """Paid, and the merchant has not heard of it; the id of the notification."""
    state = await harness.placed(notify_url=url)
    harness.pay(state.payments[0])
    await query_scheduled(harness.resources, state.payments[0].key, 1)
    found = await harness.one("SELECT id FROM notifications WHERE order_no = $1", state.order.order_no)
    assert isinstance(found, str)
    return found


async def row_of(harness: FlowHarness, notification_id: str) -> dict[str, Any]:
    sql = """SELECT attempt, arm_no, extract(epoch FROM due_at - now())::float8 AS due_in_s, last_status,
                    delivered_at IS NOT NULL AS is_delivered, dead_at IS NOT NULL AS is_dead,
                    superseded_at IS NOT NULL AS is_superseded
               FROM notifications WHERE id = $1"""
    return dict(await harness.resources.db.fetchrow(sql, notification_id) or {})


@pytest.fixture
async def notifier(settings: Settings) -> AsyncIterator[Notifier]:
    async with Notifier(settings) as opened:
        yield opened


async def push(harness: FlowHarness, notifier: Notifier, notification_id: str) -> str:
    arm_no = (await row_of(harness, notification_id))["arm_no"]
    return await push_notification(harness.resources, notifier, notification_id, arm_no)


async def test_every_delivery_has_the_same_id_and_the_same_bytes_and_n_squared_gaps(
    harness: FlowHarness, notifier: Notifier
) -> None:
    async with merchant(http_bytes(WireResponse(500, {}, b"")), http_bytes(WireResponse(302, {}, b"")), OK) as peer:
        notification_id = await paid_order(harness, peer.url)
        assert await push(harness, notifier, notification_id) == "500"
        second = await row_of(harness, notification_id)
        assert await push(harness, notifier, notification_id) == "302"
        third = await row_of(harness, notification_id)
        assert await push(harness, notifier, notification_id) == "200"
    assert (second["attempt"], 235 < second["due_in_s"] <= 240) == (2, True)
    assert (third["attempt"], 535 < third["due_in_s"] <= 540) == (3, True)
    assert len({(request.headers["webhook-id"], request.body) for request in peer.requests}) == 1
    assert msgspec.json.decode(peer.requests[0].body)["type"] == "order.paid"
    assert (await row_of(harness, notification_id))["is_delivered"]


async def test_what_was_heard_is_not_sent_again(harness: FlowHarness, notifier: Notifier) -> None:
    async with merchant(OK) as peer:
        notification_id = await paid_order(harness, peer.url)
        await push(harness, notifier, notification_id)
        assert await push(harness, notifier, notification_id) == "stale"
        assert len(peer.requests) == 1


async def test_a_job_of_an_older_scheduling_sends_nothing(harness: FlowHarness, notifier: Notifier) -> None:
    async with merchant(http_bytes(WireResponse(500, {}, b""))) as peer:
        notification_id = await paid_order(harness, peer.url)
        await push(harness, notifier, notification_id)
        assert await push_notification(harness.resources, notifier, notification_id, 1) == "stale"
        assert len(peer.requests) == 1


async def test_retry_after_is_waited_for_when_it_is_longer_than_the_back_off(
    harness: FlowHarness, notifier: Notifier
) -> None:
    async with merchant(http_bytes(WireResponse(429, {"Retry-After": "3600"}, b""))) as peer:
        notification_id = await paid_order(harness, peer.url)
        await push(harness, notifier, notification_id)
    assert 3590 < (await row_of(harness, notification_id))["due_in_s"] <= 3600


async def test_410_buries_it_and_an_operator_can_send_it_again(harness: FlowHarness, notifier: Notifier) -> None:
    async with merchant(http_bytes(WireResponse(410, {}, b"")), OK) as peer:
        notification_id = await paid_order(harness, peer.url)
        await push(harness, notifier, notification_id)
        assert (await row_of(harness, notification_id))["is_dead"]
        assert await push(harness, notifier, notification_id) == "stale"
        ((again, arm_no),) = await resend_dead_letters(harness.resources.db, notification_id)
        assert await push_notification(harness.resources, notifier, again, arm_no) == "200"
        assert peer.requests[0].body == peer.requests[1].body


async def test_after_the_last_attempt_it_is_a_dead_letter(harness: FlowHarness, notifier: Notifier) -> None:
    async with merchant(http_bytes(WireResponse(500, {}, b""))) as peer:
        notification_id = await paid_order(harness, peer.url)
        await harness.resources.db.execute("UPDATE notifications SET attempt = 15")
        await push(harness, notifier, notification_id)
        assert (await row_of(harness, notification_id))["attempt"] == 16
        await push(harness, notifier, notification_id)
    row = await row_of(harness, notification_id)
    assert (row["is_dead"], row["last_status"]) == (True, "500")


async def test_beyond_the_limit_of_a_host_a_delivery_is_postponed_and_uses_no_attempt(
    harness: FlowHarness, notifier: Notifier
) -> None:
    """One endpoint that hangs must not take the whole lane, nor lose its notifications for it."""
    free = asyncio.Event()

    async def hang(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer.requests.append(await read_request(reader))
        await free.wait()
        writer.write(OK)
        await writer.drain()

    async with serving(hang) as peer, merchant(OK) as other:
        notification_id = await paid_order(harness, peer.url)
        others_id = await paid_order(harness, other.url.replace("127.0.0.1", "localhost"))
        held = [asyncio.create_task(notifier.deliver(outgoing(peer.url))) for _ in range(PER_HOST_MAX)]
        await eventually(lambda: notifier.is_busy(peer.url))
        claimed = await notifications.claim(harness.resources.db, notification_id, 20, arm_no=1)
        assert claimed is not None
        assert await push_claimed(harness.resources, notifier, claimed) == "busy"
        assert notifier.is_busy(f"http://localhost:{other.port}") is False
        assert (await row_of(harness, others_id))["attempt"] == 1
        free.set()
        assert all(heard.ok for heard in await asyncio.gather(*held))
        row = await row_of(harness, notification_id)
        assert (row["attempt"], row["arm_no"], 0 < row["due_in_s"] <= 2) == (1, 2, True)
        assert notifier.is_busy(peer.url) is False
        assert await push(harness, notifier, notification_id) == "200"
