"""An operator attaches money that nodrop did not know to an order. The payment is inserted open; only the query that
follows moves it, by the same rules as any other evidence.
"""

from __future__ import annotations

from core.decision import Change, Decision, Event, Outcome
from core.evidence import Source
from core.lifecycle.rules import PaymentTerms, Rules
from core.lifecycle.starting import first_query, new_payment
from core.order import OrderState, OrderStatus


def on_attached(
    state: OrderState, terms: PaymentTerms, rules: Rules, *, by_name: str, expected_version: int | None = None
) -> Decision:
    """Insert the payment with the row of its query, whatever the order's status is: money may come late or twice.

    The flow has queried the channel, and has found money with the order's amount in its world. What has begun in the
    other world since is looked at again.
    """
    if any(row.key == (terms.account, terms.out_trade_no) for row in state.payments):
        return Decision(outcome=Outcome.NOTHING_NEW)
    if expected_version not in (None, state.order.version) or state.is_other_world(terms.live):
        return Decision(outcome=Outcome.MOVED)
    payment = new_payment(state.order, terms, 1 + len(state.payments), state.now)
    status = OrderStatus.PAYING if state.order.status is OrderStatus.CREATED else state.order.status
    change = Change(
        order=state.order.next_version(status=status, handed_off_at=state.order.handed_off_at or state.now),
        event=Event(kind=Outcome.ATTACHED, by=Source.OPERATOR, key=payment.key, note=f"by {by_name}"),
        new_payments=(payment,),
        arm=(first_query(payment, rules),),
    )
    return Decision(outcome=Outcome.ATTACHED, change=change)
