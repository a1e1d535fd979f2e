"""Alipay's pitfalls and the features that only Alipay has."""

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime
from io import BytesIO
from urllib.parse import parse_qsl, quote_plus, urlencode, urlsplit

import httpx
import pytest
from msgspec.structs import replace

from channels.adapters import open_channel
from channels.alipay.adapter import Alipay
from channels.alipay.keys import root_certificate_sn
from channels.alipay.wire import read_envelope
from channels.base import Callback, Channel, ChannelRefund, RefundState
from channels.kit.signed_message import recorded_checks
from channels.transport import Response, Transport
from core.account import AccountConfig
from core.errors import (
    CallbackForged,
    ChannelRefused,
    ChannelUnavailable,
    ChannelUnreadable,
    ConfigurationError,
    InvalidRequest,
)
from core.evidence import Closed, Evidence, Missing, Paid, Refunded, Unpaid
from core.lifecycle import mismatch
from demo.service import NO_TLS
from simulator.alipay.keys import in_certificate_mode, opened_account, rotated_account
from simulator.kernel.base import Opened
from simulator.kernel.ledger import Key as LedgerKey
from tests.channels.alipay.driver import (
    LIVE,
    SANDBOX,
    AlipayDriver,
    compact,
    details,
    pair,
    private_pem,
    public_pem,
    refused,
    signature,
    signed_string,
    zipped,
)
from tests.channels.conftest import Running, create, opened_offline, rows_in
from tests.channels.httpx_carrier import responding
from tests.channels.reports import AMOUNT, NUMBER, OFFLINE_URL, PAID_AT, Key, PaymentReport
from tests.channels.wire import WireRequest, untouched

DRIVER = AlipayDriver()
NOW = datetime(2026, 11, 23, 4, 0, 30, tzinfo=UTC)
ASKED = WireRequest("POST", "/gateway.do", {}, urlencode({"method": "alipay.trade.query"}).encode(), b"")
FIELDS = DRIVER.fields(PaymentReport(), DRIVER.notification_id)


def offline() -> Alipay:
    channel = opened_offline(DRIVER, Key.NEW, Key.OLD)
    assert isinstance(channel, Alipay)
    return channel


def read_node(node: bytes, *, sign: str | None = None) -> Evidence:
    """Evidence of a response with this node."""
    sign_text = signature(node) if sign is None else sign
    body = b'{"alipay_trade_query_response":%b,"sign":"%b"}' % (node, sign_text.encode())
    return offline().read_response(DRIVER.payment(), Response(status=200, headers={}, body=body), received_at=NOW)


def query_evidence(**changed: object) -> Evidence:
    """Evidence of a query for a paid trade with changed fields; None removes a field."""
    fields = json.loads(DRIVER.render(PaymentReport())) | changed
    return read_node(compact({name: value for name, value in fields.items() if value is not None}))


async def receive(fields: Mapping[str, str], *, charset: str = "utf-8", sign: str | None = None) -> Callback:
    """The verified callback with these fields."""
    sign_text = signature(signed_string(fields, charset)) if sign is None else sign
    body = urlencode({**fields, "sign_type": "RSA2"}, encoding=charset) + f"&sign={quote_plus(sign_text)}"
    return await offline().verify_callback({}, body.encode(), received_at=NOW)


async def verified_callback(**changed: str) -> Callback:
    return await receive({name: value for name, value in {**FIELDS, **changed}.items() if value})


async def callback_evidence(**changed: str) -> Evidence:
    evidence = (await verified_callback(**changed)).evidence
    assert evidence is not None
    return evidence


