"""The sandbox channel as docs/sandbox-protocol.md describes it: JSON over HTTP, HMAC-SHA256 both ways."""

from __future__ import annotations

import csv
import hmac
import io
import re
from datetime import UTC, date, datetime, timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated
from urllib.parse import parse_qs, urlsplit

import msgspec
from msgspec import Meta

from simulator.asgi import BadBody, Request, Response, decode, json_response, problem
from simulator.base import Account, Accounts, Asked, Call, Event
from simulator.faults import CallKind
from simulator.ledger import Key, Payment, PaymentStatus, Refund, RefundStatus, Refusal, Row, Terms

if TYPE_CHECKING:
    from simulator.far_side import FarSide

TOLERANCE = timedelta(seconds=300)
AMOUNT_MAX = 10**14

# https://pay.weixin.qq.com/doc/v3/merchant/4012075249: the schedule of the strictest channel, 24 h 4 min in all.
RESEND_GAPS_S: tuple[int, ...] = (
    *(15, 15, 30, 180, 600, 1200, 1800, 1800, 1800, 3600),
    *(10_800, 10_800, 10_800, 21_600, 21_600),
)

_SIGNATURE = re.compile(r"t=([0-9]{1,11}),k=([0-9A-Za-z_\-]{1,64}),v1=([0-9a-f]{64})", re.ASCII)
_NUMBER = re.compile(r"[0-9A-Za-z_\-|*]{6,64}", re.ASCII)
_CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

_STATUS = {
    Refusal.PAYMENT_NOT_EXIST: 404,
    Refusal.REFUND_NOT_EXIST: 404,
    Refusal.FULL: 503,
}
_MESSAGE = {
    Refusal.NUMBER_REUSED: "this number is taken by another one with other terms",
    Refusal.PAYMENT_NOT_EXIST: "there is no payment with this number",
    Refusal.REFUND_NOT_EXIST: "there is no refund with this number",
    Refusal.ALREADY_PAID: "the payment has been paid",
    Refusal.NOT_PAID: "the payment has not been paid",
    Refusal.AMOUNT_EXCEEDED: "more than what is left of the payment",
    Refusal.FULL: "this process keeps no more payments",
}


# -- bodies ------------------------------------------------------------------------------------------------------------


class CreateBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    out_trade_no: str
    amount: Annotated[int, Meta(ge=1, le=AMOUNT_MAX)]
    currency: str
    subject: Annotated[str, Meta(min_length=1, max_length=256)]
    expires_at: Annotated[datetime, Meta(tz=True)]
    callback_url: Annotated[str, Meta(max_length=2048)]
    return_url: Annotated[str, Meta(max_length=2048)] | None = None


class CloseBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing: the address says it all."""


class RefundBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    refund_no: str
    amount: Annotated[int, Meta(ge=1, le=AMOUNT_MAX)]


class PaymentObject(msgspec.Struct, frozen=True, kw_only=True):
    merchant_id: str
    out_trade_no: str
    transaction_id: str | None
    amount: int
    currency: str
    subject: str
    status: PaymentStatus
    refunded_amount: int
    paid_at: datetime | None
    expires_at: datetime
    pay_url: str


class RefundObject(msgspec.Struct, frozen=True, kw_only=True):
    merchant_id: str
    refund_no: str
    out_trade_no: str
    amount: int
    currency: str
    status: RefundStatus
    refunded_at: datetime | None


class CallbackBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    id: str
    type: str
    created_at: datetime
    payment: PaymentObject
    refund: RefundObject | None = None


def payment_object(payment: Payment, pay_url: str) -> PaymentObject:
    terms = payment.terms
    return PaymentObject(
        merchant_id=payment.merchant_id,
        out_trade_no=terms.out_trade_no,
        transaction_id=payment.transaction_id,
        amount=terms.amount,
        currency=terms.currency,
        subject=terms.subject,
        status=payment.status,
        refunded_amount=payment.refunded_amount,
        paid_at=payment.paid_at,
        expires_at=terms.expires_at,
        pay_url=pay_url,
    )


def refund_object(refund: Refund) -> RefundObject:
    return RefundObject(
        merchant_id=refund.merchant_id,
        refund_no=refund.refund_no,
        out_trade_no=refund.out_trade_no,
        amount=refund.amount,
        currency=refund.currency,
        status=refund.status,
        refunded_at=refund.refunded_at,
    )


# -- signatures --------------------------------------------------------------------------------------------------------


def hex_mac(secret: str, *lines: str | bytes) -> str:
    """HMAC-SHA256 over the lines, joined with a line feed, without one at the end; a body is its raw bytes."""
    joined = b"\n".join(line if isinstance(line, bytes) else line.encode("latin-1") for line in lines)
    return hmac.digest(secret.encode(), joined, "sha256").hex()


def _signature(account: Account, now: datetime, kind: str, *lines: str | bytes) -> str:
    key_id, secret = next(iter(account.keys.items()))
    at = str(int(now.timestamp()))
    return f"t={at},k={key_id},v1={hex_mac(secret, kind, at, *lines)}"


def _is_signed(request: Request, account: Account, now: datetime) -> bool:
    match = _SIGNATURE.fullmatch(request.headers.get("sandbox-signature", ""))
    if match is None:
        return False
    at, key_id, mac = match.groups()
    secret = account.keys.get(key_id)
    if secret is None or abs(now - datetime.fromtimestamp(int(at), UTC)) > TOLERANCE:
        return False
    wanted = hex_mac(secret, "REQUEST", at, request.method, request.target, account.merchant_id, request.body)
    return hmac.compare_digest(wanted, mac)


def _signed(asked: Asked, response: Response) -> Response:
    """The answer with a signature that binds it to its question; 5xx are not signed."""
    if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return response
    question = asked.request.headers["sandbox-signature"].rpartition("v1=")[2]
    signature = _signature(asked.account, asked.now, "ANSWER", question, str(response.status), response.body)
    return msgspec.structs.replace(response, headers=(*response.headers, ("sandbox-signature", signature)))


def _refused(refusal: Refusal) -> Response:
    return problem(_STATUS.get(refusal, 409), refusal, _MESSAGE.get(refusal, refusal))


def _invalid(message: str) -> Response:
    return problem(400, "INVALID_PARAMETER", message)


# -- calls -------------------------------------------------------------------------------------------------------------


def _create(far_side: FarSide, asked: Asked) -> Response:
    try:
        body = decode(asked.request.body, CreateBody)
    except BadBody as error:
        return _signed(asked, _invalid(str(error)))
    wrong = _wrong_with(body, asked, far_side)
    if wrong is not None:
        return _signed(asked, _invalid(wrong))
    terms = Terms(**{name: getattr(body, name) for name in body.__struct_fields__})
    return _answer_payment(far_side, asked, far_side.create(asked.account, terms, asked.now))


def _wrong_with(body: CreateBody, asked: Asked, far_side: FarSide) -> str | None:
    """What a parameter's type does not say."""
    if _NUMBER.fullmatch(body.out_trade_no) is None:
        return "out_trade_no is 6 to 64 of 0-9 A-Z a-z _ - | *"
    if asked.request.headers.get("idempotency-key") != body.out_trade_no:
        return "the header Idempotency-Key is the out_trade_no"
    if _CURRENCY.fullmatch(body.currency) is None:
        return "currency is three capital letters"
    if _CONTROL.search(body.subject):
        return "subject has no control characters"
    if not far_side.may_call(body.callback_url):
        return "callback_url is an http or https address that this process may call"
    if body.return_url is not None and not _is_web_address(body.return_url):
        return "return_url is an http or https address"
    key = Key(asked.account.merchant_id, body.out_trade_no)
    if body.expires_at <= asked.now and far_side.ledger.find(key, asked.now) is None:
        return "expires_at is in the future"
    return None


