"""The sandbox channel: the shortest complete adapter, and the one to read first. Protocol: docs/sandbox-protocol.md.

JSON over HTTP, HMAC-SHA256 in both directions. A response's signature covers its request, so a response to another
request does not verify; `core.lifecycle` still compares the numbers in it.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta, tzinfo
from hashlib import sha256
from typing import IO, Annotated, Any, Literal
from urllib.parse import quote, urlsplit

import msgspec
from msgspec.structs import replace

from channels.base import Acknowledgement, Callback, ChannelRefund, Create, Created, RefundState, StatementItem
from channels.kit.signed_message import read_json, record_check
from channels.kit.unreadable import clean_ids, unreadable_callback
from channels.kit.web_address import web_address
from channels.sandbox.account import Credentials, Id
from channels.sandbox.statement import read_statement
from channels.transport import STATEMENT_BYTES_MAX, Response, Transport
from core.account import AccountConfig
from core.checkout import CheckoutRules
from core.dispute import DisputeKind, DisputeState
from core.errors import (
    CallbackForged,
    CallbackStale,
    ChannelRefused,
    ChannelUnreadable,
    ConfigurationError,
)
from core.evidence import Closed, Disputed, Evidence, Missing, Paid, Refunded, Unpaid
from core.money import AMOUNT_MAX
from core.order import OUT_TRADE_NO, Checkout, Payment

TOLERANCE_S = 300
SECRET_CHARACTERS_MIN = 32

_SIGNATURE = re.compile(r"t=([0-9]{1,12}),k=([A-Za-z0-9_\-]{1,32}),v1=([0-9a-f]{64})", re.ASCII)


_Number = Annotated[str, msgspec.Meta(pattern=r"\A[^\x00-\x1f\x7f]{1,128}\Z")]
_Instant = Annotated[datetime, msgspec.Meta(tz=True)]
_Currency = Annotated[str, msgspec.Meta(pattern=r"\A[A-Z]{3}\Z")]
_Minor = Annotated[int, msgspec.Meta(ge=0, le=AMOUNT_MAX)]


_MONEY_TYPES = ("payment.", "refund.", "dispute.")


class _PaymentObject(msgspec.Struct, frozen=True, kw_only=True):
    """A payment. Its number may be another system's, of any form."""

    merchant_id: Id
    out_trade_no: _Number
    amount: _Minor
    currency: _Currency
    status: Literal["unpaid", "paid", "closed", "refunded"]
    refunded_amount: _Minor
    transaction_id: Id | None
    paid_at: _Instant | None
    expires_at: _Instant
    pay_url: str


