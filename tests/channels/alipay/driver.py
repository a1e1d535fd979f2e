"""Alipay's side, written from its documentation only: the gateway's signed nodes, form callbacks, a zip of GBK."""

from __future__ import annotations

import base64
import json
import zipfile
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from functools import cache
from io import BytesIO
from types import MappingProxyType
from typing import IO, NamedTuple
from urllib.parse import parse_qs, parse_qsl, quote_plus, urlencode, urlsplit

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, HashAlgorithm
from msgspec.structs import replace

from channels.base import Acknowledgement, StatementRow
from core.account import AccountConfig
from core.errors import CallbackForged
from simulator.kernel.base import Account
from simulator.kernel.faults import CallKind
from tests.channels.driver import Driver
from tests.channels.reports import (
    AMOUNT,
    NUMBER,
    PAID_AT,
    REFUND_NO,
    BadCredential,
    CallbackRequest,
    Form,
    Key,
    PaymentReport,
    Reportable,
)
from tests.channels.wire import WireRequest, WireResponse

LIVE = "https://openapi.alipay.com/gateway.do"
SANDBOX = "https://openapi-sandbox.dl.alipaydev.com/gateway.do"
DETAILS_NAME = "20880000000000010156_20261123_业务明细.csv"

_KINDS = {
    "alipay.trade.precreate": CallKind.CREATE,
    "alipay.trade.query": CallKind.QUERY,
    "alipay.trade.close": CallKind.CLOSE,
    "alipay.trade.refund": CallKind.REFUND,
    "alipay.trade.fastpay.refund.query": CallKind.QUERY_REFUND,
    "alipay.data.dataservice.bill.downloadurl.query": CallKind.STATEMENT,
}
_STATUSES = {"unpaid": "WAIT_BUYER_PAY", "paid": "TRADE_SUCCESS", "closed": "TRADE_CLOSED"}

PREAMBLE = (
    "#支付宝业务明细查询",
    "#账号：[20880000000000010156]",
    "#起始日期：[2026年11月23日 00:00:00]   终止日期：[2026年11月24日 00:00:00]",
    "#-----------------------------------------业务明细列表----------------------------------------",
)
HEADER = (
    "支付宝交易号,商户订单号,业务类型,商品名称,创建时间,完成时间,门店编号,门店名称,操作员,终端号,对方账户,订单金额（元）,"
    "商家实收（元）,支付宝红包（元）,集分宝（元）,支付宝优惠（元）,商家优惠（元）,券核销金额（元）,券名称,商家红包消费金额（元）,"
    "卡消费金额（元）,退款批次号/请求号,服务费（元）,分润（元）,备注"
)
TRANSACTION = "2026112322001400000000000001"
PAYMENT_LINE = (
    f"{TRANSACTION}\t,{NUMBER}\t,交易   ,茶叶 250克,2026-11-23 11:59:30,2026-11-23 12:00:00,,,,,买家 (t***@a.example),"
    "88.88,80.00,0.00,0.00,8.88,0.00,0.00,,0.00,0.00,\t,-0.53,0.00,"
)
REFUND_LINE = (
    f"{TRANSACTION}\t,{NUMBER}\t,退款   ,茶叶 250克,2026-11-23 11:59:30,2026-11-23 12:00:01,,,,,买家 (t***@a.example),"
    f"-10.00,-10.00,0.00,0.00,0.00,0.00,0.00,,0.00,0.00,{REFUND_NO}\t,0.06,0.00,"
)
FOOTER = (
    "#-----------------------------------------业务明细列表结束------------------------------------",
    "#交易合计：1笔，商家实收共80.00元，商家优惠共8.88元",
    "#退款合计：1笔，商家实收退款共-10.00元，商家优惠退款共0.00元",
    "#导出时间：[2026年11月24日 09:00:00]",
)


class Pair(NamedTuple):
    """Keys of one generation: the application's, with which we sign, and Alipay's."""

    ours: rsa.RSAPrivateKey
    theirs: rsa.RSAPrivateKey


