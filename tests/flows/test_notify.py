"""Notifications to the merchant: signed, sent to the checked address, repeated until they are acknowledged."""

import asyncio
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
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
from flows.merchant_hosts import PER_HOST_MAX
from flows.notify import (
    RETRY_AFTER_MAX_S,
    Delivery,
    Notifier,
    _retry_after_s,
    push_claimed,
    push_notification,
)
from flows.query import query_scheduled
from flows.signers import signer_of
from runtime.clock import Clock
from storage.postgres import notifications
from storage.postgres.deliveries import resend
from storage.postgres.notifications import Outgoing
from tests.channels.published import published
from tests.channels.wire import Peer, WireResponse, http_bytes, read_request, respond_with, serving
from tests.flows.conftest import NOTIFY_SECRETS, FlowHarness
from tests.flows.test_egress import stub_resolver
from tests.servers import eventually

OK = http_bytes(WireResponse(200, {}, b"ok"))
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
SETTINGS = Settings(notify_secrets=NOTIFY_SECRETS[0], notify_allow_nets="127.0.0.1/32", notify_timeout_s=20.0)


def outgoing_notification(url: str, **more: Any) -> Outgoing:
    body = '{"id":"msg_1","type":"order.paid","data":{"subject":"Tee für 茶"}}'.encode()
    notification = Outgoing(
        id="msg_1", order_no="F-1", version=3, type="order.paid", url=url, body=body, attempt=1, arm_no=1
    )
    return replace(notification, **more)


async def deliver(url: str, settings: Settings = SETTINGS) -> Delivery:
    async with Notifier(settings) as notifier:
        return await notifier.deliver(outgoing_notification(url))


async def delivery_after_response(status: int, **headers: str) -> Delivery:
    """Delivery to a merchant that responds with this status and these headers."""
    response = http_bytes(WireResponse(status, {name.replace("_", "-"): text for name, text in headers.items()}, b""))
    async with serving(respond_with(response)) as merchant:
        return await deliver(merchant.url)


# -- the request -----------------------------------------------------------------------------------------------------


async def test_the_standard_webhooks_library_verifies_a_notification() -> None:
    async with serving(respond_with(OK)) as merchant:
        assert (await deliver(f"{merchant.url}/hook?a=b%20c")).ok
    (request,) = merchant.requests
    Webhook(NOTIFY_SECRETS[0]).verify(request.body, request.headers)
    assert (request.method, request.target, request.body) == ("POST", "/hook?a=b%20c", outgoing_notification("").body)
    assert request.headers["content-type"] == "application/json"
    assert request.headers["webhook-id"] == "msg_1"
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["host"] == f"127.0.0.1:{merchant.port}"
    assert abs(int(request.headers["webhook-timestamp"]) - time.time()) < 5


async def test_a_notification_verifies_with_each_of_two_active_secrets() -> None:
    """A merchant can change its secret without missing a notification."""
    async with serving(respond_with(OK)) as merchant:
        await deliver(merchant.url, replace(SETTINGS, notify_secrets=",".join(NOTIFY_SECRETS)))
    (request,) = merchant.requests
    assert len(request.headers["webhook-signature"].split(" ")) == 2
    for secret in NOTIFY_SECRETS:
        Webhook(secret).verify(request.body, request.headers)


@pytest.mark.parametrize("secrets", ["whsec_", "whsec_not base64!", "canary", "whsec_Y2FuYXJ5"])
def test_an_invalid_secret_stops_the_start_and_is_not_shown(secrets: str) -> None:
    with pytest.raises(ConfigurationError, match="NOTIFY_SECRETS") as caught:
        Notifier(replace(SETTINGS, notify_secrets=f"{NOTIFY_SECRETS[0]},{secrets}"))
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("index", range(3))
async def test_a_published_secret_without_padding_signs_as_published(index: int) -> None:
    case = published("standard_webhooks")["unpadded_secret_cases"][index]
    assert _signature_of(case) == case["expected_webhook_signature"]


@pytest.mark.parametrize("index", range(2))
async def test_published_signatures_are_made(index: int) -> None:
    case = published("standard_webhooks")["sign_cases"][index]
    assert _signature_of(case) == case["expected_webhook_signature"]


def _signature_of(case: Mapping[str, Any]) -> str:
    signer = signer_of(case["secret"])
    at = datetime.fromtimestamp(case["webhook-timestamp"], UTC)
    signature: str = signer.sign(case["webhook-id"], at, case["payload"])
    return signature


@pytest.mark.parametrize("key_bytes", [23, 24, 25, 32, 64])
async def test_a_secret_signs_the_same_with_and_without_its_padding(key_bytes: int) -> None:
    padded = "whsec_" + b64encode(bytes(range(key_bytes))).decode()
    async with serving(respond_with(OK)) as merchant:
        assert (await deliver(merchant.url, replace(SETTINGS, notify_secrets=padded.rstrip("=")))).ok
    (request,) = merchant.requests
    Webhook(padded).verify(request.body, request.headers)


