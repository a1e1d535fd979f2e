"""Refunds: by policy of late or double money, or by an operator of any money that is there. Requested once, and queried
until they are definite.

A policy gives back all that is left of a payment, once, and never of one that has paid its order. An operator may give
back parts, and of a payment that has paid its order, too. Watched payments are another system's. A refund unpays
nothing: the order stays what it is.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import blake2b

import msgspec
from msgspec.structs import replace

from core.decision import Case, CaseResolution, Change, Decision, Event, Observation, Outcome
from core.dispute import is_withheld
from core.evidence import Source
from core.lifecycle.attempts import with_exhausted_case
from core.lifecycle.refund_amounts import (
    is_going_back,
    outside_amount,
    refundable_amount,
    succeeded_amount,
    with_outside,
)
from core.lifecycle.refund_numbers import numbered, with_second_number
from core.lifecycle.refund_sums import outside_case
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
from core.sentences import Amount, Phrase, Sentence

REFUND_NO_MAX = 64
"""The length that every channel takes: WeChat Pay's `out_refund_no` is 1 to 64 of [0-9A-Za-z_-|*@]."""

_LONG_AGO = datetime.min.replace(tzinfo=UTC)

REFUNDS_MAX = 50
"""Refunds of one payment: WeChat Pay takes no more. https://pay.weixin.qq.com/doc/v3/merchant/4012556457"""

SETTLED_BY_REFUND = (
    CaseReason.PAID_LATE,
    CaseReason.DOUBLE_PAYMENT,
    CaseReason.REFUND_FAILED,
    CaseReason.ATTEMPTS_EXHAUSTED,
)
"""Cases about a payment's money that are settled once the buyer has all of it back."""


class RefundRequest(msgspec.Struct, frozen=True, kw_only=True):
    """An operator's wish: `amount` None is all that is left. The same `request_key` of an order is the same refund.

    `by` is the operator, `approved_by` the second one. `alone_max`: the most that an operator may give back of an order
    without a second one, in minor units of the payment's currency; None: any amount. `expected_version` is the version
    of the order that was looked at.
    """

    key: PaymentKey
    by: str
    amount: int | None = None
    request_key: str = ""
    reason: str = ""
    approved_by: str = ""
    alone_max: int | None = None
    expected_version: int | None = None


def refund_number(out_trade_no: str, nth: int = 1) -> str:
    """Our number for the nth refund of a payment: always the same, so that deciding twice is the same refund.

    `r` and the payment's number; the second one is `r2_` and the number, and so on. Numbers longer
    than ours are, which leave no room for that, are replaced by their hash.
    """
    prefix = "r" if nth == 1 else f"r{nth}_"
    if len(prefix) + len(out_trade_no) > REFUND_NO_MAX:
        return prefix + blake2b(out_trade_no.encode(), digest_size=16).hexdigest()
    return prefix + out_trade_no


def new_refund(state: OrderState, payment: Payment, reason: RefundReason) -> Refund | None:
    """The refund that a policy makes of all that is left of this payment, or None where nothing of it may or can be
    given back by us: also where it is not known what is left.

    `payment` is given as it will be: the state that is decided on may not know yet that it has the money. Disputed
    money is not refunded: the buyer would get it twice.
    """
    left = payment.remaining_amount
    is_ours = payment.status is PaymentStatus.PAID and payment.origin is Origin.OURS
    if not is_ours or not left or payment.key == state.order.paid_by or is_going_back(state, payment.key):
        return None
    if is_withheld(state.disputes, payment.key):
        return None
    return _requested(state, payment, left, reason)


def _requested(state: OrderState, payment: Payment, amount: int, reason: RefundReason) -> Refund:
    return Refund(
        refund_no=refund_number(payment.out_trade_no, 1 + len(state.refunds_of(payment.key))),
        key=payment.key,
        order_no=payment.order_no,
        amount=amount,
        currency=payment.currency,
        reason=reason,
        status=RefundStatus.REQUESTED,
        requested_at=state.now,
    )


def known_refund(state: OrderState, request: RefundRequest) -> Refund | None:
    """The refund that this request has led to already. Without a key that is the one without a key that has taken all
    that was left: one with a key, or one before it, answers another request.
    """
    if request.request_key:
        return next((row for row in state.refunds if row.request_key == request.request_key), None)
    payment = state.payment(request.key)
    if payment is None or request.amount is not None or refundable_amount(state, payment) != 0:
        return None
    live = [row for row in state.refunds_of(request.key) if row.status is not RefundStatus.FAILED]
    newest = max(live, key=_place, default=None)
    return newest if newest is not None and not newest.request_key else None


