"""Features that only WeChat Pay has: three methods, two kinds of keys, unsigned errors, certificates, its bill."""

import base64
import gzip
import hashlib
import io
import json
import re
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import msgspec
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.hashes import SHA256
from msgspec.structs import replace

from channels.base import ChannelRefund, Create, MalformedRow, RefundState, StatedTotal, StatementRow
from channels.kit.signed_message import recorded_checks
from channels.transport import Response, Transport
from channels.wechatpay.adapter import WechatPay
from core.account import AccountConfig
from core.admission import CallKind, Urgency
from core.checkout import Payer
from core.errors import (
    CallbackForged,
    CallbackStale,
    ChannelRefused,
    ChannelUnavailable,
    ChannelUnreadable,
    ConfigurationError,
    InvalidRequest,
)
from core.evidence import Closed, Missing, Paid, Refunded, Unclear, Unpaid
from core.lifecycle import mismatch
from simulator.kernel.ledger import Row as LedgerRow
from simulator.wechatpay.bills import bill
from simulator.wechatpay.bodies import refund_id
from tests.channels.conftest import rows_in
from tests.channels.gates import Gate, of_a_call, of_a_stranger
from tests.channels.httpx_carrier import responding
from tests.channels.reports import AMOUNT, NUMBER, PAID_AT, REFUND_NO, TODAY, CallbackRequest, Key, PaymentReport
from tests.channels.wechatpay.driver import (
    APIV3_KEY,
    APPID,
    PUBLIC_KEY_ID,
    REFUND_BILL,
    SUCCESS_BILL,
    WechatPayDriver,
    certificate,
    certificate_pem,
    envelope,
    error,
    keys,
    new_key,
    seal,
    serial_of,
    signature_headers,
)
from tests.channels.wire import WireRequest, WireResponse

DRIVER = WechatPayDriver()
LIVE = "https://api.mch.weixin.qq.com"
NOW = datetime(2026, 11, 23, 4, 0, 30, tzinfo=UTC)
ROW = DRIVER.payment()

Respond = Callable[[WireRequest], WireResponse]


class FakeChannel:
    """The adapter with a fixed response; calls are recorded. `now` is its clock."""

    def __init__(
        self, respond: Respond | None = None, *, base_url: str = "http://127.0.0.1:9", **credentials: Any
    ) -> None:
        self.requests: list[WireRequest] = []
        self.hosts: list[str] = []
        self.now = time.time()
        self.respond: Respond = respond or (
            lambda request: DRIVER.signed_response(request, 200, DRIVER.render(PaymentReport()))
        )
        self.unconnectable: set[str] = set()
        account = DRIVER.account(base_url)
        account = replace(account, live=base_url == LIVE, credentials={**account.credentials, **credentials})
        transport = Transport(timeout_s=5, carrier=responding(self._handle))
        self.adapter = WechatPay(account, transport, clock=lambda: self.now)

    def _handle(self, request: httpx.Request) -> httpx.Response:
        self.hosts.append(request.url.host)
        if request.url.host in self.unconnectable:
            raise httpx.ConnectError("refused")
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append(WireRequest(request.method, request.url.raw_path.decode(), headers, request.content, b""))
        status, headers, body = self.respond(self.requests[-1])
        return httpx.Response(status, headers=headers, stream=httpx.ByteStream(body))

    def signed(self, body: object, status: int = 200) -> WireResponse:
        raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
        return DRIVER.signed_response(self.requests[-1], status, raw, at=self.now)


def create(method: str = "", **changes: Any) -> Create:
    request = Create(
        payment=replace(ROW, method=method),
        subject="Tea, 250 g",
        callback_url="https://shop.example/callbacks/main",
        return_url="https://shop.example/o/token/return?a=1&b=2",
        payer=Payer(openid="openid-of-a-buyer", client_ip="203.0.113.7"),
    )
    return replace(request, **changes)


def channel_sending(body: object) -> FakeChannel:
    """A channel that sends this body, signed, for every call."""
    channel = FakeChannel()
    channel.respond = lambda _: channel.signed(body)
    return channel


def callback_request(body: bytes, *, at: float = NOW.timestamp(), key: Key = Key.NEW) -> CallbackRequest:
    return DRIVER.callback(body, at=at, key=key)


def genuine(report: PaymentReport | None = None) -> bytes:
    return envelope(seal(DRIVER.render(report or PaymentReport())), DRIVER.notification_id)


# -- requests --------------------------------------------------------------------------------------------------------


async def test_a_call_has_the_required_headers() -> None:
    channel = FakeChannel()
    await channel.adapter.query_payment(ROW)
    (request,) = channel.requests
    assert request.target == f"/v3/pay/transactions/out-trade-no/{NUMBER}?mchid={DRIVER.merchant_id}"
    assert request.headers["accept"] == "application/json"
    assert request.headers["user-agent"].startswith("nodrop/")
    assert request.headers["wechatpay-serial"] == PUBLIC_KEY_ID
    fields = dict(re.findall(r'([a-z_]+)="([^"]*)"', request.headers["authorization"]))
    assert set(fields) == {"mchid", "nonce_str", "signature", "timestamp", "serial_no"}


@pytest.mark.parametrize("call", ["query", "close"])
async def test_five_lines_are_signed_also_when_the_body_is_empty(call: str) -> None:
    """The last line is the body, ended by a line feed like the others; for a GET it is empty."""
    channel = FakeChannel()
    channel.respond = lambda _: channel.signed(
        DRIVER.render(PaymentReport(status="unpaid")) if call == "query" else b""
    )
    await (channel.adapter.query_payment(ROW) if call == "query" else channel.adapter.close_payment(ROW))
    (request,) = channel.requests
    fields = dict(re.findall(r'([a-z_]+)="([^"]*)"', request.headers["authorization"]))
    lines = (request.method, request.target, fields["timestamp"], fields["nonce_str"], request.body.decode(), "")
    public, signature = keys().ours[Key.NEW].public_key(), base64.b64decode(fields["signature"])
    public.verify(signature, "\n".join(lines).encode(), padding.PKCS1v15(), SHA256())
    with pytest.raises(InvalidSignature):
        public.verify(signature, "\n".join(lines[:-1]).encode(), padding.PKCS1v15(), SHA256())


