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
from core.order import OrderState, Payment, PaymentKey
from flows.ask import query_now
from runtime.resources import Resources
from storage.postgres import pending
from storage.postgres.orders import find_state
from storage.postgres.pending import Leased

WAIT_S = 5.0
"""How long a refresh waits for somebody else's query before it is answered with the order as it is."""

_LOOK_AGAIN_S = 0.1


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
    for key in on_refresh(state).ask:
        payment = state.payment(key)
        if payment is not None:
            await _ask_or_wait(resources, payment, by, cooldown_s)
    return await find_state(resources.db, order_no) or state


async def _ask_or_wait(resources: Resources, payment: Payment, by: Source, cooldown_s: float) -> None:
    """Until a query that began after `now − cooldown_s` is answered: ours, or somebody else's."""
    stands = await pending.find_last_query(resources.db, payment.key)
    if stands is None:
        return
    try:
        account = await resources.accounts.get(payment.channel_account)
    except UnknownAccount:  # removed, or its credentials do not open: there is nobody to ask
        return
    since = stands.now - timedelta(seconds=cooldown_s)
    deadline = asyncio.get_running_loop().time() + WAIT_S
    while stands is not None and (stands.began_at is None or stands.began_at < since):
        leased = await pending.claim(resources.db, payment.key, resources.settings.lease_s, unanswered_since=since)
        if leased is not None:
            await query_now(resources, account, payment, by=by, urgency=Urgency.REFRESH, leased=leased)
            return
        if asyncio.get_running_loop().time() > deadline:
            return
        await asyncio.sleep(_LOOK_AGAIN_S)
        stands = await pending.find_last_query(resources.db, payment.key)


async def lease_or_wait(resources: Resources, key: PaymentKey, within_s: float) -> Leased | None:
    """The lease, waiting for whoever is asking now; None when the row is gone or the time is over."""
    deadline = asyncio.get_running_loop().time() + within_s
    while True:
        leased = await pending.claim(resources.db, key, resources.settings.lease_s)
        if leased is not None or await pending.find_last_query(resources.db, key) is None:
            return leased
        if asyncio.get_running_loop().time() > deadline:
            return None
        await asyncio.sleep(_LOOK_AGAIN_S)