async def test_proxy_variables_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(respond_with(OK)) as proxy, serving(respond_with(OK)) as merchant:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        assert (await deliver(merchant.url)).ok
        assert (proxy.connections, merchant.connections) == (0, 1)


# -- the destination -------------------------------------------------------------------------------------------------


async def test_the_connection_uses_the_address_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: the name changes its address after the first look-up, so it is resolved only once."""
    async with serving(respond_with(OK)) as merchant:
        resolved_names = stub_resolver(monkeypatch, ["127.0.0.1"], ["10.0.0.5"])
        delivery = await deliver(f"http://merchant.example:{merchant.port}/hook")
        assert resolved_names == ["merchant.example"]
    assert delivery.ok
    assert merchant.requests[0].headers["host"] == f"merchant.example:{merchant.port}"


async def test_a_name_that_changes_to_a_private_address_is_refused_without_a_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving(respond_with(OK)) as merchant:
        stub_resolver(monkeypatch, ["127.0.0.1"], ["127.0.0.2"], ["169.254.169.254"], ["93.184.215.14", "127.0.0.2"])
        url = f"http://merchant.example:{merchant.port}/hook"
        assert (await deliver(url)).ok
        for _ in range(3):
            refused = await deliver(url)
            assert (refused.ok, refused.status, refused.is_final) == (False, "address_refused", False)
        assert merchant.connections == 1


async def test_loopback_is_refused_without_an_allowed_network() -> None:
    async with serving(respond_with(OK)) as merchant:
        delivery = await deliver("https://localhost/hook", replace(SETTINGS, notify_allow_nets=""))
        assert (delivery.ok, delivery.status) == (False, "address_refused")
        delivery = await deliver(merchant.url, replace(SETTINGS, notify_allow_nets=""))
        assert (delivery.status, delivery.is_final) == ("bad_url", True)
        assert merchant.connections == 0


@pytest.mark.parametrize(
    "url",
    ["https://256.1.1.1/", "https://0177.0.0.1/", "https://[v1.x]/", "https://a/" + "b" * 70_000],
)
async def test_a_url_that_no_client_can_call_is_a_final_failure(url: str) -> None:
    """These URLs pass the check of their form, now or when the order was placed."""
    async with Notifier(SETTINGS) as notifier:
        delivery = await notifier.deliver(outgoing_notification(url))
    assert delivery.ok is False
    assert (delivery.status, delivery.is_final) == ("bad_url", True)


# -- the response ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_every_2xx_acknowledges_the_notification(status: int) -> None:
    assert await delivery_after_response(status) == Delivery(ok=True, status=str(status))


@pytest.mark.parametrize("status", [301, 302, 303, 304, 307, 308, 400, 401, 404, 429, 500, 503])
async def test_other_statuses_are_failures_that_are_retried(status: int) -> None:
    assert await delivery_after_response(status) == Delivery(ok=False, status=str(status))


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_a_failure_and_is_not_followed(status: int) -> None:
    async with serving(respond_with(OK)) as redirect_target:
        delivery = await delivery_after_response(status, location=f"{redirect_target.url}/hook")
        assert (delivery.ok, redirect_target.connections) == (False, 0)


async def test_410_is_a_final_failure() -> None:
    assert await delivery_after_response(410) == Delivery(ok=False, status="410", is_final=True)


async def test_retry_after_in_seconds_is_used_up_to_a_day() -> None:
    assert (await delivery_after_response(429, retry_after="120")).retry_after_s == 120.0
    assert (await delivery_after_response(503, retry_after="99999999999999999999")).retry_after_s == RETRY_AFTER_MAX_S


async def test_retry_after_as_a_date_is_used_up_to_a_day() -> None:
    now = datetime.now(UTC)
    soon = format_datetime(now + timedelta(seconds=300), usegmt=True)
    assert 290 < (await delivery_after_response(429, retry_after=soon)).retry_after_s <= 300
    far = format_datetime(now + timedelta(days=300), usegmt=True)
    assert (await delivery_after_response(429, retry_after=far)).retry_after_s == RETRY_AFTER_MAX_S
    past = format_datetime(now - timedelta(days=1), usegmt=True)
    assert (await delivery_after_response(429, retry_after=past)).retry_after_s == 0.0


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
def test_an_invalid_retry_after_is_ignored(text: str) -> None:
    assert _retry_after_s(text, NOW) == 0.0


@given(st.text(max_size=60) | st.from_regex(r"[A-Z][a-z]{2}, \d{1,9} [A-Z][a-z]{2} \d{1,24} \d+:\d+:\d+ [+-]?\w*"))
def test_any_retry_after_is_between_zero_and_a_day(text: str) -> None:
    assert 0.0 <= _retry_after_s(text, NOW) <= RETRY_AFTER_MAX_S


async def test_a_200_with_a_slow_body_acknowledges_the_notification() -> None:
    """The status is enough: the rest of this body never comes."""

    async def respond_with_half_a_body(
        merchant: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx")
        await merchant.over.wait()

    async with serving(respond_with_half_a_body) as merchant:
        assert (await deliver(merchant.url)).ok


async def test_an_endless_body_is_not_read() -> None:
    sent = 0

    async def send_endless_body(merchant: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n")
        while not merchant.over.is_set():
            writer.write(bytes(65_536))
            await writer.drain()
            sent += 65_536

    async with serving(send_endless_body) as merchant:
        assert (await deliver(merchant.url)).ok
    assert sent < 32 << 20


async def test_a_hanging_endpoint_is_abandoned_after_the_time_limit() -> None:
    async def send_slowly(merchant: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        while not merchant.over.is_set():
            writer.write(b"x")
            await writer.drain()
            await asyncio.wait([asyncio.ensure_future(merchant.over.wait())], timeout=0.05)

    async with serving(send_slowly) as merchant, asyncio.timeout(60.0):  # it would send for ever
        assert (await deliver(merchant.url, replace(SETTINGS, notify_timeout_s=1.0))).status == "timed_out"


INVALID_RESPONSES: dict[str, Callable[[Peer, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]] = {
    "closed at once": respond_with(b""),
    "reset": respond_with(b"", reset=True),
    "no HTTP": respond_with(b"220 mail.example ESMTP ready\r\n"),
    "headers without end": respond_with(b"HTTP/1.1 200 OK\r\nX: " + b"a" * (1 << 20)),
    "a header that is not text": respond_with(b"HTTP/1.1 500 No\r\nRetry-After: \xff\xfe\r\nContent-Length: 0\r\n\r\n"),
}


@pytest.mark.parametrize("response_name", INVALID_RESPONSES)
async def test_an_invalid_response_is_a_failure_and_raises_nothing(response_name: str) -> None:
    async with serving(INVALID_RESPONSES[response_name]) as merchant:
        delivery = await deliver(merchant.url)
    assert (delivery.ok, delivery.is_final) == (False, False)


async def test_a_refused_connection_is_retried() -> None:
    async with serving(respond_with(OK)) as merchant:
        pass
    delivery = await deliver(merchant.url)
    assert (delivery.ok, delivery.is_final) == (False, False)


# -- attempts --------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def scripted_merchant(*responses: bytes) -> AsyncIterator[Peer]:
    """A merchant that gives these responses in order and repeats the last one."""
    remaining = list(responses)

    async def talk(merchant: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        merchant.requests.append(await read_request(reader))
        writer.write(remaining.pop(0) if len(remaining) > 1 else remaining[0])
        await writer.drain()

    async with serving(talk) as merchant:
        yield merchant


async def paid_order(harness: FlowHarness, url: str) -> str:
    """Pay an order and return the id of its unsent notification."""
    state = await harness.placed_order(notify_url=url)
    harness.pay(state.payments[0])
    await harness.make_due()
    await query_scheduled(harness.resources, state.payments[0].key, 1)
    notification_id = await harness.fetch_value(
        "SELECT id FROM notifications WHERE order_no = $1", state.order.order_no
    )
    assert isinstance(notification_id, str)
    return notification_id


async def row_of(harness: FlowHarness, notification_id: str) -> dict[str, Any]:
    sql = """SELECT attempt, arm_no, due_at, extract(epoch FROM due_at - now())::float8 AS due_in_s, last_status,
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
    await harness.make_due()
    return await push_notification(harness.resources, notifier, notification_id, arm_no)


