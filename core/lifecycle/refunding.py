"""Refunds of late or double money, which pays nothing: requested once, queried until they are definite.

A refund is always of all that is left of one payment, so there is at most one under way, and never of a payment that
has paid its order nor of one that is watched. It unpays nothing: the order stays what it is.
"""

from __future__ import annotations

from hashlib import blake2b

from msgspec.structs import replace

from core.decision import Case, CaseResolution, Change, Decision, Event, Observation, Outcome
from core.dispute import is_withheld
from core.evidence import Source
from core.lifecycle.attempts import with_exhausted_case
from core.lifecycle.rules import Rules
from core.notice import order_notification
from core.order import (
    CaseReason,
    OrderState,
    OrderStatus,
    Origin,
    Payment,
    PaymentKey,
    PaymentStatus,
    Refund,
    RefundReason,
    RefundStatus,
)

REFUND_NO_MAX = 64
"""The length that every channel takes: WeChat Pay's `out_refund_no` is 1 to 64 of [0-9A-Za-z_-|*@]."""

SETTLED_BY_REFUND = (
    CaseReason.PAID_LATE,
    CaseReason.DOUBLE_PAYMENT,
    CaseReason.REFUND_FAILED,
    CaseReason.ATTEMPTS_EXHAUSTED,
)
"""Cases about a payment's money that are settled once the buyer has it back."""


def refund_number(out_trade_no: str, nth: int = 1) -> str:
    """Our number for a payment's refund: always the same, so that asking twice is the same refund.

    `r` and the payment's number; the second one, after a failure, is `r2_` and the number, and so on. Numbers longer
    than ours are, which leave no room for that, are replaced by their hash.
    """
    prefix = "r" if nth == 1 else f"r{nth}_"
    if len(prefix) + len(out_trade_no) > REFUND_NO_MAX:
        return prefix + blake2b(out_trade_no.encode(), digest_size=16).hexdigest()
    return prefix + out_trade_no


def new_refund(state: OrderState, payment: Payment, reason: RefundReason) -> Refund | None:
    """The refund of all that is left of this payment, or None where nothing of it may or can be given back by us: also
    where it is not known what is left.

    `payment` is given as it will be: the state that is decided on may not know yet that it has the money. Disputed
    money is not refunded: the buyer would get it twice.
    """
    left = payment.remaining_amount
    is_ours = payment.status is PaymentStatus.PAID and payment.origin is Origin.OURS
    if not is_ours or not left or payment.key == state.order.paid_by or is_going_back(state, payment.key):
        return None
    if is_withheld(state.disputes, payment.key):
        return None
    return Refund(
        refund_no=refund_number(payment.out_trade_no, 1 + len(state.refunds_of(payment.key))),
        key=payment.key,
        order_no=payment.order_no,
        amount=left,
        currency=payment.currency,
        reason=reason,
        status=RefundStatus.REQUESTED,
        requested_at=state.now,
    )


def is_going_back(state: OrderState, key: PaymentKey) -> bool:
    """Whether we have requested this payment's money to go back, and that has not failed."""
    return any(refund.status is not RefundStatus.FAILED for refund in state.refunds_of(key))


def on_refund_requested(state: OrderState, key: PaymentKey, by_name: str) -> Decision:
    """An operator gives back money that did not pay the order, under the policy `flag` or after a refund has failed.

    The money of a payment that paid its order is the merchant's: what becomes of that is no decision of ours.
    """
    if is_going_back(state, key):
        return Decision(outcome=Outcome.NOTHING_NEW)
    payment = state.payment(key)
    if payment is None or not state.order.is_resolved:
        return Decision(outcome=Outcome.NOT_REFUNDABLE)
    refund = new_refund(state, payment, RefundReason.OPERATOR)
    if refund is None:
        return Decision(outcome=Outcome.NOT_REFUNDABLE)
    note = f"{refund.refund_no} by {by_name}"
    change = Change(
        order=state.order.next_version(),
        event=Event(kind=Outcome.REFUND_REQUESTED, by=Source.OPERATOR, key=key, note=note),
        refunds=(refund,),
    )
    return Decision(outcome=Outcome.REFUND_REQUESTED, change=change)