async def test_the_address_is_signed_as_it_is_sent() -> None:
    channel = FakeChannel()
    await channel.adapter.query_payment(replace(ROW, out_trade_no="ab|cd*ef"))
    assert "/ab%7Ccd%2Aef?" in channel.requests[0].target


async def test_a_payment_with_a_reference_is_queried_by_it() -> None:
    channel = FakeChannel()
    await channel.adapter.query_payment(replace(ROW, channel_reference=DRIVER.transaction))
    assert channel.requests[0].target == f"/v3/pay/transactions/id/{DRIVER.transaction}?mchid={DRIVER.merchant_id}"


async def test_a_creation_request_has_every_field_of_the_payment() -> None:
    until = datetime(2026, 11, 23, 4, 30, 0, 999_999, tzinfo=UTC)
    channel = channel_sending({"code_url": "weixin://wxpay/bizpayurl?pr=a"})
    created = await channel.adapter.create_payment(create(payment=replace(ROW, payable_until=until)))
    assert channel.requests[0].target == "/v3/pay/transactions/native"
    assert json.loads(channel.requests[0].body) == {
        "appid": APPID,
        "mchid": DRIVER.merchant_id,
        "description": "Tea, 250 g",
        "out_trade_no": NUMBER,
        "time_expire": "2026-11-23T12:30:00+08:00",
        "notify_url": "https://shop.example/callbacks/main",
        "amount": {"total": AMOUNT, "currency": "CNY"},
    }
    assert created.payable_until == until.replace(microsecond=0)
    assert (created.checkout.kind, created.checkout.value) == ("qr", "weixin://wxpay/bizpayurl?pr=a")


async def test_a_long_description_is_cut_by_characters_and_not_by_bytes() -> None:
    channel = channel_sending({"code_url": "weixin://x"})
    await channel.adapter.create_payment(create(subject="茶" * 200))
    assert json.loads(channel.requests[0].body)["description"] == "茶" * 127


@pytest.mark.parametrize("url", ["https://shop.example/callbacks/main?a=1", "https://shop.example/callbacks/main?"])
async def test_a_callback_url_with_a_query_string_is_refused(url: str) -> None:
    """The channel accepts the order and never calls such an address."""
    channel = channel_sending({"code_url": "weixin://x"})
    with pytest.raises(InvalidRequest):
        await channel.adapter.create_payment(create(callback_url=url))
    assert channel.requests == []


async def test_only_cny_is_accepted() -> None:
    channel = channel_sending({"code_url": "weixin://x"})
    with pytest.raises(InvalidRequest):
        await channel.adapter.create_payment(create(payment=replace(ROW, currency="USD")))
    assert channel.requests == []


async def test_an_unknown_method_is_refused_before_anything_is_sent() -> None:
    channel = channel_sending({"code_url": "weixin://x"})
    with pytest.raises(InvalidRequest):
        await channel.adapter.create_payment(create("app"))
    assert channel.requests == []


async def test_h5_sends_the_buyer_to_the_channel_and_back() -> None:
    channel = channel_sending({"h5_url": "https://wx.example/checkmweb?prepay_id=wx1&package=2"})
    checkout = (await channel.adapter.create_payment(create("h5"))).checkout
    scene = json.loads(channel.requests[0].body)["scene_info"]
    assert scene == {"payer_client_ip": "203.0.113.7", "h5_info": {"type": "Wap"}}
    assert checkout.kind == "redirect"
    assert parse_qs(urlsplit(checkout.value).query) == {
        "prepay_id": ["wx1"],
        "package": ["2"],
        "redirect_url": ["https://shop.example/o/token/return?a=1&b=2"],
    }


@pytest.mark.parametrize("url", ["javascript:alert(1)", "http://[", "weixin://wap/pay", "//evil.example", "http://"])
async def test_h5_sends_the_buyer_to_web_addresses_only(url: str) -> None:
    with pytest.raises(ChannelUnreadable):
        await channel_sending({"h5_url": url}).adapter.create_payment(create("h5"))


async def test_jsapi_returns_the_signed_bridge_parameters() -> None:
    channel = channel_sending({"prepay_id": "wx2026112312000000000000000000000001"})
    checkout = (await channel.adapter.create_payment(create("jsapi"))).checkout
    assert json.loads(channel.requests[0].body)["payer"] == {"openid": "openid-of-a-buyer"}
    bridge = json.loads(checkout.value)
    assert checkout.kind == "client"
    assert set(bridge) == {"appId", "timeStamp", "nonceStr", "package", "signType", "paySign"}
    string = "".join(f"{bridge[name]}\n" for name in ("appId", "timeStamp", "nonceStr", "package"))
    public = keys().ours[Key.NEW].public_key()
    public.verify(base64.b64decode(bridge["paySign"]), string.encode(), padding.PKCS1v15(), SHA256())
    assert (bridge["package"], bridge["signType"]) == ("prepay_id=wx2026112312000000000000000000000001", "RSA")


# -- the two hosts -----------------------------------------------------------------------------------------------------


async def test_a_query_goes_to_the_second_host_when_the_first_cannot_be_connected() -> None:
    channel = FakeChannel(base_url=LIVE)
    channel.unconnectable = {"api.mch.weixin.qq.com"}
    assert isinstance(await channel.adapter.query_payment(ROW), Paid)
    assert channel.hosts == ["api.mch.weixin.qq.com", "api2.mch.weixin.qq.com"]


async def test_the_second_host_is_a_request_of_its_own() -> None:
    """The admission of the call covers one."""
    channel, gate = FakeChannel(base_url=LIVE), Gate()
    channel.unconnectable = {"api.mch.weixin.qq.com"}
    with of_a_call(gate, CallKind.QUERY):
        await channel.adapter.query_payment(ROW)
    assert (gate.passed, gate.kinds) == ([Urgency.FRESH], {CallKind.QUERY})


async def test_only_queries_go_to_the_second_host() -> None:
    channel = FakeChannel(base_url=LIVE)
    channel.unconnectable = {"api.mch.weixin.qq.com"}
    with pytest.raises(ChannelUnavailable):
        await channel.adapter.create_payment(create())
    assert channel.hosts == ["api.mch.weixin.qq.com"]


