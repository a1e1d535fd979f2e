"""Operations of PayPal's API: orders, captures, refunds, the report, verification.

Payments are in the ledger: an order id contains the number, and a capture's id is the ledger's transaction id.
"""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import parse_qs, urlsplit
from weakref import WeakKeyDictionary

import msgspec
from msgspec.structs import replace

from simulator.kernel.dispatch import Call, Operation
from simulator.kernel.faults import CallKind, Fault
from simulator.kernel.ledger import Key, Ledger, Payment, PaymentStatus, Refund, Refusal, Terms
from simulator.kernel.simulation import Simulation
from simulator.kit.asgi import BadBody, Request, Response, decode, json_response
from simulator.paypal.disputes import show_dispute, show_webhook, taken_of
from simulator.paypal.events import show_event
from simulator.paypal.keys import CERTIFICATES, is_genuine, new_token, wire_of, with_wire
from simulator.paypal.report import report
from simulator.paypal.wire import (
    CreateBody,
    RefundBody,
    VerifyBody,
    capture_object,
    error,
    minor,
    money,
    number_in,
    order_object,
    refund_object,
    unprocessable,
)

APPROVE_WITHIN = timedelta(hours=3)
"""An order that nobody approves is not known any more after this time; an approved one is void."""

REQUEST_ID_MAX, CUSTOM_ID_MAX, INVOICE_ID_MAX = 108, 255, 127
"""Lengths that PayPal documents. The ledger numbers a payment by its request id; the two others are the merchant's."""


class _CaptureRecords(msgspec.Struct):
    """Captures: the request that captured a payment, and the payment of a capture. The ledger has neither."""

    captured_by: dict[Key, str] = msgspec.field(default_factory=dict)
    of_capture: dict[str, Key] = msgspec.field(default_factory=dict)


_capture_records: WeakKeyDictionary[Ledger, _CaptureRecords] = WeakKeyDictionary()


def _records_of(simulation: Simulation) -> _CaptureRecords:
    return _capture_records.setdefault(simulation.ledger, _CaptureRecords())


# -- calls -------------------------------------------------------------------------------------------------------------


def _token(simulation: Simulation, call: Call) -> Response:
    if parse_qs(call.request.body.decode("latin-1")).get("grant_type") != ["client_credentials"]:
        return json_response({"error": "unsupported_grant_type"}, 400)
    _note_origin(simulation, call)
    return json_response(new_token(call.account, call.now))


def _note_origin(simulation: Simulation, call: Call) -> None:
    """Store the URL by which the merchant reaches the channel: it fetches certificates there too."""
    wire = wire_of(call.account)
    scheme = urlsplit(simulation.urls.get("paypal", "http:")).scheme
    origin = f"{scheme}://{call.request.headers.get('host', '')}"
    if wire.origin != origin:
        simulation.accounts[call.account.merchant_id] = with_wire(call.account, replace(wire, origin=origin))


def _create(simulation: Simulation, call: Call) -> Response:
    try:
        body = decode(call.request.body, CreateBody)
    except BadBody:
        return error(400, "INVALID_REQUEST", "MALFORMED_REQUEST_JSON")
    number = _request_id(call.request)
    if body.intent != "CAPTURE" or len(body.purchase_units) != 1:
        return unprocessable("UNSUPPORTED_INTENT")
    unit = body.purchase_units[0]
    if not 0 < len(number) <= REQUEST_ID_MAX:
        return error(400, "INVALID_REQUEST", "INVALID_PARAMETER_VALUE")
    if len(unit.custom_id) > CUSTOM_ID_MAX or len(unit.invoice_id) > INVOICE_ID_MAX:
        return error(400, "INVALID_REQUEST", "INVALID_STRING_LENGTH")
    amount = minor(unit.amount)
    if amount is None:
        return unprocessable("DECIMALS_NOT_SUPPORTED")
    if len(unit.description) > 127:  # noqa: PLR2004 - as documented
        return error(400, "INVALID_REQUEST", "INVALID_STRING_LENGTH")
    _note_origin(simulation, call)
    known = simulation.ledger.find(Key(call.account.merchant_id, number), call.now)
    lives = simulation.life_of_a_link(APPROVE_WITHIN)
    created = simulation.create(
        call.account,
        Terms(
            out_trade_no=number,
            amount=amount,
            currency=unit.amount.currency_code,
            subject=unit.description,
            expires_at=call.now + lives if known is None else known.terms.expires_at,
            callback_url=call.account.callback_url,
            return_url=body.payment_source.paypal.experience_context.return_url,
            wire={"custom_id": unit.custom_id, "invoice_id": unit.invoice_id},
        ),
        call.now,
    )
    if isinstance(created, Refusal):
        return error(503, "SERVICE_UNAVAILABLE") if created is Refusal.FULL else unprocessable("DUPLICATE_REQUEST_ID")
    return _order_response(simulation, call, created, 201 if known is None else 200)