# -- the signed bytes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "node",
    [
        rb'{"code":"10000","out_trade_no":"N","total_amount":"1.00","trade_status":"WAIT_BUYER_PAY","u":"http:\/\/a\/"}',
        b'{"code":"10000","out_trade_no":"N","total_amount":"1.00","trade_status":"WAIT_BUYER_PAY","u":"http://a/"}',
        b'{ "trade_status" : "WAIT_BUYER_PAY",\n\t"total_amount":"1.00" , "code":"10000","out_trade_no":"N"  }',
        rb'{"code":"10000","out_trade_no":"N","total_amount":"1.00","trade_status":"WAIT_BUYER_PAY","s":"\u8336"}',
        '{"code":"10000","out_trade_no":"N","total_amount":"1.00","trade_status":"WAIT_BUYER_PAY","s":"茶"}'.encode(),
        rb'{"code":"10000","out_trade_no":"N","total_amount":"1.00","trade_status":"WAIT_BUYER_PAY","s":"}\"{\\"}',
        b'{"sign":"x","code":"10000","out_trade_no":"N","total_amount":"1.00","trade_status":"WAIT_BUYER_PAY"}',
    ],
)
def test_a_response_is_verified_over_the_raw_bytes_of_its_node(node: bytes) -> None:
    """Reserialised bytes differ: escaped slashes, white space, order, Chinese."""
    assert isinstance(read_node(node), Unpaid)


@pytest.mark.parametrize("envelope", [b'{"sign":"%b","%b":%b}', b'{ "sign" : "%b" ,\r\n "%b"\n:\t%b }\n'])
def test_the_signature_may_precede_the_node_with_white_space(envelope: bytes) -> None:
    node = DRIVER.render(PaymentReport())
    body = envelope % (signature(node).encode(), b"alipay_trade_query_response", node)
    evidence = offline().read_response(DRIVER.payment(), Response(status=200, headers={}, body=body), received_at=NOW)
    assert isinstance(evidence, Paid)


def test_a_signed_error_response_node_is_read() -> None:
    node = refused("isv.invalid-app-id", code="40002")
    body = b'{"error_response":%b,"sign":"%b"}' % (node, signature(node).encode())
    with pytest.raises(ChannelUnreadable, match=r"isv\.invalid-app-id"):
        offline().read_response(DRIVER.payment(), Response(status=200, headers={}, body=body), received_at=NOW)


@pytest.mark.parametrize("name", ["alipay_trade_query_response", "error_response"])
@pytest.mark.parametrize("sub_code", ["isv.invalid-signature", "ACQ.TRADE_NOT_EXIST"])
def test_a_rejection_without_a_signature_is_neither_paid_nor_failed_nor_missing(name: str, sub_code: str) -> None:
    body = b'{"%b":%b}' % (name.encode(), refused(sub_code, code="40002"))
    with pytest.raises(ChannelUnreadable, match=f"unsigned_{sub_code}"):
        offline().read_response(DRIVER.payment(), Response(status=200, headers={}, body=body), received_at=NOW)


def test_a_nested_signature_is_unreadable() -> None:
    """Also at the depth at which the envelope can be parsed and the signature cannot."""
    for depth in range(700, 1000):
        sign = b"[" * depth + b"]" * depth
        with pytest.raises(ChannelUnreadable):
            read_envelope(b'{"alipay_trade_query_response":{},"sign":%b}' % sign, "alipay_trade_query_response")


async def test_requests_are_signed_with_sign_type_and_callbacks_without_it(running: Running) -> None:
    """The simulator verifies the request; with one string for both, one direction would never verify."""
    far_side, transport = running.far_side, running.transport
    proxy, url = running.proxies["alipay"]
    far_side.accounts[DRIVER.merchant_id] = DRIVER.simulator_account()
    proxy.alter, proxy.exchanges = untouched, []
    assert isinstance(
        await open_channel(DRIVER.account(url), transport).query_payment(DRIVER.payment("not-there")), Missing
    )
    ((request, _),) = proxy.exchanges
    parameters = dict(parse_qsl(urlsplit(request.target).query) + parse_qsl(request.body.decode()))
    assert parameters["sign_type"] == "RSA2"
    assert isinstance(await callback_evidence(), Paid)
    without = signature(signed_string({name: value for name, value in FIELDS.items() if name != "charset"}))
    with pytest.raises(CallbackForged):
        await receive(FIELDS, sign=without)


@pytest.mark.parametrize("subject", ["100% 茶", "100%25", "%E8%8C%B6", "a+b", "a b", "a&b=c", "%", "100%2B"])
async def test_values_of_a_callback_are_decoded_once(subject: str) -> None:
    """A second decoding turns `%25` into `%` and `%2B` into a plus, and the signature fails."""
    assert isinstance(await callback_evidence(subject=subject), Paid)