async def test_a_query_that_was_received_is_not_sent_to_the_second_host() -> None:
    channel = FakeChannel(lambda _: error(500, "SYSTEM_ERROR"), base_url=LIVE)
    with pytest.raises(ChannelUnavailable):
        await channel.adapter.query_payment(ROW)
    assert channel.hosts == ["api.mch.weixin.qq.com"]


# -- evidence --------------------------------------------------------------------------------------------------------


async def test_the_amount_of_the_order_counts_and_not_what_the_payer_paid_after_a_coupon() -> None:
    fields = json.loads(DRIVER.render(PaymentReport()))
    fields["amount"]["payer_total"] = 1
    evidence = await channel_sending(fields).adapter.query_payment(ROW)
    assert isinstance(evidence, Paid)
    assert evidence.amount == AMOUNT
    assert mismatch(ROW, evidence) is None


async def test_trade_state_refund_was_paid() -> None:
    """The response has no refunded amount, and the state covers refunds in part: None, so that none is invented."""
    evidence = await channel_sending(DRIVER.render(PaymentReport(status="refunded"))).adapter.query_payment(ROW)
    assert isinstance(evidence, Refunded)
    assert (evidence.amount, evidence.refunded_amount, evidence.at) == (AMOUNT, None, PAID_AT)
    assert mismatch(ROW, evidence) is None


@pytest.mark.parametrize(
    ("state", "kind"),
    [("NOTPAY", Unpaid), ("USERPAYING", Unpaid), ("PAYERROR", Unpaid), ("CLOSED", Closed), ("REVOKED", Closed)],
)
async def test_states_without_money_need_no_amount(state: str, kind: type[Unpaid | Closed]) -> None:
    """A failed attempt leaves NOTPAY, and another may follow."""
    fields = json.loads(DRIVER.render(PaymentReport(status=state)))
    del fields["amount"]
    assert isinstance(await channel_sending(fields).adapter.query_payment(ROW), kind)


@pytest.mark.parametrize("total", [8888.5, "8888", "88.88", True, None, -8888, 1e30])
async def test_an_amount_is_an_integer_of_fen_or_it_is_unreadable(total: object) -> None:
    fields = json.loads(DRIVER.render(PaymentReport()))
    fields["amount"]["total"] = total
    with pytest.raises(ChannelUnreadable):
        await channel_sending(fields).adapter.query_payment(ROW)


async def test_an_amount_without_its_currency_is_in_cny() -> None:
    fields = json.loads(DRIVER.render(PaymentReport()))
    del fields["amount"]["currency"]
    evidence = await channel_sending(fields).adapter.query_payment(ROW)
    assert evidence.currency == "CNY"


async def test_a_404_with_order_not_exist_is_missing_although_unsigned() -> None:
    channel = FakeChannel(lambda _: error(404, "ORDER_NOT_EXIST"))
    assert await channel.adapter.query_payment(ROW) == Missing(channel_account="main", out_trade_no=NUMBER)
    for answer in (error(400, "ORDER_NOT_EXIST"), error(404, "NOT_FOUND"), WireResponse(404, {}, b"")):
        channel.respond = lambda _, answer=answer: answer  # type: ignore[misc]  # bound now
        with pytest.raises(ChannelUnreadable):
            await channel.adapter.query_payment(ROW)


async def test_older_spellings_of_codes_mean_the_same() -> None:
    """Otherwise a missing payment would not be missing, and a refund without balance not refused."""
    missing = error(404, "ORDERNOTEXIST")
    assert isinstance(await FakeChannel(lambda _: missing).adapter.query_payment(ROW), Missing)
    assert FakeChannel().adapter.status_of(missing.body) == 404
    for code in ("ORDERNOTEXIST", "ORDERCLOSED"):
        await FakeChannel(lambda _, code=code: error(400, code)).adapter.close_payment(ROW)  # type: ignore[misc]  # bound now
    with pytest.raises(ChannelRefused) as caught:
        await FakeChannel(lambda _: error(403, "NOTENOUGH")).adapter.refund_payment(ROW, REFUND_NO, 1000)
    assert caught.value.code == "NOT_ENOUGH"
    with pytest.raises(ChannelUnavailable):
        await FakeChannel(lambda _: error(400, "BANKERROR")).adapter.query_payment(ROW)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409])
@pytest.mark.parametrize("report", ["paid", "closed", "refunded"])
async def test_an_unsigned_error_is_neither_paid_nor_closed(status: int, report: str) -> None:
    """With any body."""
    body = json.dumps({**json.loads(DRIVER.render(PaymentReport(status=report))), "code": "ORDER_CLOSED"}).encode()
    with pytest.raises(ChannelUnreadable):
        await FakeChannel(lambda _: WireResponse(status, {}, body)).adapter.query_payment(ROW)


@pytest.mark.parametrize("code", ["FREQUENCY_LIMITED", "SYSTEM_ERROR", "BANK_ERROR"])
async def test_a_retryable_code_is_unavailable_with_any_status(code: str) -> None:
    channel = FakeChannel(lambda _: error(403, code))
    for call in (channel.adapter.query_payment(ROW), channel.adapter.create_payment(create())):
        with pytest.raises(ChannelUnavailable):
            await call


@pytest.mark.parametrize("code", ["PARAM_ERROR", "NO_AUTH", "APPID_MCHID_NOT_MATCH", "MCH_NOT_EXISTS", "RULE_LIMIT"])
async def test_a_creation_is_refused_by_definite_codes(code: str) -> None:
    with pytest.raises(ChannelRefused) as caught:
        await FakeChannel(lambda _: error(400, code)).adapter.create_payment(create())
    assert caught.value.code == code


@pytest.mark.parametrize("code", ["ORDERPAID", "OUT_TRADE_NO_USED", "SIGN_ERROR", "NOT_FOUND", "A_NEW_ONE"])
async def test_a_creation_refused_with_another_code_is_an_unknown_outcome(code: str) -> None:
    """A payment may exist under our number: only a query may follow."""
    with pytest.raises(ChannelUnreadable):
        await FakeChannel(lambda _: error(400, code)).adapter.create_payment(create())