async def test_deliveries_have_the_same_id_and_bytes_and_n_squared_gaps(
    harness: FlowHarness, notifier: Notifier
) -> None:
    async with scripted_merchant(
        http_bytes(WireResponse(500, {}, b"")), http_bytes(WireResponse(302, {}, b"")), OK
    ) as merchant:
        notification_id = await paid_order(harness, merchant.url)
        assert await push(harness, notifier, notification_id) == "500"
        second = await row_of(harness, notification_id)
        assert await push(harness, notifier, notification_id) == "302"
        third = await row_of(harness, notification_id)
        assert await push(harness, notifier, notification_id) == "200"
    assert (second["attempt"], 235 < second["due_in_s"] <= 240) == (2, True)
    assert (third["attempt"], 535 < third["due_in_s"] <= 540) == (3, True)
    assert len({(request.headers["webhook-id"], request.body) for request in merchant.requests}) == 1
    assert msgspec.json.decode(merchant.requests[0].body)["type"] == "order.paid"
    assert (await row_of(harness, notification_id))["is_delivered"]


async def test_an_acknowledged_notification_is_not_sent_again(harness: FlowHarness, notifier: Notifier) -> None:
    async with scripted_merchant(OK) as merchant:
        notification_id = await paid_order(harness, merchant.url)
        await push(harness, notifier, notification_id)
        assert await push(harness, notifier, notification_id) == "stale"
        assert len(merchant.requests) == 1


