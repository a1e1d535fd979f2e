"""Somebody looks: one query per payment at a time across all processes, however many ask for it.

The lease of the pending row decides who asks the channel; everybody else waits for the answer. Within the cool-down an
answer is shared; somebody who must know what is true *now* (the user comes back from paying) gets a trailing query.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

from core.admission import Urgency
from core.errors import NotFound, UnknownAccount
from core.evidence import Source
from core.lifecycle import on_refresh
from core.order import OrderState, Payment
from flows.ask import LEASE_POLL_S, query_now
from runtime.resources import Resources
from storage.postgres import pending
from storage.postgres.orders import find_state

WAIT_S = 5.0
"""How long a refresh waits for somebody else's query before it is answered with the order as it is."""


async def refresh_order(
    resources: Resources, order_no: str, *, trailing: bool = False, by: Source = Source.REFRESH
) -> OrderState:
    """Ask about every open payment of the order and return what is known then; `by` goes into its history.

    `trailing`: only a query that begins after this call counts. Otherwise one that began within the cool-down will do.

    Raises:
        NotFound: there is no such order.
    """
    if trailing:
        return await _refresh(resources, order_no, by, cooldown_s=0.0)
    cooldown_s = resources.settings.refresh_cooldown_s
    return await resources.refreshing.run(order_no, lambda: _refresh(resources, order_no, by, cooldown_s=cooldown_s))


async def _refresh(resources: Resources, order_no: str, by: Source, *, cooldown_s: float) -> OrderState:
    state = await find_state(resources.db, order_no)
    if state is None:
        raise NotFound(f"order {order_no}")
    for key in on_refresh(state).query:
        payment = state.payment(key)
        if payment is not None:
            await _ask_or_wait(resources, payment, by, cooldown_s)
    return await find_state(resources.db, order_no) or state


async def _ask_or_wait(resources: Resources, payment: Payment, by: Source, cooldown_s: float) -> None:
    """Until a query that began after `now − cooldown_s` is answered: ours, or somebody else's."""
    last_query = await pending.find_last_query(resources.db, payment.key)
    if last_query is None:
        return
    try:
        account = await resources.accounts.get(payment.channel_account)
    except UnknownAccount:  # removed, or its credentials do not open: there is nobody to ask
        return
    since = last_query.now - timedelta(seconds=cooldown_s)
    deadline = asyncio.get_running_loop().time() + WAIT_S
    while last_query is not None and (last_query.began_at is None or last_query.began_at < since):
        leased = await pending.claim(resources.db, payment.key, resources.settings.lease_s, unanswered_since=since)
        if leased is not None:
            await query_now(resources, account, payment, by=by, urgency=Urgency.REFRESH, leased=leased)
            return
        if asyncio.get_running_loop().time() > deadline:
            return
        await asyncio.sleep(LEASE_POLL_S)
        last_query = await pending.find_last_query(resources.db, payment.key)