@cache
def pair(key: Key) -> Pair:
    return Pair(*(rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2)))


def private_pem(key: rsa.RSAPrivateKey) -> str:
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, *form).decode()


def public_pem(key: rsa.RSAPrivateKey) -> str:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()


def signature(message: bytes, key: Key = Key.NEW, algorithm: HashAlgorithm | None = None) -> str:
    signed = pair(key).theirs.sign(message, padding.PKCS1v15(), algorithm or SHA256())
    return base64.b64encode(signed).decode()


def zipped(
    details: bytes,
    *,
    name: str = DETAILS_NAME,
    others: Mapping[str, bytes] = MappingProxyType({}),
    packing: int = zipfile.ZIP_DEFLATED,
) -> bytes:
    """A zip of the details and the summary."""
    into = BytesIO()
    with zipfile.ZipFile(into, "w", packing) as archive:
        archive.writestr("20880000000000010156_20261123_业务明细(汇总).csv", "#支付宝业务汇总查询\r\n".encode("gbk"))
        for entry, content in {name: details, **others}.items():
            archive.writestr(entry, content)
    return into.getvalue()


def details(*rows: str, header: str = HEADER) -> bytes:
    return "".join(f"{line}\r\n" for line in (*PREAMBLE, header, *rows, *FOOTER)).encode("gbk")


def yuan(report: PaymentReport, amount: int) -> str:
    """The amount in the report's currency; yen have no decimals."""
    if report.currency == "JPY":
        return str(amount)
    sign, minor = ("-", -amount) if amount < 0 else ("", amount)
    return f"{sign}{minor // 100}.{minor % 100:02d}"


def in_china(at: datetime) -> str:
    return at.astimezone(timezone(timedelta(hours=8))).strftime("%Y-%m-%d %H:%M:%S")


