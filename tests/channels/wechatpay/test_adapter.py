"""What WeChat Pay has of its own: three methods, two kinds of keys, unsigned errors, certificates, its bill."""

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

from channels.base import Create, MalformedRow, Payer, RefundState, StatementRow
from channels.kit import trace
from channels.transport import Response, Transport
from channels.wechatpay.adapter import WechatPay
from core.account import AccountConfig
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
from tests.channels.reports import AMOUNT, NUMBER, PAID_AT, REFUND_NO, TODAY, Key, Said, Sent
from tests.channels.wechatpay.driver import (
    APIV3_KEY,
    APPID,
    PUBLIC_KEY_ID,
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
from tests.channels.wire import Answered, Asked

DRIVER = WechatPayDriver()
LIVE = "https://api.mch.weixin.qq.com"
NOW = datetime(2026, 11, 23, 4, 0, 30, tzinfo=UTC)
ROW = DRIVER.payment()

Told = Callable[[Asked], Answered]


class Played:
    """The adapter with a far side that says what the test wants; every call is kept. `now` is its clock."""

    def __init__(self, told: Told | None = None, *, base_url: str = "http://127.0.0.1:9", **credentials: Any) -> None:
        self.asked: list[Asked] = []
        self.hosts: list[str] = []
        self.now = time.time()
        self.told: Told = told or (lambda asked: DRIVER.answer(asked, 200, DRIVER.render(Said())))
        self.unconnectable: set[str] = set()
        account = DRIVER.account(base_url)
        account = replace(account, live=base_url == LIVE, credentials={**account.credentials, **credentials})
        transport = Transport(timeout_s=5, transport=httpx.MockTransport(self._tell))
        self.adapter = WechatPay(account, transport, clock=lambda: self.now)

    def _tell(self, request: httpx.Request) -> httpx.Response:
        self.hosts.append(request.url.host)
        if request.url.host in self.unconnectable:
            raise httpx.ConnectError("refused")
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.asked.append(Asked(request.method, request.url.raw_path.decode(), headers, request.content, b""))
        status, told, body = self.told(self.asked[-1])
        return httpx.Response(status, headers=told, stream=httpx.ByteStream(body))

    def signed(self, body: object, status: int = 200) -> Answered:
        raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
        return DRIVER.answer(self.asked[-1], status, raw, at=self.now)


def create(method: str = "", **changes: Any) -> Create:
    wanted = Create(
        payment=replace(ROW, method=method),
        subject="Tea, 250 g",
        callback_url="https://shop.example/callbacks/main",
        return_url="https://shop.example/o/token/return?a=1&b=2",
        payer=Payer(openid="openid-of-a-buyer", client_ip="203.0.113.7"),
    )
    return replace(wanted, **changes)


def saying(body: object) -> Played:
    """Every call is answered with this, signed."""
    played = Played()
    played.told = lambda _: played.signed(body)
    return played


def callback(body: bytes, *, at: float = NOW.timestamp(), key: Key = Key.NEW) -> Sent:
    return DRIVER.sent(body, at=at, key=key)


def genuine(said: Said | None = None) -> bytes:
    return envelope(seal(DRIVER.render(said or Said())), DRIVER.notification_id)


# -- what is asked -----------------------------------------------------------------------------------------------------


async def test_a_call_carries_what_the_channel_demands() -> None:
    played = Played()
    await played.adapter.query_payment(ROW)
    (asked,) = played.asked
    assert asked.target == f"/v3/pay/transactions/out-trade-no/{NUMBER}?mchid={DRIVER.merchant_id}"
    assert asked.headers["accept"] == "application/json"
    assert asked.headers["user-agent"].startswith("nodrop/")
    assert asked.headers["wechatpay-serial"] == PUBLIC_KEY_ID
    fields = dict(re.findall(r'([a-z_]+)="([^"]*)"', asked.headers["authorization"]))
    assert set(fields) == {"mchid", "nonce_str", "signature", "timestamp", "serial_no"}


@pytest.mark.parametrize("call", ["query", "close"])
async def test_five_lines_are_signed_also_when_the_body_is_empty(call: str) -> None:
    """The last line is the body, ended by a line feed as the others are: of a GET it is an empty line."""
    played = Played()
    played.told = lambda _: played.signed(DRIVER.render(Said(status="unpaid")) if call == "query" else b"")
    await (played.adapter.query_payment(ROW) if call == "query" else played.adapter.close_payment(ROW))
    (asked,) = played.asked
    fields = dict(re.findall(r'([a-z_]+)="([^"]*)"', asked.headers["authorization"]))
    lines = (asked.method, asked.target, fields["timestamp"], fields["nonce_str"], asked.body.decode(), "")
    public, signature = keys().ours[Key.NEW].public_key(), base64.b64decode(fields["signature"])
    public.verify(signature, "\n".join(lines).encode(), padding.PKCS1v15(), SHA256())
    with pytest.raises(InvalidSignature):
        public.verify(signature, "\n".join(lines[:-1]).encode(), padding.PKCS1v15(), SHA256())


async def test_the_address_is_signed_as_it_is_sent() -> None:
    played = Played()
    await played.adapter.query_payment(replace(ROW, out_trade_no="ab|cd*ef"))
    assert "/ab%7Ccd%2Aef?" in played.asked[0].target


async def test_a_payment_with_a_reference_is_asked_for_by_the_channels_own_number() -> None:
    played = Played()
    await played.adapter.query_payment(replace(ROW, channel_reference=DRIVER.transaction))
    assert played.asked[0].target == f"/v3/pay/transactions/id/{DRIVER.transaction}?mchid={DRIVER.merchant_id}"


async def test_what_is_told_of_a_new_payment() -> None:
    until = datetime(2026, 11, 23, 4, 30, 0, 999_999, tzinfo=UTC)
    played = saying({"code_url": "weixin://wxpay/bizpayurl?pr=a"})
    created = await played.adapter.create_payment(create(payment=replace(ROW, payable_until=until)))
    assert played.asked[0].target == "/v3/pay/transactions/native"
    assert json.loads(played.asked[0].body) == {
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
    played = saying({"code_url": "weixin://x"})
    await played.adapter.create_payment(create(subject="茶" * 200))
    assert json.loads(played.asked[0].body)["description"] == "茶" * 127


@pytest.mark.parametrize("url", ["https://shop.example/callbacks/main?a=1", "https://shop.example/callbacks/main?"])
async def test_a_callback_url_with_a_query_string_is_never_told(url: str) -> None:
    """The channel takes the order and never calls such an address."""
    played = saying({"code_url": "weixin://x"})
    with pytest.raises(InvalidRequest):
        await played.adapter.create_payment(create(callback_url=url))
    assert played.asked == []


async def test_no_other_currency_than_cny_is_asked_for() -> None:
    played = saying({"code_url": "weixin://x"})
    with pytest.raises(InvalidRequest):
        await played.adapter.create_payment(create(payment=replace(ROW, currency="USD")))
    assert played.asked == []


async def test_a_method_that_the_channel_does_not_have_is_refused_before_it_is_asked() -> None:
    played = saying({"code_url": "weixin://x"})
    with pytest.raises(InvalidRequest):
        await played.adapter.create_payment(create("app"))
    assert played.asked == []


async def test_h5_sends_the_buyer_to_the_channel_and_back() -> None:
    played = saying({"h5_url": "https://wx.example/checkmweb?prepay_id=wx1&package=2"})
    checkout = (await played.adapter.create_payment(create("h5"))).checkout
    scene = json.loads(played.asked[0].body)["scene_info"]
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
        await saying({"h5_url": url}).adapter.create_payment(create("h5"))


async def test_jsapi_hands_the_page_what_the_bridge_needs_signed() -> None:
    played = saying({"prepay_id": "wx2026112312000000000000000000000001"})
    checkout = (await played.adapter.create_payment(create("jsapi"))).checkout
    assert json.loads(played.asked[0].body)["payer"] == {"openid": "openid-of-a-buyer"}
    told = json.loads(checkout.value)
    assert checkout.kind == "client"
    assert set(told) == {"appId", "timeStamp", "nonceStr", "package", "signType", "paySign"}
    string = "".join(f"{told[name]}\n" for name in ("appId", "timeStamp", "nonceStr", "package"))
    public = keys().ours[Key.NEW].public_key()
    public.verify(base64.b64decode(told["paySign"]), string.encode(), padding.PKCS1v15(), SHA256())
    assert (told["package"], told["signType"]) == ("prepay_id=wx2026112312000000000000000000000001", "RSA")


# -- the two hosts -----------------------------------------------------------------------------------------------------


async def test_a_question_goes_to_the_second_host_when_the_first_cannot_be_connected() -> None:
    played = Played(base_url=LIVE)
    played.unconnectable = {"api.mch.weixin.qq.com"}
    assert isinstance(await played.adapter.query_payment(ROW), Paid)
    assert played.hosts == ["api.mch.weixin.qq.com", "api2.mch.weixin.qq.com"]


async def test_what_changes_something_goes_to_no_second_host() -> None:
    played = Played(base_url=LIVE)
    played.unconnectable = {"api.mch.weixin.qq.com"}
    with pytest.raises(ChannelUnavailable):
        await played.adapter.create_payment(create())
    assert played.hosts == ["api.mch.weixin.qq.com"]


async def test_a_question_that_was_heard_is_not_put_to_the_second_host() -> None:
    played = Played(lambda _: error(500, "SYSTEM_ERROR"), base_url=LIVE)
    with pytest.raises(ChannelUnavailable):
        await played.adapter.query_payment(ROW)
    assert played.hosts == ["api.mch.weixin.qq.com"]


# -- what is told ------------------------------------------------------------------------------------------------------


async def test_the_amount_of_the_order_counts_and_not_what_the_payer_paid_after_a_coupon() -> None:
    told = json.loads(DRIVER.render(Said()))
    told["amount"]["payer_total"] = 1
    evidence = await saying(told).adapter.query_payment(ROW)
    assert isinstance(evidence, Paid)
    assert evidence.amount == AMOUNT
    assert mismatch(ROW, evidence) is None


async def test_a_refund_was_paid() -> None:
    """The answer does not say how much went back: 0, so that no sum is invented."""
    evidence = await saying(DRIVER.render(Said(status="refunded"))).adapter.query_payment(ROW)
    assert isinstance(evidence, Refunded)
    assert (evidence.amount, evidence.refunded_amount, evidence.at) == (AMOUNT, 0, PAID_AT)
    assert mismatch(ROW, evidence) is None


@pytest.mark.parametrize(
    ("state", "kind"),
    [("NOTPAY", Unpaid), ("USERPAYING", Unpaid), ("PAYERROR", Unpaid), ("CLOSED", Closed), ("REVOKED", Closed)],
)
async def test_states_without_money_need_no_amount(state: str, kind: type[Unpaid | Closed]) -> None:
    """A failed attempt leaves NOTPAY and can be followed by another one."""
    told = json.loads(DRIVER.render(Said(status=state)))
    del told["amount"]
    assert isinstance(await saying(told).adapter.query_payment(ROW), kind)


@pytest.mark.parametrize("total", [8888.5, "8888", "88.88", True, None, -8888, 1e30])
async def test_an_amount_is_an_integer_of_fen_or_it_is_unreadable(total: object) -> None:
    told = json.loads(DRIVER.render(Said()))
    told["amount"]["total"] = total
    with pytest.raises(ChannelUnreadable):
        await saying(told).adapter.query_payment(ROW)


async def test_an_amount_without_its_currency_is_in_cny() -> None:
    told = json.loads(DRIVER.render(Said()))
    del told["amount"]["currency"]
    evidence = await saying(told).adapter.query_payment(ROW)
    assert evidence.currency == "CNY"


async def test_a_404_that_says_so_is_missing_although_no_error_is_signed() -> None:
    played = Played(lambda _: error(404, "ORDER_NOT_EXIST"))
    assert await played.adapter.query_payment(ROW) == Missing(channel_account="main", out_trade_no=NUMBER)
    for answer in (error(400, "ORDER_NOT_EXIST"), error(404, "NOT_FOUND"), Answered(404, {}, b"")):
        played.told = lambda _, answer=answer: answer  # type: ignore[misc]  # bound now
        with pytest.raises(ChannelUnreadable):
            await played.adapter.query_payment(ROW)


async def test_codes_mean_the_same_in_their_older_spelling() -> None:
    """Else nothing that was never there would ever be missing, and no refund without a balance refused."""
    missing = error(404, "ORDERNOTEXIST")
    assert isinstance(await Played(lambda _: missing).adapter.query_payment(ROW), Missing)
    assert Played().adapter.status_of(missing.body) == 404
    for code in ("ORDERNOTEXIST", "ORDERCLOSED"):
        await Played(lambda _, code=code: error(400, code)).adapter.close_payment(ROW)  # type: ignore[misc]  # bound now
    with pytest.raises(ChannelRefused) as caught:
        await Played(lambda _: error(403, "NOTENOUGH")).adapter.refund_payment(ROW, REFUND_NO, 1000)
    assert caught.value.code == "NOT_ENOUGH"
    with pytest.raises(ChannelUnavailable):
        await Played(lambda _: error(400, "BANKERROR")).adapter.query_payment(ROW)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409])
