"""WeChat Pay's side, written from its documentation only: RSA both ways, callbacks sealed with AES-256-GCM.

Its two keys are of its two kinds: NEW is a public key, OLD a platform certificate, as while a merchant changes from one
to the other.
"""

from __future__ import annotations

import base64
import gzip
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import IO, Any, NamedTuple

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, HashAlgorithm

from channels.base import Acknowledgement, StatementRow
from core.account import AccountConfig
from simulator.kernel.base import Account
from simulator.kernel.faults import CallKind
from tests.channels.driver import Driver
from tests.channels.reports import (
    AMOUNT,
    NUMBER,
    PAID_AT,
    REFUND_NO,
    UNKNOWN_SUM,
    BadCredential,
    CallbackRequest,
    Key,
    PaymentReport,
    Reportable,
)
from tests.channels.wire import WireRequest, WireResponse

APPID = "wx0000000000000001"
PUBLIC_KEY_ID = "PUB_KEY_ID_0100000000000000000000000001"
APIV3_KEY = "thirty-two characters, no secret"
SIGNATURE_TYPE = "WECHATPAY2-SHA256-RSA2048"
WEAK = SHA1()  # noqa: S303 - what is signed with it must not verify
MERCHANT_SERIALS = {Key.NEW: "0A" * 20, Key.OLD: "0B" * 20}

_START = "公众账号ID,商户号,特约商户号,设备号,微信订单号,商户订单号,用户标识,交易类型,交易状态,付款银行,货币种类"
_CELLS = (
    "`wx0000000000000001,`1600000001,`0,`,`4200000000202611230000000001,`0190a7c3d1f2a1b2c3d4e5f60718,`openid,`NATIVE"
)
ORDINARY_BILL = (
    f"交易时间,{_START},总金额,代金券或立减优惠金额,微信退款单号,商户退款单号,退款金额,代金券或立减优惠退款金额,退款类型,退款状态,"
    "商品名称,商户数据包,手续费,费率\r\n"
    f"`2026-11-23 12:00:00,{_CELLS},`SUCCESS,`CFT,`CNY,`88.88,`0.0,`0,`0,`0,`0,`,`,`Tea, 250 g,`,`0.53,`0.60%\r\n"
    f"`2026-11-23 12:00:01,{_CELLS},`REFUND,`CFT,`CNY,`0.00,`0.00,`50000000002026112300001,`R-000001,`10.00,`0.00,"
    "`ORIGINAL,`SUCCESS,`Tea, 250 g,`,`-0.06,`0.60%\r\n"
    "总交易单数,总交易额,总退款金额,总代金券或立减优惠退款金额,手续费总金额\r\n"
    "`2,`88.88,`10.0,`0.0,`0.47\r\n"
)
SUCCESS_BILL = (
    f"交易时间,{_START},应结订单金额,代金券金额,商品名称,商户数据包,手续费,费率,订单金额,费率备注\r\n"
    f"`2026-11-23 12:00:00,{_CELLS},`SUCCESS,`CFT,`CNY,`80.00,`8.88,`Tea,`,`0.53000,`0.60%,`88.88,`\r\n"
    "总交易单数,应结订单总金额,退款总金额,充值券退款总金额,手续费总金额,订单总金额,申请退款总金额\r\n"
    "`1,`80.00,`0.00,`0.00,`0.53000,`88.88,`0.00\r\n"
)
REFUND_BILL = (
    f"交易时间,{_START},应结订单金额,代金券金额,退款申请时间,退款成功时间,微信退款单号,商户退款单号,退款金额,充值券退款金额,退款类型,"
    "退款状态,商品名称,商户数据包,手续费,费率,订单金额,申请退款金额,费率备注\r\n"
    f"`2026-11-23 12:00:00,{_CELLS},`REFUND,`CFT,`CNY,`0.00,`0.00,`2026-11-23 12:00:00,`2026-11-23 12:00:01,"
    "`50000000002026112300001,`R-000001,`9.00,`1.00,`ORIGINAL,`SUCCESS,`Tea,`,`-0.06000,`0.60%,`0.00,`10.00,`\r\n"
    "总交易单数,应结订单总金额,退款总金额,充值券退款总金额,手续费总金额,订单总金额,申请退款总金额\r\n"
    "`1,`0.00,`9.00,`1.00,`-0.06000,`0.00,`10.00\r\n"
)

