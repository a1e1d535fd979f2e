"""The end of an unpaid order. A payment is closed only on verified evidence that it is definite; a watched payment may
outlive its order.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from msgspec.structs import replace

from core.decision import Arm, Change, Decision, Event, Outcome
from core.evidence import Approved, Evidence, Missing, Source, Unpaid
from core.lifecycle.attempts import next_attempt
from core.lifecycle.ending import is_payable
from core.lifecycle.judging import mismatch
from core.lifecycle.rules import Rules
from core.notice import order_notification
from core.order import OrderState, OrderStatus, Origin, Payment, PaymentKey, PaymentStatus, PendingKind, deadline_key

Answers = Mapping[PaymentKey, Evidence]
"""The evidence of the queries that a deadline has just made, by payment."""

NO_ANSWERS: Answers = MappingProxyType({})


def on_deadline(
    state: OrderState, rules: Rules, *, arm_no: int | None = None, answers: Answers = NO_ANSWERS
) -> Decision:
    """The order's time is over. It closes once every payment of ours is definite, and no watched one has money.

    With open payments: `query` names them and `close` those of them that are ours. The flow queries, closes at the
    channel and queries again, and calls this once more with `arm_no` and the `answers`: the deadline is then due again
    after n² units if a payment is still not definite. A watched payment is not ended with its order, and is asked on.
    """
    order, row = state.order, state.pending_of(deadline_key(state.order.order_no))
    if order.is_resolved:
        return Decision(outcome=Outcome.NOTHING_NEW, drop=() if row is None else (row.key,))
    if state.now < order.expires_at:
        return Decision(outcome=Outcome.NOT_YET)
    agreeing = {payment.key: _agreeing(payment, answers) for payment in state.open_payments()}
    holding = [payment for payment in state.open_payments() if _holds(payment, agreeing[payment.key])]
    if not holding:
        return _close_order(state)
    decision = Decision(
        outcome=Outcome.NOT_YET,
        query=tuple(payment.key for payment in state.open_payments()),
        close=tuple(payment.key for payment in state.open_payments() if payment.origin is Origin.OURS),
    )
    if arm_no is None or row is None or row.arm_no != arm_no:
        return decision
    are_payable = all(is_payable(payment, agreeing[payment.key], rules, state.now) for payment in holding)
    payable_since = order.created_at if are_payable else None
    return next_attempt(state, row, decision, rules, Source.CLOSE, payable_since=payable_since)


def on_close_requested(
    state: OrderState, *, by: Source = Source.API, by_name: str = "", expected_version: int | None = None
) -> Decision:
    """The merchant or an operator ends an order early: its deadline is now, and it closes only as after any other
    deadline.
    """
    match state.order.status:
        case OrderStatus.PAID:
            return Decision(outcome=Outcome.ALREADY_PAID)
        case OrderStatus.CLOSED:
            return Decision(outcome=Outcome.ALREADY_CLOSED)
    if expected_version not in (None, state.order.version):
        return Decision(outcome=Outcome.MOVED)
    if state.order.expires_at <= state.now:
        return Decision(outcome=Outcome.CLOSE_REQUESTED)
    row = state.pending_of(deadline_key(state.order.order_no))
    arm = Arm(
        key=deadline_key(state.order.order_no),
        kind=PendingKind.DEADLINE,
        order_no=state.order.order_no,
        attempt=1,
        delay_s=0.0,
        expected_arm_no=None if row is None else row.arm_no,
    )
    change = Change(
        order=state.order.next_version(expires_at=state.now),
        event=Event(kind=Outcome.CLOSE_REQUESTED, by=by, note=f"by {by_name}" if by_name else ""),
    )
    return Decision(outcome=Outcome.CLOSE_REQUESTED, change=change, rearm=(arm,))


def on_close_attempted(state: OrderState, key: PaymentKey) -> Decision:
    """The channel answered our request to close: from then on a verified *missing* may become definite in time."""
    payment = state.payment(key)
    if payment is None:
        return Decision(outcome=Outcome.UNKNOWN_PAYMENT)
    if payment.close_attempted_at is not None or payment.status is not PaymentStatus.OPEN:
        return Decision(outcome=Outcome.NOTHING_NEW)
    change = Change(
        order=state.order.next_version(),
        event=Event(kind=Outcome.CLOSE_ATTEMPTED, by=Source.CLOSE, key=key),
        payments=(replace(payment, close_attempted_at=state.now),),
    )
    return Decision(outcome=Outcome.CLOSE_ATTEMPTED, change=change)


def _agreeing(payment: Payment, answers: Answers) -> Evidence | None:
    """The answer about this payment, if it is about this very one."""
    answer = answers.get(payment.key)
    return None if answer is None or mismatch(payment, answer) is not None else answer


def _holds(payment: Payment, answer: Evidence | None) -> bool:
    """Whether the order cannot end while this payment is open: it is ours, or money may be there or under way."""
    if payment.origin is Origin.OURS or (isinstance(answer, Unpaid) and answer.under_way):
        return True
    return not isinstance(answer, Unpaid | Approved | Missing)


def _close_order(state: OrderState) -> Decision:
    """No payment has the money, and those of ours are definite."""
    order = state.order.next_version(status=OrderStatus.CLOSED, closed_at=state.now)
    change = Change(
        order=order,
        event=Event(kind=Outcome.CLOSED, by=Source.CLOSE),
        resolved=(deadline_key(order.order_no),),
        notification=order_notification("order.closed", order, None, now=state.now, late=False, live=state.live),
    )
    return Decision(outcome=Outcome.CLOSED, change=change)
