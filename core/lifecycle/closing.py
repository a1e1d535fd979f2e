"""The end of an order that nobody paid. Nothing is closed here that its channel has not told to be definite."""

from __future__ import annotations

from msgspec.structs import replace

from core.decision import Arm, Change, Decision, Event, Outcome
from core.evidence import Source
from core.lifecycle.attempts import next_attempt, next_version
from core.lifecycle.rules import Rules
from core.notice import order_notification
from core.order import OrderState, OrderStatus, Origin, PaymentKey, PaymentStatus, PendingKind, deadline_key


def on_deadline(state: OrderState, rules: Rules, *, arm_no: int | None = None) -> Decision:
    """The order's time is over. Nothing is closed here that its channel has not told to be definite.

    With open payments: `ask` and `close` name them; the flow queries, closes at the channel and queries again, and
    calls this once more with `arm_no`, upon which what is still not definite is tried again after n² units.
    """
    order, row = state.order, state.pending_of(deadline_key(state.order.order_no))
    if order.is_resolved:
        return Decision(outcome=Outcome.NOTHING_NEW, drop=() if row is None else (row.key,))
    if state.now < order.expires_at:
        return Decision(outcome=Outcome.NOT_YET)
    if not state.open_payments():
        return _close_order(state)
    ask = tuple(payment.key for payment in state.open_payments())
    close = tuple(payment.key for payment in state.open_payments() if payment.origin is Origin.OURS)
    if arm_no is None or row is None or row.arm_no != arm_no:
        return Decision(outcome=Outcome.NOT_YET, ask=ask, close=close)
    return next_attempt(state, row, Decision(outcome=Outcome.NOT_YET, ask=ask, close=close), rules, Source.CLOSE)


def on_close_requested(state: OrderState) -> Decision:
    """The merchant ends an order early: its deadline is now, and it closes only as after any other deadline."""
    match state.order.status:
        case OrderStatus.PAID:
            return Decision(outcome=Outcome.ALREADY_PAID)
        case OrderStatus.CLOSED:
            return Decision(outcome=Outcome.ALREADY_CLOSED)
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
        order=next_version(state.order, expires_at=state.now), event=Event(kind=Outcome.CLOSE_REQUESTED, by=Source.API)
    )
    return Decision(outcome=Outcome.CLOSE_REQUESTED, change=change, rearm=(arm,))


def on_close_attempted(state: OrderState, key: PaymentKey) -> Decision:
    """The channel answered our request to close: from then on a verified *missing* may become definite in time."""
    payment = state.payment(key)
    if payment is None or payment.close_attempted_at is not None or payment.status is not PaymentStatus.OPEN:
        return Decision(outcome=Outcome.NOTHING_NEW)
    change = Change(
        order=next_version(state.order),
        event=Event(kind=Outcome.CLOSE_ATTEMPTED, by=Source.CLOSE, key=key),
        payments=(replace(payment, close_attempted_at=state.now),),
    )
    return Decision(outcome=Outcome.CLOSE_ATTEMPTED, change=change)


def _close_order(state: OrderState) -> Decision:
    """Every payment is definite and none has the money."""
    order = next_version(state.order, status=OrderStatus.CLOSED, closed_at=state.now)
    change = Change(
        order=order,
        event=Event(kind=Outcome.CLOSED, by=Source.CLOSE),
        resolved=(deadline_key(order.order_no),),
        notification=order_notification("order.closed", order, None, now=state.now, late=False),
    )
    return Decision(outcome=Outcome.CLOSED, change=change)