_STATES = {"unpaid": "NOTPAY", "paid": "SUCCESS", "refunded": "REFUND", "closed": "CLOSED"}


class Keys(NamedTuple):
    """All keys of a session; `theirs` OLD belongs to `certificate`."""

    ours: dict[Key, rsa.RSAPrivateKey]
    theirs: dict[Key, rsa.RSAPrivateKey]
    certificate: x509.Certificate


@cache
def keys() -> Keys:
    ours = {key: new_key() for key in (Key.NEW, Key.OLD)}
    theirs = {key: new_key() for key in Key}
    return Keys(ours, theirs, certificate(theirs[Key.OLD]))


def new_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def certificate(
    key: rsa.RSAPrivateKey, *, days: float = 365, serial: int = 0, now: datetime | None = None
) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Platform")])
    # From long before the day that tests offline play on.
    begin = datetime(2020, 1, 1, tzinfo=UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after((now or datetime.now(UTC)) + timedelta(days=days))
        .sign(key, SHA256())
    )


@cache
def private_pem(key: rsa.RSAPrivateKey) -> str:
    encoded = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(*encoded).decode()


@cache
def public_pem(key: rsa.RSAPrivateKey) -> str:
    encoded = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(*encoded).decode()


@cache
def certificate_pem(issued: x509.Certificate) -> str:
    return issued.public_bytes(serialization.Encoding.PEM).decode()


def serial_of(issued: x509.Certificate) -> str:
    return f"{issued.serial_number:040X}"


def signature_headers(
    body: bytes,
    *,
    serial: str,
    key: rsa.RSAPrivateKey,
    at: float | None = None,
    hashed: HashAlgorithm | None = None,
) -> dict[str, str]:
    timestamp, nonce = str(int(time.time() if at is None else at)), "00112233445566778899aabbccddeeff"
    string = f"{timestamp}\n{nonce}\n".encode() + body + b"\n"
    signed = key.sign(string, padding.PKCS1v15(), hashed or SHA256())
    return {
        "wechatpay-timestamp": timestamp,
        "wechatpay-nonce": nonce,
        "wechatpay-serial": serial,
        "wechatpay-signature": base64.b64encode(signed).decode(),
    }


def seal(
    content: bytes, *, apiv3_key: str = APIV3_KEY, nonce: str = "0123456789ab", data: str = "transaction"
) -> dict[str, Any]:
    sealed = AESGCM(apiv3_key.encode()).encrypt(nonce.encode(), content, data.encode())
    return {
        "algorithm": "AEAD_AES_256_GCM",
        "ciphertext": base64.b64encode(sealed).decode(),
        "nonce": nonce,
        "associated_data": data,
    }


def envelope(resource: object, notification_id: str, event_type: str = "TRANSACTION.SUCCESS") -> bytes:
    return msgspec.json.encode(
        {
            "id": notification_id,
            "create_time": "2026-11-23T12:00:00+08:00",
            "resource_type": "encrypt-resource",
            "event_type": event_type,
            "summary": "支付成功",
            "resource": resource,
        }
    )


