"""Money that came: it pays the order, comes late, comes twice, or goes back.

*Was paid* is not *the money is there*: money of which all, or nobody knows how much, has gone back pays no order.
"""

from __future__ import annotations

from msgspec.structs import replace

from core.decision import Arm, Case, CaseResolution, Change, Decision, Event, Outcome
from core.dispute import is_withheld
from core.evidence import Evidence, Paid, Refunded, Source
from core.lifecycle.refund_amounts import refundable_amount, with_outside
from core.lifecycle.refund_sums import grew_outside, refund_cases, sum_resolutions, with_refunds
from core.lifecycle.refunding import new_refund
from core.lifecycle.rules import MISMATCHES, DoublePolicy, LatePolicy, Rules
from core.lifecycle.withholding import on_withheld_money
from core.notice import order_notification
from core.order import (
    CaseReason,
    OrderState,
    OrderStatus,
    Payment,
    PaymentKey,
    PaymentStatus,
    PendingKind,
    Refund,
    RefundReason,
    deadline_key,
)
from core.sentences import Amount, Sentence, Term


def on_money(
    state: OrderState,
    payment: Payment,
    evidence: Paid | Refunded,
    rules: Rules,
    by: Source,
    *,
    unconfirmed: bool = False,
) -> Decision | None:
    """Evidence of money that agrees with the payment; None when it says nothing new of a paid payment."""
    is_whole = isinstance(evidence, Paid) and not state.disputes
    known = payment if is_whole else with_refunds(state, payment, evidence)
    if payment.status is PaymentStatus.PAID and not _can_pay_now(state, payment, known):
        return _on_refund_seen(state, payment, known, evidence, by)
    paid = known.moved_to(
        PaymentStatus.PAID,
        channel_transaction_id=evidence.channel_transaction_id,
        paid_at=payment.paid_at or evidence.at or state.now,
        unconfirmed_since=state.now if unconfirmed else None,
    )
    if not paid.remaining_amount:
        return _on_refunded_money(state, paid, evidence, by)
    if state.disputes and (withheld := on_withheld_money(state, paid, evidence, by)):
        return withheld
    cases = refund_cases(state, paid) if paid.refunded_amount else ()
    match state.order.status:
        case OrderStatus.PAID:
            decision = _second_payment(state, paid, evidence, rules, by, cases)
        case OrderStatus.CLOSED:
            is_there = not is_withheld(state.disputes, paid.key)
            late_rules = rules if is_there else replace(rules, late_policy=LatePolicy.FLAG)
            decision = _late_payment(state, paid, evidence, late_rules, by, cases)
        case _:
            decision = _pay_order(state, paid, evidence, by, Outcome.PAID, cases, late=False)
    resolutions = sum_resolutions(state, paid) if state.open_cases else ()
    if not resolutions or decision.change is None:
        return decision
    return replace(decision, change=replace(decision.change, resolutions=resolutions))


def _can_pay_now(state: OrderState, payment: Payment, known: Payment) -> bool:
    """Whether a payment that has paid nothing turns out to have money left: nobody knew how much, or it was with a
    dispute and is back.
    """
    is_unused = not payment.remaining_amount and payment.key != state.order.paid_by
    return is_unused and bool(known.remaining_amount)


def on_confirmed(
    state: OrderState, payment: Payment, evidence: Paid | Refunded, decision: Decision | None, by: Source
) -> Decision:
    """A query shows the money that only a callback has shown so far; `decision` is what else it shows.

    A case that an earlier answer has opened ends with it.
    """
    change = None if decision is None else decision.change
    if change is None:
        order, event = (
            state.order.next_version(),
            Event(kind=Outcome.CONFIRMED, by=by, key=payment.key, evidence=evidence),
        )
        change = Change(order=order, event=event, payments=(payment,))
    doubt = (payment.key, CaseReason.CALLBACK_CONTRADICTED)
    settled = CaseResolution(key=payment.key, reason=CaseReason.CALLBACK_CONTRADICTED, resolution="confirmed")
    change = replace(
        change,
        payments=tuple(
            replace(row, unconfirmed_since=None) if row.key == payment.key else row for row in change.payments
        ),
        resolved=(*change.resolved, payment.key),
        resolutions=(*change.resolutions, settled) if doubt in state.open_cases else change.resolutions,
    )
    return replace(decision or Decision(outcome=Outcome.CONFIRMED), change=change)