@pytest.mark.parametrize("said", ["paid", "closed", "refunded"])
async def test_an_unsigned_error_is_never_money_and_never_an_end(status: int, said: str) -> None:
    """Whatever is in its body."""
    body = json.dumps({**json.loads(DRIVER.render(Said(status=said))), "code": "ORDER_CLOSED"}).encode()
    with pytest.raises(ChannelUnreadable):
        await Played(lambda _: Answered(status, {}, body)).adapter.query_payment(ROW)


@pytest.mark.parametrize("code", ["FREQUENCY_LIMITED", "SYSTEM_ERROR", "BANK_ERROR"])
async def test_a_code_that_asks_to_come_again_is_unavailable_whatever_its_status(code: str) -> None:
    played = Played(lambda _: error(403, code))
    for call in (played.adapter.query_payment(ROW), played.adapter.create_payment(create())):
        with pytest.raises(ChannelUnavailable):
            await call


@pytest.mark.parametrize("code", ["PARAM_ERROR", "NO_AUTH", "APPID_MCHID_NOT_MATCH", "MCH_NOT_EXISTS", "RULE_LIMIT"])
async def test_a_creation_is_definitely_refused_by_codes_that_say_so(code: str) -> None:
    with pytest.raises(ChannelRefused) as caught:
        await Played(lambda _: error(400, code)).adapter.create_payment(create())
    assert caught.value.code == code