class WechatPayDriver(Driver):
    channel = "wechatpay"
    merchant_id = "1600000001"
    other_merchant = "1600000002"
    other_app = "wx0000000000000002"
    methods = ("native", "h5", "jsapi")
    payer_needed: Mapping[str, str] = {"h5": "client_ip", "jsapi": "openid"}
    required = ("appid", "mchid", "merchant_serial", "private_key", "apiv3_key")
    bad_credentials = (
        BadCredential("appid", "", "appid"),
        BadCredential("mchid", 7, "mchid"),
        BadCredential("mchid", "m é", "mchid"),
        BadCredential("mchid", 'm",x="', "mchid"),
        BadCredential("merchant_serial", "not hexadecimal", "merchant_serial"),
        BadCredential("private_key", "canary", "private_key"),
        BadCredential("apiv3_key", "canary of 16 bys", "apiv3_key"),
        BadCredential("apiv3_key", "canary of twenty-four by", "apiv3_key"),
        BadCredential("apiv3_key", "canary of 33 bytes, one too many!", "apiv3_key"),
        BadCredential("apiv3_key", "canary: 32 characters are more é", "apiv3_key"),
        BadCredential("public_keys", {PUBLIC_KEY_ID: "canary"}, "public_keys"),
        BadCredential("public_keys", {"another name": "canary"}, "public_keys"),
        BadCredential("platform_certificates", ["canary"], "platform_certificates"),
        BadCredential("download_certificates", "canary", "download_certificates"),
    )
    numbers = ("ab|cd*ef_gh-12",)

    responses_are_signed = True
    refusals_are_signed = False
    response_tolerance_s = 300
    refusal_code = "PARAM_ERROR"
    queries = Reportable(never=frozenset(), refunded=lambda _: UNKNOWN_SUM)
    notices_number = True
    checkout_kind = "qr"
    created_fields: frozenset[str] = frozenset()

    acknowledgement = Acknowledgement(status=200, content_type="application/json", body=b"")
    callbacks = Reportable(statuses=frozenset({"paid"}), never=frozenset(), refunded=lambda _: UNKNOWN_SUM)
    notification_id = "00000000-0000-4000-8000-000000000001"
    signature_headers = ("wechatpay-signature", "wechatpay-timestamp", "wechatpay-nonce", "wechatpay-serial")
    bad_signatures = (
        "WECHATPAY/SIGNTEST/" + "a" * 325,
        "a" * 344,
        "é" * 344,
        "１７" * 6,
        "-1",
        "PUB_KEY_ID_",
        "0x" + "0" * 40,
        "0A" * 20 + "\n",
    )

    statement = (
        "\ufeff交易时间,公众账号ID,商户号,特约商户号,设备号,微信订单号,商户订单号,用户标识,交易类型,交易状态,付款银行,货币种类,应结订单金额,"
        "代金券金额,微信退款单号,商户退款单号,退款金额,充值券退款金额,退款类型,退款状态,商品名称,商户数据包,手续费,费率,订单金额,"
        "申请退款金额,费率备注\r\n"
        "`2026-11-23 12:00:00,`wx0000000000000001,`1600000001,`0,`,`4200000000202611230000000001,"
        "`0190a7c3d1f2a1b2c3d4e5f60718,`openid,`NATIVE,`SUCCESS,`OTHERS,`CNY,`80.00,`8.88,`0,`0,`0.00,`0.00,`,`,"
        "`Tea, 250 g,`,`0.53000,`0.60%,`88.88,`0.00,`\r\n"
        "`2026-11-23 12:00:01,`wx0000000000000001,`1600000001,`0,`,`4200000000202611230000000001,"
        "`0190a7c3d1f2a1b2c3d4e5f60718,`openid,`NATIVE,`REFUND,`OTHERS,`CNY,`0.00,`0.00,`50000000002026112300001,"
        "`R-000001,`9.00,`1.00,`ORIGINAL,`SUCCESS,`Tea, 250 g,`,`-0.06000,`0.60%,`88.88,`10.00,`\r\n"
        "总交易单数,应结订单总金额,退款总金额,充值券退款总金额,手续费总金额,订单总金额,申请退款总金额\r\n"
        "`2,`80.00,`9.00,`1.00,`0.47000,`88.88,`10.00\r\n"
    ).encode()
    states_totals = True
    statement_rows = (
        StatementRow(
            line=2,
            kind="payment",
            out_trade_no=NUMBER,
            channel_transaction_id="4200000000202611230000000001",
            amount=AMOUNT,
            currency="CNY",
            at=PAID_AT,
            fee=53,
        ),
        StatementRow(
            line=3,
            kind="refund",
            out_trade_no=NUMBER,
            channel_transaction_id="4200000000202611230000000001",
            refund_no=REFUND_NO,
            channel_refund_no="50000000002026112300001",
            amount=1000,
            currency="CNY",
            at=PAID_AT + timedelta(seconds=1),
            fee=-6,
        ),
    )

    # -- the account ---------------------------------------------------------------------------------------------------

    def account(self, base_url: str, *keys_: Key) -> AccountConfig:
        return AccountConfig(name="main", channel=self.channel, base_url=base_url, credentials=self.credentials(*keys_))

    def credentials(self, *keys_: Key) -> dict[str, Any]:
        named = keys_ or (Key.NEW, Key.OLD)
        return {
            "appid": APPID,
            "mchid": self.merchant_id,
            "merchant_serial": MERCHANT_SERIALS[named[0]],
            "private_key": private_pem(keys().ours[named[0]]),
            "apiv3_key": APIV3_KEY,
            "public_keys": {PUBLIC_KEY_ID: public_pem(keys().theirs[Key.NEW])} if Key.NEW in named else {},
            "platform_certificates": [certificate_pem(keys().certificate)] if Key.OLD in named else [],
        }

    def simulator_account(self, callback_url: str = "") -> Account:
        wire = {
            "appid": APPID,
            "apiv3_key": APIV3_KEY,
            "merchants": {MERCHANT_SERIALS[key]: public_pem(ours) for key, ours in keys().ours.items()},
            "platform": [
                {
                    "serial": serial_of(keys().certificate),
                    "private_key": private_pem(keys().theirs[Key.OLD]),
                    "certificate": certificate_pem(keys().certificate),
                }
            ],
            "public_keys": [{"id": PUBLIC_KEY_ID, "private_key": private_pem(keys().theirs[Key.NEW])}],
        }
        return Account(
            name="main", merchant_id=self.merchant_id, channel=self.channel, callback_url=callback_url, wire=wire
        )

    def mixed_accounts(self) -> Mapping[str, AccountConfig]:
        return {
            "a test account at the live host": self.account(""),
            "a test account at the other live host": self.account("https://api2.mch.weixin.qq.com/"),
            "a live account in the clear": msgspec.structs.replace(self.account("http://127.0.0.1:9"), live=True),
        }

    # -- calls and answers ---------------------------------------------------------------------------------------------

    def kind(self, request: WireRequest) -> CallKind:
        path = request.target.partition("?")[0]
        if path == "/v3/certificates":
            return CallKind.CERTIFICATES
        if path in ("/v3/bill/tradebill", "/v3/billdownload/file"):
            return CallKind.STATEMENT
        if path.startswith("/v3/refund/"):
            return CallKind.REFUND if request.method == "POST" else CallKind.QUERY_REFUND
        if request.method == "GET":
            return CallKind.QUERY
        return CallKind.CLOSE if path.endswith("/close") else CallKind.CREATE

    def render(self, report: PaymentReport) -> bytes:
        was_paid = report.status in ("paid", "refunded")
        fields: dict[str, Any] = {
            "appid": APPID if report.app is None else report.app,
            "mchid": self.merchant_id if report.merchant is None else report.merchant,
            "out_trade_no": report.number,
            "trade_state": _STATES.get(report.status, report.status),
            "trade_state_desc": "",
            "attach": "",
            "payer": {"openid": "openid-of-a-buyer"} if was_paid else {},
            "amount": {
                "total": report.amount,
                "currency": self.currency if report.currency is None else report.currency,
            },
        }
        if was_paid:
            fields["transaction_id"] = self.transaction if report.transaction is None else report.transaction
            fields["success_time"] = "2026-11-23T12:00:00+08:00"
            fields["trade_type"] = "NATIVE"
            fields["amount"]["payer_total"] = max(0, report.amount - 888)
            fields["amount"]["payer_currency"] = "CNY"
        return msgspec.json.encode(fields)

    def render_created(self, report: PaymentReport, checkout: str) -> bytes:
        del report  # the response has only a code
        return msgspec.json.encode({"code_url": checkout})

    def signed_response(
        self, request: WireRequest, status: int, body: bytes, *, at: float | None = None, key: Key = Key.NEW
    ) -> WireResponse:
        del request
        headers = signature_headers(body, serial=self._serial(key), key=keys().theirs[key], at=at)
        return WireResponse(status, {"content-type": "application/json", **headers}, body)

    def missing_response(self, request: WireRequest) -> WireResponse:
        del request
        return error(404, "ORDER_NOT_EXIST")

    def refusal_response(self, request: WireRequest, code: str) -> WireResponse:
        del request
        return error(400, code)

    def with_response_signature(self, response: WireResponse, text: str) -> WireResponse:
        return response._replace(headers=response.headers | {"wechatpay-signature": text})

    def unclear_responses(self, request: WireRequest) -> Mapping[str, WireResponse]:
        good = self.signed_response(request, 200, self.render(PaymentReport()))
        theirs = keys().theirs[Key.NEW]

        def with_headers(**headers: str) -> WireResponse:
            changed = {f"wechatpay-{name.replace('_', '-')}": value for name, value in headers.items()}
            return good._replace(headers=good.headers | changed)

        return {
            "system error": error(500, "SYSTEM_ERROR"),
            "too often": error(429, "FREQUENCY_LIMITED"),
            "our signature is wrong": error(401, "SIGN_ERROR"),
            "no permission": error(403, "NO_AUTH"),
            "no such address": error(404, "NOT_FOUND"),
            "not there, with another status": error(400, "ORDER_NOT_EXIST"),
            "not there, signed as an answer": self.signed_response(request, 200, error(404, "ORDER_NOT_EXIST").body),
            "unknown serial": with_headers(serial="0C" * 20),
            "a serial that is not hexadecimal": with_headers(serial="not-hex"),
            "another algorithm": with_headers(signature_type="WECHATPAY2-SM2-WITH-SM3"),
            "a probe": with_headers(signature="WECHATPAY/SIGNTEST/" + good.headers["wechatpay-signature"][19:]),
            "signed with SHA-1": WireResponse(
                200,
                signature_headers(good.body, serial=PUBLIC_KEY_ID, key=theirs, hashed=WEAK),
                good.body,
            ),
            "no body": self.signed_response(request, 204, b""),
            "paid without an amount": self.signed_response(request, 200, self._without("amount")),
            "paid without a time": self.signed_response(request, 200, self._without("success_time")),
            "a currency in small letters": self.signed_response(
                request, 200, self.render(PaymentReport(currency="cny"))
            ),
        }

    def _without(self, name: str) -> bytes:
        fields = msgspec.json.decode(self.render(PaymentReport()))
        return msgspec.json.encode({key: value for key, value in fields.items() if key != name})

    def _serial(self, key: Key) -> str:
        return serial_of(keys().certificate) if key is Key.OLD else PUBLIC_KEY_ID

    # -- callbacks -----------------------------------------------------------------------------------------------------

    def render_callback(self, report: PaymentReport, notification_id: str) -> bytes:
        del notification_id  # it is outside of what is sealed
        return self.render(report)

    def sign_callback(
        self, content: bytes, notification_id: str, *, at: float | None = None, key: Key = Key.NEW
    ) -> CallbackRequest:
        return self.callback(envelope(seal(content), notification_id), at=at, key=key)

    def callback(self, body: bytes, *, at: float | None = None, key: Key = Key.NEW) -> CallbackRequest:
        """The callback with this body, signed."""
        headers = signature_headers(body, serial=self._serial(key), key=keys().theirs[key], at=at)
        return CallbackRequest(
            {"content-type": "application/json", "wechatpay-signature-type": SIGNATURE_TYPE, **headers}, body
        )

    def at_another_time(self, callback: CallbackRequest, at: float) -> CallbackRequest:
        return callback._replace(headers=callback.headers | {"wechatpay-timestamp": str(int(at))})

    def forged(self, *, at: float) -> Mapping[str, CallbackRequest]:
        good = self.sign_callback(self.render_callback(PaymentReport(), ""), self.notification_id, at=at)
        theirs = keys().theirs[Key.NEW]

        def with_header(name: str, value: str) -> CallbackRequest:
            return good._replace(headers=good.headers | {f"wechatpay-{name}": value})

        return {
            "unknown serial": with_header("serial", "0C" * 20),
            "a serial that is not hexadecimal": with_header("serial", "zz" * 20),
            "the serial of the other key": with_header("serial", serial_of(keys().certificate)),
            "another algorithm": with_header("signature-type", "WECHATPAY2-SM2-WITH-SM3"),
            "a probe": with_header("signature", "WECHATPAY/SIGNTEST/" + good.headers["wechatpay-signature"][19:]),
            "signed with SHA-1": CallbackRequest(
                signature_headers(good.body, serial=PUBLIC_KEY_ID, key=theirs, at=at, hashed=WEAK),
                good.body,
            ),
            "signed without the last line feed": CallbackRequest(
                _signed_over(good.headers, f"{int(at)}\n{good.headers['wechatpay-nonce']}\n".encode() + good.body),
                good.body,
            ),
        }

    def unreadable(self, *, at: float) -> Mapping[str, CallbackRequest]:
        content = self.render_callback(PaymentReport(), "")
        good = seal(content)
        altered: dict[str, object] = {
            "a nonce of 8 bytes": {**good, "nonce": "01234567"},
            "a nonce of 13 bytes": seal(content, nonce="0123456789abc"),
            "no nonce": {name: value for name, value in good.items() if name != "nonce"},
            "an empty nonce": {**good, "nonce": ""},
            "a nonce that is a number": {**good, "nonce": 123456789012},
            "another algorithm": {**good, "algorithm": "AEAD_SM4_GCM"},
            "other associated data": {**good, "associated_data": "transactiom"},
            "associated data that is a list": {**good, "associated_data": []},
            "no base64": {**good, "ciphertext": "!!!"},
            "too short": {**good, "ciphertext": "AAAA"},
            "no ciphertext": {**good, "ciphertext": ""},
            "sealed with another key": seal(content, apiv3_key="another key of thirty-two bytes."),
            "null": None,
        }
        found = {
            name: self.callback(envelope(resource, self.notification_id), at=at) for name, resource in altered.items()
        }
        body = envelope(good, self.notification_id)
        found["not sealed"] = self.callback(body.replace(b"encrypt-resource", b"plain-resource"), at=at)
        found["no id"] = self.callback(envelope(good, ""), at=at)
        found["a key twice"] = self.callback(body[:-1] + b"," + body[1:], at=at)
        return found

    def unrelated(self, *, at: float) -> Mapping[str, CallbackRequest]:
        return {
            name: self.callback(envelope(seal(b"{}"), self.notification_id, name), at=at)
            for name in ("PAYSCORE.USER_OPEN_SERVICE", "MCHTRANSFER.BILL.FINISHED", "COUPON.USE")
        }

    def other_forms(self, *, at: float) -> Mapping[str, tuple[CallbackRequest, tuple[str, ...]]]:
        one = {"mchid": self.merchant_id, "trade_type": "JSAPI", "trade_state": "SUCCESS"}
        subs = [
            {**one, "out_trade_no": f"sub-{number}", "transaction_id": f"42000000000000000{number}"}
            for number in (1, 2)
        ]
        combined = {
            "combine_appid": APPID,
            "combine_mchid": self.merchant_id,
            "combine_out_trade_no": "combined-1",
            "sub_orders": subs,
        }
        partner = {
            "sp_appid": APPID,
            "sp_mchid": self.merchant_id,
            "sub_mchid": self.other_merchant,
            "out_trade_no": "sub-3",
            "transaction_id": "420000000000000003",
            "trade_state": "SUCCESS",
        }
        refund = {**partner, "refund_status": "SUCCESS", "out_refund_no": "R-1"}
        score = {"mchid": self.merchant_id, "out_order_no": "score-1", "state": "DONE"}
        accepted = msgspec.json.decode(self.render(PaymentReport())) | {"trade_state": "ACCEPT"}
        contents: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
            "a combined order": ("TRANSACTION.SUCCESS", combined, ("combined-1", "sub-1", "420000000000000002")),
            "a partner's payment": ("TRANSACTION.SUCCESS", partner, ("sub-3", "420000000000000003")),
            "a partner's refund": ("REFUND.SUCCESS", refund, ("sub-3", "420000000000000003")),
            "a paid order of the payment score": ("PAYSCORE.USER_PAID", score, ("score-1",)),
            "a state of another product": ("TRANSACTION.SUCCESS", accepted, (NUMBER,)),
        }
        return {
            name: (self._sealed(content, event_type, at), ids) for name, (event_type, content, ids) in contents.items()
        }

    def _sealed(self, content: object, event_type: str, at: float) -> CallbackRequest:
        sealed = seal(msgspec.json.encode(content))
        return self.callback(envelope(sealed, self.notification_id, event_type), at=at)

    # -- statements ----------------------------------------------------------------------------------------------------

    def malformed_statements(self) -> Mapping[str, bytes]:
        altered = {
            "full-width digits": ("`88.88,", "`８８.８８,"),
            "an underscore": ("`88.88,", "`8_8.88,"),
            "a plus": ("`88.88,", "`+88.88,"),
            "a minus": ("`88.88,", "`-88.88,"),
            "three places": ("`88.88,", "`88.880,"),
            "no amount": ("`88.88,", "`,"),
            "no instant": ("`2026-11-23 12:00:00", "`yesterday"),
            "a day that is none": ("`2026-11-23 12:00:00", "`2026-11-31 12:00:00"),
            "another zone": ("`2026-11-23 12:00:00", "`2026-11-23T12:00:00Z"),
            "too few columns": (",`CNY,`80.00", ",`CNY"),
            "no transaction": ("`4200000000202611230000000001,", "`,"),
            "another state": ("`SUCCESS,", "`PENSION,"),
            "a currency in small letters": ("`CNY", "`cny"),
        }
        found = {name: self.statement.replace(old.encode(), new.encode(), 1) for name, (old, new) in altered.items()}
        return {**found, "not UTF-8": self.statement.replace(b"`openid", b"`\xff\xfe", 1)}

    def no_statements(self) -> Mapping[str, bytes]:
        header, _, rows = self.statement.partition(b"\r\n")
        packed = gzip.compress(self.statement)
        return {
            "no columns": rows,
            "other columns": header.replace("订单金额".encode(), "金额".encode()) + b"\r\n" + rows,
            "a column twice": header.replace("费率备注".encode(), "费率".encode()) + b"\r\n" + rows,
            "cut off before the sums": self.statement.partition("总交易单数".encode())[0],
            "cut off within gzip": packed[: len(packed) // 2],
            "gzip of something else": gzip.compress(b"<!doctype html>"),
            "no gzip behind its mark": b"\x1f\x8bnothing of the kind",
            "a line without an end": header + b"\r\n`" + b"a" * 100_000,
        }

    def same_statements(self) -> Mapping[str, bytes]:
        plain = self.statement.removeprefix(b"\xef\xbb\xbf")
        return {
            "without a byte order mark": plain,
            "LF alone": self.statement.replace(b"\r\n", b"\n"),
            "saved in GBK by a spreadsheet": plain.decode().encode("gbk"),
            "packed": gzip.compress(self.statement),
            "an empty line before the sums": plain.replace("总交易单数".encode(), "\r\n总交易单数".encode()),
            "sums without backquotes": plain.replace(b"`2,`80.00,`9.00,`1.00,", b"2,80.00,9.00,1.00,"),
            "the ordinary format": ORDINARY_BILL.encode(),
        }

    def write_statement(self, into: IO[bytes], rows: int) -> None:
        header, row, _, sums = self.statement.split(b"\r\n", 3)
        into.write(header + b"\r\n")
        for _ in range(rows):
            into.write(row + b"\r\n")
        into.write(sums)


def error(status: int, code: str) -> WireResponse:
    """An error, which the channel does not sign."""
    body = msgspec.json.encode({"code": code, "message": "no"})
    return WireResponse(status, {"content-type": "application/json"}, body)


def _signed_over(headers: Mapping[str, str], string: bytes) -> dict[str, str]:
    signed = keys().theirs[Key.NEW].sign(string, padding.PKCS1v15(), SHA256())
    return {**headers, "wechatpay-signature": base64.b64encode(signed).decode()}
