"""Stripe's objects, made from the ledger and complete; `wire.expanded` reduces nested objects to ids."""

from __future__ import annotations

from datetime import datetime

from simulator.kernel.ledger import Payment, PaymentStatus, Refund, RefundStatus, Row
from simulator.stripe.wire import Object, charge_id, intent_id, refund_id, session_id, units

SESSION = "checkout.session"
INTENT = "payment_intent"


def kind_of(payment: Payment) -> str:
    """Return the kind of object as which the payment was created."""
    kind: str = payment.terms.wire.get("object", SESSION)
    return kind


def has_intent(payment: Payment) -> bool:
    """Return whether there is a PaymentIntent; a session has one from the buyer's first look."""
    return kind_of(payment) == INTENT or payment.status.was_paid or payment.opened_at is not None


def charge_object(payment: Payment) -> Object:
    terms, number = payment.terms, payment.terms.out_trade_no
    amount, refunded = (units(sum_, terms.currency) for sum_ in (terms.amount, payment.refunded_amount))
    return {
        "id": charge_id(number),
        "object": "charge",
        "amount": amount,
        "amount_captured": amount,
        "amount_refunded": refunded,
        "captured": True,
        "created": _seconds(payment.paid_at or payment.created_at),
        "currency": terms.currency.lower(),
        "description": terms.subject,
        "livemode": False,
        "metadata": _metadata(payment),
        "paid": True,
        "payment_intent": intent_id(number),
        "refunded": refunded == amount,
        "status": "succeeded",
    }


def intent_object(payment: Payment) -> Object:
    terms, number = payment.terms, payment.terms.out_trade_no
    amount, was_paid = units(terms.amount, terms.currency), payment.status.was_paid
    return {
        "id": intent_id(number),
        "object": INTENT,
        "amount": amount,
        "amount_capturable": 0,
        "amount_received": amount if was_paid else 0,
        "canceled_at": None if payment.closed_at is None or was_paid else _seconds(payment.closed_at),
        "capture_method": "automatic_async",
        "client_secret": f"{intent_id(number)}_secret_{payment.token}",
        "created": _seconds(payment.created_at),
        "currency": terms.currency.lower(),
        "description": terms.subject,
        "latest_charge": charge_object(payment) if was_paid else None,
        "livemode": False,
        "metadata": _metadata(payment),
        "status": _intent_status(payment),
    }


def session_object(payment: Payment, pay_url: str) -> Object:
    terms, number = payment.terms, payment.terms.out_trade_no
    amount = units(terms.amount, terms.currency)
    is_open = payment.status is PaymentStatus.UNPAID and payment.agreed_at is None
    is_expired = payment.status is PaymentStatus.CLOSED
    return {
        "id": session_id(number),
        "object": SESSION,
        "amount_subtotal": amount,
        "amount_total": amount,
        "cancel_url": terms.wire.get("cancel_url"),
        "client_reference_id": _client_reference_id(payment),
        "created": _seconds(payment.created_at),
        "currency": terms.currency.lower(),
        "expires_at": _seconds(terms.expires_at),
        "livemode": False,
        "metadata": _metadata(payment),
        "mode": "payment",
        "payment_intent": intent_object(payment) if has_intent(payment) else None,
        "payment_status": "paid" if payment.status.was_paid else "unpaid",
        "status": "open" if is_open else "expired" if is_expired else "complete",
        "success_url": terms.return_url,
        "url": pay_url if is_open else None,
    }


def refund_object(refund: Refund) -> Object:
    """Return a refund with nodrop's metadata; the ledger has no others."""
    is_named = not refund.refund_no.startswith("re_")
    status = {RefundStatus.PROCESSING: "pending", RefundStatus.SUCCEEDED: "succeeded", RefundStatus.FAILED: "failed"}
    return {
        "id": refund_id(refund.refund_no),
        "object": "refund",
        "amount": units(refund.amount, refund.currency),
        "charge": charge_id(refund.out_trade_no),
        "created": _seconds(refund.created_at),
        "currency": refund.currency.lower(),
        "metadata": {"refund_no": refund.refund_no, "out_trade_no": refund.out_trade_no} if is_named else {},
        "payment_intent": intent_id(refund.out_trade_no),
        "status": status[refund.status],
    }


def transaction_object(row: Row | tuple[str, ...]) -> Object:
    """Return a line of the balance. A malformed one has no source."""
    kind, number, *_ = row
    if not isinstance(row, Row):
        return {"id": f"txn_{number}", "object": "balance_transaction", "type": "charge", "created": 0, "source": None}
    is_refund = kind == "refund"
    amount, currency = units(row.amount, row.currency), row.currency.lower()
    source: Object = {
        "id": refund_id(row.refund_no) if is_refund else charge_id(number),
        "object": "refund" if is_refund else "charge",
        "amount": amount,
        "created": _seconds(row.at),
        "currency": currency,
        "metadata": {} if number.startswith(("cs_", "pi_")) else {"out_trade_no": number},
        "payment_intent": row.transaction_id,
        "status": "succeeded",
    }
    if is_refund:
        source["metadata"] |= {"refund_no": row.refund_no}
    else:
        source |= {"amount_captured": amount, "amount_refunded": 0, "livemode": False, "paid": True}
    signed = -amount if is_refund else amount
    return {
        "id": f"txn_{source['id']}",
        "object": "balance_transaction",
        "amount": signed,
        "created": _seconds(row.at),
        "currency": currency,
        "fee": 0,
        "net": signed,
        "source": source,
        "status": "available",
        "type": kind if is_refund else "charge",
    }


def _metadata(payment: Payment) -> dict[str, str]:
    wire, number = payment.terms.wire, payment.terms.out_trade_no
    named = {"out_trade_no": number} if "metadata" in wire.get("named_in", ("metadata",)) else {}
    return {**wire.get("metadata", {}), **named}


def _client_reference_id(payment: Payment) -> str | None:
    wire = payment.terms.wire
    is_number = "client_reference_id" in wire.get("named_in", ("client_reference_id",))
    reference: str | None = payment.terms.out_trade_no if is_number else wire.get("client_reference_id")
    return reference


def _intent_status(payment: Payment) -> str:
    if payment.status.was_paid:
        return "succeeded"
    if payment.status is PaymentStatus.CLOSED:
        return "canceled"
    return "requires_payment_method" if payment.agreed_at is None else "processing"


def _seconds(at: datetime) -> int:
    return int(at.timestamp())
