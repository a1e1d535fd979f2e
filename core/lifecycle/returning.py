"""The buyer comes back from a channel: what the page may say until the channels have been asked, and after that."""

from __future__ import annotations

from core.decision import Change, Decision, Event, Outcome
from core.evidence import Approved, Evidence, Source
from core.lifecycle.unpaid import is_verified_unpaid
from core.order import OrderState, Payment, PaymentKey

VERSIONS_MAX = 200
"""An order with so many changes gets no more of these: whoever has the page can cause two with each return."""


def on_return(state: OrderState) -> Decision:
    """The buyer may have paid since the channels said *unpaid*: that counts no more."""
    change = handed_again(state, None, Outcome.RETURNED, Source.REFRESH)
    return Decision(outcome=Outcome.NOTHING_NEW if change is None else Outcome.RETURNED, change=change)


def on_unpaid_return(state: OrderState, version: int) -> Decision:
    """Every payment was verified unpaid by a query that began after the return, while the order had this version."""
    order = state.order
    if order.is_resolved or order.version != version or version >= VERSIONS_MAX:
        return Decision(outcome=Outcome.NOTHING_NEW)
    change = Change(
        order=order.next_version(unpaid_version=version + 1),
        event=Event(kind=Outcome.RETURNED_UNPAID, by=Source.REFRESH),
    )
    return Decision(outcome=Outcome.RETURNED_UNPAID, change=change)


def is_unpaid_return(payment: Payment, evidence: Evidence) -> bool:
    """Whether the buyer has done nothing at the channel: an approval takes no money yet, and yet is something."""
    return not isinstance(evidence, Approved) and is_verified_unpaid(payment, evidence)


def handed_again(state: OrderState, key: PaymentKey | None, outcome: Outcome, by: Source) -> Change | None:
    """The change with which *unpaid* counts no more, because the buyer may go and pay; None if it does not count."""
    if not state.order.is_known_unpaid:
        return None
    return Change(order=state.order.next_version(), event=Event(kind=outcome, by=by, key=key))
