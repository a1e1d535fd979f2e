"""PayPal's disputes and reversals. https://developer.paypal.com/docs/api/customer-disputes/v1/"""

from __future__ import annotations

from collections.abc import Iterable
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


def taken_of(disputes: Iterable[Dispute], payment: Payment) -> tuple[list[dict[str, Any]], str | None]:
    """Return the refunds as which reversals are booked, and the status of the capture because of disputes.

    A claim makes it PARTIALLY_REFUNDED while it is open, and COMPLETED again when the merchant wins it, which gives
    back what was reversed. https://github.com/paypal/Checkout-NodeJS-SDK/issues/31
    """
    claims = [dispute for dispute in disputes if dispute.kind in ("claim", "reversal")]
    won_at = max((claim.changed_at for claim in claims if claim.state in ("won", "closed")), default=None)
    reversals = [
        claim for claim in claims if claim.kind == "reversal" and (won_at is None or claim.changed_at > won_at)
    ]
    is_withheld = any(claim.state in ("open", "under_review", "lost") for claim in claims if claim.kind == "claim")
    gone = sum(reversal.amount for reversal in reversals)
    if gone >= payment.terms.amount:
        status: str | None = "REFUNDED"
    else:
        status = "PARTIALLY_REFUNDED" if reversals or is_withheld else None
    return [reversal_object(reversal, payment) for reversal in reversals], status


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


def show_webhook(_: Simulation, call: Call) -> Response:
    wire = wire_of(call.account)
    if call.request.params["webhook_id"] != wire.webhook_id:
        return error(404, "RESOURCE_NOT_FOUND", "INVALID_RESOURCE_ID")
    events = [{"name": name, "status": "ENABLED"} for name in wire.events]
    return json_response({"id": wire.webhook_id, "url": call.account.callback_url, "event_types": events})
