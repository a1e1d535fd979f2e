"""What only PayPal has: access tokens, capture, certificates that callbacks name themselves, a signed checksum."""

import asyncio
import json
import zlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, date, datetime, timedelta
from io import BytesIO
from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from channels.base import Callback, MalformedRow, RefundState, StatementRow
from channels.kit import trace
from channels.paypal.adapter import Paypal
from channels.paypal.api import RENEW_BEFORE_S
from channels.paypal.certificates import FETCHES_PER_MINUTE_MAX
from channels.transport import Transport
from core.account import AccountConfig
from core.errors import (
    CallbackForged,
    ChannelError,
    ChannelRefused,
    ChannelUnavailable,
    ChannelUnreadable,
    ConfigurationError,
)
from core.evidence import Approved, Closed, Evidence, Missing, Paid, Refunded, Unclear, Unpaid
from core.order import Payment
from tests.channels.conftest import as_asked, as_response, create
from tests.channels.paypal.driver import (
    CERTIFICATES,
    IDS,
    WEBHOOK_ID,
    PaypalDriver,
    error,
    event,
    keys,
    money,
    signature_headers,
)
from tests.channels.reports import AMOUNT, NUMBER, OFFLINE_URL, OTHER_NUMBER, PAID_AT, REFUND_NO, Key, Said, Sent
from tests.channels.wire import Answered, Asked

DRIVER = PaypalDriver()
NOW = PAID_AT + timedelta(seconds=30)
AT = NOW.timestamp()


