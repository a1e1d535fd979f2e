"""Refresh an order: query its open and closed payments, one query of a payment at a time across all processes.

The lease of the pending row decides which process queries; the others wait for the result. A result is shared within
the cool-down; a trailing refresh (the user returns from paying) takes none that began before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from functools import partial

from core.admission import Urgency
from core.errors import NotFound, UnknownAccount
from core.evidence import Source
from core.lifecycle import Approval, is_unpaid_return, on_refresh, on_return, on_unpaid_return
from core.order import OrderState, Payment
from core.sentences import Sentence
from flows.ask import LEASE_POLL_S, query_now
from flows.capture import capture_if_due
from flows.channel_call import Deferred
from flows.commit import commit_decision
from runtime.resources import Resources
from storage.postgres import pending
from storage.postgres.orders import find_state

WAIT_S = 5.0
"""The longest wait for another process's query; then the order is returned as it is."""


async def refresh_order(
    resources: Resources,
    order_no: str,
    *,
    trailing: bool = False,
    by: Source = Source.REFRESH,
    is_awaited: Callable[[], bool] = lambda: True,
) -> OrderState:
    """Query every payment of the order that may have money, closed ones too, and return the order as it is then.

    `by` goes into its history.

    `trailing`: only a query that begins after this call counts. Otherwise one that began within the cool-down counts.
    A trailing refresh is the buyer's return, unless it is an operator's: a refused capture is tried again.
    `is_awaited`: whether the buyer, after the queries, is still where the return has led, with no link to pay by.

    Raises:
        NotFound: there is no such order.
    """
    if trailing:
        state, is_unpaid = await _refresh(resources, order_no, by, cooldown_s=0.0)
        if not is_unpaid or by is not Source.REFRESH or not is_awaited():
            return state
        decide = partial(on_unpaid_return, version=state.order.version)
        return (await commit_decision(resources, order_no, decide, known=state)).state_after or state
    cooldown_s = resources.settings.refresh_cooldown_s

    async def refresh() -> OrderState:
        return (await _refresh(resources, order_no, by, cooldown_s=cooldown_s))[0]

    return await resources.refreshing.run(order_no, refresh)


async def note_return(resources: Resources, state: OrderState) -> OrderState:
    """The buyer is back, and may have paid: until the channels have been asked, the page says *processing*. Return the
    order as it is then.
    """
    if not state.order.is_known_unpaid:
        return state
    return (await commit_decision(resources, state.order.order_no, on_return, known=state)).state_after or state


async def _refresh(resources: Resources, order_no: str, by: Source, *, cooldown_s: float) -> tuple[OrderState, bool]:
    """The order after the queries, and whether each of them said *unpaid* and nothing has changed since they began."""
    state = await find_state(resources.db, order_no)
    if state is None:
        raise NotFound(Sentence("order {order_no}", order_no=order_no))
    committed = await commit_decision(resources, order_no, partial(on_refresh, rules=resources.rules), known=state)
    if not committed.decision.query:
        return committed.state_after or state, False
    payments = filter(None, map(state.payment, committed.decision.query))
    unpaid = [await _query_or_wait(resources, payment, by, cooldown_s) for payment in payments]
    after = await find_state(resources.db, order_no) or state
    return after, all(unpaid) and after.order.version == state.order.version


async def _query_or_wait(resources: Resources, payment: Payment, by: Source, cooldown_s: float) -> bool:
    """Return once a query that began after `now − cooldown_s` has its result: ours, or another process's. True: ours
    says *unpaid*.
    """
    last_query = await pending.find_last_query(resources.db, payment.key)
    if last_query is None:
        return False
    try:
        account = await resources.accounts.get(payment.channel_account)
    except UnknownAccount:  # removed, or its credentials do not open: nobody can be asked
        return False
    since = last_query.now - timedelta(seconds=cooldown_s)
    deadline = asyncio.get_running_loop().time() + WAIT_S
    while last_query is not None and (last_query.began_at is None or last_query.began_at < since):
        leased = await pending.claim(resources.db, payment.key, resources.settings.lease_s, unanswered_since=since)
        if leased is not None:
            approval = Approval(is_new=by is Source.REFRESH and cooldown_s == 0)
            result = await query_now(
                resources, account, payment, by=by, urgency=Urgency.REFRESH, leased=leased, approval=approval
            )
            if isinstance(result, Deferred):
                return False
            result = await capture_if_due(resources, account, result, by=by, urgency=Urgency.REFRESH, approval=approval)
            return is_unpaid_return(result.payment, result.evidence)
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(LEASE_POLL_S)
        last_query = await pending.find_last_query(resources.db, payment.key)
    return False