@pytest.mark.parametrize("code", ["ORDERPAID", "OUT_TRADE_NO_USED", "SIGN_ERROR", "NOT_FOUND", "A_NEW_ONE"])
async def test_a_creation_refused_in_other_words_may_have_happened(code: str) -> None:
    """There is something under our number, or nobody knows: only a query may follow."""
    with pytest.raises(ChannelUnreadable):
        await Played(lambda _: error(400, code)).adapter.create_payment(create())


async def test_the_empty_answer_to_a_close_must_verify_with_its_empty_line() -> None:
    played = Played()
    played.told = lambda _: played.signed(b"", 204)
    await played.adapter.close_payment(ROW)
    theirs, at = keys().theirs[Key.NEW], str(int(played.now))
    without_line = signature_headers(b"", serial=PUBLIC_KEY_ID, key=theirs, at=played.now)
    string = f"{at}\n{without_line['wechatpay-nonce']}\n".encode()
    made = base64.b64encode(theirs.sign(string, padding.PKCS1v15(), SHA256())).decode()
    for headers in ({}, without_line | {"wechatpay-signature": made}):
        played.told = lambda _, headers=headers: Answered(204, headers, b"")  # type: ignore[misc]  # bound now
        with pytest.raises(ChannelUnreadable):
            await played.adapter.close_payment(ROW)