async def test_a_job_with_an_old_arm_number_sends_nothing(harness: FlowHarness, notifier: Notifier) -> None:
    async with scripted_merchant(http_bytes(WireResponse(500, {}, b""))) as merchant:
        notification_id = await paid_order(harness, merchant.url)
        await push(harness, notifier, notification_id)
        assert await push_notification(harness.resources, notifier, notification_id, 1) == "stale"
        assert len(merchant.requests) == 1


async def test_retry_after_is_used_when_it_is_longer_than_the_back_off(
    harness: FlowHarness, notifier: Notifier
) -> None:
    async with scripted_merchant(http_bytes(WireResponse(429, {"Retry-After": "3600"}, b""))) as merchant:
        notification_id = await paid_order(harness, merchant.url)
        await push(harness, notifier, notification_id)
    assert 3590 < (await row_of(harness, notification_id))["due_in_s"] <= 3600


async def test_410_makes_a_dead_letter_that_an_operator_can_resend(harness: FlowHarness, notifier: Notifier) -> None:
    async with scripted_merchant(http_bytes(WireResponse(410, {}, b"")), OK) as merchant:
        notification_id = await paid_order(harness, merchant.url)
        await push(harness, notifier, notification_id)
        assert (await row_of(harness, notification_id))["is_dead"]
        assert await push(harness, notifier, notification_id) == "stale"
        (resent,) = await resend(harness.resources.db, [notification_id], is_paced=False)
        assert await push_notification(harness.resources, notifier, resent.id, resent.arm_no) == "200"
        assert merchant.requests[0].body == merchant.requests[1].body


async def test_a_notification_is_a_dead_letter_after_its_last_attempt(harness: FlowHarness, notifier: Notifier) -> None:
    async with scripted_merchant(http_bytes(WireResponse(500, {}, b""))) as merchant:
        notification_id = await paid_order(harness, merchant.url)
        await harness.resources.db.execute("UPDATE notifications SET attempt = 15")
        await push(harness, notifier, notification_id)
        assert (await row_of(harness, notification_id))["attempt"] == 16
        await push(harness, notifier, notification_id)
    row = await row_of(harness, notification_id)
    assert (row["is_dead"], row["last_status"]) == (True, "500")


async def test_a_delivery_above_the_limit_of_a_host_is_postponed_without_an_attempt(
    harness: FlowHarness, notifier: Notifier
) -> None:
    """One hanging endpoint must not block the lane, and its notifications must not be lost."""
    release = asyncio.Event()

    async def respond_after_release(merchant: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        merchant.requests.append(await read_request(reader))
        await release.wait()
        writer.write(OK)
        await writer.drain()

    async with serving(respond_after_release) as merchant, scripted_merchant(OK) as other:
        notification_id = await paid_order(harness, merchant.url)
        other_id = await paid_order(harness, other.url.replace("127.0.0.1", "localhost"))
        deliveries = [
            asyncio.create_task(notifier.deliver(outgoing_notification(merchant.url))) for _ in range(PER_HOST_MAX)
        ]
        await eventually(lambda: notifier.hosts.wait_s("127.0.0.1") > 0)
        claimed = await notifications.claim(harness.resources.db, notification_id, 20, arm_no=1)
        assert claimed is not None
        parked_at = await harness.resources.db.fetchval("SELECT now()")
        assert await push_claimed(harness.resources, notifier, claimed) == "parked"
        assert notifier.hosts.wait_s("localhost") == 0
        assert (await row_of(harness, other_id))["attempt"] == 1
        release.set()
        assert all(delivery.ok for delivery in await asyncio.gather(*deliveries))
        row = await row_of(harness, notification_id)
        assert (row["attempt"], row["arm_no"], row["due_at"] > parked_at) == (1, 2, True)
        assert notifier.hosts.wait_s("127.0.0.1") == 0
        assert await push(harness, notifier, notification_id) == "200"


async def test_a_notification_is_signed_by_the_corrected_time() -> None:
    """A merchant refuses one whose time is more than five minutes from its own."""
    clock = Clock(wall=lambda: NOW.timestamp() + 600.0, steady=lambda: 0.0)
    clock._postgres_base = NOW.timestamp()
    clock._judge()
    async with Notifier(SETTINGS, clock) as notifier:
        headers = notifier._sign(outgoing_notification("https://shop.test/hook"), [signer_of(NOTIFY_SECRETS[0])])
    assert headers["webhook-timestamp"] == str(int(NOW.timestamp()))