@pytest.mark.parametrize("charset", ["utf-8", "gbk"])
async def test_a_callback_is_verified_in_the_charset_that_it_names(charset: str) -> None:
    fields = {**FIELDS, "charset": charset.upper()}
    assert isinstance((await receive(fields, charset=charset)).evidence, Paid)
    other = {"utf-8": "gbk", "gbk": "utf-8"}[charset]
    with pytest.raises(CallbackForged):
        await receive(fields, charset=charset, sign=signature(signed_string(fields, other)))


async def test_a_signed_value_cannot_be_split_into_other_fields() -> None:
    """A text with `&` and `=` may read as another amount in the joined string while its signature verifies."""
    cheap = {**FIELDS, "subject": "Tea&total_amount=88.88&totalx=", "total_amount": "0.01"}
    sign = signature(signed_string(cheap))
    dear = {**FIELDS, "subject": "Tea", "total_amount": "88.88"}
    for hidden in ({"totalx": "&total_amount=0.01"}, {"totalx=&total_amount": "0.01"}):
        assert signed_string(dear | hidden) == signed_string(cheap)
        with pytest.raises(CallbackForged):
            await receive(dear | hidden, sign=sign)


async def test_a_payment_signed_with_its_sign_type_verifies_too() -> None:
    """Messages of the service market are signed like this."""
    sign = signature(signed_string({**FIELDS, "sign_type": "RSA2"}))
    assert isinstance((await receive(FIELDS, sign=sign)).evidence, Paid)


async def test_every_signature_check_is_recorded_with_its_exact_string() -> None:
    with recorded_checks() as checks:
        read_node(DRIVER.render(PaymentReport()))
        await callback_evidence()
    assert [(one.message, one.algorithm, one.key, one.is_good) for one in checks] == [
        ("answer", "SHA256withRSA", "new", True),
        ("callback", "SHA256withRSA", "new", True),
    ]
    assert [one.string for one in checks] == [DRIVER.render(PaymentReport()), signed_string(FIELDS)]


# -- what a trade's status means ---------------------------------------------------------------------------------------


async def test_trade_finished_is_paid() -> None:
    """It can only no longer be refunded."""
    for evidence in (
        query_evidence(trade_status="TRADE_FINISHED"),
        await callback_evidence(trade_status="TRADE_FINISHED"),
    ):
        assert isinstance(evidence, Paid)
        assert (evidence.amount, evidence.at) == (AMOUNT, PAID_AT)


@pytest.mark.parametrize(
    "paid",
    [{"send_pay_date": "2026-11-23 12:00:00"}, {"gmt_refund": "2026-11-23 12:20:00"}, {"refund_fee": "88.88"}],
    ids=lambda fields: next(iter(fields)),
)
def test_trade_closed_after_a_full_refund_was_paid_in_a_query(paid: dict[str, str]) -> None:
    """Read as never paid, the order would be lost although its money was refunded."""
    evidence = query_evidence(**{"trade_status": "TRADE_CLOSED", "send_pay_date": None, **paid})
    assert isinstance(evidence, Refunded)
    assert (evidence.amount, evidence.refunded_amount) == (AMOUNT, AMOUNT)


async def test_trade_closed_after_a_full_refund_was_paid_in_a_callback() -> None:
    for changed in ({"refund_fee": "88.88", "gmt_refund": "2026-11-23 12:20:00.320"}, {}):
        evidence = await callback_evidence(trade_status="TRADE_CLOSED", **changed)
        assert isinstance(evidence, Refunded)
        assert (evidence.refunded_amount, evidence.at) == (AMOUNT, PAID_AT)


async def test_trade_closed_without_a_payment_is_closed() -> None:
    assert isinstance(query_evidence(trade_status="TRADE_CLOSED", send_pay_date=None), Closed)
    closed = await callback_evidence(trade_status="TRADE_CLOSED", gmt_payment="", refund_fee="0.00")
    assert isinstance(closed, Closed)