async def test_the_empty_response_to_a_close_must_verify_with_its_empty_line() -> None:
    channel = FakeChannel()
    channel.respond = lambda _: channel.signed(b"", 204)
    await channel.adapter.close_payment(ROW)
    theirs, at = keys().theirs[Key.NEW], str(int(channel.now))
    without_line = signature_headers(b"", serial=PUBLIC_KEY_ID, key=theirs, at=channel.now)
    string = f"{at}\n{without_line['wechatpay-nonce']}\n".encode()
    certificate_ = base64.b64encode(theirs.sign(string, padding.PKCS1v15(), SHA256())).decode()
    for headers in ({}, without_line | {"wechatpay-signature": certificate_}):
        channel.respond = lambda _, headers=headers: WireResponse(204, headers, b"")  # type: ignore[misc]  # bound now
        with pytest.raises(ChannelUnreadable):
            await channel.adapter.close_payment(ROW)


@pytest.mark.parametrize("code", ["ORDERPAID", "ORDER_CLOSED", "ORDER_NOT_EXIST"])
async def test_an_unsigned_refusal_to_close_a_finished_payment_raises_nothing(code: str) -> None:
    await FakeChannel(lambda _: error(400, code)).adapter.close_payment(ROW)


async def test_a_close_refused_because_our_signature_is_wrong_is_an_unknown_outcome() -> None:
    with pytest.raises(ChannelUnreadable):
        await FakeChannel(lambda _: error(401, "SIGN_ERROR")).adapter.close_payment(ROW)


@pytest.mark.parametrize("skew_s", [-301, 301])
async def test_a_response_of_another_time_is_unreadable(skew_s: int) -> None:
    channel = FakeChannel()
    channel.respond = lambda request: DRIVER.signed_response(
        request, 200, DRIVER.render(PaymentReport()), at=channel.now + skew_s
    )
    with pytest.raises(ChannelUnreadable, match="answer_stale"):
        await channel.adapter.query_payment(ROW)


def test_a_stored_response_is_judged_by_its_time_of_receipt() -> None:
    body = DRIVER.render(PaymentReport())
    headers = signature_headers(body, serial=PUBLIC_KEY_ID, key=keys().theirs[Key.NEW], at=NOW.timestamp())
    answer, adapter = Response(status=200, headers=headers, body=body), FakeChannel().adapter
    assert isinstance(adapter.read_response(ROW, answer, received_at=NOW), Paid)
    with pytest.raises(ChannelUnreadable):
        adapter.read_response(ROW, answer, received_at=NOW + timedelta(seconds=301))


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (error(404, "ORDER_NOT_EXIST").body, 404),
        (error(400, "PARAM_ERROR").body, 400),
        (DRIVER.render(PaymentReport()), 200),
        (b"", 200),
        (b"\xff", 200),
        (b'{"code":7}', 200),
        (b"[" * 100_000, 200),
    ],
)
def test_the_status_of_a_stored_body_is_found(body: bytes, status: int) -> None:
    adapter = FakeChannel().adapter
    assert adapter.status_of(body) == status
    if status == 404:
        answer = Response(status=status, headers={}, body=body)
        assert isinstance(adapter.read_response(ROW, answer, received_at=NOW), Missing)


# -- callbacks ---------------------------------------------------------------------------------------------------------


async def test_a_callback_with_escaped_slashes_and_spaces_verifies_over_its_raw_bytes() -> None:
    """Reserialised, its bytes would differ and the signature fail."""
    raw = genuine().replace(b'":', b'" : ').replace(b"/", b"\\/")
    callback, adapter = callback_request(raw), FakeChannel().adapter
    verified = await adapter.verify_callback(callback.headers, callback.body, received_at=NOW)
    assert isinstance(verified.evidence, Paid)
    again = msgspec.json.encode(msgspec.json.decode(raw))
    with pytest.raises(CallbackForged):
        await adapter.verify_callback(callback.headers, again, received_at=NOW)


async def test_a_probe_with_a_wrong_signature_fails_as_any_other() -> None:
    callback = callback_request(genuine())
    for text in ("WECHATPAY/SIGNTEST/", "WECHATPAY/SIGNTEST/" + callback.headers["wechatpay-signature"]):
        probe = callback.headers | {"wechatpay-signature": text}
        with pytest.raises(CallbackForged):
            await FakeChannel().adapter.verify_callback(probe, callback.body, received_at=NOW)


async def test_callbacks_of_both_kinds_of_keys_verify_side_by_side() -> None:
    """Both come while a merchant changes from certificates to the public key."""
    adapter = FakeChannel().adapter
    for key in (Key.NEW, Key.OLD, Key.NEW):
        callback = callback_request(genuine(), key=key)
        assert isinstance(
            (await adapter.verify_callback(callback.headers, callback.body, received_at=NOW)).evidence, Paid
        )


async def test_a_callback_names_our_algorithm_or_none() -> None:
    callback = callback_request(genuine())
    for other in ("WECHATPAY2-SM2-WITH-SM3", "WECHATPAY2-SHA1-RSA2048", ""):
        with pytest.raises(CallbackForged):
            await FakeChannel().adapter.verify_callback(
                callback.headers | {"wechatpay-signature-type": other}, callback.body, received_at=NOW
            )
    headers = {name: value for name, value in callback.headers.items() if name != "wechatpay-signature-type"}
    assert (await FakeChannel().adapter.verify_callback(headers, callback.body, received_at=NOW)).evidence


async def test_a_certificate_verifies_until_it_expires() -> None:
    key = new_key()
    certificate_ = certificate(key, days=0, now=NOW)
    channel = FakeChannel(public_keys={}, platform_certificates=[certificate_pem(certificate_)])
    for age, is_good in ((timedelta(seconds=-5), True), (timedelta(seconds=5), False)):
        at = NOW + age
        headers = signature_headers(genuine(), serial=serial_of(certificate_), key=key, at=at.timestamp())
        if is_good:
            assert (await channel.adapter.verify_callback(headers, genuine(), received_at=at)).evidence
        else:
            with pytest.raises(CallbackForged):
                await channel.adapter.verify_callback(headers, genuine(), received_at=at)


