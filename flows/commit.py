"""Through the one door, and then what follows a commit: jobs armed and cancelled, pages told."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from core.decision import Decision, Outcome
from core.order import OrderState
from flows.rearm import after_commit
from runtime.resources import Resources
from storage.postgres.door import Committed, TransactionClaimed, transition

DecideThere = Callable[[OrderState], Decision]
"""A decision about an order that is there."""


class DecideOnEvidence(Protocol):
    """The same on evidence of money; `claimed` tells that another payment has its channel transaction already."""

    def __call__(self, state: OrderState, *, claimed: bool = False) -> Decision: ...


async def pass_door(
    resources: Resources, order_no: str, decide: DecideThere, *, known: OrderState | None = None
) -> Committed:
    """One order, which is there: otherwise the outcome is `stale`. `known` saves reading what was just read.

    Raises:
        ConflictsExhausted, DatabaseUnavailable: nothing is known of the outcome; it is decided again later.
    """
    committed = await transition(resources.db, order_no, partial(_if_there, decide), known=known)
    await after_commit(resources, committed)
    return committed


async def pass_door_with_evidence(
    resources: Resources, order_no: str, decide: DecideOnEvidence, *, known: OrderState | None = None
) -> Committed:
    """The same with evidence. When the database says that another payment has this channel transaction, it is decided
    again knowing that. Raises as `pass_door`.
    """
    try:
        return await pass_door(resources, order_no, decide, known=known)
    except TransactionClaimed:
        return await pass_door(resources, order_no, partial(decide, claimed=True))


def _if_there(decide: DecideThere, state: OrderState | None) -> Decision:
    return Decision(outcome=Outcome.STALE) if state is None else decide(state)
