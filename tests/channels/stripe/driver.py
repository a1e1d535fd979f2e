"""Stripe, played from https://docs.stripe.com/api and https://docs.stripe.com/webhooks alone."""

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
from tests.channels.driver import (
    AMOUNT,
    NUMBER,
    OFFLINE_URL,
    OTHER_NUMBER,
    PAID_AT,
    REFUND_NO,
    Driver,
    Key,
    Said,
    Sent,
    Tells,
    Wrong,
)
from tests.channels.wire import Answered, Asked

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
    wrong = (
        Wrong("secret_key", 7, "secret_key"),
        Wrong("secret_key", "", "secret_key"),
        Wrong("secret_key", "canary", "secret_key"),
        Wrong("secret_key", "pk_test_canarycanary", "secret_key"),
        Wrong("secret_key", "sk_test_canary\r\nX: y", "secret_key"),
        Wrong("secret_key", "whsec_canarycanarycanary", "secret_key"),
        Wrong("webhook_secrets", "whsec_canarycanarycanary", "webhook_secrets"),
        Wrong("webhook_secrets", [], "webhook_secrets"),
        Wrong("webhook_secrets", [""], "webhook_secrets"),
        Wrong("webhook_secrets", ["canarycanarycanarycanary"], "webhook_secrets"),
        Wrong("account_id", "canary", "account_id"),
        Wrong("api_version", "canary", "api_version"),
    )
    numbers = ("ab|cd*ef_gh-12",)

    answers_are_signed = False
    refusals_are_signed = False
    idempotency_header = "idempotency-key"
    refusal_code = "parameter_invalid_integer"
    queries = Tells(never=frozenset({"merchant", "app"}))
    tells_undelivered = True
    tells_under_way = True
    checkout_kind = "redirect"
    created_tells = frozenset({"number", "amount", "currency"})

    acknowledgement = Acknowledgement(status=200, content_type="text/plain; charset=utf-8", body=b"ok")
    callbacks = Tells()
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
        lines = (self._transaction("charge", self._charge(Said())), self._refund_transaction())
        self.statement = b"".join(_json(line) + b"\n" for line in lines)
        payment = StatementRow(
            line=1,
            kind="payment",
            out_trade_no=NUMBER,
            channel_transaction_id=self.transaction,
            amount=AMOUNT,
            currency=self.currency,
            at=PAID_AT,
        )
        refund = replace(payment, line=2, kind="refund", refund_no=REFUND_NO, amount=1000)
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

    def far_account(self, callback_url: str = "") -> Account:
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

    def kind(self, asked: Asked) -> CallKind:
        path = asked.target.partition("?")[0]
        if asked.method == "GET":
            lists = {
                "/v1/refunds": CallKind.QUERY_REFUND,
                "/v1/events": CallKind.UNDELIVERED,
                "/v1/balance_transactions": CallKind.STATEMENT,
            }
            return lists.get(path, CallKind.QUERY)
        ends = {"expire": CallKind.CLOSE, "cancel": CallKind.CLOSE, "refunds": CallKind.REFUND}
        return ends.get(path.rpartition("/")[2], CallKind.CREATE)

    def render(self, said: Said) -> bytes:
        return _json(self._session(said))

    def render_created(self, said: Said, checkout: str) -> bytes:
        return _json(self._session(said) | {"url": checkout})

    def answer(
        self, asked: Asked, status: int, body: bytes, *, at: float | None = None, key: Key = Key.NEW
    ) -> Answered:
        del asked, at, key  # nothing is signed
        return Answered(status, {"content-type": "application/json"}, body)

    def missing(self, asked: Asked) -> Answered:
        return self.answer(asked, 404, _error("resource_missing"))

    def refusal(self, asked: Asked, code: str) -> Answered:
        return self.answer(asked, 400, _error(code))

    def with_answer_signature(self, answered: Answered, text: str) -> Answered:
        raise NotImplementedError("there is none")

    def unclear(self, asked: Asked) -> Mapping[str, Answered]:
        session = self._session(Said())
        told = {
            "of the live world": session | {"livemode": True},
            "of no world": {name: value for name, value in session.items() if name != "livemode"},
            "another kind of object": session["payment_intent"],
            "expired, and its payment not expanded": self._session(Said(status="closed"))
            | {"payment_intent": self.transaction},
            "paid without a payment": session | {"payment_intent": None},
            "paid, and the payment is not": session | {"payment_intent": self._intent(Said(status="unpaid"))},
        }
        found = {name: self.answer(asked, 200, _json(value)) for name, value in told.items()}
        return found | {
            "not found, for another reason": self.answer(asked, 404, _error("account_invalid")),
            "a key that was rolled": self.answer(asked, 401, _error("api_key_expired")),
            "a refusal that is no word": self.refusal(asked, "no\r\nhow"),
        }

    # -- callbacks -----------------------------------------------------------------------------------------------------

    def render_callback(self, said: Said, notification_id: str) -> bytes:
        names = {"paid": "completed", "unpaid": "completed", "closed": "expired"}
        if said.status == "refunded":
            return _json(_event(notification_id, "charge.refunded", self._charge(said), said))
        session = self._session(said)
        if said.status == "paid":
            session["payment_intent"] = session["payment_intent"]["id"]
        name = f"checkout.session.{names.get(said.status, 'completed')}"
        return _json(_event(notification_id, name, session, said))

    def sign_callback(
        self, content: bytes, notification_id: str, *, at: float | None = None, key: Key = Key.NEW
    ) -> Sent:
        del notification_id  # it is in the content alone
        header = signature(content, _SECRETS[key], int(time.time() if at is None else at))
        return Sent({"content-type": "application/json; charset=utf-8", "stripe-signature": header}, content)

    def at_another_time(self, sent: Sent, at: float) -> Sent:
        _, comma, rest = sent.headers["stripe-signature"].partition(",")
        return sent._replace(headers=sent.headers | {"stripe-signature": f"t={int(at)}{comma}{rest}"})

    def forged(self, *, at: float) -> Mapping[str, Sent]:
        body = self.render_callback(Said(), self.notification_id)
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
        return {name: Sent({"stripe-signature": header}, body) for name, header in headers.items()}

    def unreadable(self, *, at: float) -> Mapping[str, Sent]:
        session = self._session(Said()) | {"payment_intent": self.transaction}
        event = _event(self.notification_id, "checkout.session.completed", session, Said())
        bodies = {
            "of the live world": event | {"livemode": True},
            "without an id": event | {"id": ""},
            "a currency in capitals": event | {"data": {"object": session | {"currency": "CNY"}}},
            "another kind of object": event | {"data": {"object": self._charge(Said())}},
        }
        return {name: self._sent(body, at) for name, body in bodies.items()}

    def unrelated(self, *, at: float) -> Mapping[str, Sent]:
        session = self._session(Said()) | {"mode": "subscription", "payment_intent": None}
        thin = {
            "id": self.notification_id,
            "object": "v2.core.event",
            "type": "v1.billing.meter.no_meter_found",
            "livemode": False,
            "created": "2026-11-23T04:00:00.000Z",
            "related_object": {"id": self.transaction, "type": "payment_intent", "url": "/v1/x"},
        }
        bodies = {
            "a payout": _event(self.notification_id, "payout.paid", {"id": "po_1", "object": "payout"}, Said()),
            "a subscription": _event(self.notification_id, "checkout.session.completed", session, Said()),
            "a thin event": thin,
        }
        return {name: self._sent(body, at) for name, body in bodies.items()}

    # -- statements ----------------------------------------------------------------------------------------------------

    def malformed_statements(self) -> Mapping[str, bytes]:
        first, second = self.statement.splitlines(keepends=True)
        spoilt = {
            "a text": (b'"amount_captured": 8888', b'"amount_captured": "8888"'),
            "a minus": (b'"amount_captured": 8888', b'"amount_captured": -8888'),
            "a decimal point": (b'"amount_captured": 8888', b'"amount_captured": 88.88'),
            "no instant": (b'"created": %d' % _PAID_AT, b'"created": "yesterday"'),
            "an instant past all calendars": (b'"created": %d' % _PAID_AT, b'"created": 999999999999'),
            "a currency in capitals": (b'"cny"', b'"CNY"'),
            "not expanded": (_json(self._charge(Said())), b'"ch_1"'),
            "a key twice": (b'"source":', b'"source": null, "source":'),
        }
        return {name: first.replace(old, new) + second for name, (old, new) in spoilt.items()}

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

    def _session(self, said: Said) -> Object:
        was_paid = said.status in ("paid", "refunded")
        statuses = {"unpaid": "open", "closed": "expired"}
        known = {"unpaid": "unpaid", "closed": "unpaid", "paid": "paid", "refunded": "paid"}
        return {
            "id": f"cs_test_{said.number.encode().hex()}",
            "object": "checkout.session",
            "amount_total": said.amount,
            "client_reference_id": said.number,
            "currency": _lower(self, said),
            "expires_at": 2147483647,
            "livemode": False,
            "metadata": {"out_trade_no": said.number},
            "mode": "payment",
            "payment_intent": self._intent(said) if was_paid else None,
            "payment_status": known.get(said.status, said.status),
            "status": statuses.get(said.status, "complete"),
            "url": "https://channel.example/pay/1",
        }

    def _intent(self, said: Said) -> Object:
        was_paid = said.status in ("paid", "refunded")
        return {
            "id": self.transaction if said.transaction is None else said.transaction,
            "object": "payment_intent",
            "amount": said.amount,
            "amount_received": said.amount if was_paid else 0,
            "currency": _lower(self, said),
            "latest_charge": self._charge(said) if was_paid else None,
            "livemode": False,
            "metadata": {"out_trade_no": said.number},
            "status": "succeeded" if was_paid else "requires_payment_method",
        }

    def _charge(self, said: Said) -> Object:
        return {
            "id": "ch_3MmlLrLkdIwHu7ix0snN0B15",
            "object": "charge",
            "amount": said.amount,
            "amount_captured": said.amount,
            "amount_refunded": said.refunded,
            "created": _PAID_AT,
            "currency": _lower(self, said),
            "livemode": False,
            "metadata": {"out_trade_no": said.number},
            "payment_intent": self.transaction if said.transaction is None else said.transaction,
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
        """Settled in another currency than it was paid in: its own amount is not the payment's."""
        common = {"object": "balance_transaction", "amount": 1234, "currency": "usd", "net": 1200}
        return {"id": f"txn_{type_}", **common, "type": type_, "created": _PAID_AT, "source": source}

    def _sent(self, body: Object, at: float) -> Sent:
        return self.sign_callback(_json(body), self.notification_id, at=at)


def signature(body: bytes, secret: str, at: int) -> str:
    """With a v0 that no secret has made."""
    v1 = hmac.new(secret.encode(), b"%d." % at + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={v1},v0={hashlib.sha256(body).hexdigest()}"


def _event(id_: str, type_: str, told: Object, said: Said) -> Object:
    event = {
        "id": id_,
        "object": "event",
        "created": _PAID_AT,
        "data": {"object": told},
        "livemode": False,
        "type": type_,
    }
    return event if said.merchant is None else event | {"account": said.merchant}


def _lower(driver: Driver, said: Said) -> str:
    return (driver.currency if said.currency is None else said.currency).lower()


def _error(code: str) -> bytes:
    return _json({"error": {"type": "invalid_request_error", "code": code, "message": "no"}})


def _json(told: object) -> bytes:
    return json.dumps(told).encode()