def _query(simulation: Simulation, call: Call) -> Response:
    found = simulation.query_payment(call.account, _number_in_path(call.request), call.nth, call.now)
    if isinstance(found, Refusal) or _has_vanished(found):
        return error(404, "RESOURCE_NOT_FOUND", "INVALID_RESOURCE_ID")
    taken, status = taken_of(simulation.disputes_of(found.key), found)
    order = order_object(
        found,
        _refunds_of(simulation, found),
        simulation.pay_url(found),
        id_=call.request.params["order_id"],
        taken=taken,
        status=status,
    )
    return json_response(order)


def _capture(simulation: Simulation, call: Call) -> Response:
    """Capture an order. A repeat of the same request gets the same response, another request an error."""
    number = _number_in_path(call.request)
    key, records = Key(call.account.merchant_id, number), _records_of(simulation)
    before = simulation.ledger.find(key, call.now)
    if before is not None and _has_vanished(before):
        return error(404, "RESOURCE_NOT_FOUND", "INVALID_RESOURCE_ID")
    if before is not None and before.status.was_paid and records.captured_by.get(key) != _request_id(call.request):
        return unprocessable("ORDER_ALREADY_CAPTURED")
    if _is_declined(simulation, call, before):
        return unprocessable(simulation.faults.profile.capture_issue)
    paid = simulation.capture(call.account, number, call.now)
    if paid is Refusal.PAYMENT_NOT_EXIST:
        return error(404, "RESOURCE_NOT_FOUND", "INVALID_RESOURCE_ID")
    if isinstance(paid, Refusal):
        return unprocessable("ORDER_NOT_APPROVED" if paid is Refusal.NOT_AGREED else "ORDER_EXPIRED")
    records.captured_by.setdefault(key, _request_id(call.request))
    records.of_capture[paid.transaction_id or ""] = key
    return _order_response(simulation, call, paid, 201)


def _has_vanished(payment: Payment) -> bool:
    return payment.status is PaymentStatus.CLOSED and payment.agreed_at is None


def _is_declined(simulation: Simulation, call: Call, payment: Payment | None) -> bool:
    """Return whether the buyer's card or account brings no money: the approval stays as it is."""
    if payment is None or payment.status is not PaymentStatus.UNPAID or payment.agreed_at is None:
        return False
    return simulation.faults.applies(Fault.CAPTURE_DECLINED, payment.key.number, call.nth)


def _order_response(simulation: Simulation, call: Call, payment: Payment, status: int) -> Response:
    full = call.request.headers.get("prefer") == "return=representation"
    refunds = _refunds_of(simulation, payment)
    return json_response(order_object(payment, refunds, simulation.pay_url(payment), full=full), status)


def _refunds_of(simulation: Simulation, payment: Payment) -> list[Refund]:
    if not payment.status.was_paid:
        return []
    of_merchant = (refund for refund in simulation.ledger.refunds() if refund.merchant_id == payment.merchant_id)
    return [refund for refund in of_merchant if refund.out_trade_no == payment.terms.out_trade_no]


def _refund(simulation: Simulation, call: Call) -> Response:
    try:
        body = decode(call.request.body or b"{}", RefundBody)
    except BadBody:
        return error(400, "INVALID_REQUEST", "MALFORMED_REQUEST_JSON")
    payment = _payment_of_capture(simulation, call)
    if payment is None:
        return error(404, "RESOURCE_NOT_FOUND", "INVALID_RESOURCE_ID")
    requested = body.amount or money(payment.terms.amount - payment.refunded_amount, payment.terms.currency)
    amount = minor(requested)
    if amount is None or requested.currency_code != payment.terms.currency:
        return unprocessable("CURRENCY_MISMATCH" if amount else "DECIMALS_NOT_SUPPORTED")
    refund_no = body.invoice_id or _request_id(call.request)
    refund = simulation.refund(call.account, payment.terms.out_trade_no, refund_no, amount, call.now)
    if isinstance(refund, Refusal):
        exceeded = refund is Refusal.AMOUNT_EXCEEDED
        return unprocessable("REFUND_AMOUNT_EXCEEDED" if exceeded else "DUPLICATE_INVOICE_ID")
    return json_response(refund_object(refund), 201)


def _retrieve_capture(simulation: Simulation, call: Call) -> Response:
    payment = _payment_of_capture(simulation, call)
    if payment is None:
        return error(404, "RESOURCE_NOT_FOUND", "INVALID_RESOURCE_ID")
    return json_response(capture_object(payment))


