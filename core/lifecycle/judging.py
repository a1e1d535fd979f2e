"""Evidence: from what a channel told, verified, to what it means for the order. Only this moves a payment."""

from __future__ import annotations

from datetime import datetime, timedelta

from msgspec.structs import replace

from core.decision import Arm, Case, Change, Decision, Event, Observation, Outcome
from core.evidence import Approved, Closed, Evidence, Missing, Paid, Refunded, Source, Unclear, Unpaid, kind_of
from core.lifecycle.attempts import next_attempt, next_version
from core.lifecycle.refunding import is_going_back, new_refund
from core.lifecycle.rules import DoublePolicy, LatePolicy, Rules
from core.notice import order_notification
from core.order import (
    CaseReason,
    OrderState,
    OrderStatus,
    Origin,
    Payment,
    PaymentKey,
    PaymentStatus,
    PendingKind,
    Refund,
    RefundReason,
    deadline_key,
)


def on_callback(
    state: OrderState, key: PaymentKey, evidence: Evidence, rules: Rules, by: Source, *, claimed: bool = False
) -> Decision:
    """Evidence that the channel sent by itself (and that the account trusts), or a mismatch that it shows.

    It may have lain in the inbox for a day: its *unpaid* and *missing* were true when they were sent and end nothing.

    `claimed`: the database has refused the move, because another payment of this account has this very channel
    transaction. Two orders that claim one channel payment are a case, never two paid orders.
    """
    return _on_evidence(state, key, evidence, rules, by, is_answer=False, claimed=claimed)


def on_query(
    state: OrderState,
    key: PaymentKey,
    evidence: Evidence,
    rules: Rules,
    by: Source,
    *,
    arm_no: int | None = None,
    claimed: bool = False,
) -> Decision:
    """The answer to a query. `arm_no` is given by a scheduled query, which alone advances the attempt.

    A payment that is still open although its order is resolved (another one paid it) is to be closed at its channel.
    """
    decision = _on_evidence(state, key, evidence, rules, by, is_answer=True, claimed=claimed)
    payment, row = state.payment(key), state.pending_of(key)
    if payment is not None and _is_left_over(state, payment, decision):
        decision = replace(decision, close=(key,))
    if arm_no is None or row is None or row.arm_no != arm_no:
        return decision
    if decision.change is not None and key in decision.change.resolved:
        return decision
    return next_attempt(state, row, decision, rules, by)


def on_late_accepted(state: OrderState, by_name: str) -> Decision:
    """An operator accepts money that came after close, under the policy `flag`: the order follows its payment.

    Only a payment that the channel has confirmed can be accepted, and whose money is not going back; nobody marks an
    order paid by hand. If several came, the others are double payments.
    """
    if state.order.status is OrderStatus.PAID:
        return Decision(outcome=Outcome.ALREADY_PAID)
    paid_ones = (payment for payment in state.payments if payment.status is PaymentStatus.PAID)
    came = [payment for payment in paid_ones if not is_going_back(state, payment.key)]
    if not came:
        return Decision(outcome=Outcome.NOTHING_NEW)
    paid, *others = came
    cases = tuple(map(_double_case, others))
    return _pay_order(state, paid, None, Source.OPERATOR, Outcome.PAID_LATE, cases, late=True, note=f"by {by_name}")


def on_refresh(state: OrderState) -> Decision:
    """Somebody looks: ask about every payment that is still open."""
    ask = tuple(payment.key for payment in state.open_payments())
    return Decision(outcome=Outcome.STILL_OPEN if ask else Outcome.NOTHING_NEW, ask=ask)


MISMATCHES = frozenset(
    {
        CaseReason.AMOUNT_MISMATCH,
        CaseReason.CURRENCY_MISMATCH,
        CaseReason.ACCOUNT_MISMATCH,
        CaseReason.NUMBER_MISMATCH,
        CaseReason.NUMBER_REUSED,
        CaseReason.TRANSACTION_CLAIMED_TWICE,
    }
)
"""Cases that say: what the channel tells of this order cannot be trusted before a person has looked."""


