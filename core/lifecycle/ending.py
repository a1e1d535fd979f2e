"""The end of a payment without money: when a verified answer is definite, and when money may still come."""

from __future__ import annotations

from datetime import datetime, timedelta

from core.evidence import Approved, Closed, Evidence, Missing, Unpaid
from core.lifecycle.capturing import is_over_by_giving_up
from core.lifecycle.rules import Rules
from core.order import Origin, Payment

UNKNOWN_END_AFTER = timedelta(days=30)
"""So long a watched payment whose channel names no end (a PaymentIntent) is asked as one that may be paid."""


def is_definitely_unpaid(payment: Payment, evidence: Evidence, rules: Rules, now: datetime) -> bool:
    """Whether the evidence says that this payment has no money and never will have.

    A verified *missing* or *unpaid* says so only when the channel can no longer take money (`payable_until` and the
    margin have passed, and a close was attempted), when the payment is given up for capture, or, *missing* alone, when
    the channel had refused to create it or its checkout is gone. Money that is under way is waited for however long it
    takes. A watched payment ends by the channel's own end, or with its longest window; where neither is known, only by
    *closed*, or by *missing* a day after its watch began.
    """
    match evidence:
        case Closed():
            return True
        case Missing() if payment.refused_at is not None or _is_checkout_gone(payment, rules, now):
            return True
        case Unpaid(under_way=True):
            return False
        case Missing() | Unpaid() | Approved():
            is_closed = payment.close_attempted_at is not None or payment.origin is Origin.WATCHED
            return (is_closed and is_over(payment, evidence, rules, now)) or is_over_by_giving_up(payment, rules, now)
    return False


def is_payable(payment: Payment, evidence: Evidence | None, rules: Rules, now: datetime) -> bool:
    """Whether the channel's answer about this payment says that money is under way or may still come.

    A watched payment without a known end is called payable for `UNKNOWN_END_AFTER` only; then a person looks.
    """
    if isinstance(evidence, Unpaid) and evidence.under_way:
        return True
    if not isinstance(evidence, Unpaid | Approved | Missing) or is_over(payment, evidence, rules, now):
        return False
    is_endless = payment.origin is Origin.WATCHED and not payment.has_known_end
    return not is_endless or now < payment.created_at + UNKNOWN_END_AFTER


def is_over(payment: Payment, evidence: Evidence, rules: Rules, now: datetime) -> bool:
    """Whether the last moment for money and the margin to report it have passed.

    A watched payment without a known end is over once its channel, a day after the watch began, does not know it.
    """
    if isinstance(evidence, Missing) and payment.origin is Origin.WATCHED and not payment.has_known_end:
        return now >= payment.created_at + timedelta(seconds=rules.backoff.day_s)
    return now - timedelta(seconds=rules.payable_margin_s) >= end_of(payment, evidence)


def end_of(payment: Payment, evidence: Evidence) -> datetime:
    """The last moment for money. Of a payment made elsewhere the channel's answer knows better than what was told."""
    named = evidence.payable_until if isinstance(evidence, Unpaid) else None
    return named if named is not None and payment.origin is Origin.WATCHED else payment.payable_until


def _is_checkout_gone(payment: Payment, rules: Rules, now: datetime) -> bool:
    """Whether a payment that creation had made, and that is *missing* now, has ended with its checkout.

    Never where the buyer's first look makes it: there an unused code is missing and can still be paid.
    """
    ends_at = payment.checkout_ends_at
    if not rules.checkouts.exists_once_created or payment.checkout is None or ends_at is None:
        return False
    return now - timedelta(seconds=rules.payable_margin_s) >= ends_at