def _is_web_address(text: str) -> bool:
    """Whether a browser may be sent there: `javascript:` and its like are not for links."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and _CONTROL.search(text) is None


def _query(far_side: FarSide, asked: Asked) -> Response:
    found = far_side.seen_by_query(asked.account, asked.request.params["out_trade_no"], asked.nth, asked.now)
    return _answer_payment(far_side, asked, found)


def _close(far_side: FarSide, asked: Asked) -> Response:
    try:
        decode(asked.request.body, CloseBody)
    except BadBody as error:
        return _signed(asked, _invalid(str(error)))
    closed = far_side.close(asked.account, asked.request.params["out_trade_no"], asked.now)
    return _answer_payment(far_side, asked, closed)


def _answer_payment(far_side: FarSide, asked: Asked, payment: Payment | Refusal) -> Response:
    if isinstance(payment, Refusal):
        return _signed(asked, _refused(payment))
    return _signed(asked, json_response(payment_object(payment, far_side.pay_url(payment))))


def _refund(far_side: FarSide, asked: Asked) -> Response:
    try:
        body = decode(asked.request.body, RefundBody)
    except BadBody as error:
        return _signed(asked, _invalid(str(error)))
    if _NUMBER.fullmatch(body.refund_no) is None:
        return _signed(asked, _invalid("refund_no is 6 to 64 of 0-9 A-Z a-z _ - | *"))
    number = asked.request.params["out_trade_no"]
    return _answer_refund(asked, far_side.refund(asked.account, number, body.refund_no, body.amount, asked.now))


def _query_refund(far_side: FarSide, asked: Asked) -> Response:
    key = Key(asked.account.merchant_id, asked.request.params["refund_no"])
    return _answer_refund(asked, far_side.ledger.find_refund(key) or Refusal.REFUND_NOT_EXIST)


def _answer_refund(asked: Asked, refund: Refund | Refusal) -> Response:
    if isinstance(refund, Refusal):
        return _signed(asked, _refused(refund))
    return _signed(asked, json_response(refund_object(refund)))


def _statement(far_side: FarSide, asked: Asked) -> Response:
    text = _day(asked.request)
    try:
        day = date.fromisoformat(text) if _DAY.fullmatch(text) else None
    except ValueError:
        day = None
    if day is None:
        return _signed(asked, _invalid("date is YYYY-MM-DD"))
    body = _csv(far_side.statement(asked.account, day))
    return _signed(asked, Response(body=body, content_type="text/csv; charset=utf-8"))


def _day(request: Request) -> str:
    return ",".join(parse_qs(request.query).get("date", []))


def _csv(rows: list[Row | tuple[str, ...]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Row._fields)
    for row in rows:
        writer.writerow((*row[:-1], rfc3339(row.at)) if isinstance(row, Row) else row)
    return text.getvalue().encode()


def rfc3339(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _number_in_path(request: Request) -> str:
    return request.params["out_trade_no"]


class Sandbox:
    """The sandbox channel's side of the seam."""

    name = "sandbox"
    resend_gaps_s = RESEND_GAPS_S
    acknowledge_within_s = 5.0
    calls: tuple[Call, ...] = (
        Call(
            kind=CallKind.CREATE,
            method="POST",
            pattern="/v1/payments",
            number=lambda request: request.headers.get("idempotency-key", ""),
            handle=_create,
        ),
        Call(
            kind=CallKind.QUERY,
            method="GET",
            pattern="/v1/payments/{out_trade_no}",
            number=_number_in_path,
            handle=_query,
        ),
        Call(
            kind=CallKind.CLOSE,
            method="POST",
            pattern="/v1/payments/{out_trade_no}/close",
            number=_number_in_path,
            handle=_close,
        ),
        Call(
            kind=CallKind.REFUND,
            method="POST",
            pattern="/v1/payments/{out_trade_no}/refunds",
            number=_number_in_path,
            handle=_refund,
        ),
        Call(
            kind=CallKind.QUERY_REFUND,
            method="GET",
            pattern="/v1/refunds/{refund_no}",
            number=lambda request: request.params["refund_no"],
            handle=_query_refund,
        ),
        Call(kind=CallKind.STATEMENT, method="GET", pattern="/v1/statement", number=_day, handle=_statement),
    )

    def claimed_merchant(self, request: Request) -> str:
        return request.headers.get("sandbox-merchant", "")

    def authenticate(self, request: Request, accounts: Accounts, now: datetime) -> Account | Response:
        account = accounts.get(self.claimed_merchant(request))
        if account is None or account.channel != self.name or not _is_signed(request, account, now):
            return problem(401, "SIGNATURE_INVALID", "the signature does not verify, or is older than 300 s")
        return account

    def too_many(self, asked: Asked) -> Response:
        limited = problem(429, "RATE_LIMITED", "too many calls in this second")
        return _signed(asked, msgspec.structs.replace(limited, headers=(("retry-after", "1"),)))

    def render(self, event: Event, pay_url: str) -> bytes:
        body = CallbackBody(
            id=event.callback_id,
            type=event.type,
            created_at=event.created_at,
            payment=payment_object(event.payment, pay_url),
            refund=None if event.refund is None else refund_object(event.refund),
        )
        return msgspec.json.encode(body)

    def sign(self, event: Event, body: bytes, account: Account, now: datetime) -> dict[str, str]:
        return {
            "content-type": "application/json",
            "sandbox-merchant": account.merchant_id,
            "sandbox-callback-id": event.callback_id,
            "sandbox-signature": _signature(account, now, "CALLBACK", event.callback_id, account.merchant_id, body),
        }

    def acknowledges(self, status: int, body: bytes) -> bool:
        return status == HTTPStatus.OK and body == b"ok"