def acceptable_payments(state: OrderState) -> list[Payment]:
    """Payments whose money is there, is not on its way back and is not disputed."""
    paid = [row for row in state.payments if row.status is PaymentStatus.PAID]
    with_money = [row for row in paid if row.remaining_amount and refundable_amount(state, row)]
    return [row for row in with_money if not is_withheld(state.disputes, row.key)]


def on_late_accepted(state: OrderState, by_name: str, expected_version: int | None = None) -> Decision:
    """An operator accepts money that came after close, under the policy `flag`: the order becomes paid.

    Only a payment that the channel has confirmed can be accepted, and only while its money is known to be there, and
    neither going back nor disputed; nobody marks an order paid by hand. If several came, others are double payments.
    """
    if state.order.status is OrderStatus.PAID:
        return Decision(outcome=Outcome.ALREADY_PAID)
    if expected_version not in (None, state.order.version):
        return Decision(outcome=Outcome.MOVED)
    acceptable = acceptable_payments(state)
    if not acceptable:
        return Decision(outcome=Outcome.NOT_ACCEPTABLE)
    paid, *others = acceptable
    cases = tuple(map(_double_case, others))
    return _pay_order(state, paid, None, Source.OPERATOR, Outcome.PAID_LATE, cases, late=True, note=f"by {by_name}")


def on_restored(state: OrderState, payment: Payment, by: Source, note: str) -> Decision:
    """Money that was withheld when it was seen is there: it pays an open order. About late money, and money that came
    twice, a person decides.
    """
    flag = Rules(late_policy=LatePolicy.FLAG, double_policy=DoublePolicy.FLAG)
    if state.order.status is OrderStatus.CLOSED:
        return _late_payment(state, payment, None, flag, by, ())
    if state.order.status is OrderStatus.PAID:
        return _second_payment(state, payment, None, flag, by, ())
    return _pay_order(state, payment, None, by, Outcome.PAID, (), late=False, note=note)


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
    watched until they are definite. A payment that only a callback has paid is not definite either.
    """
    order = state.order.next_version(
        status=OrderStatus.PAID,
        paid_by=paid.key,
        paid_at=paid.paid_at,
        handed_off_at=state.order.handed_off_at or state.now,
    )
    definite = (paid.key,) if paid.unconfirmed_since is None else ()
    change = Change(
        order=order,
        event=Event(kind=outcome, by=by, key=paid.key, evidence=evidence, note=note),
        payments=(paid,),
        resolved=(*definite, deadline_key(order.order_no)),
        cases=cases,
        notification=order_notification("order.paid", order, paid, now=state.now, late=late),
    )
    return Decision(outcome=outcome, change=change, rearm=_siblings_due_now(state, paid.key))


def _late_payment(
    state: OrderState, paid: Payment, evidence: Evidence | None, rules: Rules, by: Source, cases: tuple[Case, ...]
) -> Decision:
    """Money for a closed order: a case, a notification, and the account's policy decides about the order."""
    late = Case(
        reason=CaseReason.PAID_LATE,
        key=paid.key,
        detail=Sentence("policy {policy}", policy=Term("policy.", rules.late_policy)),
    )
    if rules.late_policy is LatePolicy.ACCEPT:
        return _pay_order(state, paid, evidence, by, Outcome.PAID_LATE, (late, *cases), late=True)
    is_wanted = rules.late_policy is LatePolicy.REFUND
    refund = _policy_refund(state, paid, RefundReason.LATE) if is_wanted else None
    order = state.order.next_version()
    change = Change(
        order=order,
        event=Event(kind=Outcome.PAID_LATE, by=by, key=paid.key, evidence=evidence, note=_refund_note(refund)),
        payments=(paid if refund is None else with_outside(state, paid),),
        resolved=(paid.key,),
        cases=(late, *cases),
        refunds=() if refund is None else (refund,),
        notification=order_notification("order.paid_late", order, paid, now=state.now, late=True, refund=refund),
    )
    return Decision(outcome=Outcome.PAID_LATE, change=change)


