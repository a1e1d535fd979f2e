"""The public status of an order, and its phase: what that leaves open for the buyer.

A status is for everybody and its words stay. A phase says more: the page waits for the buyer, or money goes back.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

from core import paying
from core.lifecycle.refund_amounts import refundable_amount
from core.order import (
    CaseReason,
    OrderState,
    Payment,
    PaymentStatus,
    PublicStatus,
    Refund,
    RefundStatus,
    public_status,
)


class Phase(StrEnum):
    """Phases of a page. waiting: for the buyer to pay. going_back: money that came too late is being refunded."""

    CREATED = "created"
    WAITING = "waiting"
    PROCESSING = "processing"
    PAID = "paid"
    CLOSED = "closed"
    GOING_BACK = "going_back"
    REVIEW = "review"
    REFUNDED = "refunded"
    DISPUTED = "disputed"


class Returned(msgspec.Struct, frozen=True, kw_only=True):
    """Money that came late or twice and goes back, in minor units. `settled_at`: when the last of it had gone back."""

    amount: int
    currency: str
    since: datetime
    settled_at: datetime | None
    is_second: bool


_OTHER_MONEY = frozenset({CaseReason.AMOUNT_MISMATCH, CaseReason.CURRENCY_MISMATCH})
"""Money has come that is not what the order asks for: the buyer has paid something, and a person looks at it."""


def phase_of(state: OrderState) -> Phase:
    status = public_status(state.order, state.payments, state.disputes)
    if status is PublicStatus.REVIEW and _all_goes_back(state):
        return Phase.GOING_BACK
    has_other_money = any(reason in _OTHER_MONEY for _, reason in state.open_cases)
    if has_other_money and (status is PublicStatus.CLOSED or not status.is_definite):
        return Phase.REVIEW
    if status.is_definite or status is PublicStatus.REVIEW:
        return Phase(status)
    return Phase.WAITING if paying.is_waiting(state) and paying.choice(state) else Phase(status)


def returned_money(state: OrderState) -> Returned | None:
    """The money of this order that we send back; a refund that failed does not count, for a person decides about it."""
    refunds = [refund for refund in state.refunds if _is_on_its_way(refund) and refund.key != state.order.paid_by]
    if not refunds:
        return None
    settled = [refund.settled_at for refund in refunds if refund.settled_at is not None]
    return Returned(
        amount=sum(refund.amount for refund in refunds),
        currency=refunds[0].currency,
        since=min(refund.requested_at for refund in refunds),
        settled_at=max(settled) if len(settled) == len(refunds) else None,
        is_second=state.order.paid_by is not None,
    )


def _is_on_its_way(refund: Refund) -> bool:
    return refund.status is not RefundStatus.FAILED


def _all_goes_back(state: OrderState) -> bool:
    """Whether each payment whose money is still there has a refund under way."""
    left = [row for row in state.payments if row.status is PaymentStatus.PAID and row.remaining_amount != 0]
    return bool(left) and all(_goes_back(state, row) for row in left)


def _goes_back(state: OrderState, payment: Payment) -> bool:
    return any(map(_is_on_its_way, state.refunds_of(payment.key))) and not refundable_amount(state, payment)
