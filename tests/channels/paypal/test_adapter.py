"""Features that only PayPal has: access tokens, capture, certificates named by callbacks, a signed checksum."""

import asyncio
import json
import zlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, date, datetime, timedelta
from io import BytesIO
from typing import Any, Literal

import httpx
import pytest
from msgspec.structs import replace

from channels.base import Callback, ChannelRefund, MalformedRow, RefundState, StatementRow
from channels.kit.signed_message import recorded_checks
from channels.paypal.adapter import Paypal
from channels.paypal.api import RENEW_BEFORE_S
from channels.paypal.webhook import VERIFICATION
from channels.transport import Transport
from core.account import AccountConfig
from core.admission import Urgency
from core.errors import (
    CallbackForged,
    CaptureDeclined,
    ChannelError,
    ChannelNotCalled,
    ChannelRefused,
    ChannelUnavailable,
    ChannelUnreadable,
    ConfigurationError,
)
from core.evidence import Approved, Closed, Evidence, Missing, Paid, Refunded, Unclear, Unpaid
from core.order import Payment
from tests.channels.conftest import create, httpx_response, rows_in, wire_request
from tests.channels.gates import Gate, of_a_stranger
from tests.channels.httpx_carrier import responding
from tests.channels.paypal.checksum import with_checksum_of
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
from tests.channels.reports import (
    AMOUNT,
    NUMBER,
    OFFLINE_URL,
    OTHER_NUMBER,
    PAID_AT,
    REFUND_NO,
    CallbackRequest,
    Key,
    PaymentReport,
)
from tests.channels.wire import WireRequest, WireResponse

DRIVER = PaypalDriver()
NOW = PAID_AT + timedelta(seconds=30)
AT = NOW.timestamp()


class FakePaypal:
    """A PayPal for these tests; `answers` has the responses of each path in turn, the last one for ever."""

    def __init__(self) -> None:
        self.requests: list[WireRequest] = []
        self.answers: dict[str, list[WireResponse]] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.now = AT
        self.latency_s = 0.0
        self.transport = Transport(timeout_s=2, carrier=responding(self._answer))

    def open(self, *, live: bool = False, base_url: str = OFFLINE_URL, **credentials: object) -> Paypal:
        return Paypal(config(live=live, base_url=base_url, **credentials), self.transport, clock=lambda: self.now)

    def paths(self) -> list[str]:
        return [request.target for request in self.requests]

    def count(self, start: str) -> int:
        return sum(path.startswith(start) for path in self.paths())

    async def _answer(self, http_request: httpx.Request) -> httpx.Response:
        request = wire_request(http_request)
        self.requests.append(request)
        await self.gate.wait()
        await asyncio.sleep(self.latency_s)
        response = self.answers.get(request.target.partition("?")[0])
        if response:
            return httpx_response(response.pop(0) if len(response) > 1 else response[0])
        return httpx_response(DRIVER.preceding_response(request))


def config(*, live: bool = False, base_url: str = OFFLINE_URL, **credentials: object) -> AccountConfig:
    given = DRIVER.account(base_url)
    return replace(given, live=live, credentials=given.credentials | credentials)


def row(**changed: Any) -> Payment:
    return replace(DRIVER.payment(), channel_reference=DRIVER.reference, **changed)


def response_of(status: int, body: object) -> WireResponse:
    return WireResponse(status, {}, body if isinstance(body, bytes) else json.dumps(body).encode())


def order_path(end: str = "") -> str:
    return f"/v2/checkout/orders/{DRIVER.reference}{end}"


def genuine(
    content: bytes | None = None, *, url: str = "", crc32: int | None = None, key: Key = Key.NEW
) -> CallbackRequest:
    """A genuine callback, by default of a paid payment; `url` is the certificate's address in it."""
    body = DRIVER.render_callback(PaymentReport(), "WH-1") if content is None else content
    at_paypal = f"{OFFLINE_URL}{CERTIFICATES}{IDS[key]}"
    return CallbackRequest(
        signature_headers(body, key=keys().signing[key], url=url or at_paypal, crc32=crc32, at=AT), body
    )


async def verify(adapter: Paypal, callback: CallbackRequest, *, received_at: datetime = NOW) -> Callback:
    return await adapter.verify_callback(callback.headers, callback.body, received_at=received_at)


@pytest.fixture
async def paypal() -> AsyncIterator[FakePaypal]:
    fake = FakePaypal()
    async with fake.transport:
        yield fake


# -- access tokens -----------------------------------------------------------------------------------------------------


async def test_many_callers_wait_for_one_token(paypal: FakePaypal) -> None:
    adapter = paypal.open()
    paypal.answers[order_path()] = [response_of(200, DRIVER.render(PaymentReport()))]
    paypal.gate.clear()
    asking = [asyncio.create_task(adapter.query_payment(row())) for _ in range(20)]
    await until(lambda: paypal.requests)
    paypal.gate.set()
    assert {type(answer) for answer in await asyncio.gather(*asking)} == {Paid}
    assert paypal.count("/v1/oauth2/token") == 1
    assert paypal.requests[0].body == b"grant_type=client_credentials"
    assert paypal.requests[1].headers["authorization"] == "Bearer a-token"