class FakePaypal:
    """PayPal as far as these tests ask it; `answers` are given by path, in turn, the last one for ever."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.answers: dict[str, list[Answered]] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.now = AT
        self.latency_s = 0.0
        self.transport = Transport(timeout_s=2, transport=httpx.MockTransport(self._answer))

    def open(self, *, live: bool = False, base_url: str = OFFLINE_URL, **credentials: object) -> Paypal:
        return Paypal(config(live=live, base_url=base_url, **credentials), self.transport, clock=lambda: self.now)

    def paths(self) -> list[str]:
        return [asked.target for asked in self.asked]

    def count(self, start: str) -> int:
        return sum(path.startswith(start) for path in self.paths())

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        asked = as_asked(request)
        self.asked.append(asked)
        await self.gate.wait()
        await asyncio.sleep(self.latency_s)
        told = self.answers.get(asked.target.partition("?")[0])
        if told:
            return as_response(told.pop(0) if len(told) > 1 else told[0])
        return as_response(DRIVER.aside(asked))


def config(*, live: bool = False, base_url: str = OFFLINE_URL, **credentials: object) -> AccountConfig:
    given = DRIVER.account(base_url)
    return replace(given, live=live, credentials=given.credentials | credentials)


def row(**changed: Any) -> Payment:
    return replace(DRIVER.payment(), channel_reference=DRIVER.reference, **changed)


def told(status: int, body: object) -> Answered:
    return Answered(status, {}, body if isinstance(body, bytes) else json.dumps(body).encode())


def order_path(end: str = "") -> str:
    return f"/v2/checkout/orders/{DRIVER.reference}{end}"


def genuine(content: bytes | None = None, *, url: str = "", crc32: int | None = None, key: Key = Key.NEW) -> Sent:
    """A callback as PayPal sends it, of a paid payment unless told; `url` is where it says that its certificate is."""
    body = DRIVER.render_callback(Said(), "WH-1") if content is None else content
    at_paypal = f"{OFFLINE_URL}{CERTIFICATES}{IDS[key]}"
    return Sent(signature_headers(body, key=keys().signing[key], url=url or at_paypal, crc32=crc32, at=AT), body)


async def verify(adapter: Paypal, sent: Sent, *, received_at: datetime = NOW) -> Callback:
    return await adapter.verify_callback(sent.headers, sent.body, received_at=received_at)


@pytest.fixture
async def paypal() -> AsyncIterator[FakePaypal]:
    fake = FakePaypal()
    async with fake.transport:
        yield fake


# -- access tokens -----------------------------------------------------------------------------------------------------


async def test_many_callers_wait_for_one_token(paypal: FakePaypal) -> None:
    adapter = paypal.open()
    paypal.answers[order_path()] = [told(200, DRIVER.render(Said()))]
    paypal.gate.clear()
    asking = [asyncio.create_task(adapter.query_payment(row())) for _ in range(20)]
    await until(lambda: paypal.asked)
    paypal.gate.set()
    assert {type(answer) for answer in await asyncio.gather(*asking)} == {Paid}
    assert paypal.count("/v1/oauth2/token") == 1
    assert paypal.asked[0].body == b"grant_type=client_credentials"
    assert paypal.asked[1].headers["authorization"] == "Bearer a-token"


async def test_a_token_that_is_not_given_fails_all_who_wait_and_the_next_one_asks_again(paypal: FakePaypal) -> None:
    adapter = paypal.open()
    paypal.answers["/v1/oauth2/token"] = [told(503, {}), DRIVER.aside(asked_token())]
    paypal.answers[order_path()] = [told(200, DRIVER.render(Said()))]
    paypal.gate.clear()
    asking = [asyncio.create_task(adapter.query_payment(row())) for _ in range(5)]
    await until(lambda: paypal.asked)
    paypal.gate.set()
    came = await asyncio.gather(*asking, return_exceptions=True)
    assert {type(error) for error in came} == {ChannelUnavailable}
    assert isinstance(await adapter.query_payment(row()), Paid)


async def test_who_gives_up_waiting_takes_the_token_from_nobody(paypal: FakePaypal) -> None:
    adapter = paypal.open()
    paypal.answers[order_path()] = [told(200, DRIVER.render(Said()))]
    paypal.gate.clear()
    first, second = (asyncio.create_task(adapter.query_payment(row())) for _ in range(2))
    await until(lambda: paypal.asked)
    first.cancel()
    paypal.gate.set()
    assert isinstance(await second, Paid)
    assert paypal.count("/v1/oauth2/token") == 1
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_token_is_renewed_before_it_ends_and_not_sooner(paypal: FakePaypal) -> None:
    adapter = paypal.open()
    paypal.answers[order_path()] = [told(200, DRIVER.render(Said()))]
    for after_s, tokens in ((0.0, 1), (32_400 - RENEW_BEFORE_S - 1, 1), (2.0, 2)):
        paypal.now += after_s
        await adapter.query_payment(row())
        assert paypal.count("/v1/oauth2/token") == tokens


async def test_a_token_is_kept_current_only_while_the_account_is_used(paypal: FakePaypal) -> None:
    adapter = paypal.open()
    await adapter.keep_current()
    assert paypal.asked == []
    paypal.answers[order_path()] = [told(200, DRIVER.render(Said()))]
    await adapter.query_payment(row())
    await adapter.keep_current()
    assert paypal.count("/v1/oauth2/token") == 1
    paypal.now += 32_400 - RENEW_BEFORE_S - 600
    await adapter.keep_current()
    assert paypal.count("/v1/oauth2/token") == 2


async def test_a_token_refused_early_is_renewed_and_the_call_repeated_once(paypal: FakePaypal) -> None:
    adapter = paypal.open()
    paypal.answers[order_path()] = [told(401, {"error": "invalid_token"}), told(200, DRIVER.render(Said()))]
    assert isinstance(await adapter.query_payment(row()), Paid)
    assert (paypal.count("/v1/oauth2/token"), paypal.count("/v2/checkout")) == (2, 2)


async def test_a_token_and_the_call_after_it_share_one_deadline(paypal: FakePaypal) -> None:
    """A lease outlives one deadline: of four in a row it would know nothing."""
    paypal.answers[order_path()] = [told(200, DRIVER.render(Said()))]
    paypal.latency_s = 0.3
    async with Transport(timeout_s=0.5, transport=httpx.MockTransport(paypal._answer)) as hasty:
        adapter = Paypal(config(), hasty, clock=lambda: paypal.now)
        with pytest.raises(ChannelUnavailable, match="timed_out"):
            await adapter.query_payment(row())
        assert isinstance(await adapter.query_payment(row()), Paid), "the token is kept"


async def test_a_new_token_refused_too_ends_in_an_unknown_outcome(paypal: FakePaypal) -> None:
    """A loop of new tokens is what an account that was switched off must not make."""
    adapter = paypal.open()
    paypal.answers[order_path()] = [told(401, error("AUTHENTICATION_FAILURE"))]
    with pytest.raises(ChannelUnreadable, match="unauthorized"):
        await adapter.query_payment(row())
    assert (paypal.count("/v1/oauth2/token"), paypal.count("/v2/checkout")) == (2, 2)


# -- orders ------------------------------------------------------------------------------------------------------------


async def created(paypal: FakePaypal, payment: Payment, answer: dict[str, Any]) -> dict[str, Any]:
    """What PayPal was asked to create."""
    paypal.answers["/v2/checkout/orders"] = [told(201, answer)]
    await paypal.open().create_payment(create(payment))
    sent: dict[str, Any] = json.loads(paypal.asked[-1].body)
    return sent


async def test_an_order_carries_our_number_in_both_places_and_as_its_idempotency_key(paypal: FakePaypal) -> None:
    sent = await created(paypal, DRIVER.payment(), DRIVER.order(Said(status="unpaid")))
    (unit,) = sent["purchase_units"]
    assert (sent["intent"], unit["custom_id"], unit["invoice_id"]) == ("CAPTURE", NUMBER, NUMBER)
    assert unit["amount"] == {"currency_code": "USD", "value": "88.88"}
    assert paypal.asked[-1].headers["paypal-request-id"] == NUMBER
    context = sent["payment_source"]["paypal"]["experience_context"]
    assert (context["user_action"], context["return_url"]) == ("PAY_NOW", "http://127.0.0.1:9/o/token/return")


async def test_a_long_subject_is_cut_to_what_paypal_takes(paypal: FakePaypal) -> None:
    paypal.answers["/v2/checkout/orders"] = [told(201, DRIVER.order(Said(status="unpaid")))]
    await paypal.open().create_payment(replace(create(DRIVER.payment()), subject="茶" * 300))
    assert json.loads(paypal.asked[-1].body)["purchase_units"][0]["description"] == "茶" * 127


@pytest.mark.parametrize(
    ("currency", "amount", "value"),
    [("USD", 1, "0.01"), ("JPY", 500, "500"), ("HUF", 120_000, "1200"), ("TWD", 100, "1")],
)
async def test_an_amount_is_written_as_paypal_writes_this_currency(
    paypal: FakePaypal, currency: str, amount: int, value: str
) -> None:
    """Fact 20: the exponent is the currency's, and PayPal's differs from ISO 4217 for HUF and TWD."""
    said = Said(status="unpaid", currency=currency, amount=amount)
    sent = await created(paypal, replace(DRIVER.payment(), currency=currency, amount=amount), DRIVER.order(said))
    assert sent["purchase_units"][0]["amount"] == {"currency_code": currency, "value": value}


async def test_an_answer_in_whole_forints_is_read_in_minor_units(paypal: FakePaypal) -> None:
    """Fact 20, the other way round: "1200" HUF are 120,000 minor units, and never a float."""
    order = DRIVER.order(Said(status="unpaid"))
    order["purchase_units"][0]["amount"] = {"currency_code": "HUF", "value": "1200"}
    assert (await queried(paypal, order)).amount == 120_000
    order["purchase_units"][0]["amount"] = {"currency_code": "USD", "value": "90071992547409.93"}
    assert (await queried(paypal, order)).amount == 9_007_199_254_740_993


@pytest.mark.parametrize("currency", ["HUF", "TWD"])
async def test_an_amount_that_paypal_cannot_express_is_refused_before_anything_is_sent(
    paypal: FakePaypal, currency: str
) -> None:
    adapter, payment = paypal.open(), replace(row(), currency=currency, amount=1250, channel_transaction_id="1")
    with pytest.raises(ChannelRefused, match="whole units"):
        await adapter.create_payment(create(payment))
    with pytest.raises(ChannelRefused, match="whole units"):
        await adapter.refund_payment(payment, REFUND_NO, 50)
    assert paypal.asked == []


async def test_a_buyer_is_sent_to_paypal_over_tls_only(paypal: FakePaypal) -> None:
    answer = DRIVER.order(Said(status="unpaid")) | {"links": [{"rel": "payer-action", "href": "http://127.0.0.1/pay"}]}
    paypal.answers["/v2/checkout/orders"] = [told(201, answer)]
    with pytest.raises(ChannelUnreadable, match="address"):
        await paypal.open(base_url="").create_payment(create(DRIVER.payment()))


async def queried(paypal: FakePaypal, order: dict[str, Any]) -> Evidence:
    paypal.answers[order_path()] = [told(200, order)]
    return await paypal.open().query_payment(row())


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("CREATED", Unpaid),
        ("SAVED", Unpaid),
        ("PAYER_ACTION_REQUIRED", Unpaid),
        ("APPROVED", Approved),
        ("VOIDED", Closed),
    ],
)
async def test_each_status_of_an_order_is_what_it_means(paypal: FakePaypal, status: str, kind: type[Evidence]) -> None:
    order = DRIVER.order(Said(status="unpaid")) | {"status": status}
    evidence = await queried(paypal, order)
    assert isinstance(evidence, kind)
    assert (evidence.channel_account, evidence.out_trade_no) == ("main", NUMBER)
    assert (evidence.amount, evidence.currency) == (AMOUNT, "USD")


@pytest.mark.parametrize(
    ("statuses", "kind"),
    [
        (["COMPLETED"], Paid),
        (["DECLINED", "COMPLETED"], Paid),
        (["PENDING"], Unpaid),
        (["DECLINED", "PENDING"], Unpaid),
        (["DECLINED"], Closed),
        (["FAILED"], Closed),
        (["REFUNDED"], Refunded),
        (["PARTIALLY_REFUNDED"], Refunded),
    ],
)
async def test_a_completed_order_has_the_money_that_its_capture_has(
    paypal: FakePaypal, statuses: list[str], kind: type[Evidence]
) -> None:
    """`COMPLETED` alone would ship goods for a transfer that is pending, or was declined."""
    order = DRIVER.order(Said())
    capture = DRIVER.capture(Said())
    captures = [capture | {"id": f"C{at}", "status": status} for at, status in enumerate(statuses)]
    order["purchase_units"][0]["payments"] = {"captures": captures}
    evidence = await queried(paypal, order)
    assert isinstance(evidence, kind)
    if isinstance(evidence, Paid | Refunded):
        assert evidence.channel_transaction_id == f"C{len(statuses) - 1}"
    if isinstance(evidence, Unpaid):
        assert evidence.under_way, "it may take days, and is waited for"


async def test_the_money_is_the_captures_and_not_the_orders(paypal: FakePaypal) -> None:
    order = DRIVER.order(Said())
    order["purchase_units"][0]["payments"]["captures"][0]["amount"] = money(AMOUNT - 1, "USD")
    assert (await queried(paypal, order)).amount == AMOUNT - 1


@pytest.mark.parametrize("status", ["CREATED", "APPROVED", "PAYER_ACTION_REQUIRED", "VOIDED"])
@pytest.mark.parametrize(("of_capture", "kind"), [("COMPLETED", Paid), ("REFUNDED", Refunded), ("PENDING", Unpaid)])
async def test_money_that_was_taken_counts_whatever_its_order_is_called(
    paypal: FakePaypal, status: str, of_capture: str, kind: type[Evidence]
) -> None:
    """As *closed* it would be lost, as *approved* it would be asked for again."""
    order = DRIVER.order(Said()) | {"status": status}
    order["purchase_units"][0]["payments"]["captures"][0]["status"] = of_capture
    evidence = await queried(paypal, order)
    assert isinstance(evidence, kind)
    if isinstance(evidence, Unpaid):
        assert evidence.under_way


async def test_only_refunds_that_were_made_are_counted_and_a_reversal_is_all_of_it(paypal: FakePaypal) -> None:
    order = DRIVER.order(Said(status="refunded", refunded=1000))
    payments = order["purchase_units"][0]["payments"]
    refund = payments["refunds"][0]
    payments["refunds"] += [refund | {"status": status} for status in ("PENDING", "FAILED", "CANCELLED")]
    evidence = await queried(paypal, order)
    assert isinstance(evidence, Refunded)
    assert evidence.refunded_amount == 1000
    payments["captures"][0]["status"], payments["refunds"] = "REFUNDED", []
    evidence = await queried(paypal, order)
    assert isinstance(evidence, Refunded)
    assert evidence.refunded_amount == AMOUNT


async def test_an_order_without_our_number_is_the_one_asked_about_if_its_id_says_so(paypal: FakePaypal) -> None:
    """One that was made elsewhere and is watched has no number of ours in it."""
    order = DRIVER.order(Said())
    for name in ("custom_id", "invoice_id"):
        del order["purchase_units"][0][name]
    assert (await queried(paypal, order)).out_trade_no == NUMBER
    order["purchase_units"][0]["invoice_id"] = OTHER_NUMBER
    assert (await queried(paypal, order)).out_trade_no == OTHER_NUMBER
    del order["purchase_units"][0]["invoice_id"]
    with pytest.raises(ChannelUnreadable, match="other_order"):
        await queried(paypal, order | {"id": DRIVER.other_reference})


async def test_a_payment_without_an_order_id_is_not_asked_about(paypal: FakePaypal) -> None:
    with pytest.raises(ChannelUnreadable, match="no_channel_reference"):
        await paypal.open().query_payment(DRIVER.payment())
    assert paypal.asked == []


def test_the_status_of_a_kept_body_can_be_told() -> None:
    adapter = FakePaypal().open()
    assert adapter.status_of(DRIVER.render(Said())) == 200
    assert adapter.status_of(error("RESOURCE_NOT_FOUND", "INVALID_RESOURCE_ID")) == 404
    assert adapter.status_of(error("UNPROCESSABLE_ENTITY", "ORDER_NOT_APPROVED")) == 422
    assert adapter.status_of(b"<html>") == 200


async def test_a_not_found_that_names_no_debug_id_is_not_paypals_word(paypal: FakePaypal) -> None:
    paypal.answers[order_path()] = [told(404, {"name": "RESOURCE_NOT_FOUND"})]
    with pytest.raises(ChannelUnreadable):
        await paypal.open().query_payment(row())
    paypal.answers[order_path()] = [told(404, error("RESOURCE_NOT_FOUND"))]
    assert isinstance(await paypal.open().query_payment(row()), Missing)


# -- capture and refund ------------------------------------------------------------------------------------------------


async def test_a_capture_after_a_declined_one_is_not_answered_with_the_declined_ones_answer(paypal: FakePaypal) -> None:
    """As PayPal does for a key that it knows: the buyer has taken another card, and would never be captured."""
    declined = told(422, error("UNPROCESSABLE_ENTITY", "INSTRUMENT_DECLINED"))
    paypal.answers[order_path("/capture")] = [declined, told(201, DRIVER.order(Said()))]
    adapter = paypal.open()
    with pytest.raises(ChannelRefused):
        await adapter.capture_payment(row())
    await adapter.capture_payment(row())
    first, second = (asked.headers.get("paypal-request-id") for asked in paypal.asked[-2:])
    assert first is None or first != second


async def test_capturing_what_is_captured_is_fine_and_any_other_refusal_is_told(paypal: FakePaypal) -> None:
    refusals = ("ORDER_ALREADY_CAPTURED", "INSTRUMENT_DECLINED")
    paypal.answers[order_path("/capture")] = [told(422, error("UNPROCESSABLE_ENTITY", issue)) for issue in refusals]
    adapter = paypal.open()
    await adapter.capture_payment(row())
    with pytest.raises(ChannelRefused) as caught:
        await adapter.capture_payment(row())
    assert caught.value.code == "INSTRUMENT_DECLINED"


async def test_another_request_under_way_with_the_same_key_is_an_unknown_outcome(paypal: FakePaypal) -> None:
    paypal.answers[order_path("/capture")] = [told(409, error("RESOURCE_CONFLICT", "PREVIOUS_REQUEST_IN_PROGRESS"))]
    with pytest.raises(ChannelUnavailable):
        await paypal.open().capture_payment(row())


async def test_closing_asks_paypal_nothing(paypal: FakePaypal) -> None:
    await paypal.open().close_payment(row())
    assert paypal.asked == []


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("COMPLETED", RefundState.SUCCEEDED),
        ("PENDING", RefundState.PROCESSING),
        ("FAILED", RefundState.FAILED),
        ("CANCELLED", RefundState.FAILED),
    ],
)
async def test_a_refund_is_of_the_capture_and_found_again_by_our_number(
    paypal: FakePaypal, status: str, state: RefundState
) -> None:
    payment, adapter = row(channel_transaction_id="2GG279541U471931P"), paypal.open()
    refund = {"id": "1R", "status": status, "amount": money(1000, "USD"), "invoice_id": REFUND_NO}
    paypal.answers["/v2/payments/captures/2GG279541U471931P/refund"] = [told(201, refund)]
    assert await adapter.refund_payment(payment, REFUND_NO, 1000) is state
    asked = paypal.asked[-1]
    assert asked.headers["paypal-request-id"] == REFUND_NO
    assert json.loads(asked.body) == {
        "amount": {"currency_code": "USD", "value": "10.00"},
        "invoice_id": REFUND_NO,
        "custom_id": NUMBER,
    }
    order = DRIVER.order(Said(status="refunded", refunded=1000))
    order["purchase_units"][0]["payments"]["refunds"] = [refund]
    paypal.answers[order_path()] = [told(200, order)]
    assert await adapter.query_refund(payment, REFUND_NO) is state
    assert await adapter.query_refund(payment, "R-000404") is None


# -- callbacks ---------------------------------------------------------------------------------------------------------


async def test_the_event_is_verified_as_it_came_and_not_as_it_would_be_written(paypal: FakePaypal) -> None:
    """Fact 1: parsed and written again, a genuine event has another checksum, and a forged one might have the same."""
    content = b'{ "id":"WH-1",\r\n "event_type" : "CUSTOMER.DISPUTE.CREATED", "resource":{"a":1.10} }'
    written_again = json.dumps(json.loads(content)).encode()
    assert zlib.crc32(content) != zlib.crc32(written_again)
    assert (await verify(paypal.open(), genuine(content))).notification_id == "WH-1"
    with pytest.raises(CallbackForged):
        await verify(paypal.open(), genuine(content)._replace(body=written_again))


async def test_a_checksum_over_two_to_the_thirty_first_is_written_without_a_sign(paypal: FakePaypal) -> None:
    """Fact 16: half of all bodies have one, so half of all callbacks would be refused."""
    bodies = (event(f"WH-{at}", "CUSTOMER.DISPUTE.CREATED", {}) for at in range(100))
    high = next(body for body in bodies if zlib.crc32(body) >= 1 << 31)
    assert (await verify(paypal.open(), genuine(high))).evidence is None
    with pytest.raises(CallbackForged):
        await verify(paypal.open(), genuine(high, crc32=zlib.crc32(high) - (1 << 32)))


CERT_URLS = (
    "http://api.sandbox.paypal.com/v1/notifications/certs/CERT-1",
    "https://api.sandbox.paypal.com.evil.example/v1/notifications/certs/CERT-1",
    "https://evil.example/v1/notifications/certs/CERT-1",
    "https://api.sandbox.paypal.com@evil.example/v1/notifications/certs/CERT-1",
    "https://evil.example\\@api.sandbox.paypal.com/v1/notifications/certs/CERT-1",
    "https://evilapi.sandbox.paypal.com/v1/notifications/certs/CERT-1",
    "https://api.sandbox.paypal.com:8443/v1/notifications/certs/CERT-1",
    "https://api.sandbox.paypal.com/v1/notifications/certs/../../oauth2/token",
    "https://api.sandbox.paypal.com/v1/notifications/certs/CERT-1?x=1",
    "https://api.sandbox.paypal.com/v1/notifications/certs/CERT-1#x",
    "https://api.sandbox.paypal.com/v1/notifications/certs/%2e%2e",
    "https://api.sandbox.paypal.com/v1/notifications/certs/",
    "https://api.sandbox.paypal.com/v1/notifications/certs/CERT-1\n",
    "https://api.sandbox.paypal.com/v1/notifications/certs/CERT-１",
    "https://API.sandbox.paypal.com/v1/notifications/certs/CERT-1",
    "https://apixsandbox.paypal.com/v1/notifications/certs/CERT-1",
    "https://api.paypal.com/v1/notifications/certs/CERT-1",
    "https://www.paypal.com/v1/notifications/certs/CERT-1",
    "https://169.254.169.254/v1/notifications/certs/CERT-1",
    "https://127.0.0.1/v1/notifications/certs/CERT-1",
    "file:///etc/passwd",
    " ",
)


@pytest.mark.parametrize("url", CERT_URLS)
@pytest.mark.parametrize("how", ["offline", "endpoint"])
async def test_an_address_that_is_not_paypals_is_refused_before_anything_is_sent(
    paypal: FakePaypal, url: str, how: str
) -> None:
    """Fact 16: whoever is let choose where the key comes from is let choose the key."""
    adapter = paypal.open(base_url="", verify_webhooks=how)
    with pytest.raises(CallbackForged):
        await verify(adapter, genuine(url=url))
    assert paypal.asked == []


@pytest.mark.parametrize("host", ["api.sandbox.paypal.com", "api-m.sandbox.paypal.com"])
async def test_paypals_own_addresses_are_asked(paypal: FakePaypal, host: str) -> None:
    """The counterpart of those that are not, letter for letter the same otherwise."""
    url = f"https://{host}{CERTIFICATES}{IDS[Key.NEW]}"
    assert (await verify(paypal.open(base_url=""), genuine(url=url))).evidence is not None
    assert [asked.headers["host"] for asked in paypal.asked] == [host]


async def test_a_live_account_takes_no_certificate_of_the_sandbox(paypal: FakePaypal) -> None:
    """Neither from its host nor in its name: whoever has a sandbox can have it sign."""
    adapter = paypal.open(live=True, base_url="")
    with pytest.raises(CallbackForged, match="certificate_url"):
        await verify(adapter, genuine(url=f"https://api.sandbox.paypal.com{CERTIFICATES}{IDS[Key.NEW]}"))
    with pytest.raises(CallbackForged, match="certificate_not_trusted"):
        await verify(adapter, genuine(url=f"https://api.paypal.com{CERTIFICATES}{IDS[Key.NEW]}"))


async def test_certificates_may_come_from_hosts_that_are_named_where_paypal_is_a_stand_in(paypal: FakePaypal) -> None:
    adapter = paypal.open(certificate_hosts=["certs.example:8080"])
    url = f"http://certs.example:8080{CERTIFICATES}{IDS[Key.NEW]}"
    assert (await verify(adapter, genuine(url=url))).evidence is not None
    with pytest.raises(CallbackForged, match="certificate_url"):
        await verify(adapter, genuine())


async def test_a_certificate_is_fetched_once_for_all_who_wait_and_kept(paypal: FakePaypal) -> None:
    adapter = paypal.open()
    paypal.gate.clear()
    verifying = [asyncio.create_task(verify(adapter, genuine())) for _ in range(20)]
    await until(lambda: paypal.asked)
    paypal.gate.set()
    assert len({callback.notification_id for callback in await asyncio.gather(*verifying)}) == 1
    await verify(adapter, genuine())
    assert paypal.count(CERTIFICATES) == 1


async def test_a_kept_certificate_ends_when_it_is_over(paypal: FakePaypal) -> None:
    """And is judged by when the callback was received: one that was parked is not too late."""
    adapter = paypal.open()
    assert (await verify(adapter, genuine())).evidence is not None
    with pytest.raises(CallbackForged, match="certificate_not_trusted"):
        await verify(adapter, genuine(), received_at=datetime(2099, 1, 2, tzinfo=UTC))
    assert (await verify(adapter, genuine())).evidence is not None


async def test_names_of_certificates_that_are_made_up_cost_a_few_calls_a_minute(paypal: FakePaypal) -> None:
    """And keep nobody from being verified by a certificate that is known."""
    adapter = paypal.open()
    await verify(adapter, genuine())
    refused: list[type[ChannelError]] = []
    for at in range(3 * FETCHES_PER_MINUTE_MAX):
        with pytest.raises((CallbackForged, ChannelUnavailable)) as caught:
            await verify(adapter, genuine(url=f"{OFFLINE_URL}{CERTIFICATES}CERT-{at}"))
        refused.append(caught.type)
    assert paypal.count(CERTIFICATES) == FETCHES_PER_MINUTE_MAX
    assert refused[-1] is ChannelUnavailable, "a genuine one is sent again by PayPal"
    assert (await verify(adapter, genuine())).evidence is not None
    paypal.now += 61
    assert (await verify(adapter, genuine(key=Key.OLD))).evidence is not None


@pytest.mark.parametrize("answer", [told(503, b""), told(403, b""), told(200, b"<html>"), told(302, b"")], ids=str)
async def test_a_certificate_that_cannot_be_had_now_is_no_verdict(paypal: FakePaypal, answer: Answered) -> None:
    path = f"{CERTIFICATES}{IDS[Key.NEW]}"
    paypal.answers[path] = [answer]
    adapter = paypal.open()
    with pytest.raises(ChannelUnavailable):
        await verify(adapter, genuine())
    del paypal.answers[path]
    assert (await verify(adapter, genuine())).evidence is not None


async def test_what_is_checked_can_be_seen(paypal: FakePaypal) -> None:
    sent = genuine()
    with trace.recorded_checks() as heard:
        await verify(paypal.open(), sent)
        with pytest.raises(CallbackForged):
            await verify(paypal.open(), sent._replace(body=b"{}"))
    assert [(one.algorithm, one.key, one.is_good) for one in heard] == [
        ("SHA256withRSA", IDS[Key.NEW], True),
        ("SHA256withRSA", IDS[Key.NEW], False),
    ]
    assert heard[0].string.decode().split("|")[2:] == [WEBHOOK_ID, str(zlib.crc32(sent.body))]


def test_the_body_of_a_callback_is_never_trusted_alone() -> None:
    """Its signature covers a CRC-32, and for that another body is found in no time."""
    with pytest.raises(ConfigurationError, match="trust_callback"):
        Paypal(replace(config(), trust_callback=True), FakePaypal().transport)


# -- callbacks, verified by asking -------------------------------------------------------------------------------------

VERIFY = "/v1/notifications/verify-webhook-signature"


async def test_paypal_is_asked_about_the_bytes_that_came(paypal: FakePaypal) -> None:
    """Fact 1, at the other way to verify: PayPal takes the checksum of what stands in the question."""
    content = b'{ "id":"WH-1",\r\n "event_type" : "CUSTOMER.DISPUTE.CREATED", "resource":{"a":1.10} }'
    paypal.answers[VERIFY] = [told(200, {"verification_status": "SUCCESS"})]
    sent = genuine(content)
    callback = await verify(paypal.open(verify_webhooks="endpoint"), sent)
    assert callback.notification_id == "WH-1"
    question = paypal.asked[-1].body
    assert question.endswith(b',"webhook_event":' + content + b"}")
    fields = json.loads(question)
    assert {name: fields[name] for name in fields if name != "webhook_event"} == {
        "auth_algo": "SHA256withRSA",
        "cert_url": sent.headers["paypal-cert-url"],
        "transmission_id": sent.headers["paypal-transmission-id"],
        "transmission_sig": sent.headers["paypal-transmission-sig"],
        "transmission_time": sent.headers["paypal-transmission-time"],
        "webhook_id": WEBHOOK_ID,
    }


async def test_a_body_cannot_put_a_webhook_of_its_own_into_the_question(paypal: FakePaypal) -> None:
    """PayPal would truthfully answer SUCCESS: the event is genuine, and another merchant's."""
    paypal.answers[VERIFY] = [told(200, {"verification_status": "SUCCESS"})]
    event_of_ours = DRIVER.render_callback(Said(), "WH-1")
    adapter = paypal.open(verify_webhooks="endpoint")
    for body in (
        event_of_ours + b',"webhook_id":"THEIRS","more":{}',
        event_of_ours + b"," + event_of_ours,
        b"[" + event_of_ours + b"]",
        event_of_ours[:-1] + b',"id":"WH-2"}',
        b"",
    ):
        with pytest.raises(CallbackForged):
            await verify(adapter, genuine(body))
    assert paypal.asked == []