@pytest.mark.parametrize("code", ["ORDERPAID", "ORDER_CLOSED", "ORDER_NOT_EXIST"])
async def test_an_unsigned_answer_that_there_is_nothing_to_close_is_left_to_the_next_query(code: str) -> None:
    await Played(lambda _: error(400, code)).adapter.close_payment(ROW)


async def test_a_close_refused_because_our_signature_is_wrong_is_an_unknown_outcome() -> None:
    with pytest.raises(ChannelUnreadable):
        await Played(lambda _: error(401, "SIGN_ERROR")).adapter.close_payment(ROW)


@pytest.mark.parametrize("skew_s", [-301, 301])
async def test_an_answer_of_another_time_is_unreadable(skew_s: int) -> None:
    played = Played()
    played.told = lambda asked: DRIVER.answer(asked, 200, DRIVER.render(Said()), at=played.now + skew_s)
    with pytest.raises(ChannelUnreadable, match="answer_stale"):
        await played.adapter.query_payment(ROW)


def test_a_captured_answer_is_judged_by_when_it_was_received() -> None:
    body = DRIVER.render(Said())
    headers = signature_headers(body, serial=PUBLIC_KEY_ID, key=keys().theirs[Key.NEW], at=NOW.timestamp())
    answer, adapter = Response(status=200, headers=headers, body=body), Played().adapter
    assert isinstance(adapter.read_response(ROW, answer, received_at=NOW), Paid)
    with pytest.raises(ChannelUnreadable):
        adapter.read_response(ROW, answer, received_at=NOW + timedelta(seconds=301))


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (error(404, "ORDER_NOT_EXIST").body, 404),
        (error(400, "PARAM_ERROR").body, 400),
        (DRIVER.render(Said()), 200),
        (b"", 200),
        (b"\xff", 200),
        (b'{"code":7}', 200),
        (b"[" * 100_000, 200),
    ],
)
def test_a_captured_body_tells_its_status(body: bytes, status: int) -> None:
    adapter = Played().adapter
    assert adapter.status_of(body) == status
    if status == 404:
        answer = Response(status=status, headers={}, body=body)
        assert isinstance(adapter.read_response(ROW, answer, received_at=NOW), Missing)


# -- callbacks ---------------------------------------------------------------------------------------------------------


async def test_a_callback_with_escaped_slashes_and_spaces_verifies_over_its_raw_bytes() -> None:
    """Parsed and written again it would have other bytes, and no signature of anybody."""
    raw = genuine().replace(b'":', b'" : ').replace(b"/", b"\\/")
    sent, adapter = callback(raw), Played().adapter
    told = await adapter.verify_callback(sent.headers, sent.body, received_at=NOW)
    assert isinstance(told.evidence, Paid)
    again = msgspec.json.encode(msgspec.json.decode(raw))
    with pytest.raises(CallbackForged):
        await adapter.verify_callback(sent.headers, again, received_at=NOW)