async def test_a_failed_token_fails_all_waiters_and_the_next_call_fetches_again(paypal: FakePaypal) -> None:
    adapter = paypal.open()
    paypal.answers["/v1/oauth2/token"] = [response_of(503, {}), DRIVER.preceding_response(asked_token())]
    paypal.answers[order_path()] = [response_of(200, DRIVER.render(PaymentReport()))]
    paypal.gate.clear()
    asking = [asyncio.create_task(adapter.query_payment(row())) for _ in range(5)]
    await until(lambda: paypal.requests)
    paypal.gate.set()
    received = await asyncio.gather(*asking, return_exceptions=True)
    assert {type(error) for error in received} == {ChannelUnavailable}
    assert isinstance(await adapter.query_payment(row()), Paid)


async def test_a_cancelled_waiter_leaves_the_token_to_the_others(paypal: FakePaypal) -> None:
    adapter = paypal.open()
    paypal.answers[order_path()] = [response_of(200, DRIVER.render(PaymentReport()))]
    paypal.gate.clear()
    first, second = (asyncio.create_task(adapter.query_payment(row())) for _ in range(2))
    await until(lambda: paypal.requests)
    first.cancel()
    paypal.gate.set()
    assert isinstance(await second, Paid)
    assert paypal.count("/v1/oauth2/token") == 1
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_token_is_renewed_before_it_ends_and_not_sooner(paypal: FakePaypal) -> None:
    adapter = paypal.open()
    paypal.answers[order_path()] = [response_of(200, DRIVER.render(PaymentReport()))]
    for after_s, tokens in ((0.0, 1), (32_400 - RENEW_BEFORE_S - 1, 1), (2.0, 2)):
        paypal.now += after_s
        await adapter.query_payment(row())
        assert paypal.count("/v1/oauth2/token") == tokens


async def test_a_token_is_kept_current_only_while_the_account_is_used(paypal: FakePaypal) -> None:
    adapter = paypal.open()
    await adapter.keep_current()
    assert paypal.requests == []
    paypal.answers[order_path()] = [response_of(200, DRIVER.render(PaymentReport()))]
    await adapter.query_payment(row())
    await adapter.keep_current()
    assert paypal.count("/v1/oauth2/token") == 1
    paypal.now += 32_400 - RENEW_BEFORE_S - 600
    await adapter.keep_current()
    assert paypal.count("/v1/oauth2/token") == 2


async def test_a_token_refused_early_is_renewed_and_the_call_repeated_once(paypal: FakePaypal) -> None:
    adapter = paypal.open()
    paypal.answers[order_path()] = [
        response_of(401, {"error": "invalid_token"}),
        response_of(200, DRIVER.render(PaymentReport())),
    ]
    assert isinstance(await adapter.query_payment(row()), Paid)
    assert (paypal.count("/v1/oauth2/token"), paypal.count("/v2/checkout")) == (2, 2)


async def test_a_token_and_the_call_after_it_share_one_deadline(paypal: FakePaypal) -> None:
    """A lease outlasts one deadline, but not four in a row."""
    paypal.answers[order_path()] = [response_of(200, DRIVER.render(PaymentReport()))]
    paypal.latency_s = 0.3
    async with Transport(timeout_s=0.5, carrier=responding(paypal._answer)) as hasty:
        adapter = Paypal(config(), hasty, clock=lambda: paypal.now)
        with pytest.raises(ChannelUnavailable, match="timed_out"):
            await adapter.query_payment(row())
        assert isinstance(await adapter.query_payment(row()), Paid), "the token is kept"


async def test_a_new_token_refused_too_ends_in_an_unknown_outcome(paypal: FakePaypal) -> None:
    """A disabled account must not cause a loop of new tokens."""
    adapter = paypal.open()
    paypal.answers[order_path()] = [response_of(401, error("AUTHENTICATION_FAILURE"))]
    with pytest.raises(ChannelUnreadable, match="unauthorized"):
        await adapter.query_payment(row())
    assert (paypal.count("/v1/oauth2/token"), paypal.count("/v2/checkout")) == (2, 2)


# -- orders ------------------------------------------------------------------------------------------------------------


async def created(paypal: FakePaypal, payment: Payment, answer: dict[str, Any]) -> dict[str, Any]:
    """The body of the creation request."""
    paypal.answers["/v2/checkout/orders"] = [response_of(201, answer)]
    await paypal.open().create_payment(create(payment))
    body: dict[str, Any] = json.loads(paypal.requests[-1].body)
    return body


async def test_an_order_carries_our_number_in_both_places_and_as_its_idempotency_key(paypal: FakePaypal) -> None:
    body = await created(paypal, DRIVER.payment(), DRIVER.order(PaymentReport(status="unpaid")))
    (unit,) = body["purchase_units"]
    assert (body["intent"], unit["custom_id"], unit["invoice_id"]) == ("CAPTURE", NUMBER, NUMBER)
    assert unit["amount"] == {"currency_code": "USD", "value": "88.88"}
    assert paypal.requests[-1].headers["paypal-request-id"] == NUMBER
    context = body["payment_source"]["paypal"]["experience_context"]
    assert (context["user_action"], context["return_url"]) == ("PAY_NOW", "http://127.0.0.1:9/o/token/return")


