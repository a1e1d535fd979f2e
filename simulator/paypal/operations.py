"""The calls of PayPal's API, of which the simulated one knows: orders, captures, refunds, the report, verification.

All that is known of a payment is in the ledger: an order id can be read back into the number, and a capture's id is the
ledger's transaction id.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit
from weakref import WeakKeyDictionary

import msgspec
from msgspec.structs import replace

from simulator.kernel.base import Asked, Call
from simulator.kernel.faults import CallKind
from simulator.kernel.ledger import Key, Ledger, Payment, Refund, Refusal, Terms
from simulator.kit.asgi import BadBody, Request, Response, decode, json_response
from simulator.paypal.keys import CERTIFICATES, is_genuine, new_token, wire_of, with_wire
from simulator.paypal.report import report
from simulator.paypal.wire import (
    CreateBody,
    RefundBody,
    VerifyBody,
    error,
    minor,
    money,
    number_in,
    order_object,
    refund_object,
    unprocessable,
)

if TYPE_CHECKING:
    from simulator.kernel.simulation import FarSide

APPROVE_WITHIN = timedelta(hours=6)
"""After that an order that nobody captured is gone."""

_NUMBER = re.compile(r"[0-9A-Za-z_\-|*]{6,64}", re.ASCII)


class _Memory(msgspec.Struct):
    """What the ledger does not keep: by which request a payment was captured, and which one a capture is of."""

    captured_by: dict[Key, str] = msgspec.field(default_factory=dict)
    of_capture: dict[str, Key] = msgspec.field(default_factory=dict)


_memories: WeakKeyDictionary[Ledger, _Memory] = WeakKeyDictionary()


def _memory(far_side: FarSide) -> _Memory:
    return _memories.setdefault(far_side.ledger, _Memory())


# -- calls -------------------------------------------------------------------------------------------------------------


def _token(far_side: FarSide, asked: Asked) -> Response:
    if parse_qs(asked.request.body.decode("latin-1")).get("grant_type") != ["client_credentials"]:
        return json_response({"error": "unsupported_grant_type"}, 400)
    _note_origin(far_side, asked)
    return json_response(new_token(asked.account, asked.now))


def _note_origin(far_side: FarSide, asked: Asked) -> None:
    """The address by which the merchant reaches us, for its certificates are fetched from there too."""
    wire = wire_of(asked.account)
    scheme = urlsplit(far_side.urls.get("paypal", "http:")).scheme
    origin = f"{scheme}://{asked.request.headers.get('host', '')}"
    if wire.origin != origin:
        far_side.accounts[asked.account.merchant_id] = with_wire(asked.account, replace(wire, origin=origin))


def _create(far_side: FarSide, asked: Asked) -> Response:
    try:
        body = decode(asked.request.body, CreateBody)
    except BadBody:
        return error(400, "INVALID_REQUEST", "MALFORMED_REQUEST_JSON")
    number = _request_id(asked.request)
    if body.intent != "CAPTURE" or len(body.purchase_units) != 1:
        return unprocessable("UNSUPPORTED_INTENT")
    unit = body.purchase_units[0]
    if _NUMBER.fullmatch(number) is None or {unit.custom_id, unit.invoice_id} != {number}:
        # PayPal itself tells the three apart; this ledger has one number for a payment.
        return error(400, "INVALID_REQUEST", "INVALID_PARAMETER_VALUE")
    amount = minor(unit.amount)
    if amount is None:
        return unprocessable("DECIMALS_NOT_SUPPORTED")
    if len(unit.description) > 127:  # noqa: PLR2004 - as documented
        return error(400, "INVALID_REQUEST", "INVALID_STRING_LENGTH")
    _note_origin(far_side, asked)
    known = far_side.ledger.find(Key(asked.account.merchant_id, number), asked.now)
    created = far_side.create(
        asked.account,
        Terms(
            out_trade_no=number,
            amount=amount,
            currency=unit.amount.currency_code,
            subject=unit.description,
            expires_at=asked.now + APPROVE_WITHIN if known is None else known.terms.expires_at,
            callback_url=asked.account.callback_url,
            return_url=body.payment_source.paypal.experience_context.return_url,
        ),
        asked.now,
    )
    if isinstance(created, Refusal):
        return error(503, "SERVICE_UNAVAILABLE") if created is Refusal.FULL else unprocessable("DUPLICATE_REQUEST_ID")
    return _answer_order(far_side, asked, created, 201 if known is None else 200)


def _query(far_side: FarSide, asked: Asked) -> Response:
    found = far_side.seen_by_query(asked.account, _number_in_path(asked.request), asked.nth, asked.now)
    if isinstance(found, Refusal):
        return error(404, "RESOURCE_NOT_FOUND", "INVALID_RESOURCE_ID")
    told = order_object(
        found, _refunds_of(far_side, found), far_side.pay_url(found), id_=asked.request.params["order_id"]
    )
    return json_response(told)


def _capture(far_side: FarSide, asked: Asked) -> Response:
    """The same request again is answered as before; another one is told that it comes too late."""
    number = _number_in_path(asked.request)
    key, memory = Key(asked.account.merchant_id, number), _memory(far_side)
    before = far_side.ledger.find(key, asked.now)
    if before is not None and before.status.was_paid and memory.captured_by.get(key) != _request_id(asked.request):
        return unprocessable("ORDER_ALREADY_CAPTURED")
    paid = far_side.capture(asked.account, number, asked.now)
    if paid is Refusal.PAYMENT_NOT_EXIST:
        return error(404, "RESOURCE_NOT_FOUND", "INVALID_RESOURCE_ID")
    if isinstance(paid, Refusal):
        return unprocessable("ORDER_NOT_APPROVED" if paid is Refusal.NOT_AGREED else "ORDER_EXPIRED")
    memory.captured_by.setdefault(key, _request_id(asked.request))
    memory.of_capture[paid.transaction_id or ""] = key
    return _answer_order(far_side, asked, paid, 201)


def _answer_order(far_side: FarSide, asked: Asked, payment: Payment, status: int) -> Response:
    full = asked.request.headers.get("prefer") == "return=representation"
    refunds = _refunds_of(far_side, payment)
    return json_response(order_object(payment, refunds, far_side.pay_url(payment), full=full), status)


def _refunds_of(far_side: FarSide, payment: Payment) -> list[Refund]:
    if not payment.status.was_paid:
        return []
    of_merchant = (refund for refund in far_side.ledger.refunds() if refund.merchant_id == payment.merchant_id)
    return [refund for refund in of_merchant if refund.out_trade_no == payment.terms.out_trade_no]


def _refund(far_side: FarSide, asked: Asked) -> Response:
    try:
        body = decode(asked.request.body or b"{}", RefundBody)
    except BadBody:
        return error(400, "INVALID_REQUEST", "MALFORMED_REQUEST_JSON")
    payment = _payment_of_capture(far_side, asked)
    if payment is None:
        return error(404, "RESOURCE_NOT_FOUND", "INVALID_RESOURCE_ID")
    told = body.amount or money(payment.terms.amount - payment.refunded_amount, payment.terms.currency)
    amount = minor(told)
    if amount is None or told.currency_code != payment.terms.currency:
        return unprocessable("CURRENCY_MISMATCH" if amount else "DECIMALS_NOT_SUPPORTED")
    refund_no = body.invoice_id or _request_id(asked.request)
    refund = far_side.refund(asked.account, payment.terms.out_trade_no, refund_no, amount, asked.now)
    if isinstance(refund, Refusal):
        exceeded = refund is Refusal.AMOUNT_EXCEEDED
        return unprocessable("REFUND_AMOUNT_EXCEEDED" if exceeded else "DUPLICATE_INVOICE_ID")
    return json_response(refund_object(refund), 201)


def _payment_of_capture(far_side: FarSide, asked: Asked) -> Payment | None:
    memory, capture_id = _memory(far_side), asked.request.params["capture_id"]
    if capture_id not in memory.of_capture:
        payments = far_side.ledger.payments(asked.now)
        memory.of_capture = {one.transaction_id: one.key for one in payments if one.transaction_id}
    key = memory.of_capture.get(capture_id)
    if key is None or key.merchant_id != asked.account.merchant_id:
        return None
    return far_side.ledger.find(key, asked.now)


def _verify(_: FarSide, asked: Asked) -> Response:
    try:
        body = decode(asked.request.body, VerifyBody)
    except BadBody:
        return error(400, "VALIDATION_ERROR")
    genuine = is_genuine(wire_of(asked.account), body)
    return json_response({"verification_status": "SUCCESS" if genuine else "FAILURE"})


def _certificate(_: FarSide, asked: Asked) -> Response:
    id_ = asked.request.params["id"]
    pem = next(one.pem for one in wire_of(asked.account).certificates if one.id == id_)
    return Response(body=pem.encode(), content_type="text/plain")


def _request_id(request: Request) -> str:
    return request.headers.get("paypal-request-id", "")


def _number_in_path(request: Request) -> str:
    return number_in(request.params["order_id"])


CALLS: tuple[Call, ...] = (
    Call(
        kind=CallKind.TOKEN,
        method="POST",
        pattern="/v1/oauth2/token",
        number=lambda _: "",
        handle=_token,
    ),
    Call(
        kind=CallKind.CREATE,
        method="POST",
        pattern="/v2/checkout/orders",
        number=_request_id,
        handle=_create,
    ),
    Call(
        kind=CallKind.QUERY,
        method="GET",
        pattern="/v2/checkout/orders/{order_id}",
        number=_number_in_path,
        handle=_query,
    ),
    Call(
        kind=CallKind.CAPTURE,
        method="POST",
        pattern="/v2/checkout/orders/{order_id}/capture",
        number=_number_in_path,
        handle=_capture,
    ),
    Call(
        kind=CallKind.REFUND,
        method="POST",
        pattern="/v2/payments/captures/{capture_id}/refund",
        number=_request_id,
        handle=_refund,
    ),
    Call(
        kind=CallKind.STATEMENT,
        method="GET",
        pattern="/v1/reporting/transactions",
        number=lambda request: "".join(parse_qs(request.query).get("start_date", [])),
        handle=report,
    ),
    Call(
        kind=CallKind.CERTIFICATES,
        method="POST",
        pattern="/v1/notifications/verify-webhook-signature",
        number=lambda _: "",
        handle=_verify,
    ),
    Call(
        kind=CallKind.CERTIFICATES,
        method="GET",
        pattern=f"{CERTIFICATES}{{id}}",
        number=lambda request: request.params["id"],
        handle=_certificate,
    ),
)