async def test_a_probe_with_a_wrong_signature_fails_as_any_other() -> None:
    sent = callback(genuine())
    for text in ("WECHATPAY/SIGNTEST/", "WECHATPAY/SIGNTEST/" + sent.headers["wechatpay-signature"]):
        probe = sent.headers | {"wechatpay-signature": text}
        with pytest.raises(CallbackForged):
            await Played().adapter.verify_callback(probe, sent.body, received_at=NOW)


async def test_callbacks_of_both_kinds_of_keys_verify_side_by_side() -> None:
    """For as long as a merchant changes from certificates to the public key, both come."""
    adapter = Played().adapter
    for key in (Key.NEW, Key.OLD, Key.NEW):
        sent = callback(genuine(), key=key)
        assert isinstance((await adapter.verify_callback(sent.headers, sent.body, received_at=NOW)).evidence, Paid)


async def test_a_callback_names_our_algorithm_or_none() -> None:
    sent = callback(genuine())
    for other in ("WECHATPAY2-SM2-WITH-SM3", "WECHATPAY2-SHA1-RSA2048", ""):
        with pytest.raises(CallbackForged):
            await Played().adapter.verify_callback(
                sent.headers | {"wechatpay-signature-type": other}, sent.body, received_at=NOW
            )
    headers = {name: value for name, value in sent.headers.items() if name != "wechatpay-signature-type"}
    assert (await Played().adapter.verify_callback(headers, sent.body, received_at=NOW)).evidence


async def test_a_certificate_verifies_until_it_expires() -> None:
    key = new_key()
    made = certificate(key, days=0, now=NOW)
    played = Played(public_keys={}, platform_certificates=[certificate_pem(made)])
    for age, is_good in ((timedelta(seconds=-5), True), (timedelta(seconds=5), False)):
        at = NOW + age
        headers = signature_headers(genuine(), serial=serial_of(made), key=key, at=at.timestamp())
        if is_good:
            assert (await played.adapter.verify_callback(headers, genuine(), received_at=at)).evidence
        else:
            with pytest.raises(CallbackForged):
                await played.adapter.verify_callback(headers, genuine(), received_at=at)


@pytest.mark.parametrize("spelt", [lambda serial: serial.lower(), lambda serial: serial.lstrip("0")])
async def test_a_serial_number_is_a_number_however_it_is_spelt(spelt: Callable[[str], str]) -> None:
    key = new_key()
    made = certificate(key, serial=0x00ABCDEF << 100)
    played = Played(platform_certificates=[certificate_pem(made)])
    headers = signature_headers(genuine(), serial=spelt(serial_of(made)), key=key, at=NOW.timestamp())
    assert (await played.adapter.verify_callback(headers, genuine(), received_at=NOW)).evidence


async def test_freshness_is_asked_for_only_of_what_verifies() -> None:
    adapter, sent = Played().adapter, callback(genuine(), at=NOW.timestamp() - 301)
    with pytest.raises(CallbackStale):
        await adapter.verify_callback(sent.headers, sent.body, received_at=NOW)
    with pytest.raises(CallbackForged):
        await adapter.verify_callback(sent.headers, sent.body + b" ", received_at=NOW)


async def test_a_callback_about_a_refund_asks_for_a_query() -> None:
    """It tells the sum of one refund; what the payment is in all, only the query tells."""
    notice = {"mchid": DRIVER.merchant_id, "out_trade_no": NUMBER, "refund_status": "SUCCESS", "amount": {"refund": 1}}
    for event_type in ("REFUND.SUCCESS", "REFUND.ABNORMAL", "REFUND.CLOSED"):
        sent = callback(envelope(seal(json.dumps(notice).encode()), "id-1", event_type))
        told = await Played().adapter.verify_callback(sent.headers, sent.body, received_at=NOW)
        assert told.evidence == Unclear(channel_account="main", out_trade_no=NUMBER, reason="refund_notice")


async def test_a_refund_notice_of_another_merchant_is_of_another_account() -> None:
    notice = json.dumps({"mchid": "1600000009", "out_trade_no": NUMBER}).encode()
    sent = callback(envelope(seal(notice), "id-1", "REFUND.SUCCESS"))
    told = await Played().adapter.verify_callback(sent.headers, sent.body, received_at=NOW)
    assert told.evidence is not None
    assert told.evidence.channel_account == "other:1600000009"