def is_same_refund(refund: Refund, request: RefundRequest) -> bool:
    """Whether a refund with the request's key has its terms, too."""
    return refund.key == request.key and request.amount in (None, refund.amount)


def refund_obstacle(state: OrderState, key: PaymentKey, amount: int | None = None) -> str | None:
    """The reason why an operator cannot give back so much of this payment (None: all that is left), as a key of
    `core.act_sentences`; None: it can be requested.
    """
    payment = state.payment(key)
    left = None if payment is None else refundable_amount(state, payment)
    checks = {
        "refund.no_payment": payment is None,
        "refund.watched": payment is not None and payment.origin is not Origin.OURS,
        "refund.not_paid": payment is not None and payment.status is not PaymentStatus.PAID,
        "refund.order_open": not state.order.is_resolved,
        "refund.unconfirmed": payment is not None and payment.unconfirmed_since is not None,
        "refund.disputed": is_withheld(state.disputes, key),
        "refund.unknown_sum": left is None,
        "refund.nothing_left": left == 0,
        "refund.too_much": left is not None and amount is not None and amount > left,
        "refund.too_many": len(state.refunds_of(key)) >= REFUNDS_MAX,
    }
    return next((name for name, is_so in checks.items() if is_so), None)


def needs_approval(state: OrderState, amount: int, alone_max: int | None) -> bool:
    """Whether a second operator has to agree: with what operators give back of this order already, it is above the
    limit. So nobody splits a large refund into small ones.
    """
    by_operators = sum(
        row.amount
        for row in state.refunds
        if row.reason is RefundReason.OPERATOR and row.status is not RefundStatus.FAILED
    )
    return alone_max is not None and by_operators + amount > alone_max


def on_refund_requested(state: OrderState, request: RefundRequest) -> Decision:
    """An operator gives back money of a payment: all that is left or a part, once for each key."""
    known = known_refund(state, request)
    if known is not None:
        return Decision(outcome=Outcome.NOTHING_NEW if is_same_refund(known, request) else Outcome.OTHER_TERMS)
    if request.expected_version not in (None, state.order.version):
        return Decision(outcome=Outcome.MOVED)
    payment = state.payment(request.key)
    if payment is None or refund_obstacle(state, request.key, request.amount) is not None:
        return Decision(outcome=Outcome.NOT_REFUNDABLE)
    amount = request.amount or refundable_amount(state, payment) or 0
    if not request.approved_by and needs_approval(state, amount, request.alone_max):
        return Decision(outcome=Outcome.NEEDS_APPROVAL)
    refund = replace(
        _requested(state, payment, amount, RefundReason.OPERATOR),
        request_key=request.request_key,
        note=request.reason,
    )
    approved = f", approved by {request.approved_by}" if request.approved_by else ""
    change = Change(
        order=state.order.next_version(),
        event=Event(
            kind=Outcome.REFUND_REQUESTED,
            by=Source.OPERATOR,
            key=request.key,
            note=f"{refund.refund_no} by {request.by}{approved}",
        ),
        payments=() if (seen := with_outside(state, payment)) == payment else (seen,),
        refunds=(refund,),
    )
    return Decision(outcome=Outcome.REFUND_REQUESTED, change=change)


def refund_wait_s(state: OrderState, refund_no: str, gap_s: float) -> float:
    """Seconds until this refund may be requested at a channel that takes those of one payment only `gap_s` apart."""
    own = state.refund(refund_no)
    refunds = () if own is None else state.refunds_of(own.key)
    free_at = _LONG_AGO
    for row in sorted(refunds, key=_place):
        free_at = max(row.requested_at, free_at)
        if row is own:
            break
        free_at += timedelta(seconds=gap_s)
    return max(0.0, (free_at - state.now).total_seconds())


def _place(refund: Refund) -> tuple[datetime, int, str]:
    """Refunds of one payment in the order in which they were requested; numbers of one length sort."""
    return refund.requested_at, len(refund.refund_no), refund.refund_no


def on_refund(
    state: OrderState,
    refund_no: str,
    refund_status: RefundStatus | None,
    rules: Rules,
    *,
    note: str = "",
    channel_refund_no: str | None = None,
) -> Decision:
    """The verified status of a refund at its channel; None: unknown, and `note` says why. Unknown is never failed.
    `channel_refund_no` is the channel's own number of it, if the answer has one.

    A refund that is not definite is queried again; after the last n² attempt a case opens, and it is queried daily.
    """
    refund = state.refund(refund_no)
    payment = None if refund is None else state.payment(refund.key)
    if refund is None or payment is None:
        return Decision(outcome=Outcome.STALE)
    if refund.status.is_final:
        return Decision(outcome=Outcome.NOTHING_NEW)
    known = numbered(refund, channel_refund_no)
    decision = _on_status(state, known, payment, refund_status, rules, note, is_new=known != refund)
    return with_second_number(state, decision, refund, channel_refund_no, Source.REFUND)