@pytest.mark.parametrize(
    ("changed", "is_hint"),
    [
        ({}, False),
        ({"trade_status": "TRADE_FINISHED"}, False),
        ({"refund_fee": "0.00"}, True),
        ({"refund_fee": "0.00", "trade_status": "TRADE_FINISHED"}, True),
        ({"gmt_refund": "2026-11-23 12:00:00.000"}, True),
        ({"refund_fee": "1.00"}, False),
    ],
    ids=str,
)
async def test_paid_that_names_a_refund_of_nothing_is_only_a_reason_to_query(
    changed: dict[str, str], *, is_hint: bool
) -> None:
    assert (await verified_callback(**changed)).is_hint is is_hint


async def test_a_partial_refund_is_in_callbacks_and_not_in_queries() -> None:
    evidence = await callback_evidence(refund_fee="10.00", gmt_refund="2026-11-23 12:20:00.320")
    assert isinstance(evidence, Refunded)
    assert (evidence.amount, evidence.refunded_amount) == (AMOUNT, 1000)
    assert isinstance(query_evidence(), Paid)


def test_trade_not_exist_is_missing_with_any_prefix() -> None:
    for sub_code in ("ACQ.TRADE_NOT_EXIST", "aop.ACQ.TRADE_NOT_EXIST"):
        assert read_node(refused(sub_code)) == Missing(channel_account="main", out_trade_no=NUMBER)
    other = read_node(refused("ACQ.TRADE_NOT_EXIST", out_trade_no="another-number"))
    assert mismatch(DRIVER.payment(), other) is not None, "the answer to another question ends nothing"


@pytest.mark.parametrize(
    ("code", "sub_code"),
    [
        ("20000", "aop.ACQ.SYSTEM_ERROR"),
        ("40004", "ACQ.SYSTEM_ERROR"),
        ("20000", "isp.unknow-error"),
        ("20000", "aop.ACQ.TRADE_NOT_EXIST"),
        ("40005", "isv.app-call-limited"),
    ],
)
def test_a_gateway_system_error_is_an_unknown_outcome(code: str, sub_code: str) -> None:
    with pytest.raises(ChannelUnavailable):
        read_node(refused(sub_code, code=code))


async def test_a_trade_before_the_code_is_scanned_is_missing_and_may_be_paid_still(running: Running) -> None:
    """Closing it raises nothing; money that comes afterwards is found by the query."""
    far_side, transport = running.far_side, running.transport
    await far_side.reset(7)
    far_side.accounts[DRIVER.merchant_id] = DRIVER.simulator_account()
    channel = open_channel(DRIVER.account(far_side.urls["alipay"]), transport)
    created = await channel.create_payment(create(DRIVER.payment()))
    assert created.checkout.kind == "qr"
    await channel.close_payment(DRIVER.payment())
    assert isinstance(await channel.query_payment(DRIVER.payment()), Missing)
    far_side.open(LedgerKey(DRIVER.merchant_id, NUMBER))
    assert isinstance(await channel.query_payment(DRIVER.payment()), Unpaid)
    far_side.pay(LedgerKey(DRIVER.merchant_id, NUMBER))
    assert isinstance(await channel.query_payment(DRIVER.payment()), Paid)


# -- amounts and names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "amount",
    [
        88.88,
        8888,
        "88,88",
        "８８.８８",
        "8.888E1",
        "+88.88",
        "-88.88",
        "88.880",
        " 88.88",
        "88.",
        "088.88",
        "",
        None,
        "NaN",
    ],
)
def test_an_amount_that_is_not_plain_yuan_as_text_is_unreadable(amount: object) -> None:
    """88.88 is no float, and 8888 would be a hundred times the amount."""
    with pytest.raises(ChannelUnreadable):
        query_evidence(total_amount=amount)


@pytest.mark.parametrize(("text", "fen"), [("0.01", 1), ("88.88", 8888), ("88.8", 8880), ("88", 8800), ("0.29", 29)])
def test_yuan_become_fen_exactly(text: str, fen: int) -> None:
    assert query_evidence(total_amount=text).amount == fen