@pytest.mark.parametrize("spelt", [lambda serial: serial.lower(), lambda serial: serial.lstrip("0")])
async def test_a_serial_number_is_a_number_however_it_is_spelt(spelt: Callable[[str], str]) -> None:
    key = new_key()
    certificate_ = certificate(key, serial=0x00ABCDEF << 100)
    channel = FakeChannel(platform_certificates=[certificate_pem(certificate_)])
    headers = signature_headers(genuine(), serial=spelt(serial_of(certificate_)), key=key, at=NOW.timestamp())
    assert (await channel.adapter.verify_callback(headers, genuine(), received_at=NOW)).evidence


async def test_freshness_is_checked_after_the_signature() -> None:
    adapter, callback = FakeChannel().adapter, callback_request(genuine(), at=NOW.timestamp() - 301)
    with pytest.raises(CallbackStale):
        await adapter.verify_callback(callback.headers, callback.body, received_at=NOW)
    with pytest.raises(CallbackForged):
        await adapter.verify_callback(callback.headers, callback.body + b" ", received_at=NOW)


async def test_a_callback_about_a_refund_is_unclear() -> None:
    """It has the amount of one refund; only the query has the payment's state. Its number leads to the amount."""
    notice = {"mchid": DRIVER.merchant_id, "out_trade_no": NUMBER, "refund_status": "SUCCESS", "amount": {"refund": 1}}
    notice |= {"out_refund_no": "console-1", "refund_id": "50000000382019052709732678859"}
    callback = callback_request(envelope(seal(json.dumps(notice).encode()), "id-1", "REFUND.SUCCESS"))
    verified = await FakeChannel().adapter.verify_callback(callback.headers, callback.body, received_at=NOW)
    assert verified.evidence == Unclear(
        channel_account="main",
        out_trade_no=NUMBER,
        reason="refund_notice",
        refund_no="console-1",
        channel_refund_no="50000000382019052709732678859",
    )


@pytest.mark.parametrize("refund_id", [5, "", "5\n", ["5"]], ids=repr)
async def test_a_notice_with_a_number_of_another_form_is_a_question_without_it(refund_id: object) -> None:
    notice = {"mchid": DRIVER.merchant_id, "out_trade_no": NUMBER, "out_refund_no": "r-1", "refund_id": refund_id}
    callback = callback_request(envelope(seal(json.dumps(notice).encode()), "id-1", "REFUND.SUCCESS"))
    verified = await FakeChannel().adapter.verify_callback(callback.headers, callback.body, received_at=NOW)
    assert isinstance(verified.evidence, Unclear)
    assert (verified.evidence.refund_no, verified.evidence.channel_refund_no) == ("r-1", None)


async def test_a_refund_notice_of_another_merchant_is_of_another_account() -> None:
    notice = json.dumps({"mchid": "1600000009", "out_trade_no": NUMBER}).encode()
    callback = callback_request(envelope(seal(notice), "id-1", "REFUND.SUCCESS"))
    verified = await FakeChannel().adapter.verify_callback(callback.headers, callback.body, received_at=NOW)
    assert verified.evidence is not None
    assert verified.evidence.channel_account == "other:1600000009"


@pytest.mark.parametrize("moved", ["", "first line", '{"resource_type":"encrypt-resource"}'])
async def test_a_line_feed_in_the_nonce_does_not_move_lines_of_a_signed_body_out_of_it(moved: str) -> None:
    """The signed string separates nonce and body by a line feed: a body of two lines, and a nonce of two lines before
    a body of one, are the same string with the same signature.
    """
    callback = callback_request(genuine())
    nonce = callback.headers["wechatpay-nonce"]
    string = f"{int(NOW.timestamp())}\n{nonce}\n{moved}\n".encode() + callback.body + b"\n"
    signature = base64.b64encode(keys().theirs[Key.NEW].sign(string, padding.PKCS1v15(), SHA256())).decode()
    headers = callback.headers | {"wechatpay-nonce": f"{nonce}\n{moved}", "wechatpay-signature": signature}
    with recorded_checks() as checks, pytest.raises(CallbackForged):
        await FakeChannel().adapter.verify_callback(headers, callback.body, received_at=NOW)
    assert not any(check.is_good for check in checks)


async def test_every_signature_check_is_recorded_with_its_string() -> None:
    callback = callback_request(genuine())
    with recorded_checks() as checks:
        await FakeChannel().adapter.verify_callback(callback.headers, callback.body, received_at=NOW)
        with pytest.raises(CallbackForged):
            await FakeChannel().adapter.verify_callback(callback.headers, callback.body + b" ", received_at=NOW)
    assert [(check.message, check.is_good) for check in checks] == [
        ("callback", True),
        ("sealed", True),
        ("callback", False),
    ]
    string = f"{int(NOW.timestamp())}\n{callback.headers['wechatpay-nonce']}\n".encode() + callback.body + b"\n"
    assert (checks[0].string, checks[0].key) == (string, PUBLIC_KEY_ID)


# -- the account -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 16, 24, 31, 33, 64])
def test_an_apiv3_key_of_another_length_opens_no_account(length: int) -> None:
    """AES accepts keys of 16 and 24 bytes too."""
    with pytest.raises(ConfigurationError, match="32 bytes"):
        FakeChannel(apiv3_key="k" * length)


def test_an_account_without_any_verifying_key_does_not_open() -> None:
    with pytest.raises(ConfigurationError, match="nothing could be verified"):
        FakeChannel(public_keys={}, platform_certificates=[])
    FakeChannel(public_keys={}, platform_certificates=[], download_certificates=True)


def test_a_live_account_opens_at_the_channels_own_host_without_naming_it() -> None:
    nobody = Transport(timeout_s=1, carrier=responding(lambda _: httpx.Response(500)))
    account = replace(DRIVER.account(""), live=True)
    assert isinstance(account, AccountConfig)
    WechatPay(account, nobody)


# -- certificates ------------------------------------------------------------------------------------------------------