async def test_a_long_subject_is_cut_to_what_paypal_takes(paypal: FakePaypal) -> None:
    paypal.answers["/v2/checkout/orders"] = [response_of(201, DRIVER.order(PaymentReport(status="unpaid")))]
    await paypal.open().create_payment(replace(create(DRIVER.payment()), subject="茶" * 300))
    assert json.loads(paypal.requests[-1].body)["purchase_units"][0]["description"] == "茶" * 127


@pytest.mark.parametrize(
    ("currency", "amount", "value"),
    [("USD", 1, "0.01"), ("JPY", 500, "500"), ("HUF", 120_000, "1200"), ("TWD", 100, "1")],
)
async def test_an_amount_is_written_as_paypal_writes_this_currency(
    paypal: FakePaypal, currency: str, amount: int, value: str
) -> None:
    """The exponent depends on the currency, and PayPal's differs from ISO 4217 for HUF and TWD."""
    report = PaymentReport(status="unpaid", currency=currency, amount=amount)
    body = await created(paypal, replace(DRIVER.payment(), currency=currency, amount=amount), DRIVER.order(report))
    assert body["purchase_units"][0]["amount"] == {"currency_code": currency, "value": value}


async def test_a_response_in_whole_forints_is_read_in_minor_units(paypal: FakePaypal) -> None:
    """A value of "1200" HUF is 120,000 minor units, and never a float."""
    order = DRIVER.order(PaymentReport(status="unpaid"))
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
    assert paypal.requests == []


async def test_a_buyer_is_sent_to_paypal_over_tls_only(paypal: FakePaypal) -> None:
    answer = DRIVER.order(PaymentReport(status="unpaid")) | {
        "links": [{"rel": "payer-action", "href": "http://127.0.0.1/pay"}]
    }
    paypal.answers["/v2/checkout/orders"] = [response_of(201, answer)]
    with pytest.raises(ChannelUnreadable, match="address"):
        await paypal.open(base_url="").create_payment(create(DRIVER.payment()))


async def queried(paypal: FakePaypal, order: dict[str, Any]) -> Evidence:
    paypal.answers[order_path()] = [response_of(200, order)]
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
async def test_each_order_status_maps_to_its_evidence(paypal: FakePaypal, status: str, kind: type[Evidence]) -> None:
    order = DRIVER.order(PaymentReport(status="unpaid")) | {"status": status}
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
async def test_a_completed_order_is_judged_by_its_capture(
    paypal: FakePaypal, statuses: list[str], kind: type[Evidence]
) -> None:
    """`COMPLETED` alone would also accept a transfer that is pending or declined."""
    order = DRIVER.order(PaymentReport())
    capture = DRIVER.capture(PaymentReport())
    captures = [capture | {"id": f"C{at}", "status": status} for at, status in enumerate(statuses)]
    order["purchase_units"][0]["payments"] = {"captures": captures}
    evidence = await queried(paypal, order)
    assert isinstance(evidence, kind)
    if isinstance(evidence, Paid | Refunded):
        assert evidence.channel_transaction_id == f"C{len(statuses) - 1}"
    if isinstance(evidence, Unpaid):
        assert evidence.under_way, "it may take days, and is waited for"


async def test_the_amount_is_the_captures_and_not_the_orders(paypal: FakePaypal) -> None:
    order = DRIVER.order(PaymentReport())
    order["purchase_units"][0]["payments"]["captures"][0]["amount"] = money(AMOUNT - 1, "USD")
    assert (await queried(paypal, order)).amount == AMOUNT - 1


@pytest.mark.parametrize("status", ["CREATED", "APPROVED", "PAYER_ACTION_REQUIRED", "VOIDED"])
@pytest.mark.parametrize(("of_capture", "kind"), [("COMPLETED", Paid), ("REFUNDED", Refunded), ("PENDING", Unpaid)])
async def test_captured_money_counts_with_any_order_status(
    paypal: FakePaypal, status: str, of_capture: str, kind: type[Evidence]
) -> None:
    """As *closed* it would be lost, as *approved* it would be captured again."""
    order = DRIVER.order(PaymentReport()) | {"status": status}
    order["purchase_units"][0]["payments"]["captures"][0]["status"] = of_capture
    evidence = await queried(paypal, order)
    assert isinstance(evidence, kind)
    if isinstance(evidence, Unpaid):
        assert evidence.under_way


async def test_only_completed_refunds_count_and_a_reversal_is_the_whole_amount(paypal: FakePaypal) -> None:
    order = DRIVER.order(PaymentReport(status="refunded", refunded=1000))
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


async def test_an_order_names_our_refunds_by_both_numbers_and_others_by_paypals(paypal: FakePaypal) -> None:
    """Of a refund of ours our number is its invoice id, whatever has become of it."""
    order = DRIVER.order(PaymentReport(status="refunded", refunded=1000))
    payments = order["purchase_units"][0]["payments"]
    own = payments["refunds"][0] | {"id": "1R", "invoice_id": f"r{NUMBER}"}
    console = payments["refunds"][0] | {"id": "2R", "invoice_id": "INV-7"}
    payments["refunds"] = [own, console, own | {"id": "3R", "invoice_id": f"r2_{NUMBER}", "status": "PENDING"}]
    evidence = await queried(paypal, order)
    assert isinstance(evidence, Refunded)
    assert evidence.refund_numbers == {f"r{NUMBER}": "1R", f"r2_{NUMBER}": "3R"}
    assert set(evidence.refunds) == {f"r{NUMBER}", "2R"}


