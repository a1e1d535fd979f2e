"""Payments that are left over: open although their order is resolved, so that nobody is to pay with them any more."""

from __future__ import annotations

from core.evidence import Approved, Evidence, Unpaid
from core.order import OrderState, Origin, Payment, PaymentStatus


def is_to_close(state: OrderState, payment: Payment, evidence: Evidence, *, is_scheduled: bool) -> bool:
    """Whether the channel of a left-over payment is to close it, now that a query has found it without money.

    It is asked once by any query, and again by every scheduled one that still finds the payment there to be paid: a
    channel may not have known it, or may not have ended it, when it was asked the first time.
    """
    if not state.order.is_resolved or payment.status is not PaymentStatus.OPEN or payment.origin is not Origin.OURS:
        return False
    if payment.close_attempted_at is None:
        return True
    can_be_paid = isinstance(evidence, Approved) or (isinstance(evidence, Unpaid) and not evidence.under_way)
    return is_scheduled and can_be_paid
