"""Money that a channel takes only on our capture: when it is captured, what a refusal ends, and what giving up means.

Two payments of an order must not both take money. A capture claims the order's version, and so does the start of
another payment: whichever is second decides again, and sees `capture_requested_at` or the new payment.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from types import MappingProxyType

import msgspec
from msgspec.structs import replace

from core.decision import Change, Decision, Event, Outcome
from core.evidence import APPROVAL_HINT, Approved, Evidence, Lapsed, Missing, Source, Unclear, Unpaid, kind_of
from core.lifecycle.rules import MISMATCHES, Rules
from core.order import OrderState, Origin, Payment, PaymentKey, PaymentStatus

Queried = Mapping[PaymentKey, datetime | None]
"""Payments that their channels have just called free of money → `capture_requested_at` at that time."""


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """Facts besides the evidence that a capture depends on.

    `queried`: the order's other payments that were asked before this capture. `is_new`: the buyer has come back, or
    approved anew, so that a refused capture may be tried again. `lapsed`: the channel's message that it has ended the
    approval.
    """

    queried: Queried = MappingProxyType({})
    is_new: bool = False
    lapsed: Lapsed | None = None


NOTHING_QUERIED = Approval()


def may_capture(state: OrderState, payment: Payment, approval: Approval) -> bool:
    """Never the money of an order that is paid, closed or over its time, nor of a payment that is not ours or given up.

    A definite refusal ends the approval. While another payment of the order is doubted (amount, number, …), or may have
    money (nobody knows how much went back, or it is disputed), none is captured: a person looks first.
    """
    order = state.order
    if order.is_resolved or state.now >= order.expires_at or payment.origin is not Origin.OURS:
        return False
    if payment.given_up_at is not None or (payment.capture_refused_at is not None and not approval.is_new):
        return False
    if any(row.status is PaymentStatus.PAID and row.remaining_amount != 0 for row in state.payments):
        return False
    return not any(reason in MISMATCHES for _, reason in state.open_cases)


def to_query_first(state: OrderState, payment: Payment, queried: Queried) -> tuple[PaymentKey, ...]:
    """The order's other open payments that have to be asked before this one is captured."""
    others = (row for row in state.open_payments() if row.key != payment.key)
    return tuple(row.key for row in others if row.key not in queried or is_claimed(row, queried))


def is_claimed(payment: Payment, queried: Queried) -> bool:
    """Whether a capture of this payment was requested after it had been asked."""
    return payment.key in queried and payment.capture_requested_at != queried[payment.key]


def capture(state: OrderState, payment: Payment, evidence: Approved, by: Source) -> Decision:
    """The buyer agreed, and the channel takes the money on request.

    The decision is written first, under the order's version: a payment, a close or the start of another payment that is
    faster wins, and then nothing is captured.
    """
    change = Change(
        order=state.order.next_version(),
        event=Event(kind=Outcome.CAPTURE_REQUESTED, by=by, key=payment.key, evidence=evidence),
        payments=(replace(payment, capture_requested_at=state.now, capture_refused_at=None),),
    )
    return Decision(outcome=Outcome.CAPTURE_REQUESTED, change=change, capture=(payment.key,))


def on_capture_refused(state: OrderState, captured: Payment, code: str, by: Source) -> Decision:
    """A definite refusal ends the approval: no capture until the buyer approves anew or comes back.

    `captured` is the payment as its capture was requested; after another request the refusal says nothing.
    """
    payment = state.payment(captured.key)
    if payment is None:
        return Decision(outcome=Outcome.UNKNOWN_PAYMENT)
    is_answered = payment.status is not PaymentStatus.OPEN or payment.capture_refused_at is not None
    if is_answered or payment.capture_requested_at != captured.capture_requested_at:
        return Decision(outcome=Outcome.NOTHING_NEW)
    change = Change(
        order=state.order.next_version(),
        event=Event(kind=Outcome.CAPTURE_REFUSED, by=by, key=payment.key, note=code),
        payments=(replace(payment, capture_refused_at=state.now),),
    )
    return Decision(outcome=Outcome.CAPTURE_REFUSED, change=change)


def is_approval_over(state: OrderState, payment: Payment, evidence: Evidence) -> bool:
    """Whether the answer to a query bears out the channel's message that it has ended the approval: it no longer knows
    the payment that it had made, or calls it unpaid after it had called it approved. Otherwise the message changes
    nothing: it may not be wholly signed, and the buyer may have approved anew.
    """
    if payment.capture_refused_at is not None and _has_ended(payment, state.now):
        return False
    match evidence:
        case Missing():
            return payment.checkout is not None
        case Unpaid(under_way=False):
            return payment.capture_requested_at is not None
    return False


def on_approval_ended(state: OrderState, payment: Payment, lapsed: Lapsed, answer: Evidence, by: Source) -> Decision:
    """Nobody captured in time: the checkout is over, and the next start of a payment asks the buyer for a new approval.

    The payment stays open until its end is definite; an approval after this one can be captured.
    """
    at = "" if lapsed.at is None else f" at {lapsed.at.isoformat()}"
    note = f"the channel ended it{at}; its answer to the query: {kind_of(answer)}"
    change = Change(
        order=state.order.next_version(),
        event=Event(kind=Outcome.APPROVAL_ENDED, by=by, key=payment.key, evidence=lapsed, note=note),
        payments=(replace(payment, capture_refused_at=state.now, checkout_ends_at=_ended_at(payment, state.now)),),
    )
    return Decision(outcome=Outcome.APPROVAL_ENDED, change=change)


def is_new_approval(payment: Payment, evidence: Evidence) -> bool:
    """Whether a message is about an approval after the refused capture. A resend of the old one is not.

    Its time has whole seconds: within the second of the refusal the answer is yes, which costs one capture at most.
    """
    refused_at = payment.capture_refused_at
    if refused_at is None or evidence.at is None or evidence.at < refused_at.replace(microsecond=0):
        return False
    return isinstance(evidence, Approved) or (isinstance(evidence, Unclear) and evidence.reason == APPROVAL_HINT)


def is_uncaptured(payment: Payment) -> bool:
    """Whether an approval of it is as good as unpaid: its capture was refused, or it is given up."""
    return payment.capture_refused_at is not None or payment.given_up_at is not None


def is_over_by_giving_up(payment: Payment, rules: Rules, now: datetime) -> bool:
    """Whether it can take no money any more because it is given up, and no capture of it may still be under way."""
    if payment.given_up_at is None:
        return False
    requested_at = payment.capture_requested_at
    if requested_at is None or payment.capture_refused_at is not None:
        return True
    return now - timedelta(seconds=rules.payable_margin_s) >= requested_at


def _has_ended(payment: Payment, now: datetime) -> bool:
    return payment.checkout_ends_at is not None and payment.checkout_ends_at <= now


def _ended_at(payment: Payment, now: datetime) -> datetime:
    return now if payment.checkout_ends_at is None else min(payment.checkout_ends_at, now)


def as_unpaid(evidence: Approved) -> Unpaid:
    """The same without the approval."""
    return Unpaid(
        channel_account=evidence.channel_account,
        out_trade_no=evidence.out_trade_no,
        amount=evidence.amount,
        currency=evidence.currency,
    )