async def test_a_refund_in_part_that_the_list_does_not_have_yet_has_no_sum(paypal: FakePaypal) -> None:
    """Read as 0 it would look like a sale."""
    order = DRIVER.order(PaymentReport(status="refunded", refunded=1000))
    payments = order["purchase_units"][0]["payments"]
    payments["refunds"][0]["status"] = "PENDING"
    evidence = await queried(paypal, order)
    assert isinstance(evidence, Refunded)
    assert evidence.refunded_amount is None
    payments["captures"][0]["status"], payments["refunds"][0]["status"] = "COMPLETED", "COMPLETED"
    evidence = await queried(paypal, order)
    assert isinstance(evidence, Refunded)
    assert evidence.refunded_amount == 1000


async def test_an_order_without_our_number_is_matched_by_its_id(paypal: FakePaypal) -> None:
    """A watched order that was made elsewhere does not have our number."""
    order = DRIVER.order(PaymentReport())
    for name in ("custom_id", "invoice_id"):
        del order["purchase_units"][0][name]
    assert (await queried(paypal, order)).out_trade_no == NUMBER
    order["purchase_units"][0]["invoice_id"] = OTHER_NUMBER
    assert (await queried(paypal, order)).out_trade_no == OTHER_NUMBER
    del order["purchase_units"][0]["invoice_id"]
    with pytest.raises(ChannelUnreadable, match="other_order"):
        await queried(paypal, order | {"id": DRIVER.other_reference})


async def test_a_payment_without_an_order_id_cannot_be_queried(paypal: FakePaypal) -> None:
    with pytest.raises(ChannelUnreadable, match="no_channel_reference"):
        await paypal.open().query_payment(DRIVER.payment())
    assert paypal.requests == []


def test_the_status_of_a_stored_body_is_found() -> None:
    adapter = FakePaypal().open()
    assert adapter.status_of(DRIVER.render(PaymentReport())) == 200
    assert adapter.status_of(error("RESOURCE_NOT_FOUND", "INVALID_RESOURCE_ID")) == 404
    assert adapter.status_of(error("UNPROCESSABLE_ENTITY", "ORDER_NOT_APPROVED")) == 422
    assert adapter.status_of(b"<html>") == 200


async def test_a_404_without_a_debug_id_is_not_missing(paypal: FakePaypal) -> None:
    paypal.answers[order_path()] = [response_of(404, {"name": "RESOURCE_NOT_FOUND"})]
    with pytest.raises(ChannelUnreadable):
        await paypal.open().query_payment(row())
    paypal.answers[order_path()] = [response_of(404, error("RESOURCE_NOT_FOUND"))]
    assert isinstance(await paypal.open().query_payment(row()), Missing)


# -- capture and refund ------------------------------------------------------------------------------------------------


async def test_a_capture_after_a_declined_one_is_a_new_capture(paypal: FakePaypal) -> None:
    """With a known key PayPal would repeat the decline although the buyer has chosen another card."""
    declined = response_of(422, error("UNPROCESSABLE_ENTITY", "INSTRUMENT_DECLINED"))
    paypal.answers[order_path("/capture")] = [declined, response_of(201, DRIVER.order(PaymentReport()))]
    adapter = paypal.open()
    with pytest.raises(ChannelRefused):
        await adapter.capture_payment(row())
    await adapter.capture_payment(row())
    first, second = (request.headers.get("paypal-request-id") for request in paypal.requests[-2:])
    assert first is None or first != second


async def test_capturing_twice_is_accepted_and_any_other_refusal_is_raised(paypal: FakePaypal) -> None:
    refusals = ("ORDER_ALREADY_CAPTURED", "INSTRUMENT_DECLINED")
    paypal.answers[order_path("/capture")] = [
        response_of(422, error("UNPROCESSABLE_ENTITY", issue)) for issue in refusals
    ]
    adapter = paypal.open()
    await adapter.capture_payment(row())
    with pytest.raises(ChannelRefused) as caught:
        await adapter.capture_payment(row())
    assert caught.value.code == "INSTRUMENT_DECLINED"


@pytest.mark.parametrize(
    ("issue", "is_definite"),
    [
        ("INSTRUMENT_DECLINED", True),
        ("CARD_EXPIRED", True),
        ("REDIRECT_PAYER_FOR_ALTERNATE_FUNDING", True),
        ("MAX_NUMBER_OF_PAYMENT_ATTEMPTS_EXCEEDED", True),
        ("TRANSACTION_REFUSED", True),
        ("PAYER_CANNOT_PAY", True),
        ("PAYER_ACTION_REQUIRED", False),
        ("DUPLICATE_INVOICE_ID", False),
        ("ORDER_NOT_APPROVED", False),
        ("SOMETHING_NEW", False),
    ],
)
async def test_only_a_refusal_of_this_approval_is_a_declined_capture(
    paypal: FakePaypal, issue: str, is_definite: bool
) -> None:
    paypal.answers[order_path("/capture")] = [response_of(422, error("UNPROCESSABLE_ENTITY", issue))]
    with pytest.raises(ChannelRefused) as caught:
        await paypal.open().capture_payment(row())
    assert (caught.value.code, isinstance(caught.value, CaptureDeclined)) == (issue, is_definite)


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        (("DECLINED",), "CAPTURE_DECLINED"),
        (("DECLINED", "FAILED"), "CAPTURE_FAILED"),
        (("DECLINED", "COMPLETED"), None),
        (("PENDING",), None),
        ((), None),
    ],
)
async def test_a_response_with_failed_captures_alone_is_a_declined_capture(
    paypal: FakePaypal, statuses: tuple[str, ...], code: str | None
) -> None:
    order = DRIVER.order(PaymentReport())
    [unit] = order["purchase_units"]
    [capture] = unit["payments"]["captures"]
    unit["payments"]["captures"] = [capture | {"status": status} for status in statuses]
    paypal.answers[order_path("/capture")] = [response_of(201, order)]
    caught = None
    try:
        await paypal.open().capture_payment(row())
    except CaptureDeclined as declined:
        caught = declined.code
    assert caught == code