class AlipayDriver(Driver):
    channel = "alipay"
    merchant_id = "2021000000000001"
    seller_id = "2088000000000001"
    transaction = TRANSACTION
    other_merchant = "2088000000000002"
    other_app = "2021000000000002"
    methods = ("precreate", "page", "wap")
    required = ("app_id", "seller_id", "private_key", "alipay_public_keys")
    bad_credentials = (
        BadCredential("app_id", "wx2021", "app_id"),
        BadCredential("app_id", 2021000000000001, "app_id"),
        BadCredential("seller_id", "1088000000000001", "seller_id"),
        BadCredential("seller_id", "2088canary", "seller_id"),
        BadCredential("private_key", "canary", "private_key"),
        BadCredential("private_key", "", "private_key"),
        BadCredential("alipay_public_keys", {}, "alipay_public_keys"),
        BadCredential("alipay_public_keys", [], "alipay_public_keys"),
        BadCredential("alipay_public_keys", ["canary"], "alipay_public_keys 1"),
        BadCredential("alipay_public_keys", {"k1": "canary"}, "alipay_public_keys k1"),
        BadCredential("alipay_public_keys", "canary", "alipay_public_keys"),
        BadCredential("app_certificate", "canary", "not both"),
        BadCredential("app_auth_token", "canary with\nlines", "app_auth_token"),
    )
    numbers = ("ab_cd_EF_12",)

    responses_are_signed = True
    refusals_are_signed = True
    refusal_code = "ACQ.INVALID_PARAMETER"
    queries = Reportable(
        never=frozenset({"app", "merchant"}), refunded=lambda refunded: AMOUNT if refunded >= AMOUNT else None
    )
    missing_until_seen = True
    reports_only_successful_refunds = True
    gives_refund_numbers = False
    checkout_kind = "qr"
    created_fields = frozenset({"number"})

    acknowledgement = Acknowledgement(status=200, content_type="text/plain", body=b"success")
    callbacks = Reportable(never=frozenset())
    form = Form.FORM
    notification_id = "2026112300222120000000000000000001"
    tolerance_s = None
    spellings_vary = True
    nonsense_errors = (CallbackForged,)
    bad_signatures = ("%%%", "QQ", "QQ==", "A" * 343, "A" * 344, "A" * 1400)

    states_totals = True
    statement_rows = (
        StatementRow(
            line=6,
            kind="payment",
            out_trade_no=NUMBER,
            channel_transaction_id=TRANSACTION,
            amount=AMOUNT,
            currency="CNY",
            at=PAID_AT,
            fee=53,
        ),
        StatementRow(
            line=7,
            kind="refund",
            out_trade_no=NUMBER,
            channel_transaction_id=TRANSACTION,
            refund_no=REFUND_NO,
            amount=1000,
            currency="CNY",
            at=PAID_AT + timedelta(seconds=1),
            fee=-6,
        ),
    )
    statement = zipped(details(PAYMENT_LINE, REFUND_LINE))

    # -- the account ---------------------------------------------------------------------------------------------------

    def account(self, base_url: str, *keys: Key) -> AccountConfig:
        held = keys or (Key.NEW, Key.OLD)
        credentials = {
            "app_id": self.merchant_id,
            "seller_id": self.seller_id,
            "private_key": private_pem(pair(held[0]).ours),
            "alipay_public_keys": {key.value: public_pem(pair(key).theirs) for key in held},
        }
        return AccountConfig(name="main", channel=self.channel, base_url=base_url, credentials=credentials)

    def simulator_account(self, callback_url: str = "") -> Account:
        both = (pair(Key.NEW), pair(Key.OLD))
        wire = {
            "seller_id": self.seller_id,
            "merchant_public_keys": [public_pem(ours) for ours, _ in both],
            "alipay_private_keys": [private_pem(theirs) for _, theirs in both],
        }
        return Account(
            name="main", merchant_id=self.merchant_id, channel=self.channel, callback_url=callback_url, wire=wire
        )

    def mixed_accounts(self) -> Mapping[str, AccountConfig]:
        return {
            "live at the gateway for tests": replace(self.account(SANDBOX), live=True),
            "live at the older gateway for tests": replace(
                self.account("https://openapi.alipaydev.com/gateway.do"), live=True
            ),
            "a test account at the live gateway": self.account(LIVE),
            "a test account at another live gateway": self.account("https://openapi-b.alipay.com/gateway.do"),
            "a test account at the live gateway, with a dot": self.account(LIVE.replace(".com/", ".com./")),
            "without TLS": self.account(SANDBOX.replace("https", "http")),
        }

    # -- calls and answers ---------------------------------------------------------------------------------------------

    def kind(self, request: WireRequest) -> CallKind:
        return _KINDS[parameters(request)["method"]]

    def render(self, report: PaymentReport) -> bytes:
        was_paid = report.status in ("paid", "refunded")
        fields = {
            "code": "10000",
            "msg": "Success",
            "buyer_logon_id": "t***@example.com",
            "out_trade_no": report.number,
            "point_amount": "0.00",
            "receipt_amount": "0.01",
            "total_amount": yuan(report, report.amount),
            "trade_no": self._transaction(report),
            "trade_status": _trade_status(report),
        }
        fields |= {"send_pay_date": in_china(PAID_AT)} if was_paid else {}
        fields |= {} if report.currency is None else {"trans_currency": report.currency}
        return compact(fields)

    def render_created(self, report: PaymentReport, checkout: str) -> bytes:
        return compact({"code": "10000", "msg": "Success", "out_trade_no": report.number, "qr_code": checkout})

    def signed_response(
        self, request: WireRequest, status: int, body: bytes, *, at: float | None = None, key: Key = Key.NEW
    ) -> WireResponse:
        del at  # nothing in an answer says when it was signed
        node = parameters(request)["method"].replace(".", "_").encode() + b"_response"
        signed = signature(body, key).encode()
        return _page(status, b'{"%b":%b,"sign":"%b"}' % (node, body, signed))

    def missing_response(self, request: WireRequest) -> WireResponse:
        number = json.loads(parameters(request)["biz_content"])["out_trade_no"]
        return self.signed_response(request, 200, refused("ACQ.TRADE_NOT_EXIST", out_trade_no=number))

    def refusal_response(self, request: WireRequest, code: str) -> WireResponse:
        return self.signed_response(request, 200, refused(code))

    def unsigned_response(self, response: WireResponse) -> WireResponse:
        return response._replace(body=response.body.rpartition(b',"sign":')[0] + b"}")

    def with_response_signature(self, response: WireResponse, text: str) -> WireResponse:
        unsigned = response.body.rpartition(b',"sign":')[0]
        return response._replace(body=unsigned + b',"sign":' + json.dumps(text).encode() + b"}")

    def unclear_responses(self, request: WireRequest) -> Mapping[str, WireResponse]:
        unpaid, paid = self.render(PaymentReport(status="unpaid")), self.render(PaymentReport())
        node = b"alipay_trade_query_response"
        signs = {body: signature(body).encode() for body in (unpaid, paid)}
        bodies = {
            "a node twice, the signed one first": b'{"%b":%b,"sign":"%b","%b":%b}'
            % (node, unpaid, signs[unpaid], node, paid),
            "a node twice, the signed one last": b'{"%b":%b,"%b":%b,"sign":"%b"}'
            % (node, unpaid, node, paid, signs[paid]),
            "the node deeper down": b'{"x":{"%b":%b},"sign":"%b"}' % (node, paid, signs[paid]),
            "both nodes": b'{"%b":%b,"error_response":%b,"sign":"%b"}' % (node, paid, unpaid, signs[paid]),
            "two signatures": b'{"%b":%b,"sign":"QQ==","sign":"%b"}' % (node, paid, signs[paid]),
            "a signature that is no text": b'{"%b":%b,"sign":[]}' % (node, paid),
            "an encrypted node": b'{"%b":"QQ==","sign":"%b"}' % (node, signature(b'"QQ=="').encode()),
            "the answer to another call": b'{"alipay_trade_close_response":%b,"sign":"%b"}' % (paid, signs[paid]),
            "a name spelt twice in two ways": b'{"%b":%b,"\\u0061%b":%b,"sign":"%b"}'
            % (node, paid, node[1:], unpaid, signs[paid]),
        }
        errors = {
            "a system error": refused("ACQ.SYSTEM_ERROR"),
            "a system error with a prefix": refused("aop.ACQ.SYSTEM_ERROR", code="20000"),
            "an unknown error": refused("isp.unknow-error", code="20000"),
            "a refusal that is no word": refused("no\r\nhow"),
            "still in process": compact({"code": "10003", "msg": "order success pay inprocess"}),
        }
        sha1 = signature(paid, algorithm=SHA1()).encode()  # noqa: S303 - to be refused
        return (
            {name: _page(200, body) for name, body in bodies.items()}
            | {name: self.signed_response(request, 200, body) for name, body in errors.items()}
            | {"signed with SHA-1": _page(200, b'{"%b":%b,"sign":"%b"}' % (node, paid, sha1))}
        )

    # -- callbacks -----------------------------------------------------------------------------------------------------

    def fields(self, report: PaymentReport, notification_id: str) -> dict[str, str]:
        was_paid = report.status in ("paid", "refunded")
        fields = {
            "gmt_create": "2026-11-23 11:59:30",
            "charset": "utf-8",
            "notify_time": "2026-11-23 12:00:02",
            "subject": "茶叶 250克 + 50%",
            "buyer_id": "2088000000000009",
            "version": "1.0",
            "notify_id": notification_id,
            "fund_bill_list": '[{"amount":"88.88","fundChannel":"ALIPAYACCOUNT"}]',
            "notify_type": "trade_status_sync",
            "out_trade_no": report.number,
            "total_amount": yuan(report, report.amount),
            "trade_status": _trade_status(report),
            "trade_no": self._transaction(report),
            "receipt_amount": "0.01",
            "app_id": self.merchant_id if report.app is None else report.app,
            "seller_id": self.seller_id if report.merchant is None else report.merchant,
        }
        fields |= {"gmt_payment": in_china(PAID_AT)} if was_paid else {"gmt_close": "2026-11-23 12:30:00"}
        if report.status == "refunded":
            fields |= {"refund_fee": yuan(report, report.refunded), "gmt_refund": "2026-11-23 12:20:00.320"}
        return fields | ({} if report.currency is None else {"trans_currency": report.currency})

    def render_callback(self, report: PaymentReport, notification_id: str) -> bytes:
        return urlencode(self.fields(report, notification_id)).encode()

    def sign_callback(
        self, content: bytes, notification_id: str, *, at: float | None = None, key: Key = Key.NEW
    ) -> CallbackRequest:
        del notification_id, at  # `fields` has the first, and the second is not sent
        fields = dict(parse_qsl(content.decode("latin-1"), True, errors="surrogateescape"))
        return posted(content, signature(signed_string(fields), key))

    def without_signature(self, callback: CallbackRequest) -> Mapping[str, CallbackRequest]:
        content, sign = callback.body.rsplit(b"&sign=", 1)
        return {
            "without sign": callback._replace(body=content),
            "sign empty": callback._replace(body=content.replace(b"sign=", b"") + b"&sign="),
            "without sign_type": callback._replace(body=content.replace(b"&sign_type=RSA2", b"") + b"&sign=" + sign),
            "sign_type empty": callback._replace(body=callback.body.replace(b"=RSA2", b"=")),
            "nothing": callback._replace(body=b""),
        }

    def with_signature(self, callback: CallbackRequest, text: str) -> Mapping[str, CallbackRequest]:
        content = callback.body.rsplit(b"&sign=", 1)[0]
        return {"sign": callback._replace(body=content + b"&sign=" + quote_plus(text).encode())}

    def doubled(self, callback: CallbackRequest) -> CallbackRequest:
        return callback._replace(body=callback.body + b"&sign=" + callback.body.rsplit(b"&sign=", 1)[1])

    def reserialised(self, callback: CallbackRequest) -> None:
        """None: a form in another spelling is the same form."""
        del callback

    def forged(self, *, at: float) -> Mapping[str, CallbackRequest]:
        del at
        fields = self.fields(PaymentReport(), self.notification_id)
        good, content = signature(signed_string(fields)), urlencode(fields).encode()
        callback = posted(content, good)
        paid_less = urlencode(fields | {"total_amount": "0.01"}).encode()
        return {
            "another amount": posted(paid_less, good),
            "a field more": posted(content + b"&evil=1", good),
            "a field twice": posted(content + b"&total_amount=0.01", good),
            "a field twice, spelt in two ways": posted(content + b"&total%5Famount=0.01", good),
            "RSA with SHA-1, as it says": callback._replace(
                body=posted(content, signature(signed_string(fields), algorithm=SHA1())).body.replace(b"=RSA2", b"=RSA")  # noqa: S303 - to be refused
            ),
            "RSA with SHA-1, under the name of RSA2": posted(
                content,
                signature(signed_string(fields), algorithm=SHA1()),  # noqa: S303 - to be refused
            ),
            "sign_type lowered": callback._replace(body=callback.body.replace(b"=RSA2", b"=RSA")),
            "values decoded twice": posted(
                content, signature(signed_string({name: value.replace("50%", "50") for name, value in fields.items()}))
            ),
            "percent signs that are none": posted(content + b"&note=50%", good),
        }

    def unreadable(self, *, at: float) -> Mapping[str, CallbackRequest]:
        del at
        fields = self.fields(PaymentReport(), self.notification_id)
        changes = {
            "no notify_id": {name: value for name, value in fields.items() if name != "notify_id"},
            "no trade_status": {name: value for name, value in fields.items() if name != "trade_status"},
            "full-width digits": fields | {"total_amount": "８８.８８"},
            "an exponent": fields | {"total_amount": "8.888E1"},
            "a plus": fields | {"total_amount": "+88.88"},
            "a space": fields | {"total_amount": " 88.88"},
            "three places": fields | {"total_amount": "88.880"},
            "a time that is none": fields | {"gmt_payment": "2026-02-30 12:00:00"},
            "a refund below nothing": fields | {"refund_fee": "-1.00"},
        }
        return {
            name: posted(urlencode(form).encode(), signature(signed_string(form))) for name, form in changes.items()
        }

    def unrelated(self, *, at: float) -> Mapping[str, CallbackRequest]:
        """A message of another type, and one of the service market, which signs `sign_type` as well."""
        del at
        form = {
            "notify_id": "2026112300000000000000000000000002",
            "notify_type": "open_app_auth_notify",
            "app_id": self.merchant_id,
            "charset": "UTF-8",
            "biz_content": '{"detail":{"app_auth_token":"x"}}',
        }
        market = form | {"notify_type": "servicemarket_order_notify"}
        with_type = signature(signed_string(market | {"sign_type": "RSA2"}))
        return {
            "an authorization": posted(urlencode(form).encode(), signature(signed_string(form))),
            "the service market's": posted(urlencode(market).encode(), with_type),
            "a message about a contract": self._posted(
                {**form, "notify_type": "", "msg_method": "alipay.user.agreement.changed"}
            ),
        }

    def other_forms(self, *, at: float) -> Mapping[str, tuple[CallbackRequest, tuple[str, ...]]]:
        del at
        fields = self.fields(PaymentReport(), self.notification_id)
        ids = (NUMBER, self.transaction)
        message = {
            "notify_id": self.notification_id,
            "msg_method": "alipay.trade.order.settle.notify",
            "app_id": self.merchant_id,
            "charset": "UTF-8",
            "biz_content": json.dumps({"out_trade_no": NUMBER, "trade_no": self.transaction}),
        }
        return {
            "no app_id": (self._posted({name: text for name, text in fields.items() if name != "app_id"}), ids),
            "money that waits for its seller": (self._posted(fields | {"trade_status": "TRADE_PENDING"}), ids),
            "goods to be sent": (self._posted(fields | {"trade_status": "WAIT_SELLER_SEND_GOODS"}), ids),
            "a message about a trade": (self._posted(message), ids),
        }

    def _posted(self, fields: Mapping[str, str]) -> CallbackRequest:
        return posted(urlencode(fields).encode(), signature(signed_string(fields)))

    # -- statements ----------------------------------------------------------------------------------------------------

    def statement_with_number(self, number: str) -> bytes:
        return zipped(details(*(line.replace(NUMBER, number) for line in (PAYMENT_LINE, REFUND_LINE))))

    def malformed_statements(self) -> Mapping[str, bytes]:
        altered = {
            "full-width digits": ("88.88", "８８.８８"),
            "an exponent": ("88.88", "8.888E1"),
            "a plus": ("88.88", "+88.88"),
            "a minus": (",88.88", ",-88.88"),
            "three places": ("88.88", "88.880"),
            "no amount": (",88.88", ","),
            "an amount past all stores": ("88.88", "9" * 13 + ".00"),
            "another kind": ("交易 ", "转账 "),
            "no time": (",2026-11-23 12:00:00", ","),
            "a time that is none": (",2026-11-23 12:00:00", ",2026-11-31 12:00:00"),
            "a time of another form": (",2026-11-23 12:00:00", ",2026/11/23 12:00"),
            "no transaction": (f"{TRANSACTION}\t", "\t"),
            "too few columns": (",0.00,0.00,\t", "\t"),
            "too many columns": ("茶叶 250克", "茶叶, 250克"),
            "a quote that never ends": ("茶叶", '"茶叶'),
        }
        found = {}
        for name, (old, new) in altered.items():
            assert old in PAYMENT_LINE, name
            found[name] = zipped(details(PAYMENT_LINE.replace(old, new, 1), REFUND_LINE))
        not_gbk = details(PAYMENT_LINE, REFUND_LINE).replace("茶叶".encode("gbk"), b"\xff\xff\xff", 1)
        return found | {"not GBK": zipped(not_gbk)}

    def no_statements(self) -> Mapping[str, bytes]:
        good = details(PAYMENT_LINE, REFUND_LINE)
        return {
            "cut off": self.statement[:-30],
            "a byte changed": self.statement.replace(self.statement[200:204], b"\x00\x00\x00\x00"),
            "the CSV cut off before its end": good.partition(
                "#-----------------------------------------业务明细列表结束".encode("gbk")
            )[0],
            "no details": zipped(good, name="readme.csv"),
            "another header": zipped(details(PAYMENT_LINE, header=HEADER.replace("订单金额（元）", "金额（元）"))),
            "no header": zipped("\r\n".join((*PREAMBLE, PAYMENT_LINE, "")).encode("gbk")),
            "comments alone": zipped("\r\n".join(PREAMBLE).encode("gbk")),
            "a line without an end": zipped(details("," * 100_000)),
            "packed as no statement is": zipped(good, packing=zipfile.ZIP_LZMA),
            "too many files": zipped(good, others={f"{at}.csv": b"" for at in range(100)}),
            "larger than any": _claiming_to_unpack_to(self.statement, 2 << 30),
        }

    def same_statements(self) -> Mapping[str, bytes]:
        good = details(PAYMENT_LINE, REFUND_LINE)
        older = good.replace("商家实收共80.00".encode("gbk"), "交易金额共88.88".encode("gbk"))
        return {
            "the CSV out of the zip": good,
            "LF alone": good.replace(b"\r\n", b"\n"),
            "saved in UTF-8 by a spreadsheet": good.decode("gbk").encode("utf-8-sig"),
            "sums of 订单金额": older.replace("商家实收退款共".encode("gbk"), "交易退款金额共".encode("gbk")),
        }

    def write_statement(self, into: IO[bytes], rows: int) -> None:
        with (
            zipfile.ZipFile(into, "w", zipfile.ZIP_DEFLATED) as archive,
            archive.open(DETAILS_NAME, "w") as file,
        ):
            for line in (*PREAMBLE, HEADER):
                file.write(f"{line}\r\n".encode("gbk"))
            row = f"{PAYMENT_LINE}\r\n".encode("gbk")
            for _ in range(rows):
                file.write(row)

    def _transaction(self, report: PaymentReport) -> str:
        return self.transaction if report.transaction is None else report.transaction


