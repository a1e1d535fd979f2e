"""The end of a payment without money: when a verified answer is definite."""

from __future__ import annotations

from datetime import datetime, timedelta

from core.evidence import Approved, Closed, Evidence, Missing, Unpaid
from core.lifecycle.capturing import is_over_by_giving_up
from core.lifecycle.rules import Rules
from core.order import Origin, Payment


def is_definitely_unpaid(payment: Payment, evidence: Evidence, rules: Rules, now: datetime) -> bool:
    """Whether the evidence says that this payment has no money and never will have.

    A verified *missing* or *unpaid* says so only when the channel can no longer take money (`payable_until` and the
    margin have passed, and a close was attempted), when the payment is given up for capture, or, *missing* alone, when
    the channel had refused to create it or its checkout is gone. Money that is under way is waited for however long it
    takes.
    """
    match evidence:
        case Closed():
            return True
        case Missing() if payment.refused_at is not None or _is_checkout_gone(payment, rules, now):
            return True
        case Unpaid(under_way=True):
            return False
        case Missing() | Unpaid() | Approved():
            over = now - timedelta(seconds=rules.payable_margin_s) >= payment.payable_until
            is_closed = payment.close_attempted_at is not None or payment.origin is Origin.WATCHED
            return (over and is_closed) or is_over_by_giving_up(payment, rules, now)
    return False


def _is_checkout_gone(payment: Payment, rules: Rules, now: datetime) -> bool:
    """Whether a payment that creation had made, and that is *missing* now, has ended with its checkout.

    Never where the buyer's first look makes it: there an unused code is missing and can still be paid.
    """
    ends_at = payment.checkout_ends_at
    if not rules.checkouts.exists_once_created or payment.checkout is None or ends_at is None:
        return False
    return now - timedelta(seconds=rules.payable_margin_s) >= ends_at