def test_the_amount_after_discounts_is_not_compared() -> None:
    """`receipt_amount` and `buyer_pay_amount` are smaller with a coupon; the order is still paid."""
    evidence = query_evidence(receipt_amount="0.01", buyer_pay_amount="0.01", invoice_amount="0.01")
    assert mismatch(DRIVER.payment(), evidence) is None


@pytest.mark.parametrize(
    "changed", [{"app_id": "2021000000000002"}, {"seller_id": "2088000000000002"}], ids=["application", "seller"]
)
async def test_another_merchants_genuine_callback_is_evidence_of_another_account(changed: dict[str, str]) -> None:
    evidence = await callback_evidence(**changed)
    assert evidence.channel_account == f"other:{next(iter(changed.values()))}"


async def test_a_forged_callback_of_another_merchant_is_forged_first() -> None:
    """Nothing is read before it is verified."""
    with pytest.raises(CallbackForged):
        await receive({**FIELDS, "app_id": "2021000000000002"}, sign=signature(signed_string(FIELDS)))


def test_the_acknowledgement_is_seven_bytes() -> None:
    acknowledgement = offline().acknowledge()
    assert (acknowledgement.status, acknowledgement.content_type, acknowledgement.body, len(acknowledgement.body)) == (
        200,
        "text/plain",
        b"success",
        7,
    )


# -- creating ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "name", "product_code"),
    [("page", "alipay.trade.page.pay", "FAST_INSTANT_TRADE_PAY"), ("wap", "alipay.trade.wap.pay", "QUICK_WAP_WAY")],
)
async def test_a_page_payment_is_a_signed_address_without_a_call(method: str, name: str, product_code: str) -> None:
    until = datetime(2026, 11, 23, 4, 30, tzinfo=UTC)
    row = replace(DRIVER.payment(payable_until=until), method=method)
    nobody = Transport(timeout_s=1, carrier=responding(lambda _: pytest.fail("was called")))
    created = await open_channel(DRIVER.account(OFFLINE_URL), nobody).create_payment(create(row))
    assert (created.checkout.kind, created.channel_reference) == ("redirect", None)
    parts = urlsplit(created.checkout.value)
    assert f"{parts.scheme}://{parts.netloc}{parts.path}" == f"{OFFLINE_URL}/gateway.do"
    parameters = dict(parse_qsl(parts.query))
    assert (parameters["method"], parameters["charset"], parameters["version"]) == (name, "utf-8", "1.0")
    assert parameters["notify_url"] == "http://127.0.0.1:9/callbacks/main"
    assert parameters["return_url"] == "http://127.0.0.1:9/o/token/return"
    body = json.loads(parameters["biz_content"])
    assert body["product_code"] == product_code
    assert (body["out_trade_no"], body["total_amount"]) == (NUMBER, "88.88")
    assert body["time_expire"] == "2026-11-23 12:30:00", "by Alipay's clock"
    assert ("quit_url" in body) == (method == "wap")


async def test_an_unopened_page_is_missing_and_the_browser_creates_the_trade(running: Running) -> None:
    far_side, transport = running.far_side, running.transport
    await far_side.reset(7)
    far_side.accounts[DRIVER.merchant_id] = DRIVER.simulator_account()
    channel = open_channel(DRIVER.account(far_side.urls["alipay"]), transport)
    row = replace(DRIVER.payment(), method="page")
    created = await channel.create_payment(create(row))
    assert isinstance(await channel.query_payment(row), Missing)
    async with httpx.AsyncClient(trust_env=False, verify=NO_TLS, timeout=60) as browser:
        opened = await browser.get(created.checkout.value)
        assert opened.status_code == 302
        shown = await browser.get(opened.headers["location"])
    assert "88.88 CNY" in shown.text
    assert isinstance(await channel.query_payment(row), Unpaid)


@pytest.mark.parametrize("sub_code", ["ACQ.TRADE_HAS_SUCCESS", "ACQ.CONTEXT_INCONSISTENT"])
async def test_a_creation_refused_because_the_number_is_known_is_an_unknown_outcome(sub_code: str) -> None:
    """It may be ours and paid, after a lost response; a refusal would mean that no money can come."""
    with pytest.raises(ChannelUnreadable):
        await channel_answering(refused(sub_code)).create_payment(create(DRIVER.payment()))


