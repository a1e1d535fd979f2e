"""Small parts that the decisions share."""

from __future__ import annotations

from msgspec.structs import replace

from core.decision import Arm, Case, Change, Decision, Event, Outcome
from core.evidence import Source
from core.lifecycle.rules import Rules
from core.order import CaseReason, Order, OrderState, Pending, PendingKind


def next_version(order: Order, **changes: object) -> Order:
    """The order one version on."""
    return replace(order, version=order.version + 1, **changes)


def next_attempt(state: OrderState, row: Pending, decision: Decision, rules: Rules, by: Source) -> Decision:
    """Re-enqueue: attempt + 1, due in (attempt + 1)² units; after the last one a case opens, and it is due daily."""
    attempt = row.attempt + 1
    arm = Arm(
        key=row.key,
        kind=row.kind,
        order_no=row.order_no,
        attempt=attempt,
        delay_s=rules.backoff.gap_s(attempt, row.key.out_trade_no),
        expected_arm_no=row.arm_no,
    )
    of_payment = row.key if row.kind is PendingKind.QUERY else None
    if not rules.backoff.is_exhausted(attempt) or (of_payment, CaseReason.ATTEMPTS_EXHAUSTED) in state.open_cases:
        return replace(decision, rearm=(arm,))
    detail = f"{row.attempt} attempts, still not definite"
    case = Case(reason=CaseReason.ATTEMPTS_EXHAUSTED, key=of_payment, detail=detail)
    if decision.change is not None:
        change = replace(decision.change, cases=(*decision.change.cases, case))
        return replace(decision, change=change, rearm=(arm,))
    event = Event(kind=Outcome.EXHAUSTED, by=by, key=of_payment, note=detail)
    change = Change(order=next_version(state.order), event=event, cases=(case,))
    return replace(decision, outcome=Outcome.EXHAUSTED, change=change, rearm=(arm,))