def mismatch(payment: Payment, evidence: Evidence) -> tuple[CaseReason, str] | None:
    """The first difference between what we asked to be paid and what the evidence speaks of, or None."""
    if evidence.channel_account != payment.channel_account:
        return CaseReason.ACCOUNT_MISMATCH, f"evidence of {evidence.channel_account}"
    if evidence.out_trade_no != payment.out_trade_no:
        return CaseReason.NUMBER_MISMATCH, f"evidence of {evidence.out_trade_no}"
    if evidence.currency is not None and evidence.currency != payment.currency:
        return CaseReason.CURRENCY_MISMATCH, f"{evidence.currency} instead of {payment.currency}"
    if evidence.amount is not None and evidence.amount != payment.amount:
        return CaseReason.AMOUNT_MISMATCH, f"{evidence.amount} instead of {payment.amount}"
    return None


def is_definitely_unpaid(payment: Payment, evidence: Evidence, rules: Rules, now: datetime) -> bool:
    """Whether the evidence says that this payment has no money and never will have.

    A verified *missing* or *unpaid* says so only when the channel can no longer take money (`payable_until` and the
    margin have passed, and we have asked it to close), or when the channel had refused to create it. Money that is
    under way is waited for however long it takes.
    """
    match evidence:
        case Closed():
            return True
        case Missing() if payment.refused_at is not None:
            return True
        case Unpaid(under_way=True):
            return False
        case Missing() | Unpaid() | Approved():
            over = now - timedelta(seconds=rules.payable_margin_s) >= payment.payable_until
            return over and (payment.close_attempted_at is not None or payment.origin is Origin.WATCHED)
    return False


def _on_evidence(
    state: OrderState, key: PaymentKey, evidence: Evidence, rules: Rules, by: Source, *, is_answer: bool, claimed: bool
) -> Decision:
    payment = state.payment(key)
    if payment is None:
        return Decision(outcome=Outcome.NOTHING_NEW)
    if claimed:
        detail = f"transaction {evidence.channel_transaction_id}"
        return _open_case(state, payment, evidence, by, CaseReason.TRANSACTION_CLAIMED_TWICE, detail)
    found = mismatch(payment, evidence)
    if found is not None:
        return _open_case(state, payment, evidence, by, *found)
    match evidence:
        case Paid() | Refunded():
            return _on_money(state, payment, evidence, rules, by)
        case Unclear(reason=reason):
            return _seen(state, payment, evidence, by, Outcome.UNCLEAR, reason)
    if payment.status is not PaymentStatus.OPEN:
        return _seen(state, payment, evidence, by, Outcome.NOTHING_NEW)
    return _on_no_money(state, payment, evidence, rules, by, is_answer=is_answer)


def _on_no_money(
    state: OrderState, payment: Payment, evidence: Evidence, rules: Rules, by: Source, *, is_answer: bool
) -> Decision:
    """Of an open payment: it is over, or its money is to be taken now, or nothing has changed."""
    is_final = is_answer or isinstance(evidence, Closed)
    if is_final and is_definitely_unpaid(payment, evidence, rules, state.now):
        return _close_payment(state, payment, evidence, by)
    if is_answer and isinstance(evidence, Approved) and _may_capture(state, payment):
        return _capture(state, payment, evidence, by)
    return _seen(state, payment, evidence, by, Outcome.STILL_OPEN)


def _may_capture(state: OrderState, payment: Payment) -> bool:
    """Never the money of an order that is paid, closed or over its time, nor of a payment that is not ours.

    While another payment of the order is doubted (amount, number, …) none is captured: a person looks first.
    """
    order = state.order
    if order.is_resolved or state.now >= order.expires_at or payment.origin is not Origin.OURS:
        return False
    return not any(reason in MISMATCHES for _, reason in state.open_cases)


def _capture(state: OrderState, payment: Payment, evidence: Approved, by: Source) -> Decision:
    """The buyer agreed and the channel waits to be asked: ask it.

    It is written down first, under the order's version: whoever pays or closes the order meanwhile wins, and then
    nothing is captured.
    """
    change = Change(
        order=next_version(state.order),
        event=Event(kind=Outcome.CAPTURE_REQUESTED, by=by, key=payment.key, evidence=evidence),
    )
    return Decision(outcome=Outcome.CAPTURE_REQUESTED, change=change, capture=(payment.key,))


def _on_money(state: OrderState, payment: Payment, evidence: Paid | Refunded, rules: Rules, by: Source) -> Decision:
    if payment.status is PaymentStatus.PAID:
        return _on_money_again(state, payment, evidence, by)
    paid = replace(
        payment,
        status=PaymentStatus.PAID,
        channel_transaction_id=evidence.channel_transaction_id,
        paid_at=evidence.at or state.now,
        refunded_amount=evidence.refunded_amount if isinstance(evidence, Refunded) else 0,
    )
    cases = _refund_case(state, paid) if isinstance(evidence, Refunded) else ()
    match state.order.status:
        case OrderStatus.PAID:
            return _second_payment(state, paid, evidence, rules, by, cases)
        case OrderStatus.CLOSED:
            return _late_payment(state, paid, evidence, rules, by, cases)
    return _pay_order(state, paid, evidence, by, Outcome.PAID, cases, late=False)