class _NamedRefund(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of a refund that a callback is about: the merchant's, of any system's form, and the channel's."""

    refund_no: _Number
    refund_id: Id | None = None


class _DisputeObject(msgspec.Struct, frozen=True, kw_only=True):
    dispute_id: Id
    kind: DisputeKind
    state: DisputeState
    amount: _Minor
    currency: _Currency
    reason: Annotated[str, msgspec.Meta(max_length=128)] = ""
    outcome: Annotated[str, msgspec.Meta(max_length=128)] = ""
    respond_by: _Instant | None = None
    opened_at: _Instant
    changed_at: _Instant


class _CallbackBody(msgspec.Struct, frozen=True, kw_only=True):
    id: Id
    payment: _PaymentObject
    refund: _NamedRefund | None = None
    dispute: _DisputeObject | None = None


class _Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """A callback of any type, read before it is read whole."""

    id: str
    type: str = ""
    payment: Any = None

    @property
    def is_about_money(self) -> bool:
        return not self.type or self.type.startswith(_MONEY_TYPES)

    @property
    def ids(self) -> tuple[str, ...]:
        payment = self.payment if isinstance(self.payment, dict) else {}
        return clean_ids(payment.get("out_trade_no"), payment.get("transaction_id"))


class _RefundObject(msgspec.Struct, frozen=True, kw_only=True):
    merchant_id: str
    refund_no: Id
    out_trade_no: Id
    amount: _Minor
    status: RefundState
    refund_id: Id | None = None

    @property
    def as_channel_has_it(self) -> ChannelRefund:
        return ChannelRefund(state=self.status, channel_refund_no=self.refund_id)


class _ErrorObject(msgspec.Struct, frozen=True, kw_only=True):
    code: Annotated[str, msgspec.Meta(pattern=r"\A[A-Z_]{1,64}\Z")]


class Sandbox:
    """One account at the sandbox channel; implements `channels.base.Channel`."""

    methods: tuple[str, ...] = ("page",)
    callback_headers: tuple[str, ...] = ("sandbox-callback-id", "sandbox-signature")
    queries_by_reference = False
    watched_number = OUT_TRADE_NO
    longest_window: timedelta | None = None  # the answers name the end
    statement_zone: tzinfo = UTC
    statement_format = "the sandbox's CSV in UTF-8"
    checkouts = CheckoutRules(renews=True, exists_once_created=True)

    def __init__(
        self, account: AccountConfig, transport: Transport, *, clock: Callable[[], float] | None = None
    ) -> None:
        credentials = account.credentials_as(Credentials)
        short = [key_id for key_id, secret in credentials.keys.items() if len(secret) < SECRET_CHARACTERS_MIN]
        if short:
            raise ConfigurationError(f"account {account.name}: key {short[0]} has fewer than 32 characters")
        self._name = account.name
        self._base_url = account.base_url.rstrip("/")
        self._base_path = urlsplit(self._base_url).path
        self._merchant_id = credentials.merchant_id
        self._keys = {key_id: secret.encode() for key_id, secret in credentials.keys.items()}
        self._signing_key = next(iter(self._keys))
        self._transport = transport
        self._clock = clock or transport.time

    async def create_payment(self, create: Create) -> Created:
        payment = create.payment
        body = {
            "out_trade_no": payment.out_trade_no,
            "amount": payment.amount,
            "currency": payment.currency,
            "subject": create.subject,
            "expires_at": payment.payable_until,
            "callback_url": create.callback_url,
            "return_url": create.return_url,
        }
        response = await self._call("POST", "/v1/payments", body, {"Idempotency-Key": payment.out_trade_no})
        created = read_json(response.body, _PaymentObject)
        expected = (self._merchant_id, payment.out_trade_no, payment.amount, payment.currency)
        if (created.merchant_id, created.out_trade_no, created.amount, created.currency) != expected:
            raise ChannelUnreadable("other_payment")
        checkout = Checkout(kind="redirect", value=web_address(created.pay_url))
        return Created(checkout=checkout, payable_until=created.expires_at)

    async def query_payment(self, payment: Payment) -> Evidence:
        path = f"/v1/payments/{quote(payment.out_trade_no, safe='')}"
        try:
            response = await self._call("GET", path)
        except ChannelRefused as refused:
            return self._missing(payment, refused.code)
        return self._evidence(read_json(response.body, _PaymentObject))

    async def capture_payment(self, payment: Payment) -> None:
        """The sandbox channel takes the money by itself."""

    async def close_payment(self, payment: Payment) -> None:
        try:
            await self._call("POST", f"/v1/payments/{quote(payment.out_trade_no, safe='')}/close", {})
        except ChannelRefused as refused:
            # Already paid, or not there yet: the next query shows which.
            if refused.code not in ("ALREADY_PAID", "PAYMENT_NOT_EXIST"):
                raise

    async def refund_payment(self, payment: Payment, refund_no: str, amount: int) -> ChannelRefund:
        path = f"/v1/payments/{quote(payment.out_trade_no, safe='')}/refunds"
        response = await self._call("POST", path, {"refund_no": refund_no, "amount": amount})
        refund = self._refund(response, payment, refund_no)
        if refund.amount != amount:
            raise ChannelUnreadable("other_refund")
        return refund.as_channel_has_it

    async def query_refund(self, payment: Payment, refund_no: str) -> ChannelRefund | None:
        try:
            response = await self._call("GET", f"/v1/refunds/{quote(refund_no, safe='')}")
        except ChannelRefused as refused:
            if refused.code == "REFUND_NOT_EXIST":
                return None
            raise
        return self._refund(response, payment, refund_no).as_channel_has_it

    async def verify_callback(self, headers: Mapping[str, str], body: bytes, *, received_at: datetime) -> Callback:
        callback_id = headers.get("sandbox-callback-id", "")
        signed_at = self._verify(
            headers.get("sandbox-signature", ""),
            lambda t: _lines("CALLBACK", t, callback_id, self._merchant_id, body),
            CallbackForged,
        )
        if abs(received_at.timestamp() - signed_at) > TOLERANCE_S:
            raise CallbackStale("time")
        return self._read_callback(callback_id, body)

    def acknowledge(self) -> Acknowledgement:
        return Acknowledgement(status=200, content_type="text/plain; charset=utf-8", body=b"ok")

    async def keep_current(self) -> None:
        """Nothing to renew."""

    async def fetch_statement(self, day: date, into: IO[bytes]) -> None:
        response = await self._call(
            "GET", f"/v1/statement?date={day.isoformat()}", response_bytes_max=STATEMENT_BYTES_MAX
        )
        into.write(response.body)

    def parse_statement(self, statement: IO[bytes]) -> Iterator[StatementItem]:
        return read_statement(statement)

    # -- the wire ------------------------------------------------------------------------------------------------------

    async def _call(
        self,
        method: str,
        path: str,
        body: object | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        response_bytes_max: int = 1 << 20,
    ) -> Response:
        """Sign, send and verify. A signed 4xx is a refusal; an unsigned one proves nothing."""
        raw = b"" if body is None else msgspec.json.encode(body)
        now = int(self._clock())
        string = _lines("REQUEST", now, method, self._base_path + path, self._merchant_id, raw)
        v1 = hmac.new(self._keys[self._signing_key], string, sha256).hexdigest()
        signature = f"t={now},k={self._signing_key},v1={v1}"
        own = {"Sandbox-Merchant": self._merchant_id, "Sandbox-Signature": signature}
        response = await self._transport.call(
            method,
            self._base_url + path,
            headers={**(headers or {}), "Content-Type": "application/json", **own},
            body=raw,
            response_bytes_max=response_bytes_max,
        )
        self._verify_response(response, v1)
        if response.status >= 400:  # noqa: PLR2004 - the classes of errors
            raise ChannelRefused(read_json(response.body, _ErrorObject).code)
        return response

    def _verify_response(self, response: Response, request_v1: str) -> None:
        signed_at = self._verify(
            response.headers.get("sandbox-signature", ""),
            lambda t: _lines("ANSWER", t, request_v1, response.status, response.body),
            ChannelUnreadable,
        )
        self._transport.hear(self._base_url, signed_at, by=" signed")
        if abs(self._clock() - signed_at) > TOLERANCE_S:
            raise ChannelUnreadable("answer_stale")

    def _verify(
        self,
        header: str,
        string: Callable[[int], bytes],
        error: type[CallbackForged | ChannelUnreadable],
    ) -> int:
        """Return the signature's time. The algorithm is fixed here; bytes are compared in constant time."""
        match = _SIGNATURE.fullmatch(header)
        key = None if match is None else self._keys.get(match[2])
        if match is None or key is None:
            raise error("signature")
        signed_at = int(match[1])
        expected = hmac.new(key, string(signed_at), sha256).hexdigest()
        is_good = hmac.compare_digest(expected.encode(), match[3].encode())
        message = "callback" if error is CallbackForged else "answer"
        record_check(message, algorithm="HMAC-SHA256", key=match[2], string=string(signed_at), is_good=is_good)
        if not is_good:
            raise error("signature")
        return signed_at

    def _read_callback(self, callback_id: str, body: bytes) -> Callback:
        """Read what it is about, then the whole. The signature covers the id in the header."""
        envelope = None
        try:
            envelope = read_json(body, _Envelope)
            if envelope.id == callback_id and not envelope.is_about_money:
                return Callback(notification_id=callback_id, evidence=None)
            callback = read_json(body, _CallbackBody)
            if callback.id == callback_id:
                dispute = None if callback.dispute is None else self._dispute(callback.payment, callback.dispute)
                return Callback(notification_id=callback_id, evidence=dispute or self._told(callback))
            reason = "callback_id_differs"
        except ChannelUnreadable as error:
            reason = error.detail
        return unreadable_callback(self._name, body, reason, ids=() if envelope is None else envelope.ids)

    def _missing(self, payment: Payment, code: str) -> Missing:
        if code == "PAYMENT_NOT_EXIST":
            return Missing(channel_account=self._name, out_trade_no=payment.out_trade_no)
        raise ChannelUnreadable(f"refused_{code}")

    def _evidence(self, payment: _PaymentObject) -> Evidence:
        """Evidence of the payment object, compared with nothing."""
        is_ours = payment.merchant_id == self._merchant_id
        common: dict[str, Any] = {
            "channel_account": self._name if is_ours else f"other:{payment.merchant_id}",
            "out_trade_no": payment.out_trade_no,
            "amount": payment.amount,
            "currency": payment.currency,
            "at": payment.paid_at,
        }
        match payment.status:
            case "unpaid":
                return Unpaid(**common, payable_until=payment.expires_at)
            case "closed":
                return Closed(**common)
        if payment.transaction_id is None or payment.paid_at is None:
            raise ChannelUnreadable("paid_without_transaction")
        if payment.status == "paid":
            return Paid(**common, channel_transaction_id=payment.transaction_id)
        return Refunded(
            **common, channel_transaction_id=payment.transaction_id, refunded_amount=payment.refunded_amount
        )

    def _told(self, callback: _CallbackBody) -> Evidence:
        """Evidence of the payment in a callback, with the channel's number of the refund that it is about."""
        evidence, refund = self._evidence(callback.payment), callback.refund
        if refund is None or refund.refund_id is None or not isinstance(evidence, Refunded):
            return evidence
        return replace(evidence, refund_numbers={refund.refund_no: refund.refund_id})

    def _dispute(self, payment: _PaymentObject, dispute: _DisputeObject) -> Disputed:
        is_ours = payment.merchant_id == self._merchant_id
        return Disputed(
            channel_account=self._name if is_ours else f"other:{payment.merchant_id}",
            out_trade_no=payment.out_trade_no,
            channel_transaction_id=payment.transaction_id,
            dispute_id=dispute.dispute_id,
            dispute_kind=dispute.kind,
            state=dispute.state,
            disputed_amount=dispute.amount,
            disputed_currency=dispute.currency,
            dispute_reason=dispute.reason,
            outcome=dispute.outcome,
            respond_by=dispute.respond_by,
            opened_at=dispute.opened_at,
            changed_at=dispute.changed_at,
        )

    def _refund(self, response: Response, payment: Payment, refund_no: str) -> _RefundObject:
        refund = read_json(response.body, _RefundObject)
        expected = (self._merchant_id, payment.out_trade_no, refund_no)
        if (refund.merchant_id, refund.out_trade_no, refund.refund_no) != expected:
            raise ChannelUnreadable("other_refund")
        return refund


def _lines(kind: str, signed_at: int, *parts: str | int | bytes) -> bytes:
    """The string to sign: one part a line, the body last, no newline after it."""
    texts = [kind, str(signed_at), *parts]
    return b"\n".join(part if isinstance(part, bytes) else str(part).encode() for part in texts)