async def test_a_creation_refused_for_another_reason_is_definite() -> None:
    with pytest.raises(ChannelRefused) as caught:
        await channel_answering(refused("ACQ.ACCESS_FORBIDDEN")).create_payment(create(DRIVER.payment()))
    assert caught.value.code == "ACQ.ACCESS_FORBIDDEN"


async def test_other_currencies_and_other_methods_are_refused_before_anything_is_sent() -> None:
    for changed in ({"currency": "USD"}, {"method": "app"}):
        with pytest.raises(InvalidRequest):
            await offline().create_payment(create(replace(DRIVER.payment(), **changed)))


# -- closing and refunding ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sub_code",
    [
        "ACQ.TRADE_NOT_EXIST",
        "ACQ.TRADE_STATUS_ERROR",
        "ACQ.REASON_TRADE_STATUS_INVALID",
        "ACQ.REASON_ILLEGAL_STATUS",
        "ACQ.TRADE_HAS_FINISHED",
        "ACQ.TRADE_HAS_CLOSE",
    ],
)
async def test_closing_a_trade_that_is_not_payable_raises_nothing(sub_code: str) -> None:
    await channel_answering(refused(sub_code)).close_payment(DRIVER.payment())


async def test_a_refund_without_a_fund_change_is_processing() -> None:
    """A repeated refund has `fund_change` N, which is neither success nor failure."""
    for change, state in (("Y", RefundState.SUCCEEDED), ("N", RefundState.PROCESSING)):
        node = compact({"code": "10000", "out_trade_no": NUMBER, "fund_change": change, "refund_fee": "10.00"})
        refund = await channel_answering(node).refund_payment(DRIVER.payment(), "R-000001", 1000)
        assert refund == ChannelRefund(state=state)


@pytest.mark.parametrize("code", ["10003", "20001"])
async def test_only_a_refusal_refuses_a_refund(code: str) -> None:
    """With every other code the outcome is open, and money that may be refunded is not refunded again."""
    node = compact({"code": code, "msg": "in process", "out_trade_no": NUMBER})
    with pytest.raises(ChannelUnreadable, match=f"code_{code}"):
        await channel_answering(node).refund_payment(DRIVER.payment(), "R-000001", 1000)


async def test_a_refund_without_a_status_is_none() -> None:
    fields = {"code": "10000", "msg": "Success", "out_trade_no": NUMBER, "out_request_no": "R-000001"}
    for node, refund in (
        (compact(fields), None),
        (compact({"code": "10000", "msg": "Success"}), None),
        (refused("TRADE_NOT_EXIST"), None),
        (compact(fields | {"refund_status": "REFUND_SUCCESS"}), ChannelRefund(state=RefundState.SUCCEEDED)),
    ):
        assert await channel_answering(node).query_refund(DRIVER.payment(), "R-000001") == refund


