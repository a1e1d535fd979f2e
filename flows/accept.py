"""An operator decides about money that came after close, under the policy `flag`: the order becomes paid."""

from __future__ import annotations

from functools import partial

from core.acts import Preview
from core.decision import Outcome
from core.errors import NotFound, NotPossible, PreviewOutdated
from core.lifecycle import on_late_accepted
from core.order import CaseReason, OrderState
from core.previews import accept_preview
from core.sentences import Sentence
from flows.commit import commit_decision
from runtime.resources import Resources
from storage.postgres.cases import resolve_cases
from storage.postgres.orders import find_state


async def preview_accept(resources: Resources, order_no: str) -> Preview:
    """Effects of accepting as things stand. Raises NotFound."""
    state = await find_state(resources.db, order_no)
    if state is None:
        raise NotFound(Sentence("order {order_no}", order_no=order_no))
    return accept_preview(state)


async def accept_late(
    resources: Resources, order_no: str, *, by: str, expected_version: int | None = None
) -> OrderState:
    """Make the order paid by the payment that its channel has confirmed, and resolve its `paid_late` case. A paid order
    stays as it is.

    Raises:
        NotFound: there is no such order.
        NotPossible: no payment of it has been paid at its channel, or what was paid has gone back or is going back.
        PreviewOutdated: the order has moved on since `expected_version`.
    """
    decide = partial(on_late_accepted, by_name=by, expected_version=expected_version)
    committed = await commit_decision(resources, order_no, decide)
    if committed.state_after is None:
        raise NotFound(Sentence("order {order_no}", order_no=order_no))
    preview = accept_preview(committed.state_after)
    if committed.decision.outcome is Outcome.MOVED:
        raise PreviewOutdated(preview)
    if committed.decision.outcome is Outcome.NOT_ACCEPTABLE and preview.refusal is not None:
        raise NotPossible(preview.refusal)
    await resolve_cases(resources.db, order_no, CaseReason.PAID_LATE, resolution="accepted", by=by)
    return committed.state_after
