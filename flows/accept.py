"""An operator decides about money that came after close, under the policy `flag`: the order becomes paid."""

from __future__ import annotations

from functools import partial

from core.decision import Outcome
from core.errors import InvalidRequest, NotFound
from core.lifecycle import on_late_accepted
from core.order import CaseReason, OrderState
from flows.commit import commit_decision
from runtime.resources import Resources
from storage.postgres.cases import resolve_cases


async def accept_late(resources: Resources, order_no: str, *, by: str) -> OrderState:
    """Make the order paid by the payment that its channel has confirmed, and resolve its `paid_late` case.

    Raises:
        NotFound: there is no such order.
        InvalidRequest: no payment of it has been paid at its channel, or what was paid has gone back or is going back.
    """
    committed = await commit_decision(resources, order_no, partial(on_late_accepted, by_name=by))
    if committed.state_after is None:
        raise NotFound(f"order {order_no}")
    if committed.decision.outcome is Outcome.NOT_ACCEPTABLE:
        raise InvalidRequest(
            f"order {order_no} has no payment that its channel has confirmed and whose money is known to be there and"
            " is not going back"
        )
    await resolve_cases(resources.db, order_no, CaseReason.PAID_LATE, resolution="accepted", by=by)
    return committed.state_after
