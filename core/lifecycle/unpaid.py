"""Payments beside which another one may be started, or captured: the channel has just called them free of money."""

from __future__ import annotations

from core.evidence import Approved, Closed, Evidence, Missing, Unpaid
from core.lifecycle.capturing import is_uncaptured
from core.lifecycle.judging import mismatch
from core.order import Origin, Payment


def is_verified_unpaid(payment: Payment, evidence: Evidence) -> bool:
    """Whether the buyer may be sent to pay another way: the channel says, of this very payment, that no money came and
    none is under way. Doubt (an approval, no clear answer) is not unpaid; an approval that is not captured is.
    """
    if isinstance(evidence, Unpaid) and evidence.under_way:
        return False
    if isinstance(evidence, Approved):
        return is_uncaptured(payment) and mismatch(payment, evidence) is None
    return isinstance(evidence, Unpaid | Missing | Closed) and mismatch(payment, evidence) is None


def is_free_of_money(payment: Payment, evidence: Evidence) -> bool:
    """Whether another payment of the order may be captured beside it: it is unpaid, or approved and only we could
    capture it, and no capture was requested.
    """
    if isinstance(evidence, Approved) and payment.origin is Origin.OURS and payment.capture_requested_at is None:
        return mismatch(payment, evidence) is None
    return is_verified_unpaid(payment, evidence)
