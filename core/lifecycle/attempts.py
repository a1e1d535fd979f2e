"""The next attempt of a pending row: when it is due, and the case that opens once the attempts are used up."""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import replace

from core.decision import Arm, Case, Change, Decision, Event, Outcome
from core.evidence import Source
from core.lifecycle.rules import Rules
from core.order import CaseReason, OrderState, PaymentKey, Pending, PendingKind
from core.sentences import Sentence


def next_attempt(
    state: OrderState,
    row: Pending,
    decision: Decision,
    rules: Rules,
    by: Source,
    *,
    payable_since: datetime | None = None,
) -> Decision:
    """The decision, and the row due again as the next attempt: after n² units, once a day when they are used up.

    `payable_since` is given where the channel has just said that the payment can still be paid, and is when it began.
    Such a payment is merely unpaid: it goes on more often than once a day, and no case opens.
    """
    number = row.key.out_trade_no
    if payable_since is None:
        next_try = rules.backoff.next_try(row.attempt, number)
    else:
        age_s = (state.now - payable_since).total_seconds()
        next_try = rules.backoff.next_while_payable(row.attempt, number, age_s)
    arm = Arm(
        key=row.key,
        kind=row.kind,
        order_no=row.order_no,
        attempt=next_try.attempt,
        delay_s=next_try.delay_s,
        expected_arm_no=row.arm_no,
    )
    decision = replace(decision, rearm=(arm,))
    if not next_try.is_exhausted:
        return decision
    payment = row.key if row.kind is PendingKind.QUERY else None
    return with_exhausted_case(
        state, decision, payment, by, Sentence("{count} attempts, still not definite", count=row.attempt)
    )


def with_exhausted_case(
    state: OrderState, decision: Decision, payment: PaymentKey | None, by: Source, detail: str
) -> Decision:
    """The decision, and the case *attempts exhausted* unless it is open. Nothing else moves: this is no evidence."""
    if (payment, CaseReason.ATTEMPTS_EXHAUSTED) in state.open_cases:
        return decision
    case = Case(reason=CaseReason.ATTEMPTS_EXHAUSTED, key=payment, detail=detail)
    if decision.change is not None:
        return replace(decision, change=replace(decision.change, cases=(*decision.change.cases, case)))
    event = Event(kind=Outcome.EXHAUSTED, by=by, key=payment, note=str(detail))
    change = Change(order=state.order.next_version(), event=event, cases=(case,))
    return replace(decision, outcome=Outcome.EXHAUSTED, change=change)