def _payment_of_capture(simulation: Simulation, call: Call) -> Payment | None:
    records, capture_id = _records_of(simulation), call.request.params["capture_id"]
    if capture_id not in records.of_capture:
        payments = simulation.ledger.payments(call.now)
        records.of_capture = {one.transaction_id: one.key for one in payments if one.transaction_id}
    key = records.of_capture.get(capture_id)
    if key is None or key.merchant_id != call.account.merchant_id:
        return None
    return simulation.ledger.find(key, call.now)


def _retrieve_refund(simulation: Simulation, call: Call) -> Response:
    """Return a refund with the link to its capture."""
    id_, merchant_id = call.request.params["refund_id"], call.account.merchant_id
    mine = (one for one in simulation.ledger.refunds() if one.merchant_id == merchant_id)
    refund = next((one for one in mine if refund_object(one)["id"] == id_), None)
    payment = None if refund is None else simulation.ledger.find(Key(merchant_id, refund.out_trade_no), call.now)
    if refund is None or payment is None:
        return error(404, "RESOURCE_NOT_FOUND", "INVALID_RESOURCE_ID")
    up = f"https://api.sandbox.paypal.com/v2/payments/captures/{payment.transaction_id}"
    return json_response(refund_object(refund) | {"links": [{"href": up, "rel": "up", "method": "GET"}]})


def _verify(_: Simulation, call: Call) -> Response:
    try:
        body = decode(call.request.body, VerifyBody)
    except BadBody:
        return error(400, "VALIDATION_ERROR")
    genuine = is_genuine(wire_of(call.account), body)
    return json_response({"verification_status": "SUCCESS" if genuine else "FAILURE"})


def _certificate(_: Simulation, call: Call) -> Response:
    id_ = call.request.params["id"]
    pem = next(one.pem for one in wire_of(call.account).certificates if one.id == id_)
    return Response(body=pem.encode(), content_type="text/plain")


def _request_id(request: Request) -> str:
    return request.headers.get("paypal-request-id", "")


def _number_in_path(request: Request) -> str:
    return number_in(request.params["order_id"])


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        kind=CallKind.TOKEN,
        method="POST",
        pattern="/v1/oauth2/token",
        number=lambda _: "",
        handle=_token,
    ),
    Operation(
        kind=CallKind.CREATE,
        method="POST",
        pattern="/v2/checkout/orders",
        number=_request_id,
        handle=_create,
    ),
    Operation(
        kind=CallKind.QUERY,
        method="GET",
        pattern="/v2/checkout/orders/{order_id}",
        number=_number_in_path,
        handle=_query,
    ),
    Operation(
        kind=CallKind.CAPTURE,
        method="POST",
        pattern="/v2/checkout/orders/{order_id}/capture",
        number=_number_in_path,
        handle=_capture,
    ),
    Operation(
        kind=CallKind.QUERY,
        method="GET",
        pattern="/v2/payments/captures/{capture_id}",
        number=lambda request: request.params["capture_id"],
        handle=_retrieve_capture,
    ),
    Operation(
        kind=CallKind.REFUND,
        method="POST",
        pattern="/v2/payments/captures/{capture_id}/refund",
        number=_request_id,
        handle=_refund,
    ),
    Operation(
        kind=CallKind.QUERY_REFUND,
        method="GET",
        pattern="/v2/payments/refunds/{refund_id}",
        number=lambda request: request.params["refund_id"],
        handle=_retrieve_refund,
    ),
    Operation(
        kind=CallKind.DISPUTE,
        method="GET",
        pattern="/v1/customer/disputes/{dispute_id}",
        number=lambda request: request.params["dispute_id"],
        handle=show_dispute,
    ),
    Operation(
        kind=CallKind.DISPUTE,
        method="GET",
        pattern="/v1/notifications/webhooks-events/{event_id}",
        number=lambda request: request.params["event_id"],
        handle=show_event,
    ),
    Operation(
        kind=CallKind.UNDELIVERED,
        method="GET",
        pattern="/v1/notifications/webhooks/{webhook_id}",
        number=lambda _: "",
        handle=show_webhook,
    ),
    Operation(
        kind=CallKind.STATEMENT,
        method="GET",
        pattern="/v1/reporting/transactions",
        number=lambda request: "".join(parse_qs(request.query).get("start_date", [])),
        handle=report,
    ),
    Operation(
        kind=CallKind.CERTIFICATES,
        method="POST",
        pattern="/v1/notifications/verify-webhook-signature",
        number=lambda _: "",
        handle=_verify,
    ),
    Operation(
        kind=CallKind.CERTIFICATES,
        method="GET",
        pattern=f"{CERTIFICATES}{{id}}",
        number=lambda request: request.params["id"],
        handle=_certificate,
    ),
)
