"""Stripe's side, written from https://docs.stripe.com/api and https://docs.stripe.com/webhooks only."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from datetime import timedelta
from secrets import token_hex
from typing import IO, Any

from msgspec.structs import replace

from channels.base import Acknowledgement, StatementRow
from core.account import AccountConfig
from simulator.kernel.base import Account
from simulator.kernel.faults import CallKind
from tests.channels.driver import Driver
from tests.channels.reports import (
    AMOUNT,
    END,
    NUMBER,
    OFFLINE_URL,
    OTHER_NUMBER,
    PAID_AT,
    REFUND_NO,
    BadCredential,
    CallbackRequest,
    Key,
    PaymentReport,
    Reportable,
)
from tests.channels.wire import WireRequest, WireResponse

_MERCHANT = f"acct_{token_hex(8)}"
_SECRETS = {key: f"whsec_{token_hex(24)}" for key in Key}
_SECRET_KEYS = {key: f"sk_test_{_MERCHANT.removeprefix('acct_')}{token_hex(24)}" for key in Key}
_PAID_AT = int(PAID_AT.timestamp())

Object = dict[str, Any]


class StripeDriver(Driver):
    channel = "stripe"
    merchant_id = _MERCHANT
    transaction = "pi_3MtwBwLkdIwHu7ix28a3tqPa"
    other_merchant = "acct_1OtherMerchant01"
    reference = f"cs_test_{NUMBER.encode().hex()}"
    other_reference = f"cs_test_{OTHER_NUMBER.encode().hex()}"
    methods = ("checkout", "payment_intent")
    required = ("secret_key", "webhook_secrets")
    bad_credentials = (
        BadCredential("secret_key", 7, "secret_key"),
        BadCredential("secret_key", "", "secret_key"),
        BadCredential("secret_key", "canary", "secret_key"),
        BadCredential("secret_key", "pk_test_canarycanary", "secret_key"),
        BadCredential("secret_key", "sk_test_canary\r\nX: y", "secret_key"),
        BadCredential("secret_key", "whsec_canarycanarycanary", "secret_key"),
        BadCredential("webhook_secrets", "whsec_canarycanarycanary", "webhook_secrets"),
        BadCredential("webhook_secrets", [], "webhook_secrets"),
        BadCredential("webhook_secrets", [""], "webhook_secrets"),
        BadCredential("webhook_secrets", ["canarycanarycanarycanary"], "webhook_secrets"),
        BadCredential("account_id", "canary", "account_id"),
        BadCredential("api_version", "canary", "api_version"),
    )
    numbers = ("ab|cd*ef_gh-12",)

    responses_are_signed = False
    refusals_are_signed = False
    idempotency_header = "idempotency-key"
    refusal_code = "parameter_invalid_integer"
    queries = Reportable(never=frozenset({"merchant", "app"}), end=END)
    lists_undelivered = True
    reports_under_way = True
    checkout_kind = "redirect"
    created_fields = frozenset({"number", "amount", "currency"})

    acknowledgement = Acknowledgement(status=200, content_type="text/plain; charset=utf-8", body=b"ok")
    callbacks = Reportable()
    lowers_currency = True
    notification_id = "evt_1NG8Du2eZvKYlo2CUI79vXWy"
    spellings_vary = True  # what stands under another scheme than v1 is ignored
    signature_headers = ("stripe-signature",)
    bad_signatures = (
        "t=,v1=",
        "t,v1=,v0=",
        "t,,",
        ",,",
        "t=1795406430",
        "v1=" + "a" * 64,
        "t=1795406430,v0=" + "a" * 64,
        "t=1795406430,v1=é",
        "t=１７９５４０６４３０,v1=" + "a" * 64,
        "t=-1,v1=" + "a" * 64,
        "t=1795406430,v1=" + "A" * 64,
        "t=99999999999999999999,v1=" + "a" * 64,
    )

    def __init__(self) -> None:
        lines = (self._transaction("charge", self._charge(PaymentReport())), self._refund_transaction())
        self.statement = b"".join(_json(line) + b"\n" for line in lines)
        payment = StatementRow(
            line=1,
            kind="payment",
            out_trade_no=NUMBER,
            channel_transaction_id=self.transaction,
            amount=AMOUNT,
            currency=self.currency,
            at=PAID_AT,
            ids=("ch_3MmlLrLkdIwHu7ix0snN0B15",),
            fee=34,
            fee_currency="USD",
        )
        named = {"refund_no": REFUND_NO, "channel_refund_no": "re_1Nispe2eZvKYlo2Cd31jOCgZ"}
        refund = replace(payment, line=2, kind="refund", **named, amount=1000, ids=())
        self.statement_rows = (payment, replace(refund, at=PAID_AT + timedelta(seconds=1)))

    # -- the account ---------------------------------------------------------------------------------------------------

    def account(self, base_url: str, *keys: Key) -> AccountConfig:
        used = keys or (Key.NEW, Key.OLD)
        credentials = {
            "secret_key": _SECRET_KEYS[used[0]],
            "webhook_secrets": [_SECRETS[key] for key in used],
            "account_id": _MERCHANT,
        }
        return AccountConfig(name="main", channel=self.channel, base_url=base_url, credentials=credentials)

    def simulator_account(self, callback_url: str = "") -> Account:
        keys = (Key.NEW, Key.OLD)
        wire = {
            "secret_keys": [_SECRET_KEYS[key] for key in keys],
            "webhook_secrets": [_SECRETS[key] for key in keys],
        }
        return Account(name="main", merchant_id=_MERCHANT, channel=self.channel, callback_url=callback_url, wire=wire)

    def mixed_accounts(self) -> Mapping[str, AccountConfig]:
        account = self.account("")
        live = {"secret_key": _SECRET_KEYS[Key.NEW].replace("_test_", "_live_")}
        return {
            "a test key and live": replace(account, live=True),
            "a live key and test": replace(account, credentials=account.credentials | live),
            "live, and not over TLS": replace(
                account, live=True, base_url=OFFLINE_URL, credentials=account.credentials | live
            ),
            "test, and in the open": replace(account, base_url="http://api.stripe.example"),
        }

    # -- calls and answers ---------------------------------------------------------------------------------------------

    def kind(self, request: WireRequest) -> CallKind:
        path = request.target.partition("?")[0]
        if request.method == "GET":
            lists = {
                "/v1/refunds": CallKind.QUERY_REFUND,
                "/v1/events": CallKind.UNDELIVERED,
                "/v1/balance_transactions": CallKind.STATEMENT,
            }
            return lists.get(path, CallKind.QUERY)
        ends = {"expire": CallKind.CLOSE, "cancel": CallKind.CLOSE, "refunds": CallKind.REFUND}
        return ends.get(path.rpartition("/")[2], CallKind.CREATE)

    def render(self, report: PaymentReport) -> bytes:
        return _json(self._session(report))

    def render_created(self, report: PaymentReport, checkout: str) -> bytes:
        return _json(self._session(report) | {"url": checkout})

    def signed_response(
        self, request: WireRequest, status: int, body: bytes, *, at: float | None = None, key: Key = Key.NEW
    ) -> WireResponse:
        del request, at, key  # nothing is signed
        return WireResponse(status, {"content-type": "application/json"}, body)

    def missing_response(self, request: WireRequest) -> WireResponse:
        return self.signed_response(request, 404, _error("resource_missing"))

    def refusal_response(self, request: WireRequest, code: str) -> WireResponse:
        return self.signed_response(request, 400, _error(code))

    def with_response_signature(self, response: WireResponse, text: str) -> WireResponse:
        raise NotImplementedError("there is none")

    def unclear_responses(self, request: WireRequest) -> Mapping[str, WireResponse]:
        session = self._session(PaymentReport())
        changes = {
            "of the live world": session | {"livemode": True},
            "of no world": {name: value for name, value in session.items() if name != "livemode"},
            "another kind of object": session["payment_intent"],
            "expired, and its payment not expanded": self._session(PaymentReport(status="closed"))
            | {"payment_intent": self.transaction},
            "paid without a payment": session | {"payment_intent": None},
            "paid, and the payment is not": session | {"payment_intent": self._intent(PaymentReport(status="unpaid"))},
        }
        found = {name: self.signed_response(request, 200, _json(value)) for name, value in changes.items()}
        return found | {
            "not found, for another reason": self.signed_response(request, 404, _error("account_invalid")),
            "a key that was rolled": self.signed_response(request, 401, _error("api_key_expired")),
            "a refusal that is no word": self.refusal_response(request, "no\r\nhow"),
        }

    # -- callbacks -----------------------------------------------------------------------------------------------------

    def render_callback(self, report: PaymentReport, notification_id: str) -> bytes:
        names = {"paid": "completed", "unpaid": "completed", "closed": "expired"}
        if report.status == "refunded":
            return _json(_event(notification_id, "charge.refunded", self._charge(report), report))
        session = self._session(report)
        if report.status == "paid":
            session["payment_intent"] = session["payment_intent"]["id"]
        name = f"checkout.session.{names.get(report.status, 'completed')}"
        return _json(_event(notification_id, name, session, report))

    def sign_callback(
        self, content: bytes, notification_id: str, *, at: float | None = None, key: Key = Key.NEW
    ) -> CallbackRequest:
        del notification_id  # it is in the content alone
        header = signature(content, _SECRETS[key], int(time.time() if at is None else at))
        return CallbackRequest({"content-type": "application/json; charset=utf-8", "stripe-signature": header}, content)

    def at_another_time(self, callback: CallbackRequest, at: float) -> CallbackRequest:
        _, comma, rest = callback.headers["stripe-signature"].partition(",")
        return callback._replace(headers=callback.headers | {"stripe-signature": f"t={int(at)}{comma}{rest}"})

    def forged(self, *, at: float) -> Mapping[str, CallbackRequest]:
        body = self.render_callback(PaymentReport(), self.notification_id)
        good, time_ = signature(body, _SECRETS[Key.NEW], int(at)), f"t={int(at)}"
        v1 = good.split(",")[1].removeprefix("v1=")
        bare = signature(body, _SECRETS[Key.NEW].removeprefix("whsec_"), int(at))
        headers = {
            "the right one under v0": f"{time_},v0={v1}",
            "no time": f"v1={v1}",
            "two times": f"{time_},{time_},v1={v1}",
            "a space after the comma": good.replace(",", ", "),
            "without whsec_": bare,
            "of no secret": signature(body, "", int(at)),
        }
        return {name: CallbackRequest({"stripe-signature": header}, body) for name, header in headers.items()}

    def unreadable(self, *, at: float) -> Mapping[str, CallbackRequest]:
        session = self._session(PaymentReport()) | {"payment_intent": self.transaction}
        event = _event(self.notification_id, "checkout.session.completed", session, PaymentReport())
        bodies = {
            "without an id": event | {"id": ""},
            "a currency in capitals": event | {"data": {"object": session | {"currency": "CNY"}}},
            "another kind of object": event | {"data": {"object": self._charge(PaymentReport())}},
        }
        return {name: self._sent(body, at) for name, body in bodies.items()}

    def unrelated(self, *, at: float) -> Mapping[str, CallbackRequest]:
        session = self._session(PaymentReport()) | {"mode": "subscription", "payment_intent": None}
        thin = {
            "id": self.notification_id,
            "object": "v2.core.event",
            "type": "v1.billing.meter.no_meter_found",
            "livemode": False,
            "created": "2026-11-23T04:00:00.000Z",
            "related_object": {"id": self.transaction, "type": "payment_intent", "url": "/v1/x"},
        }
        bodies = {
            "a payout": _event(
                self.notification_id, "payout.paid", {"id": "po_1", "object": "payout"}, PaymentReport()
            ),
            "a subscription": _event(self.notification_id, "checkout.session.completed", session, PaymentReport()),
            "a thin event": thin,
            "a payment that was created": _event(
                self.notification_id, "payment_intent.created", self._intent(PaymentReport()), PaymentReport()
            ),
        }
        return {name: self._sent(body, at) for name, body in bodies.items()}

    def other_world(self, *, at: float) -> Mapping[str, CallbackRequest]:
        paid = json.loads(self.render_callback(PaymentReport(), self.notification_id))
        return {"of the live world": self._sent(paid | {"livemode": True}, at)}

    def other_forms(self, *, at: float) -> Mapping[str, tuple[CallbackRequest, tuple[str, ...]]]:
        charge = self._charge(PaymentReport())
        thin = {
            "id": self.notification_id,
            "object": "v2.core.event",
            "type": "v1.payment_intent.succeeded",
            "livemode": False,
            "created": "2026-11-23T04:00:00.000Z",
            "related_object": {"id": self.transaction, "type": "payment_intent", "url": "/v1/x"},
        }
        succeeded = _event(self.notification_id, "charge.succeeded", charge, PaymentReport())
        return {
            "a charge that succeeded": (self._sent(succeeded, at), (NUMBER, self.transaction, charge["id"])),
            "a thin event about a payment": (self._sent(thin, at), (self.transaction,)),
        }

    # -- statements ----------------------------------------------------------------------------------------------------

    def malformed_statements(self) -> Mapping[str, bytes]:
        first, second = self.statement.splitlines(keepends=True)
        altered = {
            "a text": (b'"amount_captured": 8888', b'"amount_captured": "8888"'),
            "a minus": (b'"amount_captured": 8888', b'"amount_captured": -8888'),
            "a decimal point": (b'"amount_captured": 8888', b'"amount_captured": 88.88'),
            "no instant": (b'"created": %d' % _PAID_AT, b'"created": "yesterday"'),
            "an instant past all calendars": (b'"created": %d' % _PAID_AT, b'"created": 999999999999'),
            "a currency in capitals": (b'"cny"', b'"CNY"'),
            "not expanded": (_json(self._charge(PaymentReport())), b'"ch_1"'),
            "a key twice": (b'"source":', b'"source": null, "source":'),
        }
        return {name: first.replace(old, new) + second for name, (old, new) in altered.items()}

    def no_statements(self) -> Mapping[str, bytes]:
        first, _ = self.statement.splitlines(keepends=True)
        return {
            "a list": _json({"object": "list", "data": [], "has_more": False}),
            "another kind of object": first.replace(b'"balance_transaction"', b'"payout"'),
            "cut off in its first line": first[:-20],
            "a line without end": first + b" " * (1 << 20),
        }

    def write_statement(self, into: IO[bytes], rows: int) -> None:
        line = self.statement.splitlines(keepends=True)[0]
        for _ in range(rows):
            into.write(line)

    # -- objects -------------------------------------------------------------------------------------------------------

    def _session(self, report: PaymentReport) -> Object:
        was_paid = report.status in ("paid", "refunded")
        statuses = {"unpaid": "open", "closed": "expired"}
        known = {"unpaid": "unpaid", "closed": "unpaid", "paid": "paid", "refunded": "paid"}
        return {
            "id": f"cs_test_{report.number.encode().hex()}",
            "object": "checkout.session",
            "amount_total": report.amount,
            "client_reference_id": report.number,
            "currency": _lower(self, report),
            "expires_at": 2147483647,
            "livemode": False,
            "metadata": {"out_trade_no": report.number},
            "mode": "payment",
            "payment_intent": self._intent(report) if was_paid else None,
            "payment_status": known.get(report.status, report.status),
            "status": statuses.get(report.status, "complete"),
            "url": "https://channel.example/pay/1",
        }

    def _intent(self, report: PaymentReport) -> Object:
        was_paid = report.status in ("paid", "refunded")
        return {
            "id": self.transaction if report.transaction is None else report.transaction,
            "object": "payment_intent",
            "amount": report.amount,
            "amount_received": report.amount if was_paid else 0,
            "currency": _lower(self, report),
            "latest_charge": self._charge(report) if was_paid else None,
            "livemode": False,
            "metadata": {"out_trade_no": report.number},
            "status": "succeeded" if was_paid else "requires_payment_method",
        }

    def _charge(self, report: PaymentReport) -> Object:
        return {
            "id": "ch_3MmlLrLkdIwHu7ix0snN0B15",
            "object": "charge",
            "amount": report.amount,
            "amount_captured": report.amount,
            "amount_refunded": report.refunded,
            "created": _PAID_AT,
            "currency": _lower(self, report),
            "livemode": False,
            "metadata": {"out_trade_no": report.number},
            "payment_intent": self.transaction if report.transaction is None else report.transaction,
        }

    def _refund_transaction(self) -> Object:
        refund = {
            "id": "re_1Nispe2eZvKYlo2Cd31jOCgZ",
            "object": "refund",
            "amount": 1000,
            "currency": self.currency.lower(),
            "metadata": {"out_trade_no": NUMBER, "refund_no": REFUND_NO},
            "payment_intent": self.transaction,
            "status": "succeeded",
        }
        return self._transaction("refund", refund) | {"created": _PAID_AT + 1}

    def _transaction(self, type_: str, source: Object) -> Object:
        """A balance transaction settled in another currency: its amount is not the payment's."""
        common = {"object": "balance_transaction", "amount": 1234, "currency": "usd", "fee": 34, "net": 1200}
        return {"id": f"txn_{type_}", **common, "type": type_, "created": _PAID_AT, "source": source}

    def _sent(self, body: Object, at: float) -> CallbackRequest:
        return self.sign_callback(_json(body), self.notification_id, at=at)


def signature(body: bytes, secret: str, at: int) -> str:
    """A signature header, with a v0 that no secret made."""
    v1 = hmac.new(secret.encode(), b"%d." % at + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={v1},v0={hashlib.sha256(body).hexdigest()}"


def _event(id_: str, type_: str, object_: Object, report: PaymentReport) -> Object:
    event = {
        "id": id_,
        "object": "event",
        "created": _PAID_AT,
        "data": {"object": object_},
        "livemode": False,
        "type": type_,
    }
    return event if report.merchant is None else event | {"account": report.merchant}


def _lower(driver: Driver, report: PaymentReport) -> str:
    return (driver.currency if report.currency is None else report.currency).lower()


def _error(code: str) -> bytes:
    return _json({"error": {"type": "invalid_request_error", "code": code, "message": "no"}})


def _json(value: object) -> bytes:
    return json.dumps(value).encode()