def _on_status(
    state: OrderState,
    refund: Refund,
    payment: Payment,
    refund_status: RefundStatus | None,
    rules: Rules,
    note: str,
    *,
    is_new: bool,
) -> Decision:
    """`is_new`: the refund has got its number with this answer."""
    refund_no = refund.refund_no
    match refund_status:
        case RefundStatus.SUCCEEDED:
            return _succeeded(state, refund, payment)
        case RefundStatus.FAILED:
            return _failed(state, refund, payment, note)
        case RefundStatus.PROCESSING if refund.status is RefundStatus.REQUESTED or is_new:
            decision = _moved(state, refund.moved_to(RefundStatus.PROCESSING), Outcome.REFUND_PROCESSING)
        case RefundStatus.PROCESSING:
            decision = _observe(refund, Outcome.REFUND_PROCESSING, "refund_processing_seen", refund_no)
        case _:
            decision = _observe(refund, Outcome.UNCLEAR, "refund_unclear_seen", f"{refund_no}: {note}")
    if not rules.backoff.next_try(refund.attempt, refund_no).is_exhausted:
        return decision
    what = "refund {refund_no}: {count} attempts, still not definite"
    detail = Sentence(what, refund_no=refund_no, count=refund.attempt)
    return with_exhausted_case(state, decision, refund.key, Source.REFUND, detail)


def _succeeded(state: OrderState, refund: Refund, payment: Payment) -> Decision:
    """The buyer has the money back: the cases that this settles are resolved, and the merchant is notified."""
    settled = refund.moved_to(RefundStatus.SUCCEEDED, settled_at=state.now, last_error="")
    # A channel's total may have shown our refund before this: then it is counted already.
    ours = succeeded_amount(state, payment.key) + refund.amount
    total = max(payment.refunded_amount or 0, ours + outside_amount(state, payment))
    given_back = replace(payment, refunded_amount=min(payment.amount, total))
    order = state.order.next_version()
    late = order.status is OrderStatus.CLOSED or refund.reason is RefundReason.LATE
    change = Change(
        order=order,
        event=Event(kind=Outcome.REFUNDED, by=Source.REFUND, key=refund.key, note=refund.refund_no),
        payments=(given_back,),
        refunds=(settled,),
        resolutions=tuple(
            CaseResolution(reason=reason, key=refund.key, resolution="refunded")
            for reason in _settled_reasons(state, refund, given_back)
            if (refund.key, reason) in state.open_cases
        ),
        notification=order_notification("order.refunded", order, given_back, now=state.now, late=late, refund=settled),
    )
    return Decision(outcome=Outcome.REFUNDED, change=change)


def _settled_reasons(state: OrderState, refund: Refund, given_back: Payment) -> tuple[CaseReason, ...]:
    """Reasons of the cases that end with this refund. Of late or double money all must be back; a failed refund is made
    good by a later one that is no smaller; what had no answer has one when nothing else is on its way.
    """
    if given_back.remaining_amount == 0:
        return SETTLED_BY_REFUND
    others = [row for row in state.refunds_of(refund.key) if row.refund_no != refund.refund_no]
    failed = [row for row in others if row.status is RefundStatus.FAILED]
    settled = []
    if failed and failed[-1].requested_at <= refund.requested_at and failed[-1].amount <= refund.amount:
        settled.append(CaseReason.REFUND_FAILED)
    if all(row.status.is_final for row in others):
        settled.append(CaseReason.ATTEMPTS_EXHAUSTED)
    return tuple(settled)


def _failed(state: OrderState, refund: Refund, payment: Payment, note: str) -> Decision:
    """Definitely not given back: the money is still the channel's and ours, and a person decides again. What the
    channel has shown as gone meanwhile was not ours, then.
    """
    failed = refund.moved_to(RefundStatus.FAILED, settled_at=state.now, last_error=note)
    detail = Sentence(
        "refund {refund_no} of {amount} {currency}: {note}",
        refund_no=refund.refund_no,
        amount=Amount(refund.amount, refund.currency),
        currency=refund.currency,
        note=note or Phrase("the channel says failed"),
    )
    case = Case(reason=CaseReason.REFUND_FAILED, key=refund.key, detail=detail)
    after = replace(state, refunds=tuple(failed if row.refund_no == refund.refund_no else row for row in state.refunds))
    outside = outside_amount(after, payment)
    others = (outside_case(payment, outside),) if outside > outside_amount(state, payment) else ()
    return _moved(state, failed, Outcome.REFUND_FAILED, note, (case, *others))


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