async def test_a_capture_response_that_says_nothing_about_captures_is_no_refusal(paypal: FakePaypal) -> None:
    """A minimal response; the query shows what came of it."""
    paypal.answers[order_path("/capture")] = [response_of(201, {"id": DRIVER.reference, "status": "COMPLETED"})]
    await paypal.open().capture_payment(row())


async def test_a_checkout_ends_three_hours_after_paypal_made_the_order(paypal: FakePaypal) -> None:
    """Also when the creation is repeated and returns the order of the first request."""
    order = DRIVER.order(PaymentReport(status="unpaid")) | {"create_time": "2026-11-23T04:00:00Z"}
    paypal.answers["/v2/checkout/orders"] = [response_of(201, order)]
    created = await paypal.open().create_payment(create(DRIVER.payment()))
    assert created.checkout_ends_at == datetime(2026, 11, 23, 7, 0, tzinfo=UTC)


async def test_another_request_under_way_with_the_same_key_is_an_unknown_outcome(paypal: FakePaypal) -> None:
    paypal.answers[order_path("/capture")] = [
        response_of(409, error("RESOURCE_CONFLICT", "PREVIOUS_REQUEST_IN_PROGRESS"))
    ]
    with pytest.raises(ChannelUnavailable):
        await paypal.open().capture_payment(row())


async def test_closing_sends_nothing_to_paypal(paypal: FakePaypal) -> None:
    await paypal.open().close_payment(row())
    assert paypal.requests == []


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("COMPLETED", RefundState.SUCCEEDED),
        ("PENDING", RefundState.PROCESSING),
        ("FAILED", RefundState.FAILED),
        ("CANCELLED", RefundState.FAILED),
    ],
)
async def test_a_refund_is_made_on_the_capture_and_found_by_our_number(
    paypal: FakePaypal, status: str, state: RefundState
) -> None:
    payment, adapter = row(channel_transaction_id="2GG279541U471931P"), paypal.open()
    refund = {"id": "1R", "status": status, "amount": money(1000, "USD"), "invoice_id": REFUND_NO}
    paypal.answers["/v2/payments/captures/2GG279541U471931P/refund"] = [response_of(201, refund)]
    expected = ChannelRefund(state=state, channel_refund_no="1R")
    assert await adapter.refund_payment(payment, REFUND_NO, 1000) == expected
    request = paypal.requests[-1]
    assert request.headers["paypal-request-id"] == REFUND_NO
    assert json.loads(request.body) == {
        "amount": {"currency_code": "USD", "value": "10.00"},
        "invoice_id": REFUND_NO,
        "custom_id": NUMBER,
    }
    order = DRIVER.order(PaymentReport(status="refunded", refunded=1000))
    order["purchase_units"][0]["payments"]["refunds"] = [refund]
    paypal.answers[order_path()] = [response_of(200, order)]
    assert await adapter.query_refund(payment, REFUND_NO) == expected
    assert await adapter.query_refund(payment, "R-000404") is None


# -- callbacks ---------------------------------------------------------------------------------------------------------


async def test_a_reserialised_event_is_forged(paypal: FakePaypal) -> None:
    """Reserialised, a genuine event has another checksum, and a forged one might have the same."""
    content = b'{ "id":"WH-1",\r\n "event_type" : "BILLING.PLAN.CREATED", "resource":{"a":1.10} }'
    written_again = json.dumps(json.loads(content)).encode()
    assert zlib.crc32(content) != zlib.crc32(written_again)
    assert (await verify(paypal.open(), genuine(content))).notification_id == "WH-1"
    with pytest.raises(CallbackForged):
        await verify(paypal.open(), genuine(content)._replace(body=written_again))


async def test_a_checksum_above_2_to_the_31_is_unsigned(paypal: FakePaypal) -> None:
    """Half of all bodies have such a checksum, so half of all callbacks would be refused."""
    bodies = (event(f"WH-{at}", "BILLING.PLAN.CREATED", {}) for at in range(100))
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
    """The source of the key decides the key."""
    adapter = paypal.open(base_url="", verify_webhooks=how)
    with pytest.raises(CallbackForged):
        await verify(adapter, genuine(url=url))
    assert paypal.requests == []