# -- statements --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gateway", "download_url", "fetched"),
    [
        (LIVE, "http://dwbillcenter.alipay.com/f?x=1", "https://dwbillcenter.alipay.com/f?x=1"),
        (LIVE, "https://dwbillcenter.alipay.com/f", "https://dwbillcenter.alipay.com/f"),
        (LIVE, "https://alipay.com.evil.example/f", None),
        (LIVE, "https://evilalipay.com/f", None),
        (LIVE, "https://dwbillcenter.alipay.com@evil.example/f", None),
        (LIVE, "https://dwbillcenter.alipay.com\\@evil.example/f", None),
        (LIVE, "https://127.0.0.1/f", None),
        (LIVE, "ftp://dwbillcenter.alipay.com/f", None),
        (SANDBOX, "http://dwbillcenter.alipaydev.com/f", "https://dwbillcenter.alipaydev.com/f"),
        ("http://127.0.0.1:9", "http://127.0.0.1:8/f", "http://127.0.0.1:8/f"),
        ("http://127.0.0.1:9", "https://dwbillcenter.alipay.com/f", None),
        ("http://127.0.0.1:9", "http://169.254.169.254/f", None),
    ],
)
async def test_a_statement_is_fetched_from_alipay_only_and_by_tls(
    gateway: str, download_url: str, fetched: str | None
) -> None:
    """The address comes in a response; an unchecked one could lead into our own network."""
    urls: list[str] = []

    def respond_with(request: httpx.Request) -> httpx.Response:
        urls.append(str(request.url))
        if "gateway.do" not in request.url.path:
            return httpx.Response(200, stream=httpx.ByteStream(b"a zip"))
        node = compact({"code": "10000", "msg": "Success", "bill_download_url": download_url})
        return envelope(request, node)

    account = replace(DRIVER.account(gateway), live=gateway == LIVE)
    channel = open_channel(account, Transport(timeout_s=1, carrier=responding(respond_with)))
    into = BytesIO()
    if fetched is None:
        with pytest.raises(ChannelUnreadable):
            await channel.fetch_statement(date(2026, 11, 22), into)
        assert len(urls) == 1
    else:
        await channel.fetch_statement(date(2026, 11, 22), into)
        assert (urls[1], into.getvalue()) == (fetched, b"a zip")


async def test_a_day_without_trades_has_no_statement() -> None:
    with pytest.raises(ChannelRefused) as caught:
        await channel_answering(refused("isp.bill_not_exist")).fetch_statement(date(2026, 11, 22), BytesIO())
    assert caught.value.code == "no_statement"


def test_the_columns_of_a_statement_are_found_by_name() -> None:
    """Alipay has added columns before, and the unit is in brackets of either width."""
    header = "备注,新的一列,退款批次号/请求号,订单金额(元),完成时间,业务类型,商户订单号,支付宝交易号"
    row = f'"茶, 250克",x,,88.88,2026-11-23 12:00:00,交易,{NUMBER},2026112322001400000000000001'
    (found,) = rows_in(offline().parse_statement(BytesIO(zipped(details(row, header=header)))))
    assert found == replace(DRIVER.statement_rows[0], fee=None), "there is no column of fees"


# -- accounts ----------------------------------------------------------------------------------------------------------


def opened(**credentials: object) -> Channel:
    account = DRIVER.account(OFFLINE_URL)
    return open_channel(replace(account, credentials=account.credentials | credentials), OFFLINE)


OFFLINE = Transport(timeout_s=1, carrier=responding(lambda _: httpx.Response(500)))


def test_without_an_address_the_account_is_at_alipays_own_gateway() -> None:
    for live, host in ((True, "openapi.alipay.com"), (False, "openapi-sandbox.dl.alipaydev.com")):
        channel = open_channel(replace(DRIVER.account(""), live=live), OFFLINE)
        assert urlsplit(page_of(channel)).hostname == host
        assert urlsplit(page_of(channel)).scheme == "https"


def test_keys_are_taken_as_pem_as_bare_base64_and_in_a_list() -> None:
    """The console shows keys as bare base64."""
    ours, theirs = pair(Key.NEW)
    bare = {
        name: "".join(pem.splitlines()[1:-1]) for name, pem in (("o", private_pem(ours)), ("t", public_pem(theirs)))
    }
    opened(private_key=bare["o"], alipay_public_keys=[bare["t"], public_pem(pair(Key.OLD).theirs)])


def test_the_applications_own_key_in_place_of_alipays_is_refused() -> None:
    """The console shows both side by side; with the wrong one no response would ever verify."""
    with pytest.raises(ConfigurationError, match="own key"):
        opened(alipay_public_keys=[public_pem(pair(Key.NEW).ours)])


def page_of(channel: Channel) -> str:
    """The buyer's address, made without a call."""
    creating = channel.create_payment(create(replace(DRIVER.payment(), method="page")))
    try:
        creating.send(None)  # a coroutine that never waits
    except StopIteration as done:
        return str(done.value.checkout.value)
    raise AssertionError("it waited")


# -- certificates ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def certified() -> Opened:
    return in_certificate_mode(opened_account("certified", ""))


