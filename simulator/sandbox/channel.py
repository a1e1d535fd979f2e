"""The sandbox channel as docs/sandbox-protocol.md describes it: JSON over HTTP, HMAC-SHA256 both ways."""

from __future__ import annotations

import csv
import io
import re
from datetime import UTC, date, datetime
from http import HTTPStatus
from secrets import token_hex
from urllib.parse import parse_qs, urlsplit

import msgspec
from msgspec.structs import replace

from simulator.kernel.base import Account, Accounts, Event, EventType, Message, Opened
from simulator.kernel.dispatch import Call, Operation
from simulator.kernel.faults import CallKind
from simulator.kernel.ledger import Key, Payment, Refund, Refusal, Row, Terms
from simulator.kernel.simulation import Simulation
from simulator.kit.asgi import BadBody, Request, Response, decode, json_response, problem
from simulator.sandbox import elsewhere
from simulator.sandbox.wire import (
    CallbackBody,
    CloseBody,
    CreateBody,
    RefundBody,
    dispute_object,
    is_signed,
    payment_object,
    refund_id,
    refund_object,
    signature,
    signed,
)

# https://pay.weixin.qq.com/doc/v3/merchant/4012075249: the schedule of the strictest channel, 24 h 4 min in all.
RESEND_GAPS_S: tuple[int, ...] = (
    *(15, 15, 30, 180, 600, 1200, 1800, 1800, 1800, 3600),
    *(10_800, 10_800, 10_800, 21_600, 21_600),
)

UNKNOWN_SECRET = "a secret that the account does not have"  # noqa: S105 - made to fail verification

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


# -- operations --------------------------------------------------------------------------------------------------------


def _refused(refusal: Refusal) -> Response:
    return problem(_STATUS.get(refusal, 409), refusal, _MESSAGE.get(refusal, refusal))


def _invalid(message: str) -> Response:
    return problem(400, "INVALID_PARAMETER", message)


def _create(simulation: Simulation, call: Call) -> Response:
    try:
        body = decode(call.request.body, CreateBody)
    except BadBody as error:
        return signed(call, _invalid(str(error)))
    wrong = _wrong_with(body, call, simulation)
    if wrong is not None:
        return signed(call, _invalid(wrong))
    terms = Terms(**{name: getattr(body, name) for name in body.__struct_fields__})
    return _payment_response(simulation, call, simulation.create(call.account, terms, call.now))


def _wrong_with(body: CreateBody, call: Call, simulation: Simulation) -> str | None:
    """Return the first error that the types of the parameters do not show."""
    if _NUMBER.fullmatch(body.out_trade_no) is None:
        return "out_trade_no is 6 to 64 of 0-9 A-Z a-z _ - | *"
    if call.request.headers.get("idempotency-key") != body.out_trade_no:
        return "the header Idempotency-Key is the out_trade_no"
    if _CURRENCY.fullmatch(body.currency) is None:
        return "currency is three capital letters"
    if _CONTROL.search(body.subject):
        return "subject has no control characters"
    if not simulation.may_call(body.callback_url):
        return "callback_url is an http or https address that this process may call"
    if body.return_url is not None and not _is_web_address(body.return_url):
        return "return_url is an http or https address"
    key = Key(call.account.merchant_id, body.out_trade_no)
    if body.expires_at <= call.now and simulation.ledger.find(key, call.now) is None:
        return "expires_at is in the future"
    return None