def parameters(request: WireRequest) -> dict[str, str]:
    """Parameters of the address and the body together."""
    found = parse_qs(urlsplit(request.target).query) | parse_qs(request.body.decode())
    return {name: values[0] for name, values in found.items()}


def signed_string(fields: Mapping[str, str], charset: str = "utf-8") -> bytes:
    return "&".join(f"{name}={fields[name]}" for name in sorted(fields)).encode(charset, "surrogateescape")


def posted(content: bytes, sign: str) -> CallbackRequest:
    ends = b"&" if content else b""
    body = content + ends + b"sign_type=RSA2&sign=" + quote_plus(sign).encode()
    return CallbackRequest({"content-type": "application/x-www-form-urlencoded; charset=utf-8"}, body)


def refused(sub_code: str, *, code: str = "40004", **more: str) -> bytes:
    return compact({"code": code, "msg": "Business Failed", "sub_code": sub_code, "sub_msg": "业务失败"} | more)


def compact(fields: Mapping[str, object]) -> bytes:
    """JSON in Alipay's form: slashes escaped, Chinese unescaped."""
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).replace("/", r"\/").encode()


def _trade_status(report: PaymentReport) -> str:
    if report.status == "refunded":
        return "TRADE_CLOSED" if report.refunded >= report.amount else "TRADE_SUCCESS"
    return _STATUSES.get(report.status, report.status)


def _page(status: int, body: bytes) -> WireResponse:
    return WireResponse(status, {"content-type": "text/html;charset=utf-8"}, body)


def _claiming_to_unpack_to(statement: bytes, size: int) -> bytes:
    """A zip whose directory declares this size for its last entry."""
    at = statement.rindex(b"PK\x01\x02") + 24
    return statement[:at] + size.to_bytes(4, "little") + statement[at + 4 :]