@pytest.mark.parametrize("host", ["api.sandbox.paypal.com", "api-m.sandbox.paypal.com"])
async def test_certificates_are_fetched_from_paypals_own_addresses(paypal: FakePaypal, host: str) -> None:
    """The counterpart of the refused addresses, otherwise the same letter for letter."""
    url = f"https://{host}{CERTIFICATES}{IDS[Key.NEW]}"
    assert (await verify(paypal.open(base_url=""), genuine(url=url))).evidence is not None
    assert [request.headers["host"] for request in paypal.requests] == [host]


async def test_a_live_account_takes_no_certificate_of_the_sandbox(paypal: FakePaypal) -> None:
    """Neither from its host nor in its name: anybody with a sandbox account can have it sign."""
    adapter = paypal.open(live=True, base_url="")
    with pytest.raises(CallbackForged, match="certificate_url"):
        await verify(adapter, genuine(url=f"https://api.sandbox.paypal.com{CERTIFICATES}{IDS[Key.NEW]}"))
    with pytest.raises(CallbackForged, match="certificate_not_trusted"):
        await verify(adapter, genuine(url=f"https://api.paypal.com{CERTIFICATES}{IDS[Key.NEW]}"))


async def test_a_simulated_paypal_may_name_its_certificate_hosts(paypal: FakePaypal) -> None:
    adapter = paypal.open(certificate_hosts=["certs.example:8080"])
    url = f"http://certs.example:8080{CERTIFICATES}{IDS[Key.NEW]}"
    assert (await verify(adapter, genuine(url=url))).evidence is not None
    with pytest.raises(CallbackForged, match="certificate_url"):
        await verify(adapter, genuine())


async def test_a_certificate_is_fetched_once_for_all_waiters_and_kept(paypal: FakePaypal) -> None:
    adapter = paypal.open()
    paypal.gate.clear()
    verifying = [asyncio.create_task(verify(adapter, genuine())) for _ in range(20)]
    await until(lambda: paypal.requests)
    paypal.gate.set()
    assert len({callback.notification_id for callback in await asyncio.gather(*verifying)}) == 1
    await verify(adapter, genuine())
    assert paypal.count(CERTIFICATES) == 1


async def test_a_kept_certificate_is_dropped_when_it_expires(paypal: FakePaypal) -> None:
    """It is judged at the callback's receipt, so a parked callback is not too late."""
    adapter = paypal.open()
    assert (await verify(adapter, genuine())).evidence is not None
    with pytest.raises(CallbackForged, match="certificate_not_trusted"):
        await verify(adapter, genuine(), received_at=datetime(2099, 1, 2, tzinfo=UTC))
    assert (await verify(adapter, genuine())).evidence is not None


async def test_invented_certificate_names_have_the_share_of_strangers(paypal: FakePaypal) -> None:
    """Ten of them kept genuine ones out for a minute. A known certificate needs no call, and one that is known and no
    longer kept is fetched beside the strangers.
    """
    adapter, gate = paypal.open(), Gate(strangers_max=5)
    with of_a_stranger(gate):
        await verify(adapter, genuine())
        refused: list[type[ChannelError]] = []
        for at in range(20):
            with pytest.raises((CallbackForged, ChannelUnavailable)) as caught:
                await verify(adapter, genuine(url=f"{OFFLINE_URL}{CERTIFICATES}CERT-{at}"))
            refused.append(caught.type)
        assert refused == [CallbackForged] * 4 + [ChannelNotCalled] * 16
        assert (paypal.count(CERTIFICATES), gate.passed) == (5, [Urgency.STRANGER] * 5)
        assert (await verify(adapter, genuine())).evidence is not None
        with pytest.raises(CallbackForged):
            await verify(adapter, genuine(), received_at=datetime(2099, 1, 2, tzinfo=UTC))  # it is fetched again now
        assert (await verify(adapter, genuine())).evidence is not None
    assert gate.passed[5:] == [Urgency.FRESH]


async def test_a_certificate_that_is_not_there_is_not_asked_for_again_at_once(paypal: FakePaypal) -> None:
    adapter = paypal.open()
    for _ in range(5):
        with pytest.raises(CallbackForged, match="certificate_unknown"):
            await verify(adapter, genuine(url=f"{OFFLINE_URL}{CERTIFICATES}CERT-none"))
    assert paypal.count(CERTIFICATES) == 1
    paypal.now += 61
    with pytest.raises(CallbackForged, match="certificate_unknown"):
        await verify(adapter, genuine(url=f"{OFFLINE_URL}{CERTIFICATES}CERT-none"))
    assert paypal.count(CERTIFICATES) == 2


async def test_callbacks_that_the_endpoint_verifies_have_the_share_of_strangers_until_one_was_genuine(
    paypal: FakePaypal,
) -> None:
    """The token too: what no call covers passes the gate."""
    adapter, gate = paypal.open(verify_webhooks="endpoint"), Gate(strangers_max=2)
    paypal.answers[VERIFICATION] = [response_of(200, b'{"verification_status":"SUCCESS"}')]
    with of_a_stranger(gate):
        await verify(adapter, genuine())
        assert gate.passed == [Urgency.STRANGER, Urgency.STRANGER], "the token and the verification"
        with pytest.raises(ChannelUnavailable):
            await verify(adapter, genuine(url=f"{OFFLINE_URL}{CERTIFICATES}CERT-1"))
        assert (await verify(adapter, genuine())).evidence is not None
    assert gate.passed[2:] == [Urgency.REFRESH]


