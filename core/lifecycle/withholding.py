"""Money that was disputed before it was seen here: recorded, and the order is not paid by it while it is withheld."""

from __future__ import annotations

from core.decision import Change, Decision, Event, Outcome
from core.dispute import Dispute, is_withheld
from core.evidence import Evidence, Source
from core.lifecycle.refund_sums import refund_cases, sum_resolutions
from core.order import OrderState, Payment, PaymentStatus


def on_withheld_money(state: OrderState, paid: Payment, evidence: Evidence, by: Source) -> Decision | None:
    """The payment is paid, and the order stays what it is; None if its money is there, or the order is not open.

    The dispute has its case and its notification already. Once it is won, the order becomes paid.
    """
    if state.order.is_resolved or not is_withheld(state.disputes, paid.key):
        return None
    change = Change(
        order=state.order.next_version(handed_off_at=state.order.handed_off_at or state.now),
        event=Event(kind=Outcome.DISPUTED, by=by, key=paid.key, evidence=evidence, note="paid, and disputed before"),
        payments=(paid,),
        resolved=(paid.key,),
        cases=refund_cases(state, paid),
        resolutions=sum_resolutions(state, paid),
    )
    return Decision(outcome=Outcome.DISPUTED, change=change)


def is_restored(state: OrderState, payment: Payment, left: tuple[Dispute, ...]) -> bool:
    """Whether money that paid nothing is there again. `payment` is without what turns out to be no refund, `left` are
    its disputes that are not settled.
    """
    is_unused = payment.status is PaymentStatus.PAID and payment.key != state.order.paid_by
    before = state.payment(payment.key)
    was_gone = is_withheld(state.disputes, payment.key) or (before is not None and not before.remaining_amount)
    return is_unused and was_gone and not is_withheld(left, payment.key) and bool(payment.remaining_amount)
