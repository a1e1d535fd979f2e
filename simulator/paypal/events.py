"""PayPal's events: what each callback says, and PayPal's own copy of it, which the app can read again.

https://developer.paypal.com/docs/api/webhooks/v1/#webhooks-events_get
"""

from __future__ import annotations

from typing import Any

from simulator.kernel.base import Event, EventType
from simulator.kernel.dispatch import Call
from simulator.kernel.ledger import Payment
from simulator.kernel.simulation import Simulation
from simulator.kit.asgi import Response, json_response
from simulator.paypal.disputes import dispute_message
from simulator.paypal.wire import capture_object, error, instant, order_id, order_object, refund_object, unit_object


def message_of(event: Event, pay_url: str) -> dict[str, Any]:
    event_type, kind, resource = _content(event, pay_url)
    return {
        "id": event.callback_id,
        "event_version": "1.0",
        "create_time": instant(event.created_at),
        "resource_type": kind,
        "event_type": event_type,
        "resource_version": "2.0",
        "resource": resource,
    }


def show_event(simulation: Simulation, call: Call) -> Response:
    """Return an event about a dispute or a reversal; nobody reads the others again."""
    event = simulation.dispute_events.get(call.request.params["event_id"])
    if event is None or event.payment.merchant_id != call.account.merchant_id:
        return error(404, "INVALID_RESOURCE_ID")
    return json_response(message_of(event, simulation.pay_url(event.payment)))


def _content(event: Event, pay_url: str) -> tuple[str, str, dict[str, Any]]:
    """Return event type, resource type and resource."""
    payment, refund = event.payment, event.refund
    if event.dispute is not None:
        return dispute_message(event.dispute, payment)
    if event.type is EventType.PAYMENT_AGREED:
        return "CHECKOUT.ORDER.APPROVED", "checkout-order", order_object(payment, (), pay_url)
    if event.type is EventType.APPROVAL_REVERSED:
        return "CHECKOUT.PAYMENT-APPROVAL.REVERSED", "checkout-order", _reversed_approval(payment)
    if refund is not None:
        return "PAYMENT.CAPTURE.REFUNDED", "refund", refund_object(refund)
    return "PAYMENT.CAPTURE.COMPLETED", "capture", capture_object(payment) | {"payee": unit_object(payment)["payee"]}


def _reversed_approval(payment: Payment) -> dict[str, Any]:
    """https://developer.paypal.com/docs/checkout/apm/reference/handle-uncaptured-payments/"""
    return {"order_id": order_id(payment.terms.out_trade_no), "purchase_units": [unit_object(payment)]}