async def test_every_check_is_noted_with_the_string_that_was_checked() -> None:
    sent = callback(genuine())
    with trace.recorded_checks() as heard:
        await Played().adapter.verify_callback(sent.headers, sent.body, received_at=NOW)
        with pytest.raises(CallbackForged):
            await Played().adapter.verify_callback(sent.headers, sent.body + b" ", received_at=NOW)
    assert [(check.what, check.is_good) for check in heard] == [
        ("callback", True),
        ("sealed", True),
        ("callback", False),
    ]
    string = f"{int(NOW.timestamp())}\n{sent.headers['wechatpay-nonce']}\n".encode() + sent.body + b"\n"
    assert (heard[0].string, heard[0].key) == (string, PUBLIC_KEY_ID)


# -- the account -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 16, 24, 31, 33, 64])
def test_an_apiv3_key_of_another_length_opens_no_account(length: int) -> None:
    """16 and 24 bytes are keys that AES would take."""
    with pytest.raises(ConfigurationError, match="32 bytes"):
        Played(apiv3_key="k" * length)


def test_an_account_that_could_verify_nothing_does_not_open() -> None:
    with pytest.raises(ConfigurationError, match="nothing could be verified"):
        Played(public_keys={}, platform_certificates=[])
    Played(public_keys={}, platform_certificates=[], download_certificates=True)


def test_a_live_account_opens_at_the_channels_own_host_without_naming_it() -> None:
    nobody = Transport(timeout_s=1, transport=httpx.MockTransport(lambda _: httpx.Response(500)))
    account = replace(DRIVER.account(""), live=True)
    assert isinstance(account, AccountConfig)
    WechatPay(account, nobody)


# -- certificates ------------------------------------------------------------------------------------------------------


class Certificates:
    """The far side's list, which a test may change."""

    def __init__(self, *, days: float = 365) -> None:
        self.key = new_key()
        self.made = certificate(self.key, days=days)
        self.apiv3_key = APIV3_KEY
        self.played = Played(public_keys={}, platform_certificates=[], download_certificates=True)
        self.played.told = self.told
        self.is_broken = False

    def told(self, asked: Asked) -> Answered:
        assert asked.target == "/v3/certificates"
        if self.is_broken:
            return error(500, "SYSTEM_ERROR")
        resource = seal(certificate_pem(self.made).encode(), apiv3_key=self.apiv3_key, data="certificate")
        body = msgspec.json.encode({"data": [{"serial_no": serial_of(self.made), "encrypt_certificate": resource}]})
        headers = signature_headers(body, serial=serial_of(self.made), key=self.key, at=self.played.now)
        return Answered(200, headers, body)

    def sent(self, serial: str = "") -> Sent:
        at = self.played.now
        return Sent(signature_headers(genuine(), serial=serial or serial_of(self.made), key=self.key, at=at), genuine())

    async def verify(self, serial: str = "") -> None:
        sent, at = self.sent(serial), datetime.fromtimestamp(self.played.now, UTC)
        told = await self.played.adapter.verify_callback(sent.headers, sent.body, received_at=at)
        assert isinstance(told.evidence, Paid)


async def test_the_first_list_of_certificates_is_proved_by_the_certificate_in_it() -> None:
    far = Certificates()
    await far.played.adapter.keep_current()
    await far.verify()


async def test_without_any_key_yet_the_channel_must_send_it_again() -> None:
    """Refused as forged it would be a callback that was lost to an alarm."""
    with pytest.raises(ChannelUnavailable):
        await Certificates().verify()


async def test_a_list_sealed_with_another_key_or_altered_is_not_taken() -> None:
    far = Certificates()
    far.apiv3_key = "another key of thirty-two bytes."
    with pytest.raises(ChannelUnreadable):
        await far.played.adapter.keep_current()
    far.apiv3_key = APIV3_KEY
    far.played.told = lambda asked: far.told(asked)._replace(headers={})
    with pytest.raises(ChannelUnreadable):
        await far.played.adapter.keep_current()
    with pytest.raises(ChannelUnavailable):
        await far.verify()


async def test_the_list_is_fetched_twice_a_day() -> None:
    far = Certificates()
    for minutes in range(0, 24 * 60 + 1, 10):
        far.played.now = time.time() + minutes * 60
        await far.played.adapter.keep_current()
    assert len(far.played.asked) == 3


async def test_an_old_certificate_stays_beside_the_new_one_and_a_failure_keeps_both() -> None:
    far = Certificates()
    await far.played.adapter.keep_current()
    old = far.key, far.made
    far.key = new_key()
    far.made = certificate(far.key)
    far.played.now += 12 * 3600
    await far.played.adapter.keep_current()
    await far.verify()
    far.is_broken, far.played.now = True, far.played.now + 12 * 3600
    with pytest.raises(ChannelUnavailable):
        await far.played.adapter.keep_current()
    await far.verify()
    far.key, far.made = old
    await far.verify()