def _pay_order(
    state: OrderState,
    paid: Payment,
    evidence: Evidence | None,
    by: Source,
    outcome: Outcome,
    cases: tuple[Case, ...],
    *,
    late: bool,
    note: str = "",
) -> Decision:
    """The one place in which an order becomes paid.

    Its other payments are due at once: the query finds them left over, closes them at their channels, and they are
    watched until they are definite.
    """
    order = next_version(
        state.order, status=OrderStatus.PAID, paid_by=paid.key, paid_at=paid.paid_at, handed_off_at=_handed_off(state)
    )
    change = Change(
        order=order,
        event=Event(kind=outcome, by=by, key=paid.key, evidence=evidence, note=note),
        payments=(paid,),
        resolved=(paid.key, deadline_key(order.order_no)),
        cases=cases,
        notification=order_notification("order.paid", order, paid, now=state.now, late=late),
    )
    return Decision(outcome=outcome, change=change, rearm=_siblings_now(state, paid.key))


def _late_payment(
    state: OrderState, paid: Payment, evidence: Evidence, rules: Rules, by: Source, cases: tuple[Case, ...]
) -> Decision:
    """Money for a closed order: a case, the merchant hears of it, and the account's policy decides about the order."""
    late = Case(reason=CaseReason.PAID_LATE, key=paid.key, detail=f"policy {rules.late_policy}")
    if rules.late_policy is LatePolicy.ACCEPT:
        return _pay_order(state, paid, evidence, by, Outcome.PAID_LATE, (late, *cases), late=True)
    wanted = rules.late_policy is LatePolicy.REFUND
    refund = _give_back(state, paid, RefundReason.LATE) if wanted else None
    order = next_version(state.order)
    change = Change(
        order=order,
        event=Event(kind=Outcome.PAID_LATE, by=by, key=paid.key, evidence=evidence, note=_refund_note(refund)),
        payments=(paid,),
        resolved=(paid.key,),
        cases=(late, *cases),
        refunds=() if refund is None else (refund,),
        notification=order_notification("order.paid_late", order, paid, now=state.now, late=True, refund=refund),
    )
    return Decision(outcome=Outcome.PAID_LATE, change=change)


def _second_payment(
    state: OrderState, paid: Payment, evidence: Evidence, rules: Rules, by: Source, cases: tuple[Case, ...]
) -> Decision:
    """Money for an order that another payment has paid: the order stays as it is. The account's policy says whether the
    money goes back or a person decides about it.
    """
    wanted = rules.double_policy is DoublePolicy.REFUND
    refund = _give_back(state, paid, RefundReason.DOUBLE) if wanted else None
    order = next_version(state.order)
    change = Change(
        order=order,
        event=Event(kind=Outcome.DOUBLE_PAYMENT, by=by, key=paid.key, evidence=evidence, note=_refund_note(refund)),
        payments=(paid,),
        resolved=(paid.key,),
        cases=(_double_case(paid), *cases),
        refunds=() if refund is None else (refund,),
        notification=order_notification("order.double_payment", order, paid, now=state.now, late=False, refund=refund),
    )
    return Decision(outcome=Outcome.DOUBLE_PAYMENT, change=change)


def _give_back(state: OrderState, paid: Payment, reason: RefundReason) -> Refund | None:
    """What the policy requests to go back. Never a watched payment's money, and none while anything of the order is
    doubted (amount, number, …): then a person looks first, as under `flag`.
    """
    is_doubted = any(why in MISMATCHES for _, why in state.open_cases)
    return None if is_doubted else new_refund(state, paid, reason)


def _refund_note(refund: Refund | None) -> str:
    return "" if refund is None else f"refund {refund.refund_no} requested"