class Certificates:
    """The channel's certificate list, which a test may change."""

    def __init__(self, *, days: float = 365) -> None:
        self.key = new_key()
        self.certificate_ = certificate(self.key, days=days)
        self.apiv3_key = APIV3_KEY
        self.channel = FakeChannel(public_keys={}, platform_certificates=[], download_certificates=True)
        self.channel.respond = self.respond
        self.is_broken = False

    def respond(self, request: WireRequest) -> WireResponse:
        assert request.target == "/v3/certificates"
        if self.is_broken:
            return error(500, "SYSTEM_ERROR")
        resource = seal(certificate_pem(self.certificate_).encode(), apiv3_key=self.apiv3_key, data="certificate")
        body = msgspec.json.encode(
            {"data": [{"serial_no": serial_of(self.certificate_), "encrypt_certificate": resource}]}
        )
        headers = signature_headers(body, serial=serial_of(self.certificate_), key=self.key, at=self.channel.now)
        return WireResponse(200, headers, body)

    def callback(self, serial: str = "") -> CallbackRequest:
        at = self.channel.now
        return CallbackRequest(
            signature_headers(genuine(), serial=serial or serial_of(self.certificate_), key=self.key, at=at), genuine()
        )

    async def verify(self, serial: str = "") -> None:
        callback, at = self.callback(serial), datetime.fromtimestamp(self.channel.now, UTC)
        verified = await self.channel.adapter.verify_callback(callback.headers, callback.body, received_at=at)
        assert isinstance(verified.evidence, Paid)


async def test_the_first_list_of_certificates_is_proved_by_the_certificate_in_it() -> None:
    server = Certificates()
    await server.channel.adapter.keep_current()
    await server.verify()


async def test_the_list_of_certificates_is_admitted_and_no_stranger_causes_a_fetch() -> None:
    server, gate = Certificates(), Gate()
    with of_a_stranger(gate), pytest.raises(ChannelUnavailable):
        await server.verify()
    assert gate.passed == []
    with of_a_stranger(gate):
        await server.channel.adapter.keep_current()
    assert gate.passed == [Urgency.STRANGER], "whatever it is called by"


async def test_a_callback_before_the_first_certificate_is_unavailable() -> None:
    """Rejected as forged, it would raise a false alarm and be lost."""
    with pytest.raises(ChannelUnavailable):
        await Certificates().verify()


async def test_a_certificate_list_that_is_altered_or_sealed_with_another_key_is_rejected() -> None:
    server = Certificates()
    server.apiv3_key = "another key of thirty-two bytes."
    with pytest.raises(ChannelUnreadable):
        await server.channel.adapter.keep_current()
    server.apiv3_key = APIV3_KEY
    server.channel.respond = lambda request: server.respond(request)._replace(headers={})
    with pytest.raises(ChannelUnreadable):
        await server.channel.adapter.keep_current()
    with pytest.raises(ChannelUnavailable):
        await server.verify()


async def test_the_certificate_list_is_fetched_twice_a_day() -> None:
    server = Certificates()
    for minutes in range(0, 24 * 60 + 1, 10):
        server.channel.now = time.time() + minutes * 60
        await server.channel.adapter.keep_current()
    assert len(server.channel.requests) == 3


async def test_old_and_new_certificates_are_both_kept_also_after_a_failure() -> None:
    server = Certificates()
    await server.channel.adapter.keep_current()
    old = server.key, server.certificate_
    server.key = new_key()
    server.certificate_ = certificate(server.key)
    server.channel.now += 12 * 3600
    await server.channel.adapter.keep_current()
    await server.verify()
    server.is_broken, server.channel.now = True, server.channel.now + 12 * 3600
    with pytest.raises(ChannelUnavailable):
        await server.channel.adapter.keep_current()
    await server.verify()
    server.key, server.certificate_ = old
    await server.verify()


async def test_an_unknown_serial_triggers_a_fetch_at_most_every_ten_minutes() -> None:
    """Never while a callback waits: otherwise invented serials would decide how often the channel is called."""
    server = Certificates()
    await server.channel.adapter.keep_current()
    for minutes in range(30):
        server.channel.now += 60
        for serial in ("0C" * 20, f"{minutes:040X}"):
            with pytest.raises(CallbackForged):
                await server.verify(serial)
        count = len(server.channel.requests)
        await server.channel.adapter.keep_current()
        assert len(server.channel.requests) <= count + 1
    assert len(server.channel.requests) == 1 + 3


@pytest.mark.parametrize("serial", ["PUB_KEY_ID_0100000000000000000000000099", "zz" * 20, "1_0", "é", "a" * 5000])
async def test_an_impossible_serial_triggers_no_fetch(serial: str) -> None:
    server = Certificates()
    await server.channel.adapter.keep_current()
    with pytest.raises(CallbackForged):
        await server.verify(serial)
    server.channel.now += 3600
    await server.channel.adapter.keep_current()
    assert len(server.channel.requests) == 1


async def test_without_download_certificates_nothing_is_fetched() -> None:
    channel = FakeChannel()
    await channel.adapter.keep_current()
    assert channel.requests == []


# -- refunds -----------------------------------------------------------------------------------------------------------


def _refund(status: str = "SUCCESS", **changes: Any) -> dict[str, Any]:
    return {
        "out_refund_no": REFUND_NO,
        "out_trade_no": NUMBER,
        "status": status,
        "amount": {"refund": 1000, "total": AMOUNT},
        **changes,
    }


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("SUCCESS", RefundState.SUCCEEDED),
        ("PROCESSING", RefundState.PROCESSING),
        ("CLOSED", RefundState.FAILED),
        ("ABNORMAL", RefundState.FAILED),
    ],
)
async def test_refund_states_are_mapped(status: str, state: RefundState) -> None:
    adapter = channel_sending(_refund(status)).adapter
    assert await adapter.refund_payment(ROW, REFUND_NO, 1000) == ChannelRefund(state=state)
    assert await adapter.query_refund(ROW, REFUND_NO) == ChannelRefund(state=state)


