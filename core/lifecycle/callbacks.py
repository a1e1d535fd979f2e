"""The result of a stored callback after its query: when it is done."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from core.decision import Decision, Handled, Outcome
from core.evidence import Disputed, Evidence, Paid, Refunded
from core.lifecycle.judging import CallbackPlan


class CallbackResult(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of handling a callback, and whether the callback is done.

    `is_stored`: the commit of its decision has ended it in the inbox too.
    `wait_s`: nothing was tried, and may be tried after so many seconds; no attempt is used up.
    """

    outcome: Outcome
    is_done: bool
    is_stored: bool = False
    wait_s: float | None = None


def callback_result(plan: CallbackPlan, callback: Evidence, answer: Evidence, outcome: Outcome) -> CallbackResult:
    """The result of a callback after a query. `callback` is its own evidence, `answer` the query's,
    `outcome` of the query's decision.

    A callback is done when the query was clear and does not contradict it. A genuine *paid* that the channel does not
    confirm is not done, also when the channel calls the payment closed: a person has to look where the money is.
    """
    if outcome is Outcome.UNCLEAR:
        return CallbackResult(outcome=Outcome.MISMATCH if plan.differs else outcome, is_done=False)
    if plan.differs:
        return CallbackResult(outcome=Outcome.MISMATCH, is_done=True)
    if isinstance(callback, Paid | Refunded | Disputed) and not isinstance(answer, Paid | Refunded):
        return CallbackResult(outcome=Outcome.UNCLEAR, is_done=False)
    return CallbackResult(outcome=outcome, is_done=True)


def with_end(
    decision: Decision, plan: CallbackPlan, callback: Evidence, answer: Evidence, *, callback_id: str
) -> Decision:
    """The decision on a query, with the end of the callback that led to it, should that be done by it.

    A capture that is due has a result of its own.
    """
    result = callback_result(plan, callback, answer, decision.outcome)
    is_over = result.is_done and not (decision.capture or decision.query)
    return replace(decision, handled=Handled(id=callback_id, outcome=result.outcome)) if is_over else decision
