"""The erasure of an order's personal texts, when nothing about it is open. Amounts, numbers and the history stay."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from core.decision import Change, Decision, Event, Outcome
from core.evidence import Source
from core.order import OrderState, Payment


def on_erase(state: OrderState, by_name: str) -> Decision:
    """An operator erases subject, metadata and return address, and checkout and payer of each payment.

    An order that is erased already does not change.
    """
    if any(open_work(state)):
        return Decision(outcome=Outcome.NOT_ERASABLE)
    order = state.order
    payments = tuple(map(_erased, filter(_has_personal, state.payments)))
    if not (order.subject or order.metadata or order.return_url or order.payer or payments):
        return Decision(outcome=Outcome.NOTHING_NEW)
    change = Change(
        order=order.next_version(subject="", metadata={}, return_url=None),
        event=Event(kind=Outcome.ERASED, by=Source.OPERATOR, note=f"by {by_name}"),
        payments=payments,
    )
    return Decision(outcome=Outcome.ERASED, change=change)


def on_left_payer(state: OrderState) -> Decision:
    """The order has ended and still has its payer: a process of a release that did not know the payer has ended it."""
    if state.order.payer is None or not state.order.is_resolved:
        return Decision(outcome=Outcome.NOTHING_NEW)
    change = Change(order=state.order.next_version(), event=Event(kind=Outcome.ERASED, by=Source.SWEEP, note="payer"))
    return Decision(outcome=Outcome.ERASED, change=change)


def open_work(state: OrderState) -> Iterator[str]:
    """Sentences about what is not over yet, for a person."""
    if not state.order.is_resolved:
        yield f"the order is {state.order.status}: it must be paid or closed first"
    for payment in state.open_payments():
        yield f"payment {payment.out_trade_no} is open"
    for row in state.pending:
        if row.key.channel_account and row.key not in {payment.key for payment in state.open_payments()}:
            yield f"payment {row.key.out_trade_no} is still queried, until about a day after its close"
    for refund in state.refunds:
        if not refund.status.is_final:
            yield f"refund {refund.refund_no} is {refund.status}"
    for dispute in state.disputes:
        if not dispute.state.is_final:
            yield f"dispute {dispute.dispute_id} is {dispute.state}"
    for reason in sorted({reason for _, reason in state.open_cases}):
        yield f"a case {reason} is open: `nodrop cases list` shows it"


def _has_personal(payment: Payment) -> bool:
    return payment.checkout is not None or payment.payer is not None


def _erased(payment: Payment) -> Payment:
    return replace(payment, checkout=None, payer=None)
