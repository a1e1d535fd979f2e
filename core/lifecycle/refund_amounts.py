"""Amounts of one payment that went back or are on their way: by refunds of ours, or at the channel without us.

Several refunds of ours may be under way at once, and many channels tell a total and no parts. So what a total holds
beyond our own refunds is kept when one of ours is requested, and grows with every larger total. An amount that is
too small here costs nothing: the channel refuses what exceeds the payment.
"""

from __future__ import annotations

from msgspec.structs import replace

from core.order import OrderState, Payment, PaymentKey, RefundStatus

UNNUMBERED = ""
"""Key of `Payment.channel_refunds` of the sum that is nobody's: beyond our refunds, and no number was told."""


def is_going_back(state: OrderState, key: PaymentKey) -> bool:
    """Whether we have requested money of this payment to go back, and that has not failed."""
    return any(refund.status is not RefundStatus.FAILED for refund in state.refunds_of(key))


def succeeded_amount(state: OrderState, key: PaymentKey) -> int:
    """Minor units that refunds of ours have given back."""
    refunds = state.refunds_of(key)
    return sum(refund.amount for refund in refunds if refund.status is RefundStatus.SUCCEEDED)


def promised_amount(state: OrderState, key: PaymentKey) -> int:
    """Minor units of all refunds of ours that have not failed."""
    return sum(refund.amount for refund in state.refunds_of(key) if refund.status is not RefundStatus.FAILED)


def outside_amount(state: OrderState, payment: Payment) -> int:
    """Minor units that are known to have gone back at the channel without a refund of ours."""
    listed = sum(payment.channel_refunds.values())
    return max(listed, (payment.refunded_amount or 0) - promised_amount(state, payment.key))


def refundable_amount(state: OrderState, payment: Payment) -> int | None:
    """Minor units that could still be requested: neither gone nor on their way; None: nobody knows what is left."""
    if payment.refunded_amount is None:
        return None
    promised = promised_amount(state, payment.key)
    gone = max(payment.refunded_amount, outside_amount(state, payment) + promised)
    return max(0, payment.amount - gone)


def with_outside(state: OrderState, payment: Payment, before: Payment | None = None) -> Payment:
    """The payment with what its sum holds beyond refunds of ours. `before`: as it was before singles were added, for
    a single that is told by its number now was nobody's until then.
    """
    listed = {number: amount for number, amount in payment.channel_refunds.items() if number != UNNUMBERED}
    known = sum(listed.values())
    told_now = known - _listed(payment if before is None else before)
    left = payment.channel_refunds.get(UNNUMBERED, 0) - told_now
    beyond = (payment.refunded_amount or 0) - promised_amount(state, payment.key) - known
    unnumbered = max(0, left, beyond)
    return replace(payment, channel_refunds=listed | ({UNNUMBERED: unnumbered} if unnumbered else {}))


def _listed(payment: Payment) -> int:
    return sum(amount for number, amount in payment.channel_refunds.items() if number != UNNUMBERED)