@pytest.mark.parametrize(
    "answer",
    [
        told(200, {"verification_status": "FAILURE"}),
        told(400, error("VALIDATION_ERROR")),
        told(201, {"verification_status": "SUCCESS"}),
    ],
    ids=str,
)
async def test_only_success_is_success(paypal: FakePaypal, answer: Answered) -> None:
    paypal.answers[VERIFY] = [answer]
    with pytest.raises(CallbackForged):
        await verify(paypal.open(verify_webhooks="endpoint"), genuine())


@pytest.mark.parametrize(
    "answer",
    [told(503, b""), told(200, b"<html>"), told(200, {"verification_status": "MAYBE"}), told(401, b"")],
    ids=str,
)
async def test_no_verdict_is_no_verdict(paypal: FakePaypal, answer: Answered) -> None:
    paypal.answers[VERIFY] = [answer]
    with pytest.raises(ChannelUnavailable):
        await verify(paypal.open(verify_webhooks="endpoint"), genuine())


def test_who_asks_to_verify_needs_no_authorities() -> None:
    assert FakePaypal().open(verify_webhooks="endpoint", ca_certificates=[]) is not None


def test_without_authorities_of_its_own_an_account_trusts_those_of_the_system() -> None:
    try:
        assert FakePaypal().open(base_url="", ca_certificates=[]) is not None
    except ConfigurationError as refused:
        assert "ca_certificates" in str(refused)  # noqa: PT017 - a machine that trusts nobody says so