def _second_payment(
    state: OrderState, paid: Payment, evidence: Evidence | None, rules: Rules, by: Source, cases: tuple[Case, ...]
) -> Decision:
    """Money for an order that another payment has paid: the order stays as it is. The account's policy says whether the
    money goes back or a person decides about it.
    """
    is_wanted = rules.double_policy is DoublePolicy.REFUND
    refund = _policy_refund(state, paid, RefundReason.DOUBLE) if is_wanted else None
    order = state.order.next_version()
    change = Change(
        order=order,
        event=Event(kind=Outcome.DOUBLE_PAYMENT, by=by, key=paid.key, evidence=evidence, note=_refund_note(refund)),
        payments=(paid if refund is None else with_outside(state, paid),),
        resolved=(paid.key,),
        cases=(_double_case(paid), *cases),
        refunds=() if refund is None else (refund,),
        notification=order_notification("order.double_payment", order, paid, now=state.now, late=False, refund=refund),
    )
    return Decision(outcome=Outcome.DOUBLE_PAYMENT, change=change)


def _on_refunded_money(state: OrderState, paid: Payment, evidence: Evidence, by: Source) -> Decision:
    """Money that had gone back before it was seen here, or nobody knows how much of it: recorded, and a case. The order
    stays what it is and can still be paid until its deadline.
    """
    order = state.order.next_version(handed_off_at=state.order.handed_off_at or state.now)
    late = order.status is OrderStatus.CLOSED
    change = Change(
        order=order,
        event=Event(kind=Outcome.REFUND_SEEN, by=by, key=paid.key, evidence=evidence),
        payments=(paid,),
        resolved=(paid.key,),
        cases=refund_cases(state, paid),
        notification=order_notification("order.refunded", order, paid, now=state.now, late=late),
    )
    return Decision(outcome=Outcome.REFUND_SEEN, change=change)


def _on_refund_seen(
    state: OrderState, payment: Payment, known: Payment, evidence: Evidence, by: Source
) -> Decision | None:
    """The same money once more; None unless more is known to have gone back than before.

    Of money that paid nothing the merchant is notified; a refund of ours has its own notification. Money that paid the
    order is the merchant's, who has given it back, unless only a callback has paid it and nothing is left of it.
    """
    if known == payment:
        return None
    order = state.order.next_version()
    is_merchants = payment.key == order.paid_by and (payment.unconfirmed_since is None or bool(known.remaining_amount))
    is_more = known.refunded_amount is None or grew_outside(state, known)
    is_news = not is_merchants and is_more and known.refunded_amount != payment.refunded_amount
    late = order.status is OrderStatus.CLOSED
    notification = order_notification("order.refunded", order, known, now=state.now, late=late)
    change = Change(
        order=order,
        event=Event(kind=Outcome.REFUND_SEEN, by=by, key=payment.key, evidence=evidence),
        payments=(known,),
        resolved=(payment.key,) if payment.refunded_amount is None and payment.unconfirmed_since is None else (),
        cases=refund_cases(state, known),
        resolutions=sum_resolutions(state, known),
        notification=notification if is_news else None,
    )
    return Decision(outcome=Outcome.REFUND_SEEN, change=change)


def _policy_refund(state: OrderState, paid: Payment, reason: RefundReason) -> Refund | None:
    """The refund that the account's policy requests. Never of a watched payment, and none while evidence is in doubt
    (amount, number, …) or only a callback has paid the order: then a person looks first, as under `flag`.
    """
    is_doubted = any(case_reason in MISMATCHES for _, case_reason in state.open_cases)
    return None if is_doubted or state.unconfirmed_payments() else new_refund(state, paid, reason)


def _refund_note(refund: Refund | None) -> str:
    return "" if refund is None else f"refund {refund.refund_no} requested"


def _siblings_due_now(state: OrderState, paid: PaymentKey) -> tuple[Arm, ...]:
    open_keys = {payment.key for payment in state.open_payments()}
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
        if row.kind is PendingKind.QUERY and row.key != paid and row.key in open_keys
    )


def _double_case(payment: Payment) -> Case:
    amount = Amount(payment.amount, payment.currency)
    detail = Sentence("{amount} {currency} came twice", amount=amount, currency=payment.currency)
    return Case(reason=CaseReason.DOUBLE_PAYMENT, key=payment.key, detail=detail)