def account_of(opened: Opened, url: str) -> AccountConfig:
    return AccountConfig(name="main", channel="alipay", base_url=url, credentials=opened.credentials)


async def test_certificate_mode_sends_its_serials_and_verifies_by_the_named_certificate(
    running: Running, certified: Opened
) -> None:
    """The simulator refuses a call without the two serial numbers and names its own certificate in each response."""
    far_side, transport = running.far_side, running.transport
    await far_side.reset(7)
    far_side.accounts[certified.account.merchant_id] = certified.account
    channel = open_channel(account_of(certified, far_side.urls["alipay"]), transport)
    await channel.create_payment(create(DRIVER.payment()))
    key = LedgerKey(certified.account.merchant_id, NUMBER)
    far_side.open(key)
    far_side.pay(key)
    with recorded_checks() as checks:
        evidence = await channel.query_payment(DRIVER.payment())
    assert isinstance(evidence, Paid)
    assert [(len(one.key), one.is_good) for one in checks] == [(32, True)]


async def test_a_response_with_an_unknown_certificate_serial_is_unreadable(running: Running, certified: Opened) -> None:
    """Until the new certificate is configured beside the old one; then both verify."""
    far_side, transport = running.far_side, running.transport
    await far_side.reset(7)
    rotated = rotated_account(certified.account)
    far_side.accounts[certified.account.merchant_id] = rotated.account
    before = open_channel(account_of(certified, far_side.urls["alipay"]), transport)
    with pytest.raises(ChannelUnreadable, match="signature"):
        await before.query_payment(DRIVER.payment())
    after = open_channel(account_of(rotated, far_side.urls["alipay"]), transport)
    assert isinstance(await after.query_payment(DRIVER.payment()), Missing)


def test_only_rsa_certificates_of_the_root_file_are_named(certified: Opened) -> None:
    """It also contains certificates that no library parses, so it cannot be parsed as one file."""
    roots: str = certified.credentials["alipay_root_certificate"]
    stray, root = (f"{block}-----END CERTIFICATE-----\n" for block in roots.split("-----END CERTIFICATE-----\n")[:2])
    unreadable = "-----BEGIN CERTIFICATE-----\nbm8gY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n"
    only = root_certificate_sn(root)
    assert len(only) == 32
    assert root_certificate_sn(stray) == ""
    assert root_certificate_sn(f"{unreadable}{stray}{root}{unreadable}") == only
    assert root_certificate_sn(f"{root}{root}") == f"{only}_{only}"


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"alipay_root_certificate": "canary"}, "alipay_root_certificate"),
        ({"alipay_root_certificate": ""}, "alipay_root_certificate"),
        ({"app_certificate": ""}, "app_certificate"),
        ({"alipay_certificates": []}, "alipay_certificates"),
        ({"alipay_certificates": ["canary"]}, "alipay_certificates 1"),
        ({"private_key": private_pem(pair(Key.NEW).ours)}, "not of private_key"),
    ],
    ids=["root not PEM", "root empty", "own empty", "none of theirs", "theirs not PEM", "own of another key"],
)
def test_unusable_certificates_are_named_and_their_content_is_hidden(
    certified: Opened, changed: dict[str, object], named: str
) -> None:
    account = account_of(replace(certified, credentials=certified.credentials | changed), OFFLINE_URL)
    with pytest.raises(ConfigurationError, match=named) as caught:
        open_channel(account, OFFLINE)
    assert "canary" not in str(caught.value)


# -- what an answer to a call is made of -------------------------------------------------------------------------------


def envelope(request: httpx.Request, node: bytes) -> httpx.Response:
    """The response to this call with this node, signed."""
    method = dict(parse_qsl(request.content.decode()))["method"].replace(".", "_").encode()
    body = b'{"%b_response":%b,"sign":"%b"}' % (method, node, signature(node).encode())
    return httpx.Response(200, stream=httpx.ByteStream(body))


def channel_answering(node: bytes) -> Channel:
    """A channel whose every call gets this node, correctly signed."""
    transport = Transport(timeout_s=1, carrier=responding(lambda request: envelope(request, node)))
    return open_channel(DRIVER.account(OFFLINE_URL), transport)