# -- events ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", ["PAYMENT.CAPTURE.REFUNDED", "PAYMENT.CAPTURE.REVERSED"])
async def test_an_event_about_a_refund_says_that_there_is_something_to_ask(paypal: FakePaypal, type_: str) -> None:
    """It tells what went back, and not what had come."""
    refund = {"id": "1R", "status": "COMPLETED", "amount": money(1000, "USD"), "custom_id": NUMBER}
    callback = await verify(paypal.open(), genuine(event("WH-1", type_, refund)))
    assert callback.evidence == Unclear(channel_account="main", out_trade_no=NUMBER, reason="refund_told")


@pytest.mark.parametrize("type_", ["DENIED", "DECLINED", "PENDING"])
async def test_a_capture_that_did_not_come_about_is_unpaid(paypal: FakePaypal, type_: str) -> None:
    capture = DRIVER.capture(Said()) | {"status": "PENDING" if type_ == "PENDING" else "DECLINED"}
    callback = await verify(paypal.open(), genuine(event("WH-1", f"PAYMENT.CAPTURE.{type_}", capture)))
    assert isinstance(callback.evidence, Unpaid)
    assert callback.evidence.under_way is (type_ == "PENDING")


async def test_a_capture_is_for_the_invoice_where_it_has_no_number_of_its_own(paypal: FakePaypal) -> None:
    capture = DRIVER.capture(Said(number=OTHER_NUMBER))
    del capture["custom_id"]
    callback = await verify(paypal.open(), genuine(event("WH-1", "PAYMENT.CAPTURE.COMPLETED", capture)))
    assert callback.evidence is not None
    assert callback.evidence.out_trade_no == OTHER_NUMBER


