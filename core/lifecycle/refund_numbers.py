"""The channel's own numbers of our refunds: from its answers about a refund, from refund notices, from other evidence.

The first number of a refund is kept. Another one under the same number of ours is a second refund at the channel: a
case, as a payment's second transaction is.
"""

from __future__ import annotations

from msgspec.structs import replace

from core.decision import Case, Change, Decision, Event, Outcome
from core.evidence import Evidence, Refunded, Source, Unclear
from core.order import CaseReason, OrderState, PaymentKey, Refund, RefundStatus
from core.sentences import Sentence


def with_refund_number(answer: Evidence, notice: Unclear) -> Evidence:
    """The answer to a query, with the channel's own number of the refund that a genuine notice names."""
    if not isinstance(answer, Refunded) or notice.refund_no is None or notice.channel_refund_no is None:
        return answer
    return replace(answer, refund_numbers=answer.refund_numbers | {notice.refund_no: notice.channel_refund_no})


def numbered(refund: Refund, channel_refund_no: str | None) -> Refund:
    """The refund with the channel's number of it, unless it has one."""
    return refund if refund.channel_refund_no is not None else replace(refund, channel_refund_no=channel_refund_no)


def with_second_number(
    state: OrderState, decision: Decision, refund: Refund, channel_refund_no: str | None, by: Source
) -> Decision:
    """The decision, with a case if the channel has another number for this refund than before, unless it is open."""
    first = refund.channel_refund_no
    is_second = first is not None and channel_refund_no not in (None, first)
    if not is_second or (refund.key, CaseReason.NUMBER_REUSED) in state.open_cases:
        return decision
    numbers = {"refund_no": refund.refund_no, "first": first or "", "second": channel_refund_no or ""}
    detail = Sentence("refund {refund_no} is {first} and {second} there", **numbers)
    case = Case(reason=CaseReason.NUMBER_REUSED, key=refund.key, detail=detail)
    change = decision.change
    if change is None:
        event = Event(kind=Outcome.NUMBER_REUSED, by=by, key=refund.key, note=str(detail))
        change = Change(order=state.order.next_version(), event=event)
    if any((each.key, each.reason) == (case.key, case.reason) for each in change.cases):
        return decision
    return replace(decision, change=replace(change, cases=(*change.cases, case)))


def with_refund_numbers(
    state: OrderState, key: PaymentKey, evidence: Evidence, decision: Decision, by: Source
) -> Decision:
    """The decision, with the numbers that the evidence has of refunds of this payment. One that is only *requested*
    gets its number from the answer to its own request.
    """
    if not isinstance(evidence, Refunded) or not evidence.refund_numbers:
        return decision
    named = {
        refund.refund_no: (refund, evidence.refund_numbers[refund.refund_no])
        for refund in state.refunds_of(key)
        if refund.refund_no in evidence.refund_numbers and refund.status is not RefundStatus.REQUESTED
    }
    new = tuple(numbered(*each) for each in named.values() if each[0].channel_refund_no is None)
    if new:
        change = decision.change
        if change is None:
            event = Event(kind=Outcome.REFUND_SEEN, by=by, key=key, evidence=evidence)
            change = Change(order=state.order.next_version(), event=event)
            decision = replace(decision, outcome=Outcome.REFUND_SEEN, observation=None)
        decision = replace(decision, change=replace(change, refunds=(*change.refunds, *new)))
    for refund, number in named.values():
        decision = with_second_number(state, decision, refund, number, by)
    return decision