async def test_an_unknown_serial_is_looked_for_later_and_at_most_every_ten_minutes() -> None:
    """Never while a callback waits: whoever makes up serials would decide how often the channel is called."""
    far = Certificates()
    await far.played.adapter.keep_current()
    for minutes in range(30):
        far.played.now += 60
        for serial in ("0C" * 20, f"{minutes:040X}"):
            with pytest.raises(CallbackForged):
                await far.verify(serial)
        asked = len(far.played.asked)
        await far.played.adapter.keep_current()
        assert len(far.played.asked) <= asked + 1
    assert len(far.played.asked) == 1 + 3


@pytest.mark.parametrize("serial", ["PUB_KEY_ID_0100000000000000000000000099", "zz" * 20, "1_0", "é", "a" * 5000])
async def test_a_serial_that_no_certificate_has_is_not_looked_for(serial: str) -> None:
    far = Certificates()
    await far.played.adapter.keep_current()
    with pytest.raises(CallbackForged):
        await far.verify(serial)
    far.played.now += 3600
    await far.played.adapter.keep_current()
    assert len(far.played.asked) == 1


async def test_without_the_switch_nothing_is_fetched() -> None:
    played = Played()
    await played.adapter.keep_current()
    assert played.asked == []


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
async def test_states_of_a_refund(status: str, state: RefundState) -> None:
    adapter = saying(_refund(status)).adapter
    assert await adapter.refund_payment(ROW, REFUND_NO, 1000) is state
    assert await adapter.query_refund(ROW, REFUND_NO) is state


@pytest.mark.parametrize(
    "changes", [{"out_refund_no": "R-000009"}, {"out_trade_no": "another"}, {"amount": {"refund": 999}}], ids=str
)
async def test_an_answer_about_another_refund_is_unreadable(changes: dict[str, Any]) -> None:
    with pytest.raises(ChannelUnreadable):
        await saying(_refund(**changes)).adapter.refund_payment(ROW, REFUND_NO, 1000)


async def test_a_refund_without_the_balance_for_it_is_refused() -> None:
    with pytest.raises(ChannelRefused) as caught:
        await Played(lambda _: error(403, "NOT_ENOUGH")).adapter.refund_payment(ROW, REFUND_NO, 1000)
    assert caught.value.code == "NOT_ENOUGH"


async def test_only_the_404_that_says_so_means_that_there_is_no_such_refund() -> None:
    assert await Played(lambda _: error(404, "RESOURCE_NOT_EXISTS")).adapter.query_refund(ROW, REFUND_NO) is None
    for answer in (error(404, "NOT_FOUND"), error(400, "RESOURCE_NOT_EXISTS")):
        with pytest.raises(ChannelUnreadable):
            await Played(lambda _, answer=answer: answer).adapter.query_refund(ROW, REFUND_NO)  # type: ignore[misc]  # bound now


# -- the bill ----------------------------------------------------------------------------------------------------------


class Bill:
    """A far side with a bill to fetch; what it tells of it may be changed."""

    def __init__(self, content: bytes = DRIVER.statement, *, packed: bool = True, **told: str) -> None:
        self.file = gzip.compress(content) if packed else content
        self.bill = {
            "hash_type": "SHA1",
            "hash_value": hashlib.sha1(content, usedforsecurity=False).hexdigest(),
            "download_url": "http://127.0.0.1:9/v3/billdownload/file?token=a%2Fb",
            **told,
        }
        self.played = Played()
        self.played.told = self.told

    def told(self, asked: Asked) -> Answered:
        if asked.target.startswith("/v3/billdownload/"):
            return Answered(200, {"content-type": "application/octet-stream"}, self.file)
        return self.played.signed(self.bill)

    async def fetch(self) -> bytes:
        into = io.BytesIO()
        await self.played.adapter.fetch_statement(TODAY, into)
        return into.getvalue()


@pytest.mark.parametrize("packed", [True, False])
async def test_a_bill_is_fetched_proved_by_its_hash_and_read(packed: bool) -> None:
    bill = Bill(packed=packed)
    fetched = await bill.fetch()
    assert fetched == bill.file
    assert tuple(bill.played.adapter.parse_statement(io.BytesIO(fetched))) == DRIVER.statement_rows
    first, second = bill.played.asked
    assert first.target == "/v3/bill/tradebill?bill_date=2026-11-23&bill_type=ALL&tar_type=GZIP"
    assert second.target == "/v3/billdownload/file?token=a%2Fb"
    assert second.headers["authorization"].startswith("WECHATPAY2-SHA256-RSA2048 ")


async def test_the_hash_is_of_the_unpacked_bill_in_either_case() -> None:
    digest = hashlib.sha1(DRIVER.statement, usedforsecurity=False).hexdigest()
    assert await Bill(hash_value=digest.upper()).fetch()
    with pytest.raises(ChannelUnreadable):
        await Bill(hash_value=hashlib.sha1(Bill().file, usedforsecurity=False).hexdigest()).fetch()


