"""The sandbox channel's side, written from docs/sandbox-protocol.md only."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import IO

import msgspec

from channels.base import Acknowledgement, StatementRow
from core.account import AccountConfig
from simulator.kernel.base import Account
from simulator.kernel.faults import CallKind
from tests.channels.driver import Driver
from tests.channels.reports import (
    AMOUNT,
    END,
    NUMBER,
    PAID_AT,
    REFUND_NO,
    BadCredential,
    CallbackRequest,
    Key,
    PaymentReport,
    Reportable,
)
from tests.channels.wire import WireRequest, WireResponse

_SECRETS = {
    Key.NEW: "a secret for tests, long enough to be one",
    Key.OLD: "the secret before that one, as long again",
    Key.STRANGER: "what somebody who knows no secret would try",
}
_IDS = {Key.NEW: "k2", Key.OLD: "k1", Key.STRANGER: "k2"}


class SandboxDriver(Driver):
    channel = "sandbox"
    merchant_id = "m-1001"
    methods = ("page",)
    required = ("merchant_id", "keys")
    bad_credentials = (
        BadCredential("merchant_id", 7, "merchant_id"),
        BadCredential("merchant_id", "m é", "merchant_id"),
        BadCredential("merchant_id", "m\r\nX: y", "merchant_id"),
        BadCredential("merchant_id", "", "merchant_id"),
        BadCredential("keys", "canary", "keys"),
        BadCredential("keys", {}, "keys"),
        BadCredential("keys", {"k1": "canary"}, "k1"),
        BadCredential("keys", {"k 1": "canary, long enough to be a secret"}, "keys"),
        BadCredential("keys", {"": "canary, long enough to be a secret"}, "keys"),
    )
    numbers = ("ab|cd*ef_gh-12",)

    responses_are_signed = True
    refusals_are_signed = True
    responses_cover_requests = True
    response_tolerance_s = 300
    refusal_code = "INVALID_PARAMETER"
    queries = Reportable(end=END)
    notices_number = True
    checkout_kind = "redirect"
    created_fields = frozenset({"number", "merchant", "amount", "currency"})

    acknowledgement = Acknowledgement(status=200, content_type="text/plain; charset=utf-8", body=b"ok")
    callbacks = Reportable(end=END)
    signature_headers = ("sandbox-signature", "sandbox-callback-id")
    bad_signatures = (
        "v1=é",
        "t=1,k=k2,v1=é",
        "t=１７,k=k2,v1=" + "a" * 64,
        "t=1,k=k2,v0=" + "a" * 64,
        "t=-1,k=k2,v1=" + "a" * 64,
        "t=1,k=nobody,v1=" + "a" * 64,
        "t=1,k=k2,v1=" + "a" * 63,
        "t=1,k=k2,v1=" + "A" * 64,
        "t=99999999999999999999,k=k2,v1=" + "a" * 64,
    )

    statement = (
        b"type,out_trade_no,transaction_id,refund_no,amount,currency,at,refund_id\n"
        b"payment,0190a7c3d1f2a1b2c3d4e5f60718,4200000000202611230000000001,,8888,CNY,2026-11-23T04:00:00Z,\n"
        b"refund,0190a7c3d1f2a1b2c3d4e5f60718,4200000000202611230000000001,R-000001,1000,CNY,2026-11-23T04:00:01Z,rf_1\n"
    )
    statement_rows = (
        StatementRow(
            line=2,
            kind="payment",
            out_trade_no=NUMBER,
            channel_transaction_id="4200000000202611230000000001",
            amount=AMOUNT,
            currency="CNY",
            at=PAID_AT,
        ),
        StatementRow(
            line=3,
            kind="refund",
            out_trade_no=NUMBER,
            channel_transaction_id="4200000000202611230000000001",
            refund_no=REFUND_NO,
            channel_refund_no="rf_1",
            amount=1000,
            currency="CNY",
            at=PAID_AT + timedelta(seconds=1),
        ),
    )

    def account(self, base_url: str, *keys: Key) -> AccountConfig:
        secrets = {_IDS[key]: _SECRETS[key] for key in keys or (Key.NEW, Key.OLD)}
        credentials = {"merchant_id": self.merchant_id, "keys": secrets}
        return AccountConfig(name="main", channel=self.channel, base_url=base_url, credentials=credentials)

    def simulator_account(self, callback_url: str = "") -> Account:
        keys = {_IDS[key]: _SECRETS[key] for key in (Key.NEW, Key.OLD)}
        return Account(name="main", merchant_id=self.merchant_id, keys=keys, callback_url=callback_url)

    def kind(self, request: WireRequest) -> CallKind:
        path = request.target.partition("?")[0]
        if path == "/v1/statement":
            return CallKind.STATEMENT
        if request.method == "GET":
            return CallKind.QUERY_REFUND if path.startswith("/v1/refunds/") else CallKind.QUERY
        ends = {"close": CallKind.CLOSE, "refunds": CallKind.REFUND}
        return ends.get(path.rpartition("/")[2], CallKind.CREATE)

    def render(self, report: PaymentReport) -> bytes:
        return msgspec.json.encode(self._payment(report))

    def render_created(self, report: PaymentReport, checkout: str) -> bytes:
        return msgspec.json.encode(self._payment(report) | {"pay_url": checkout})

    def signed_response(
        self, request: WireRequest, status: int, body: bytes, *, at: float | None = None, key: Key = Key.NEW
    ) -> WireResponse:
        question = request.headers["sandbox-signature"].rpartition("v1=")[2]
        signed = _signature(key, at, b"ANSWER", question.encode(), str(status).encode(), body)
        return WireResponse(status, {"sandbox-signature": signed, "content-type": "application/json"}, body)

    def missing_response(self, request: WireRequest) -> WireResponse:
        return self.signed_response(request, 404, _error("PAYMENT_NOT_EXIST"))

    def refusal_response(self, request: WireRequest, code: str) -> WireResponse:
        return self.signed_response(request, 400, _error(code))

    def with_response_signature(self, response: WireResponse, text: str) -> WireResponse:
        return response._replace(headers=response.headers | {"sandbox-signature": text})

    def unclear_responses(self, request: WireRequest) -> Mapping[str, WireResponse]:
        return {
            "status altered": self.missing_response(request)._replace(status=200),
            "a refusal that is no word": self.refusal_response(request, "no\r\nhow"),
            "a currency in small letters": self.signed_response(
                request, 200, self.render(PaymentReport(currency="cny"))
            ),
        }

    def render_callback(self, report: PaymentReport, notification_id: str) -> bytes:
        body = {"id": notification_id, "type": "payment.paid", "created_at": "2026-11-23T04:00:00Z"}
        return msgspec.json.encode({**body, "payment": self._payment(report)})

    def sign_callback(
        self, content: bytes, notification_id: str, *, at: float | None = None, key: Key = Key.NEW
    ) -> CallbackRequest:
        return self._signed_for(self.merchant_id, content, notification_id, at, key)

    def at_another_time(self, callback: CallbackRequest, at: float) -> CallbackRequest:
        _, comma, rest = callback.headers["sandbox-signature"].partition(",")
        return callback._replace(headers=callback.headers | {"sandbox-signature": f"t={int(at)}{comma}{rest}"})

    def forged(self, *, at: float) -> Mapping[str, CallbackRequest]:
        """Two merchants may share a key in a test environment."""
        content = self.render_callback(PaymentReport(), self.notification_id)
        return {"another merchant's": self._signed_for("m-2002", content, self.notification_id, at, Key.NEW)}

    def unreadable(self, *, at: float) -> Mapping[str, CallbackRequest]:
        other = self.render_callback(PaymentReport(), "cb_another_one")
        small = self.render_callback(PaymentReport(currency="cny"), self.notification_id)
        return {
            "another id than the header's": self.sign_callback(other, self.notification_id, at=at),
            "a currency in small letters": self.sign_callback(small, self.notification_id, at=at),
        }

    def unrelated(self, *, at: float) -> Mapping[str, CallbackRequest]:
        body = msgspec.json.encode({"id": self.notification_id, "type": "account.updated", "account": {}})
        return {"an account": self.sign_callback(body, self.notification_id, at=at)}

    def malformed_statements(self) -> Mapping[str, bytes]:
        altered = {
            "full-width digits": (b"8888", "８８".encode()),
            "an underscore": (b"8888", b"8_888"),
            "a plus": (b"8888", b"+8888"),
            "a minus": (b"8888", b"-8888"),
            "a decimal point": (b"8888", b"88.88"),
            "no amount": (b"8888", b""),
            "no zone": (b"04:00:00Z", b"04:00:00"),
            "no instant": (b"04:00:00Z", b"yesterday"),
            "too few columns": (b",CNY,2026", b"2026"),
            "another kind": (b"payment,0", b"pension,0"),
        }
        return {name: self.statement.replace(old, new, 1) for name, (old, new) in altered.items()}

    def no_statements(self) -> Mapping[str, bytes]:
        header, _, rows = self.statement.partition(b"\n")
        return {
            "no header": rows,
            "another header": header.replace(b"amount", b"sum") + b"\n" + rows,
            "not UTF-8": self.statement.replace(b"CNY", b"\xff\xfe", 1),
            "a quote that never ends": self.statement + b'payment,"',
        }

    def write_statement(self, into: IO[bytes], rows: int) -> None:
        header, row, _ = self.statement.split(b"\n", 2)
        into.write(header + b"\n")
        for _ in range(rows):
            into.write(row + b"\n")

    def _signed_for(
        self, merchant_id: str, content: bytes, notification_id: str, at: float | None, key: Key
    ) -> CallbackRequest:
        signed = _signature(key, at, b"CALLBACK", notification_id.encode(), merchant_id.encode(), content)
        headers = {
            "content-type": "application/json",
            "sandbox-merchant": merchant_id,
            "sandbox-callback-id": notification_id,
            "sandbox-signature": signed,
        }
        return CallbackRequest(headers, content)

    def _payment(self, report: PaymentReport) -> dict[str, object]:
        was_paid = report.status in ("paid", "refunded")
        transaction = self.transaction if report.transaction is None else report.transaction
        return {
            "merchant_id": self.merchant_id if report.merchant is None else report.merchant,
            "out_trade_no": report.number,
            "transaction_id": transaction if was_paid else None,
            "amount": report.amount,
            "currency": self.currency if report.currency is None else report.currency,
            "subject": "Tea, 250 g",
            "status": report.status,
            "refunded_amount": report.refunded,
            "paid_at": "2026-11-23T04:00:00Z" if was_paid else None,
            "expires_at": "2038-01-19T03:14:07Z",
            "pay_url": "https://channel.example/pay/1",
        }


def _error(code: str) -> bytes:
    return msgspec.json.encode({"code": code, "message": "no"})


def _signature(key: Key, at: float | None, kind: bytes, *lines: bytes) -> str:
    signed_at = str(int(time.time() if at is None else at))
    string = b"\n".join((kind, signed_at.encode(), *lines))
    signed = hmac.new(_SECRETS[key].encode(), string, hashlib.sha256).hexdigest()
    return f"t={signed_at},k={_IDS[key]},v1={signed}"