# -- statements --------------------------------------------------------------------------------------------------------

REPORT = "/v1/reporting/transactions"
DAY = date(2026, 11, 23)


def page(pages: int, *transactions: dict[str, Any]) -> Answered:
    details = [{"transaction_info": one} for one in transactions]
    return told(200, json.dumps({"transaction_details": details, "total_pages": pages}, indent=2).encode())


def transaction(**changed: Any) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(DRIVER.statement.partition(b"\n")[0])["transaction_info"]
    return line | changed


async def fetched(paypal: FakePaypal) -> list[StatementRow | MalformedRow]:
    adapter, file = paypal.open(), BytesIO()
    await adapter.fetch_statement(DAY, file)
    file.seek(0)
    return list(adapter.parse_statement(file))


async def test_all_pages_of_the_day_are_fetched_one_transaction_a_line(paypal: FakePaypal) -> None:
    paypal.answers[REPORT] = [page(2, transaction(), transaction(transaction_id="2")), page(2, transaction())]
    assert [one.line for one in await fetched(paypal)] == [1, 2, 3]
    asked = [path for path in paypal.paths() if path.startswith(REPORT)]
    assert [path.rpartition("=")[2] for path in asked] == ["1", "2"]
    assert "start_date=2026-11-23T00:00:00Z&end_date=2026-11-23T23:59:59Z" in asked[0]