async def test_a_refund_has_wechat_pays_own_number() -> None:
    """https://pay.weixin.qq.com/doc/v3/merchant/4012791865"""
    adapter = channel_sending(_refund(refund_id="50000000382019052709732678859")).adapter
    expected = ChannelRefund(state=RefundState.SUCCEEDED, channel_refund_no="50000000382019052709732678859")
    assert await adapter.refund_payment(ROW, REFUND_NO, 1000) == expected
    assert await adapter.query_refund(ROW, REFUND_NO) == expected


@pytest.mark.parametrize("refund_id", ["", "5" * 65, "50000\n", 50000000382, "退款"], ids=repr)
async def test_a_number_of_another_form_is_no_refund(refund_id: object) -> None:
    with pytest.raises(ChannelUnreadable):
        await channel_sending(_refund(refund_id=refund_id)).adapter.query_refund(ROW, REFUND_NO)


@pytest.mark.parametrize(
    "changes", [{"out_refund_no": "R-000009"}, {"out_trade_no": "another"}, {"amount": {"refund": 999}}], ids=str
)
async def test_a_response_about_another_refund_is_unreadable(changes: dict[str, Any]) -> None:
    with pytest.raises(ChannelUnreadable):
        await channel_sending(_refund(**changes)).adapter.refund_payment(ROW, REFUND_NO, 1000)


async def test_a_refund_without_the_balance_for_it_is_refused() -> None:
    with pytest.raises(ChannelRefused) as caught:
        await FakeChannel(lambda _: error(403, "NOT_ENOUGH")).adapter.refund_payment(ROW, REFUND_NO, 1000)
    assert caught.value.code == "NOT_ENOUGH"


async def test_only_a_404_with_its_code_means_a_missing_refund() -> None:
    assert await FakeChannel(lambda _: error(404, "RESOURCE_NOT_EXISTS")).adapter.query_refund(ROW, REFUND_NO) is None
    for answer in (error(404, "NOT_FOUND"), error(400, "RESOURCE_NOT_EXISTS")):
        with pytest.raises(ChannelUnreadable):
            await FakeChannel(lambda _, answer=answer: answer).adapter.query_refund(ROW, REFUND_NO)  # type: ignore[misc]  # bound now


# -- the bill ----------------------------------------------------------------------------------------------------------


class Bill:
    """A channel with a bill; its description may be changed."""

    def __init__(self, content: bytes = DRIVER.statement, *, packed: bool = True, **respond: str) -> None:
        self.file = gzip.compress(content) if packed else content
        self.bill = {
            "hash_type": "SHA1",
            "hash_value": hashlib.sha1(content, usedforsecurity=False).hexdigest(),
            "download_url": "http://127.0.0.1:9/v3/billdownload/file?token=a%2Fb",
            **respond,
        }
        self.channel = FakeChannel()
        self.channel.respond = self.respond

    def respond(self, request: WireRequest) -> WireResponse:
        if request.target.startswith("/v3/billdownload/"):
            return WireResponse(200, {"content-type": "application/octet-stream"}, self.file)
        return self.channel.signed(self.bill)

    async def fetch(self) -> bytes:
        into = io.BytesIO()
        await self.channel.adapter.fetch_statement(TODAY, into)
        return into.getvalue()


@pytest.mark.parametrize("packed", [True, False])
async def test_a_bill_is_fetched_verified_by_its_hash_and_read(packed: bool) -> None:
    bill = Bill(packed=packed)
    fetched = await bill.fetch()
    assert fetched == bill.file
    assert tuple(read_rows(fetched)) == DRIVER.statement_rows
    first, second = bill.channel.requests
    assert first.target == "/v3/bill/tradebill?bill_date=2026-11-23&bill_type=ALL&tar_type=GZIP"
    assert second.target == "/v3/billdownload/file?token=a%2Fb"
    assert second.headers["authorization"].startswith("WECHATPAY2-SHA256-RSA2048 ")


async def test_the_hash_is_of_the_unpacked_bill_in_either_case() -> None:
    digest = hashlib.sha1(DRIVER.statement, usedforsecurity=False).hexdigest()
    assert await Bill(hash_value=digest.upper()).fetch()
    with pytest.raises(ChannelUnreadable):
        await Bill(hash_value=hashlib.sha1(Bill().file, usedforsecurity=False).hexdigest()).fetch()


async def test_a_bill_with_another_hash_is_rejected() -> None:
    bill, into = Bill(), io.BytesIO()
    for file in (gzip.compress(DRIVER.statement.replace(b"88.88", b"99.99")), b"", bill.file[:-9], b"\x1f\x8bno"):
        bill.file = file
        with pytest.raises(ChannelUnreadable):
            await bill.channel.adapter.fetch_statement(TODAY, into)
    assert into.getvalue() == b""


@pytest.mark.parametrize(
    "url",
    [
        "http://evil.example/v3/billdownload/file?token=x",
        "https://127.0.0.1:9/v3/billdownload/file?token=x",
        "http://127.0.0.1:9@evil.example/v3/x",
        "http://127.0.0.1:99/v3/x",
        "http://[",
    ],
)
async def test_a_bill_is_fetched_from_our_host_and_from_no_other(url: str) -> None:
    """The signed request would be valid for two minutes on another host."""
    bill = Bill(download_url=url)
    with pytest.raises(ChannelUnreadable):
        await bill.fetch()
    assert len(bill.channel.requests) == 1


@pytest.mark.parametrize("status", [400, 404])
async def test_a_day_without_a_bill_is_a_day_without_payments(status: int) -> None:
    with pytest.raises(ChannelRefused) as caught:
        await FakeChannel(lambda _: error(status, "NO_STATEMENT_EXIST")).adapter.fetch_statement(TODAY, io.BytesIO())
    assert caught.value.code == "no_statement"


async def test_a_bill_in_preparation_is_unavailable() -> None:
    with pytest.raises(ChannelUnavailable):
        await FakeChannel(lambda _: error(400, "STATEMENT_CREATING")).adapter.fetch_statement(TODAY, io.BytesIO())


def read_rows(statement: bytes) -> list[StatementRow | MalformedRow]:
    return rows_in(FakeChannel().adapter.parse_statement(io.BytesIO(statement)))