def on_refund(
    state: OrderState, refund_no: str, refund_status: RefundStatus | None, rules: Rules, *, note: str = ""
) -> Decision:
    """The verified status of a refund at its channel; None: unknown, and `note` says why. Unknown is never failed.

    A refund that is not definite is queried again; after the last n² attempt a case opens, and it is queried daily.
    """
    refund = state.refund(refund_no)
    payment = None if refund is None else state.payment(refund.key)
    if refund is None or payment is None:
        return Decision(outcome=Outcome.STALE)
    if refund.status.is_final:
        return Decision(outcome=Outcome.NOTHING_NEW)
    match refund_status:
        case RefundStatus.SUCCEEDED:
            return _succeeded(state, refund, payment)
        case RefundStatus.FAILED:
            return _failed(state, refund, note)
        case RefundStatus.PROCESSING if refund.status is RefundStatus.REQUESTED:
            decision = _moved(state, refund.moved_to(RefundStatus.PROCESSING), Outcome.REFUND_PROCESSING)
        case RefundStatus.PROCESSING:
            decision = _observe(refund, Outcome.REFUND_PROCESSING, "refund_processing_seen", refund_no)
        case _:
            decision = _observe(refund, Outcome.UNCLEAR, "refund_unclear_seen", f"{refund_no}: {note}")
    if not rules.backoff.next_try(refund.attempt, refund_no).is_exhausted:
        return decision
    detail = f"refund {refund_no}: {refund.attempt} attempts, still not definite"
    return with_exhausted_case(state, decision, refund.key, Source.REFUND, detail)


def _succeeded(state: OrderState, refund: Refund, payment: Payment) -> Decision:
    """The buyer has the money back: the cases about it are resolved, and the merchant is notified."""
    settled = refund.moved_to(RefundStatus.SUCCEEDED, settled_at=state.now, last_error="")
    # Evidence may have shown our refund before this, so it may be counted already: no more goes back than came.
    given_back = replace(payment, refunded_amount=min(payment.amount, (payment.refunded_amount or 0) + refund.amount))
    order = state.order.next_version()
    late = order.status is OrderStatus.CLOSED or refund.reason is RefundReason.LATE
    change = Change(
        order=order,
        event=Event(kind=Outcome.REFUNDED, by=Source.REFUND, key=refund.key, note=refund.refund_no),
        payments=(given_back,),
        refunds=(settled,),
        resolutions=tuple(
            CaseResolution(reason=reason, key=refund.key, resolution="refunded")
            for reason in SETTLED_BY_REFUND
            if (refund.key, reason) in state.open_cases
        ),
        notification=order_notification("order.refunded", order, given_back, now=state.now, late=late, refund=settled),
    )
    return Decision(outcome=Outcome.REFUNDED, change=change)


def _failed(state: OrderState, refund: Refund, note: str) -> Decision:
    """Definitely not given back: the money is still the channel's and ours, and a person decides again."""
    failed = refund.moved_to(RefundStatus.FAILED, settled_at=state.now, last_error=note)
    detail = f"refund {refund.refund_no} of {refund.amount} {refund.currency}: {note or 'the channel says failed'}"
    case = Case(reason=CaseReason.REFUND_FAILED, key=refund.key, detail=detail)
    return _moved(state, failed, Outcome.REFUND_FAILED, note, (case,))


def _moved(
    state: OrderState, refund: Refund, outcome: Outcome, note: str = "", cases: tuple[Case, ...] = ()
) -> Decision:
    event_note = f"{refund.refund_no}: {note}" if note else refund.refund_no
    change = Change(
        order=state.order.next_version(),
        event=Event(kind=outcome, by=Source.REFUND, key=refund.key, note=event_note),
        refunds=(refund,),
        cases=tuple(case for case in cases if (case.key, case.reason) not in state.open_cases),
    )
    return Decision(outcome=outcome, change=change)


def _observe(refund: Refund, outcome: Outcome, kind: str, note: str) -> Decision:
    observation = Observation(order_no=refund.order_no, kind=kind, by=Source.REFUND, key=refund.key, note=note)
    return Decision(outcome=outcome, observation=observation)