@pytest.mark.parametrize(
    "answer",
    [response_of(503, b""), response_of(403, b""), response_of(200, b"<html>"), response_of(302, b"")],
    ids=str,
)
async def test_a_certificate_that_cannot_be_fetched_is_unavailable(paypal: FakePaypal, answer: WireResponse) -> None:
    path = f"{CERTIFICATES}{IDS[Key.NEW]}"
    paypal.answers[path] = [answer]
    adapter = paypal.open()
    with pytest.raises(ChannelUnavailable):
        await verify(adapter, genuine())
    del paypal.answers[path]
    assert (await verify(adapter, genuine())).evidence is not None


async def test_signature_checks_are_recorded(paypal: FakePaypal) -> None:
    callback = genuine()
    with recorded_checks() as checks:
        await verify(paypal.open(), callback)
        with pytest.raises(CallbackForged):
            await verify(paypal.open(), callback._replace(body=b"{}"))
    assert [(one.algorithm, one.key, one.is_good) for one in checks] == [
        ("SHA256withRSA", IDS[Key.NEW], True),
        ("SHA256withRSA", IDS[Key.NEW], False),
    ]
    assert checks[0].string.decode().split("|")[2:] == [WEBHOOK_ID, str(zlib.crc32(callback.body))]


@pytest.mark.parametrize("trust", [True, "when_unanswered"], ids=str)
def test_trust_callback_is_refused(trust: Literal[True, "when_unanswered"]) -> None:
    """The signature covers a CRC-32, for which another body is quickly found."""
    with pytest.raises(ConfigurationError, match="trust_callback"):
        Paypal(replace(config(), trust_callback=trust), FakePaypal().transport)


async def test_a_body_made_for_the_checksum_of_a_genuine_one_verifies_and_is_a_hint(paypal: FakePaypal) -> None:
    callback = genuine()
    forged = with_checksum_of(callback.body, json.loads(DRIVER.render_callback(PaymentReport(amount=1), "WH-2")))
    verified = await verify(paypal.open(), callback._replace(body=forged))
    assert verified.evidence is not None
    assert (verified.notification_id, verified.evidence.amount, verified.is_hint) == ("WH-2", 1, True)


# -- callbacks, verified by asking -------------------------------------------------------------------------------------

VERIFY = "/v1/notifications/verify-webhook-signature"


async def test_what_paypal_has_verified_is_a_hint_too(paypal: FakePaypal) -> None:
    """It is sent the same headers, and is not known to compare more than the signature of a checksum."""
    paypal.answers[VERIFY] = [response_of(200, {"verification_status": "SUCCESS"})]
    assert (await verify(paypal.open(verify_webhooks="endpoint"), genuine())).is_hint


async def test_paypal_verifies_the_received_bytes(paypal: FakePaypal) -> None:
    """PayPal computes the checksum of the event in the request."""
    content = b'{ "id":"WH-1",\r\n "event_type" : "BILLING.PLAN.CREATED", "resource":{"a":1.10} }'
    paypal.answers[VERIFY] = [response_of(200, {"verification_status": "SUCCESS"})]
    callback = genuine(content)
    verified = await verify(paypal.open(verify_webhooks="endpoint"), callback)
    assert verified.notification_id == "WH-1"
    question = paypal.requests[-1].body
    assert question.endswith(b',"webhook_event":' + content + b"}")
    fields = json.loads(question)
    assert {name: fields[name] for name in fields if name != "webhook_event"} == {
        "auth_algo": "SHA256withRSA",
        "cert_url": callback.headers["paypal-cert-url"],
        "transmission_id": callback.headers["paypal-transmission-id"],
        "transmission_sig": callback.headers["paypal-transmission-sig"],
        "transmission_time": callback.headers["paypal-transmission-time"],
        "webhook_id": WEBHOOK_ID,
    }


async def test_a_body_cannot_inject_another_webhook_id(paypal: FakePaypal) -> None:
    """PayPal would truthfully return SUCCESS: the event is genuine, but another merchant's."""
    paypal.answers[VERIFY] = [response_of(200, {"verification_status": "SUCCESS"})]
    event_of_ours = DRIVER.render_callback(PaymentReport(), "WH-1")
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
    assert paypal.requests == []


@pytest.mark.parametrize(
    "answer",
    [
        response_of(200, {"verification_status": "FAILURE"}),
        response_of(400, error("VALIDATION_ERROR")),
        response_of(201, {"verification_status": "SUCCESS"}),
    ],
    ids=str,
)
async def test_only_the_verdict_success_verifies(paypal: FakePaypal, answer: WireResponse) -> None:
    paypal.answers[VERIFY] = [answer]
    with pytest.raises(CallbackForged):
        await verify(paypal.open(verify_webhooks="endpoint"), genuine())


@pytest.mark.parametrize(
    "answer",
    [
        response_of(503, b""),
        response_of(200, b"<html>"),
        response_of(200, {"verification_status": "MAYBE"}),
        response_of(401, b""),
    ],
    ids=str,
)
async def test_a_missing_verdict_is_unavailable(paypal: FakePaypal, answer: WireResponse) -> None:
    paypal.answers[VERIFY] = [answer]
    with pytest.raises(ChannelUnavailable):
        await verify(paypal.open(verify_webhooks="endpoint"), genuine())