def read_totals(statement: bytes) -> list[StatedTotal]:
    items = FakeChannel().adapter.parse_statement(io.BytesIO(statement))
    return [item for item in items if isinstance(item, StatedTotal)]


@pytest.mark.parametrize(("yuan", "fen"), [("0.07", 7), ("19.99", 1999), ("1.10", 110), ("999999999.99", 99999999999)])
def test_yuan_become_fen_exactly(yuan: str, fen: int) -> None:
    """19.99 × 100 is 1998.9999999999998 to a float."""
    statement = DRIVER.statement.replace(b"`88.88,", f"`{yuan},".encode(), 1)
    first, _ = read_rows(statement)
    assert first == replace(DRIVER.statement_rows[0], amount=fen)


def test_columns_are_found_by_name() -> None:
    """New columns appear at times; here each row begins with one."""
    header, *rows = DRIVER.statement.removeprefix(b"\xef\xbb\xbf").split(b"\r\n")
    moved = [b"\xef\xbb\xbf" + "新列,".encode() + header, *(b"`new," + row for row in rows[:2]), *rows[2:]]
    assert tuple(read_rows(b"\r\n".join(moved))) == DRIVER.statement_rows


def test_without_the_requested_amount_column_the_refunded_amount_counts() -> None:
    old = DRIVER.statement.replace("申请退款金额,费率备注".encode(), "费率备注".encode())
    old = old.replace(b"`88.88,`0.00,`\r\n", b"`88.88,`\r\n").replace(b"`88.88,`10.00,`\r\n", b"`88.88,`\r\n")
    rows = tuple(read_rows(old))
    assert rows == (DRIVER.statement_rows[0], replace(DRIVER.statement_rows[1], amount=900))


@pytest.mark.parametrize(
    ("old", "new"), [("`REFUND,", "`REVOKED,"), ("`ORIGINAL,`SUCCESS", "`ORIGINAL,`FAIL")], ids=["revoked", "failed"]
)
def test_rows_about_no_money_are_left_out(old: str, new: str) -> None:
    statement = DRIVER.statement.replace(old.encode(), new.encode())
    assert tuple(read_rows(statement)) == DRIVER.statement_rows[:1]


@pytest.mark.parametrize("text", ["Tea\r\n250 g", "Tea\n\n250 g", "Tea\n总计"])
def test_a_broken_line_does_not_hide_the_following_lines(text: str) -> None:
    """The sums are recognised by their name; the rest of a broken row must not end the statement."""
    first, second = DRIVER.statement_rows
    statement = DRIVER.statement.replace(b"Tea, 250 g", text.encode(), 1)
    *broken, last = read_rows(statement)
    assert {type(row) for row in broken} == {MalformedRow}
    assert isinstance(first, StatementRow)
    assert last == replace(second, line=3 + text.count("\n"))


def test_bills_of_payments_alone_and_of_refunds_alone_are_read() -> None:
    """The one has no columns of refunds; in the other 交易时间 is the time of the payment."""
    payment, refund = DRIVER.statement_rows
    for content, row in ((SUCCESS_BILL, payment), (REFUND_BILL, replace(refund, line=2))):
        assert read_rows(content.encode()) == [row]
        assert [total.stated for total in read_totals(content.encode())] == [
            total.read for total in read_totals(content.encode())
        ]


@pytest.mark.parametrize("ordinary", [False, True])
@pytest.mark.parametrize(
    ("bill_type", "kinds"),
    [("ALL", ["payment", "refund"]), ("SUCCESS", ["payment"]), ("REFUND", ["refund"])],
)
def test_every_bill_of_the_simulated_channel_is_read(ordinary: bool, bill_type: str, kinds: list[str]) -> None:
    account = DRIVER.simulator_account()
    account = replace(account, wire=account.wire | {"ordinary_bill": ordinary})
    paid = LedgerRow("payment", NUMBER, "4200000000202611230000000001", "", AMOUNT, "CNY", PAID_AT)
    refund = paid._replace(type="refund", refund_no=REFUND_NO, amount=1000, at=PAID_AT + timedelta(seconds=1))
    rows = [paid, refund]
    found = bill(rows, rows, account, bill_type)
    number = refund_id(account.merchant_id, REFUND_NO)
    assert [row.kind for row in read_rows(found) if isinstance(row, StatementRow)] == kinds
    assert [replace(row, line=0) for row in read_rows(found) if isinstance(row, StatementRow)] == [
        replace(row, line=0, fee=0, channel_refund_no=number if row.refund_no else "")
        for row in DRIVER.statement_rows
        if row.kind in kinds
    ], "the simulated channel takes no fees"
    assert all(total.stated == total.read for total in read_totals(found))
    assert read_totals(found)[0].stated == len(kinds)


def test_only_the_last_lines_are_the_sums() -> None:
    """The second line of a goods name begins like them. The row is malformed, the next one is read, and one is missing
    in the sums.
    """
    statement = DRIVER.statement.replace(b"Tea, 250 g", "Tea\r\n总交易单数 of the day".encode(), 1)
    *broken, last = read_rows(statement)
    assert {type(row) for row in broken} == {MalformedRow}
    assert last == replace(DRIVER.statement_rows[1], line=4)
    assert [(total.name, total.stated, total.read) for total in read_totals(statement)] == [
        ("总交易单数", 2, 1),
        ("订单总金额", 8888, 0),
        ("申请退款总金额", 1000, 1000),
    ]


def test_sums_that_cannot_be_read_agree_with_nothing() -> None:
    statement = DRIVER.statement.replace(b"`2,`80.00,", b"`two,`80.00,")
    assert read_totals(statement)[0] == StatedTotal(name="总交易单数", stated=None, read=2)


def test_a_refund_under_way_has_left_the_balance() -> None:
    statement = DRIVER.statement.replace(b"`ORIGINAL,`SUCCESS", b"`ORIGINAL,`PROCESSING")
    assert tuple(read_rows(statement)) == DRIVER.statement_rows


def test_a_day_is_a_day_in_beijing() -> None:
    zone = FakeChannel().adapter.statement_zone
    assert datetime(2026, 11, 22, 16, tzinfo=UTC).astimezone(zone).date() == date(2026, 11, 23)