async def test_a_bill_that_is_not_the_one_that_was_signed_for_is_not_kept() -> None:
    bill, into = Bill(), io.BytesIO()
    for file in (gzip.compress(DRIVER.statement.replace(b"88.88", b"99.99")), b"", bill.file[:-9], b"\x1f\x8bno"):
        bill.file = file
        with pytest.raises(ChannelUnreadable):
            await bill.played.adapter.fetch_statement(TODAY, into)
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
    """What is signed for it would be good for two minutes of anybody's."""
    bill = Bill(download_url=url)
    with pytest.raises(ChannelUnreadable):
        await bill.fetch()
    assert len(bill.played.asked) == 1


@pytest.mark.parametrize("status", [400, 404])
async def test_a_day_without_a_bill_is_a_day_without_payments(status: int) -> None:
    with pytest.raises(ChannelRefused) as caught:
        await Played(lambda _: error(status, "NO_STATEMENT_EXIST")).adapter.fetch_statement(TODAY, io.BytesIO())
    assert caught.value.code == "no_statement"


async def test_a_bill_that_is_still_being_made_is_asked_for_again() -> None:
    with pytest.raises(ChannelUnavailable):
        await Played(lambda _: error(400, "STATEMENT_CREATING")).adapter.fetch_statement(TODAY, io.BytesIO())


@pytest.mark.parametrize(("yuan", "fen"), [("0.07", 7), ("19.99", 1999), ("1.10", 110), ("999999999.99", 99999999999)])
def test_yuan_become_fen_exactly(yuan: str, fen: int) -> None:
    """19.99 × 100 is 1998.9999999999998 to a float."""
    statement = DRIVER.statement.replace(b"`88.88,", f"`{yuan},".encode(), 1)
    first, _ = Played().adapter.parse_statement(io.BytesIO(statement))
    assert first == replace(DRIVER.statement_rows[0], amount=fen)


def test_columns_are_found_by_name() -> None:
    """New ones come now and then; here each row begins with one."""
    header, *rows = DRIVER.statement.removeprefix(b"\xef\xbb\xbf").split(b"\r\n")
    moved = [b"\xef\xbb\xbf" + "新列,".encode() + header, *(b"`new," + row for row in rows[:2]), *rows[2:]]
    assert tuple(Played().adapter.parse_statement(io.BytesIO(b"\r\n".join(moved)))) == DRIVER.statement_rows


def test_without_the_column_of_what_was_asked_back_a_refund_is_what_went_back() -> None:
    old = DRIVER.statement.replace("申请退款金额,费率备注".encode(), "费率备注".encode())
    old = old.replace(b"`88.88,`0.00,`\r\n", b"`88.88,`\r\n").replace(b"`88.88,`10.00,`\r\n", b"`88.88,`\r\n")
    rows = tuple(Played().adapter.parse_statement(io.BytesIO(old)))
    assert rows == (DRIVER.statement_rows[0], replace(DRIVER.statement_rows[1], amount=900))


@pytest.mark.parametrize(
    ("old", "new"), [("`REFUND,", "`REVOKED,"), ("`ORIGINAL,`SUCCESS", "`ORIGINAL,`FAIL")], ids=["revoked", "failed"]
)
def test_rows_about_no_money_are_left_out(old: str, new: str) -> None:
    statement = DRIVER.statement.replace(old.encode(), new.encode())
    assert tuple(Played().adapter.parse_statement(io.BytesIO(statement))) == DRIVER.statement_rows[:1]


@pytest.mark.parametrize("text", ["Tea\r\n250 g", "Tea\n\n250 g", "Tea\n总计"])
def test_a_line_that_is_broken_in_two_hides_none_of_those_that_follow(text: str) -> None:
    """The sums are known by their name: taken for them, the rest of a row would be the end of the statement."""
    first, second = DRIVER.statement_rows
    statement = DRIVER.statement.replace(b"Tea, 250 g", text.encode(), 1)
    *broken, last = Played().adapter.parse_statement(io.BytesIO(statement))
    assert {type(row) for row in broken} == {MalformedRow}
    assert isinstance(first, StatementRow)
    assert last == replace(second, line=len(broken) + 2)


def test_a_refund_under_way_has_left_the_balance() -> None:
    statement = DRIVER.statement.replace(b"`ORIGINAL,`SUCCESS", b"`ORIGINAL,`PROCESSING")
    assert tuple(Played().adapter.parse_statement(io.BytesIO(statement))) == DRIVER.statement_rows


def test_a_day_is_a_day_in_beijing() -> None:
    zone = Played().adapter.statement_zone
    assert datetime(2026, 11, 22, 16, tzinfo=UTC).astimezone(zone).date() == date(2026, 11, 23)
