"""PayPal's disputes and reversals. https://developer.paypal.com/docs/api/customer-disputes/v1/"""

from __future__ import annotations

from typing import Any

from simulator.kernel.dispatch import Call
from simulator.kernel.disputes import Dispute
from simulator.kernel.ledger import Payment
from simulator.kernel.simulation import Simulation
from simulator.kit.asgi import Response, json_response
from simulator.paypal.keys import wire_of
from simulator.paypal.wire import error, instant, money

_STATUS = {"open": "WAITING_FOR_SELLER_RESPONSE", "under_review": "UNDER_REVIEW"}
_OUTCOME = {"won": "RESOLVED_SELLER_FAVOUR", "lost": "RESOLVED_BUYER_FAVOUR", "closed": "CANCELED_BY_BUYER"}


def dispute_message(dispute: Dispute, payment: Payment) -> tuple[str, str, dict[str, Any]]:
    """Return event type, resource type and resource. A reversal is booked as a refund below its capture."""
    if dispute.kind == "reversal":
        return "PAYMENT.CAPTURE.REVERSED", "refund", reversal_object(dispute, payment)
    name = "RESOLVED" if dispute.state in _OUTCOME else "CREATED" if dispute.sequence == 1 else "UPDATED"
    return f"CUSTOMER.DISPUTE.{name}", "dispute", dispute_object(dispute, payment)


def dispute_object(dispute: Dispute, payment: Payment) -> dict[str, Any]:
    outcome = _OUTCOME.get(dispute.state)
    fields: dict[str, Any] = {
        "dispute_id": f"PP-R-{dispute.dispute_id}",
        "create_time": instant(dispute.opened_at),
        "update_time": instant(dispute.changed_at),
        "disputed_transactions": [
            {
                "seller_transaction_id": payment.transaction_id,
                "seller": {"merchant_id": payment.merchant_id},
                "items": [],
                "seller_protection_eligible": True,
            }
        ],
        "reason": dispute.reason or "MERCHANDISE_OR_SERVICE_NOT_RECEIVED",
        "status": _STATUS.get(dispute.state, "RESOLVED"),
        "dispute_amount": money(dispute.amount, dispute.currency),
        "dispute_life_cycle_stage": "INQUIRY" if dispute.kind == "inquiry" else "CHARGEBACK",
    }
    if outcome is not None:
        fields["dispute_outcome"] = {"outcome_code": outcome}
    if dispute.respond_by is not None:
        fields["seller_response_due_date"] = instant(dispute.respond_by)
    return fields


def reversal_object(dispute: Dispute, payment: Payment) -> dict[str, Any]:
    captures = "https://api.sandbox.paypal.com/v2/payments/captures"
    return {
        "id": f"REV{dispute.dispute_id}",
        "amount": money(dispute.amount, dispute.currency),
        "note_to_payer": "Payment reversed",
        "status": "COMPLETED",
        "create_time": instant(dispute.changed_at),
        "links": [{"href": f"{captures}/{payment.transaction_id}", "rel": "up", "method": "GET"}],
    }


def show_dispute(simulation: Simulation, call: Call) -> Response:
    found = simulation.find_dispute(call.account, call.request.params["dispute_id"].removeprefix("PP-R-"))
    if found is None:
        return error(404, "RESOURCE_NOT_FOUND", "INVALID_RESOURCE_ID")
    return json_response(dispute_object(*found))


def show_refund(simulation: Simulation, call: Call) -> Response:
    """Return a reversal; refunds of the merchant are read with their order."""
    found = simulation.find_dispute(call.account, call.request.params["refund_id"].removeprefix("REV"))
    if found is None:
        return error(404, "RESOURCE_NOT_FOUND", "INVALID_RESOURCE_ID")
    return json_response(reversal_object(*found))


def show_webhook(_: Simulation, call: Call) -> Response:
    wire = wire_of(call.account)
    if call.request.params["webhook_id"] != wire.webhook_id:
        return error(404, "RESOURCE_NOT_FOUND", "INVALID_RESOURCE_ID")
    events = [{"name": name, "status": "ENABLED"} for name in wire.events]
    return json_response({"id": wire.webhook_id, "url": call.account.callback_url, "event_types": events})
