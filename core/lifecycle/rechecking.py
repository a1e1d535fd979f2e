"""Closed payments are asked again: money may come after the close, and its callback may be lost.

Questions are due a margin after the close, a margin after the channel's last moment for money, and a day after that.
The row of a closed payment is no unresolved work: the payment is definite until evidence of money says otherwise.
Nothing is captured, closed or created for it.
"""

from __future__ import annotations

from datetime import timedelta

from msgspec.structs import replace

from core.decision import Arm, Change, Decision, Event, Outcome
from core.evidence import Evidence, Source, Unclear
from core.lifecycle.attempts import next_attempt
from core.lifecycle.ending import end_of
from core.lifecycle.rules import Rules
from core.order import OrderState, Payment, PaymentStatus, Pending, PendingKind

LONGEST_WINDOW = timedelta(days=30)
"""A payment whose end is not known, or years away, gets its last questions after so long."""


def close_payment(state: OrderState, payment: Payment, evidence: Evidence, rules: Rules, by: Source) -> Decision:
    """The payment ends without money. The order lives on until its deadline: the user may still pay another way.

    Its row goes on as the question whether money came after the close.
    """
    closed = payment.moved_to(PaymentStatus.CLOSED, payable_until=end_of(payment, evidence))
    change = Change(
        order=state.order.next_version(),
        event=Event(kind=Outcome.PAYMENT_CLOSED, by=by, key=payment.key, evidence=evidence),
        payments=(closed,),
        resolved=() if _is_rechecked(closed) else (payment.key,),
    )
    rearm = (_first_recheck(state, closed, rules),) if _is_rechecked(closed) else ()
    return Decision(outcome=Outcome.PAYMENT_CLOSED, change=change, rearm=rearm)


def on_refresh(state: OrderState, rules: Rules) -> Decision:
    """A refresh of the order: query every payment that may have money, or that only a callback has paid."""
    closed = rechecked(state)
    query = tuple(payment.key for payment in (*state.open_payments(), *state.unconfirmed_payments(), *closed))
    outcome = Outcome.STILL_OPEN if query else Outcome.NOTHING_NEW
    return Decision(outcome=outcome, query=query, rearm=put_back(state, closed, rules))


def rechecked(state: OrderState) -> tuple[Payment, ...]:
    """The closed payments for which money may still come, and the paid ones of which nobody knows how much is left."""
    return tuple(row for row in state.payments if _is_rechecked(row) or row.refunded_amount is None)


def put_back(state: OrderState, payments: tuple[Payment, ...], rules: Rules) -> tuple[Arm, ...]:
    """Rows for the payments whose questions are over: a row holds the lease of a query that is made all the same."""
    return tuple(_first_recheck(state, payment, rules) for payment in payments if state.pending_of(payment.key) is None)


def next_recheck(
    state: OrderState, payment: Payment, row: Pending, evidence: Evidence, decision: Decision, rules: Rules, by: Source
) -> Decision:
    """The decision, and the next question; after the last one the row ends.

    Without a clear answer the question is repeated after n² units. Once the attempts are used up a case opens, and the
    row ends with the last question.
    """
    delay_s = _delay_s(state, payment, rules)
    if isinstance(evidence, Unclear):
        again = next_attempt(state, row, decision, rules, by)
        is_over = delay_s is None and rules.backoff.is_exhausted(row.attempt + 1)
        return replace(again, rearm=(), drop=(row.key,)) if is_over else again
    if delay_s is None:
        return replace(decision, drop=(row.key,))
    return replace(decision, rearm=(replace(_first_recheck(state, payment, rules), delay_s=delay_s),))


def _is_rechecked(payment: Payment) -> bool:
    """Whether money may come after the close. A payment that was never created at its channel cannot be paid."""
    return payment.status is PaymentStatus.CLOSED and payment.refused_at is None


def _first_recheck(state: OrderState, payment: Payment, rules: Rules) -> Arm:
    """The question a margin after the close, in the row of the payment, or in a new one if it has none."""
    row = state.pending_of(payment.key)
    return Arm(
        key=payment.key,
        kind=PendingKind.QUERY,
        order_no=payment.order_no,
        attempt=1,
        delay_s=rules.payable_margin_s,
        expected_arm_no=None if row is None else row.arm_no,
    )


def _delay_s(state: OrderState, payment: Payment, rules: Rules) -> float | None:
    """Seconds until the next of the questions after the channel's last moment for money; None: there is none left."""
    end = min(payment.payable_until, payment.created_at + LONGEST_WINDOW) + timedelta(seconds=rules.payable_margin_s)
    moments = (end, end + timedelta(seconds=rules.backoff.day_s))
    return next(((moment - state.now).total_seconds() for moment in moments if state.now < moment), None)
