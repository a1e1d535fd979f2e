"""Stripe's disputes and failed refunds. https://docs.stripe.com/api/disputes/object"""

from __future__ import annotations

from simulator.kernel.disputes import Dispute
from simulator.kernel.ledger import Payment
from simulator.stripe.wire import Object, charge_id, intent_id, units

_INQUIRY = {"open": "warning_needs_response", "under_review": "warning_under_review", "closed": "warning_closed"}
_CLAIM = {"open": "needs_response", "under_review": "under_review", "won": "won", "lost": "lost", "closed": "prevented"}


def dispute_type_and_object(dispute: Dispute, payment: Payment) -> tuple[str, Object]:
    """Return the event's type and its object. Stripe has no reversals without a dispute."""
    if dispute.kind == "refund":
        return "refund.failed", _refund(dispute, payment)
    is_over = dispute.state in ("won", "lost", "closed")
    name = "closed" if is_over else "created" if dispute.sequence == 1 else "updated"
    return f"charge.dispute.{name}", _dispute(dispute, payment)


def _dispute(dispute: Dispute, payment: Payment) -> Object:
    number = payment.terms.out_trade_no
    return {
        "id": f"du_{dispute.dispute_id}",
        "object": "dispute",
        "amount": units(dispute.amount, dispute.currency),
        "balance_transactions": [],
        "charge": charge_id(number),
        "created": int(dispute.opened_at.timestamp()),
        "currency": dispute.currency.lower(),
        "evidence_details": {
            "due_by": None if dispute.respond_by is None else int(dispute.respond_by.timestamp()),
            "has_evidence": dispute.state == "under_review",
            "past_due": False,
            "submission_count": 0,
        },
        "is_charge_refundable": dispute.kind == "inquiry",
        "livemode": False,
        "metadata": {},
        "payment_intent": intent_id(number),
        "reason": dispute.reason or "general",
        "status": (_INQUIRY if dispute.kind == "inquiry" else _CLAIM)[dispute.state],
    }


def _refund(dispute: Dispute, payment: Payment) -> Object:
    number = payment.terms.out_trade_no
    return {
        "id": f"re_{dispute.dispute_id}",
        "object": "refund",
        "amount": units(dispute.amount, dispute.currency),
        "charge": charge_id(number),
        "created": int(dispute.opened_at.timestamp()),
        "currency": dispute.currency.lower(),
        "failure_reason": dispute.reason or "lost_or_stolen_card",
        "metadata": {},
        "payment_intent": intent_id(number),
        "status": "failed",
    }