def _on_money_again(state: OrderState, payment: Payment, evidence: Paid | Refunded, by: Source) -> Decision:
    """Money for a payment that is paid: the same money again, a refund seen, or our number used for other money."""
    if evidence.channel_transaction_id != payment.channel_transaction_id:
        detail = f"paid as {payment.channel_transaction_id} and as {evidence.channel_transaction_id}"
        return _open_case(state, payment, evidence, by, CaseReason.NUMBER_REUSED, detail, Outcome.NUMBER_REUSED)
    if isinstance(evidence, Refunded) and evidence.refunded_amount > payment.refunded_amount:
        refunded = replace(payment, refunded_amount=evidence.refunded_amount)
        change = Change(
            order=next_version(state.order),
            event=Event(kind=Outcome.NOTHING_NEW, by=by, key=payment.key, evidence=evidence, note="refund seen"),
            payments=(refunded,),
            cases=_new_cases(state, _refund_case(state, refunded)),
        )
        return Decision(outcome=Outcome.NOTHING_NEW, change=change)
    return _seen(state, payment, evidence, by, Outcome.NOTHING_NEW)


def _close_payment(state: OrderState, payment: Payment, evidence: Evidence, by: Source) -> Decision:
    """The payment ends without money. The order lives on until its deadline: the user may still pay another way."""
    change = Change(
        order=next_version(state.order),
        event=Event(kind=Outcome.PAYMENT_CLOSED, by=by, key=payment.key, evidence=evidence),
        payments=(replace(payment, status=PaymentStatus.CLOSED),),
        resolved=(payment.key,),
    )
    return Decision(outcome=Outcome.PAYMENT_CLOSED, change=change)


def _open_case(
    state: OrderState,
    payment: Payment,
    evidence: Evidence,
    by: Source,
    reason: CaseReason,
    detail: str,
    outcome: Outcome = Outcome.MISMATCH,
) -> Decision:
    """Open the case once; what is told again while it is open only leaves an observation."""
    if (payment.key, reason) in state.open_cases:
        return _seen(state, payment, evidence, by, outcome, f"{reason}: {detail}")
    change = Change(
        order=next_version(state.order),
        event=Event(kind=outcome, by=by, key=payment.key, evidence=evidence, note=detail),
        cases=(Case(reason=reason, key=payment.key, detail=detail),),
    )
    return Decision(outcome=outcome, change=change)


def _is_left_over(state: OrderState, payment: Payment, decision: Decision) -> bool:
    """Open, ours, of a resolved order, and its channel has not been asked to close it."""
    return (
        decision.outcome is Outcome.STILL_OPEN
        and state.order.is_resolved
        and payment.status is PaymentStatus.OPEN
        and payment.origin is Origin.OURS
        and payment.close_attempted_at is None
    )


def _handed_off(state: OrderState) -> datetime:
    return state.order.handed_off_at or state.now


def _siblings_now(state: OrderState, paid: PaymentKey) -> tuple[Arm, ...]:
    return tuple(
        Arm(
            key=row.key,
            kind=row.kind,
            order_no=row.order_no,
            attempt=row.attempt,
            delay_s=0.0,
            expected_arm_no=row.arm_no,
        )
        for row in state.pending
        if row.kind is PendingKind.QUERY and row.key != paid
    )


def _double_case(payment: Payment) -> Case:
    detail = f"{payment.amount} {payment.currency} came twice"
    return Case(reason=CaseReason.DOUBLE_PAYMENT, key=payment.key, detail=detail)


def _refund_case(state: OrderState, payment: Payment) -> tuple[Case, ...]:
    """Money that went back, and we had not asked for that.

    A refund of ours is of all that is left, so while there is one that has not failed, what is seen is that one. Should
    somebody have been faster at the channel, it refuses ours, and that is a case too. Not every channel says
    how much.
    """
    if is_going_back(state, payment.key):
        return ()
    detail = f"{payment.refunded_amount} of {payment.amount} {payment.currency} refunded at the channel"
    if payment.refunded_amount == 0:
        detail = f"of {payment.amount} {payment.currency} something was refunded at the channel"
    return (Case(reason=CaseReason.REFUNDED_OUTSIDE, key=payment.key, detail=detail),)


def _new_cases(state: OrderState, cases: tuple[Case, ...]) -> tuple[Case, ...]:
    return tuple(case for case in cases if (case.key, case.reason) not in state.open_cases)


def _seen(
    state: OrderState, payment: Payment, evidence: Evidence, by: Source, outcome: Outcome, note: str = ""
) -> Decision:
    seen = Observation(
        order_no=state.order.order_no, kind=f"{kind_of(evidence)}_seen", by=by, key=payment.key, note=note
    )
    return Decision(outcome=outcome, observation=seen)