def test_verification_at_paypal_needs_no_authorities() -> None:
    assert FakePaypal().open(verify_webhooks="endpoint", ca_certificates=[]) is not None


def test_without_configured_authorities_the_systems_are_trusted() -> None:
    try:
        assert FakePaypal().open(base_url="", ca_certificates=[]) is not None
    except ConfigurationError as refused:
        assert "ca_certificates" in str(refused)  # noqa: PT017 - a machine that trusts nobody says so


# -- events ------------------------------------------------------------------------------------------------------------


async def test_an_event_about_a_refund_is_unclear(paypal: FakePaypal) -> None:
    """It has the refunded amount, and not the payment's."""
    refund = {"id": "1R", "status": "COMPLETED", "amount": money(1000, "USD"), "custom_id": NUMBER}
    callback = await verify(paypal.open(), genuine(event("WH-1", "PAYMENT.CAPTURE.REFUNDED", refund)))
    notice = Unclear(channel_account="main", out_trade_no=NUMBER, ids=(NUMBER,), reason="refund_told")
    assert callback.evidence == notice


@pytest.mark.parametrize("type_", ["DENIED", "DECLINED", "PENDING"])
async def test_a_capture_that_failed_is_unpaid(paypal: FakePaypal, type_: str) -> None:
    capture = DRIVER.capture(PaymentReport()) | {"status": "PENDING" if type_ == "PENDING" else "DECLINED"}
    callback = await verify(paypal.open(), genuine(event("WH-1", f"PAYMENT.CAPTURE.{type_}", capture)))
    assert isinstance(callback.evidence, Unpaid)
    assert callback.evidence.under_way is (type_ == "PENDING")


async def test_a_capture_without_custom_id_is_matched_by_invoice_id(paypal: FakePaypal) -> None:
    capture = DRIVER.capture(PaymentReport(number=OTHER_NUMBER))
    del capture["custom_id"]
    callback = await verify(paypal.open(), genuine(event("WH-1", "PAYMENT.CAPTURE.COMPLETED", capture)))
    assert callback.evidence is not None
    assert callback.evidence.out_trade_no == OTHER_NUMBER


# -- statements --------------------------------------------------------------------------------------------------------

REPORT = "/v1/reporting/transactions"
DAY = date(2026, 11, 23)


def page(pages: int, *transactions: dict[str, Any]) -> WireResponse:
    details = [{"transaction_info": one} for one in transactions]
    return response_of(200, json.dumps({"transaction_details": details, "total_pages": pages}, indent=2).encode())


def transaction(**changed: Any) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(DRIVER.statement.partition(b"\n")[0])["transaction_info"]
    return line | changed


async def fetched(paypal: FakePaypal) -> list[StatementRow | MalformedRow]:
    adapter, file = paypal.open(), BytesIO()
    await adapter.fetch_statement(DAY, file)
    file.seek(0)
    return rows_in(adapter.parse_statement(file))


async def test_all_pages_of_a_day_are_fetched_as_one_transaction_a_line(paypal: FakePaypal) -> None:
    paypal.answers[REPORT] = [page(2, transaction(), transaction(transaction_id="2")), page(2, transaction())]
    assert [one.line for one in await fetched(paypal)] == [1, 2, 3]
    request = [path for path in paypal.paths() if path.startswith(REPORT)]
    assert [path.rpartition("=")[2] for path in request] == ["1", "2"]
    assert "start_date=2026-11-23T00:00:00Z&end_date=2026-11-23T23:59:59Z" in request[0]


async def test_a_day_over_paypals_list_limit_is_fetched_in_parts(paypal: FakePaypal) -> None:
    paypal.answers[REPORT] = [
        response_of(400, error("RESULTSET_TOO_LARGE")),
        page(1, transaction()),
        page(1, transaction()),
    ]
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


async def test_endless_pages_are_cut_off(paypal: FakePaypal) -> None:
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
async def test_payments_and_refunds_are_told_apart_by_code_sign_and_status(
    paypal: FakePaypal, changed: dict[str, Any], kind: str | None
) -> None:
    """Fees, withdrawals, our own payments and holds are not payments of ours."""
    paypal.answers[REPORT] = [page(1, transaction(**changed))]
    rows = await fetched(paypal)
    assert [one.kind for one in rows if isinstance(one, StatementRow)] == ([] if kind is None else [kind])
    assert not [one for one in rows if isinstance(one, MalformedRow)]


async def test_a_refund_from_the_console_has_no_refund_no(paypal: FakePaypal) -> None:
    gone = money(-1000, "USD")
    refund = transaction(transaction_event_code="T1107", transaction_amount=gone, paypal_reference_id="C1")
    paypal.answers[REPORT] = [page(1, refund)]
    (found,) = await fetched(paypal)
    assert isinstance(found, StatementRow)
    assert (found.refund_no, found.out_trade_no, found.channel_transaction_id) == ("", NUMBER, "C1")


# -- helpers -----------------------------------------------------------------------------------------------------------


def asked_token() -> WireRequest:
    return WireRequest("POST", "/v1/oauth2/token", {}, b"", b"")


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event to wait on
            await asyncio.sleep(0)