def _is_web_address(text: str) -> bool:
    """Return whether it is a safe link: not `javascript:` and the like."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and _CONTROL.search(text) is None


def _query(simulation: Simulation, call: Call) -> Response:
    found = simulation.query_payment(call.account, call.request.params["out_trade_no"], call.nth, call.now)
    return _payment_response(simulation, call, found)


def _close(simulation: Simulation, call: Call) -> Response:
    try:
        decode(call.request.body, CloseBody)
    except BadBody as error:
        return signed(call, _invalid(str(error)))
    closed = simulation.close(call.account, call.request.params["out_trade_no"], call.now)
    return _payment_response(simulation, call, closed)


def _payment_response(simulation: Simulation, call: Call, payment: Payment | Refusal) -> Response:
    if isinstance(payment, Refusal):
        return signed(call, _refused(payment))
    return signed(call, json_response(payment_object(payment, simulation.pay_url(payment))))


def _refund(simulation: Simulation, call: Call) -> Response:
    try:
        body = decode(call.request.body, RefundBody)
    except BadBody as error:
        return signed(call, _invalid(str(error)))
    if _NUMBER.fullmatch(body.refund_no) is None:
        return signed(call, _invalid("refund_no is 6 to 64 of 0-9 A-Z a-z _ - | *"))
    number = call.request.params["out_trade_no"]
    return _refund_response(call, simulation.refund(call.account, number, body.refund_no, body.amount, call.now))


def _query_refund(simulation: Simulation, call: Call) -> Response:
    key = Key(call.account.merchant_id, call.request.params["refund_no"])
    return _refund_response(call, simulation.ledger.find_refund(key) or Refusal.REFUND_NOT_EXIST)


def _refund_response(call: Call, refund: Refund | Refusal) -> Response:
    if isinstance(refund, Refusal):
        return signed(call, _refused(refund))
    return signed(call, json_response(refund_object(refund)))


def _statement(simulation: Simulation, call: Call) -> Response:
    text = _day(call.request)
    try:
        day = date.fromisoformat(text) if _DAY.fullmatch(text) else None
    except ValueError:
        day = None
    if day is None:
        return signed(call, _invalid("date is YYYY-MM-DD"))
    body = _csv(simulation.statement(call.account, day), call.account.merchant_id)
    return signed(call, Response(body=body, content_type="text/csv; charset=utf-8"))


def _day(request: Request) -> str:
    return ",".join(parse_qs(request.query).get("date", []))


def _csv(rows: list[Row | tuple[str, ...]], merchant_id: str) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*Row._fields, "refund_id"))
    for row in rows:
        if isinstance(row, Row):
            number = refund_id(merchant_id, row.refund_no) if row.refund_no else ""
            writer.writerow((*row[:-1], rfc3339(row.at), number))
        else:
            writer.writerow(row)
    return text.getvalue().encode()


def rfc3339(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _number_in_path(request: Request) -> str:
    return request.params["out_trade_no"]


class Sandbox:
    """The simulated sandbox channel."""

    name = "sandbox"
    callbacks_expire = True
    needs_capture = False
    resend_gaps_s = RESEND_GAPS_S
    acknowledge_within_s = 5.0
    operations: tuple[Operation, ...] = (
        Operation(
            kind=CallKind.CREATE,
            method="POST",
            pattern="/v1/payments",
            number=lambda request: request.headers.get("idempotency-key", ""),
            handle=_create,
        ),
        Operation(
            kind=CallKind.QUERY,
            method="GET",
            pattern="/v1/payments/{out_trade_no}",
            number=_number_in_path,
            handle=_query,
        ),
        Operation(
            kind=CallKind.CLOSE,
            method="POST",
            pattern="/v1/payments/{out_trade_no}/close",
            number=_number_in_path,
            handle=_close,
        ),
        Operation(
            kind=CallKind.REFUND,
            method="POST",
            pattern="/v1/payments/{out_trade_no}/refunds",
            number=_number_in_path,
            handle=_refund,
        ),
        Operation(
            kind=CallKind.QUERY_REFUND,
            method="GET",
            pattern="/v1/refunds/{refund_no}",
            number=lambda request: request.params["refund_no"],
            handle=_query_refund,
        ),
        Operation(kind=CallKind.STATEMENT, method="GET", pattern="/v1/statement", number=_day, handle=_statement),
    )

    def claimed_merchant(self, request: Request) -> str:
        return request.headers.get("sandbox-merchant", "")

    def authenticate(self, request: Request, accounts: Accounts, now: datetime) -> Account | Response:
        account = accounts.get(self.claimed_merchant(request))
        if account is None or account.channel != self.name or not is_signed(request, account, now):
            return problem(401, "SIGNATURE_INVALID", "the signature does not verify, or is older than 300 s")
        return account

    def too_many(self, call: Call) -> Response:
        limited = problem(429, "RATE_LIMITED", "too many calls in this second")
        return signed(call, replace(limited, headers=(("retry-after", "1"),)))

    def open_account(self, name: str, callback_url: str) -> Opened:
        del callback_url  # each payment brings its own
        account = Account(name=name, merchant_id=f"m-{name}", keys={"k1": token_hex(24)})
        return Opened(account=account, credentials={"merchant_id": account.merchant_id, "keys": account.keys})

    def rotated(self, account: Account) -> Opened:
        keys = {f"k{len(account.keys) + 1}": token_hex(24), **account.keys}
        return Opened(
            account=replace(account, keys=keys), credentials={"merchant_id": account.merchant_id, "keys": keys}
        )

    def callback(self, event: Event, account: Account, now: datetime, pay_url: str) -> Message | None:
        if event.type is EventType.PAYMENT_AGREED:
            return None
        body = self._body(event, pay_url)
        return Message(headers=self._headers(event, body, account, now), body=body)

    def elsewhere(self, number: str, account: Account, now: datetime) -> dict[str, Message]:
        return elsewhere.messages(number, account, now)

    def stranger(self, account: Account) -> Account:
        return replace(account, keys=dict.fromkeys(account.keys, UNKNOWN_SECRET))

    def altered(self, message: Message) -> Message:
        return replace(message, body=message.body + b" ")

    def _body(self, event: Event, pay_url: str) -> bytes:
        body = CallbackBody(
            id=event.callback_id,
            type=event.type,
            created_at=event.created_at,
            payment=payment_object(event.payment, pay_url),
            refund=None if event.refund is None else refund_object(event.refund),
            dispute=None if event.dispute is None else dispute_object(event.dispute),
        )
        return msgspec.json.encode(body)

    def _headers(self, event: Event, body: bytes, account: Account, now: datetime) -> dict[str, str]:
        return {
            "content-type": "application/json",
            "sandbox-merchant": account.merchant_id,
            "sandbox-callback-id": event.callback_id,
            "sandbox-signature": signature(account, now, "CALLBACK", event.callback_id, account.merchant_id, body),
        }

    def acknowledges(self, status: int, body: bytes) -> bool:
        return status == HTTPStatus.OK and body == b"ok"