async def test_a_day_with_more_than_paypal_lists_is_fetched_in_parts(paypal: FakePaypal) -> None:
    paypal.answers[REPORT] = [told(400, error("RESULTSET_TOO_LARGE")), page(1, transaction()), page(1, transaction())]
    assert len(await fetched(paypal)) == 2
    spans = [path.split("&")[:2] for path in paypal.paths() if path.startswith(REPORT)]
    assert [span[0].rpartition("T")[2] + "-" + span[1].rpartition("T")[2] for span in spans] == [
        "00:00:00Z-23:59:59Z",
        "00:00:00Z-11:59:59Z",
        "12:00:00Z-23:59:59Z",
    ]


async def test_a_day_without_transactions_has_no_statement(paypal: FakePaypal) -> None:
    paypal.answers[REPORT] = [page(0)]
    with pytest.raises(ChannelRefused) as caught:
        await fetched(paypal)
    assert caught.value.code == "no_statement"


async def test_pages_that_never_end_do(paypal: FakePaypal) -> None:
    paypal.answers[REPORT] = [page(10**6, transaction())]
    with pytest.raises(ChannelUnreadable, match="statement_pages"):
        await fetched(paypal)


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        ({}, "payment"),
        ({"transaction_event_code": "T0000"}, "payment"),
        ({"transaction_status": "V"}, "payment"),
        ({"transaction_status": "F"}, "payment"),
        ({"transaction_status": "P"}, None),
        ({"transaction_status": "D"}, None),
        ({"transaction_amount": {"currency_code": "USD", "value": "-88.88"}}, None),
        ({"transaction_event_code": "T1107"}, None),
        ({"transaction_event_code": "T0400", "transaction_amount": money(-1, "USD")}, None),
        ({"transaction_event_code": "T1107", "transaction_amount": money(-1, "USD")}, "refund"),
        ({"transaction_event_code": "T1106", "transaction_amount": money(-1, "USD")}, "refund"),
        ({"transaction_event_code": "T1110", "transaction_amount": money(-1, "USD")}, None),
        ({"transaction_event_code": "T1107", "transaction_amount": money(-1, "USD"), "transaction_status": "P"}, None),
    ],
)
async def test_money_that_came_and_money_that_went_back_are_told_by_code_sign_and_status(
    paypal: FakePaypal, changed: dict[str, Any], kind: str | None
) -> None:
    """Fees, withdrawals, what we paid ourselves and what is held are none of our payments."""
    paypal.answers[REPORT] = [page(1, transaction(**changed))]
    rows = await fetched(paypal)
    assert [one.kind for one in rows if isinstance(one, StatementRow)] == ([] if kind is None else [kind])
    assert not [one for one in rows if isinstance(one, MalformedRow)]


async def test_a_refund_that_was_made_in_the_console_has_no_number_of_ours(paypal: FakePaypal) -> None:
    gone = money(-1000, "USD")
    refund = transaction(transaction_event_code="T1107", transaction_amount=gone, paypal_reference_id="C1")
    paypal.answers[REPORT] = [page(1, refund)]
    (found,) = await fetched(paypal)
    assert isinstance(found, StatementRow)
    assert (found.refund_no, found.out_trade_no, found.channel_transaction_id) == ("", NUMBER, "C1")


# -- helpers -----------------------------------------------------------------------------------------------------------


def asked_token() -> Asked:
    return Asked("POST", "/v1/oauth2/token", {}, b"", b"")


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event to wait on
            await asyncio.sleep(0)
