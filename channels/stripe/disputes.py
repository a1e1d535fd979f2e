"""Stripe's disputes and failed refunds, as their events show them.

https://docs.stripe.com/api/disputes/object and https://docs.stripe.com/api/refunds/object ; an inquiry (`warning_…`)
moves no money, any other dispute has withdrawn it from the balance until it is won.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Annotated, Literal

import msgspec

from channels.base import RefundState
from channels.stripe.money import from_stripe
from channels.stripe.objects import Id, Refund, Seconds, instant
from core.dispute import DisputeKind, DisputeState
from core.evidence import Disputed, Evidence, Unclear, distinct_ids
from core.money import AMOUNT_MAX

DISPUTE_EVENTS = (
    "charge.dispute.created",
    "charge.dispute.updated",
    "charge.dispute.closed",
    "charge.dispute.funds_withdrawn",
    "charge.dispute.funds_reinstated",
)
REFUND_EVENTS = ("refund.updated", "refund.failed")

_INQUIRY, _CLAIM = DisputeKind.INQUIRY, DisputeKind.CLAIM
_STATES: Mapping[str, tuple[DisputeKind, DisputeState]] = MappingProxyType(
    {
        "warning_needs_response": (_INQUIRY, DisputeState.OPEN),
        "warning_under_review": (_INQUIRY, DisputeState.UNDER_REVIEW),
        "warning_closed": (_INQUIRY, DisputeState.CLOSED),
        "needs_response": (_CLAIM, DisputeState.OPEN),
        "under_review": (_CLAIM, DisputeState.UNDER_REVIEW),
        "won": (_CLAIM, DisputeState.WON),
        "lost": (_CLAIM, DisputeState.LOST),
        # Settled by a refund, which is an event of its own: up to 2020, and since 2025 before it was a dispute.
        "charge_refunded": (_CLAIM, DisputeState.CLOSED),
        "prevented": (_CLAIM, DisputeState.CLOSED),
    }
)


class _Due(msgspec.Struct, frozen=True, kw_only=True):
    due_by: Seconds | None = None


class Dispute(msgspec.Struct, frozen=True, kw_only=True):
    """`due_by` is 0 where the bank takes no answer."""

    id: Id
    object: Literal["dispute"]
    livemode: bool
    amount: Annotated[int, msgspec.Meta(ge=0, le=AMOUNT_MAX)]
    currency: Annotated[str, msgspec.Meta(pattern=r"\A[a-z]{3}\Z")]
    created: Seconds
    charge: Id
    payment_intent: Id | None = None
    reason: Annotated[str, msgspec.Meta(max_length=64)] = ""
    status: Literal[
        "warning_needs_response",
        "warning_under_review",
        "warning_closed",
        "needs_response",
        "under_review",
        "won",
        "lost",
        "charge_refunded",
        "prevented",
    ]
    evidence_details: _Due = _Due()


def dispute_evidence(dispute: Dispute, *, account: str, at: datetime) -> Disputed:
    """Evidence of a dispute at the time of its event."""
    kind, state = _STATES[dispute.status]
    currency, due_by = dispute.currency.upper(), dispute.evidence_details.due_by
    reference = dispute.payment_intent or dispute.charge
    return Disputed(
        channel_account=account,
        out_trade_no=reference,
        ids=distinct_ids(reference, dispute.charge),
        channel_transaction_id=reference,
        dispute_id=dispute.id,
        dispute_kind=kind,
        state=state,
        disputed_amount=from_stripe(dispute.amount, currency),
        disputed_currency=currency,
        dispute_reason=dispute.reason,
        outcome=dispute.status if state.is_final else "",
        respond_by=instant(due_by) if due_by else None,
        opened_at=instant(dispute.created),
        changed_at=at,
    )


def refund_evidence(refund: Refund, *, account: str, at: datetime) -> Evidence:
    """Evidence of a refund that failed, also after it had succeeded; any other one only starts a query."""
    ids = refund.ids
    if refund.status is None or refund.state is not RefundState.FAILED:
        return Unclear(
            channel_account=account,
            out_trade_no=ids[0],
            ids=ids,
            reason="refund_told",
            refund_no=refund.refund_no or None,
            channel_refund_no=refund.id,
        )
    currency = refund.currency.upper()
    return Disputed(
        channel_account=account,
        out_trade_no=ids[0],
        ids=ids,
        channel_transaction_id=refund.payment_intent,
        dispute_id=refund.id,
        dispute_kind=DisputeKind.REFUND,
        state=DisputeState.LOST,
        disputed_amount=from_stripe(refund.amount, currency),
        disputed_currency=currency,
        dispute_reason=refund.failure_reason or "",
        outcome=refund.status,
        changed_at=at,
    )
