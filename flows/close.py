"""The end of an order that nobody paid: query, close at the channel, query again, and only then closed.

Nothing is closed here that its channel has not told to be definite; what stays unclear is tried again after n² units.
"""

from __future__ import annotations

from functools import partial

import structlog

from core.admission import Urgency
from core.decision import Outcome
from core.errors import ChannelError, NotFound, OrderPaid, UnknownAccount
from core.evidence import Source
from core.lifecycle import Rules, on_close_attempted, on_close_requested, on_deadline
from core.order import OrderState, Origin, Payment, PaymentStatus, deadline_key
from flows.ask import query_now
from flows.channel_call import Waiting, call_channel
from flows.commit import pass_door
from flows.refresh import lease_or_wait
from runtime.accounts import Account
from runtime.resources import Resources
from storage.postgres import pending
from storage.postgres.orders import find_state
from storage.postgres.pending import Leased

log = structlog.get_logger()


async def close_scheduled(resources: Resources, order_no: str, arm_no: int) -> Outcome:
    """The deadline's job. A job of an older scheduling finds nothing to do."""
    leased = await pending.claim(resources.db, deadline_key(order_no), resources.settings.lease_s, arm_no=arm_no)
    return Outcome.STALE if leased is None else await close_leased(resources, leased)


async def close_leased(resources: Resources, leased: Leased) -> Outcome:
    """An order whose deadline row is ours: make its payments definite, then decide again on fresh state."""
    state = await find_state(resources.db, leased.order_no)
    if state is None:
        return Outcome.STALE
    rules = Rules(backoff=resources.settings.backoff(), payable_margin_s=resources.settings.payable_margin_s)
    for key in on_deadline(state, rules).ask:
        payment = state.payment(key)
        if payment is not None:
            await settle_payment(resources, payment)
    committed = await pass_door(resources, leased.order_no, partial(on_deadline, rules=rules, arm_no=leased.arm_no))
    return committed.decision.outcome


async def settle_payment(resources: Resources, payment: Payment) -> None:
    """Query; if it is open and ours, close it at the channel and query again.

    Whoever is asking already is waited for: a deadline and a scheduled query that once fall together have the same gaps
    from then on, and the one would always be left to the other.
    """
    try:
        account = await resources.accounts.get(payment.channel_account)
    except UnknownAccount:
        # Removed, or its credentials do not open: nobody can be asked, and nothing is definite without being asked.
        log.error("payment_not_settled", account=payment.channel_account, out_trade_no=payment.out_trade_no)
        return
    leased = await lease_or_wait(resources, payment.key, resources.settings.callback_confirm_s)
    if leased is None:
        return
    told = await query_now(resources, account, payment, by=Source.CLOSE, urgency=Urgency.SCHEDULED, leased=leased)
    if isinstance(told, Waiting) or told.decision.outcome is not Outcome.STILL_OPEN:
        return
    if payment.origin is Origin.OURS:
        await close_payment(resources, account, payment)


async def close_payment(resources: Resources, account: Account, payment: Payment) -> None:
    """Ask the channel to take no money for it any more; what came of that is told by the query that follows."""
    try:
        closed = await call_channel(
            resources, account, Urgency.SCHEDULED, lambda: account.channel.close_payment(payment)
        )
    except ChannelError as error:
        log.info(
            "payment_not_closed", account=account.config.name, out_trade_no=payment.out_trade_no, reason=error.detail
        )
        return
    if isinstance(closed, Waiting):
        return
    await pass_door(resources, payment.order_no, partial(on_close_attempted, key=payment.key))
    leased = await lease_or_wait(resources, payment.key, resources.settings.callback_confirm_s)
    if leased is not None:
        await query_now(resources, account, payment, by=Source.CLOSE, urgency=Urgency.SCHEDULED, leased=leased)


async def request_close(resources: Resources, order_no: str) -> OrderState:
    """The merchant ends an order now: its deadline is moved to now and worked off at once, as any deadline is.

    Returns the order as it is then: closed, or not yet when a channel could not tell.

    Raises:
        NotFound: there is no such order.
        OrderPaid: it is paid.
    """
    committed = await pass_door(resources, order_no, on_close_requested)
    if committed.state is None:
        raise NotFound(f"order {order_no}")
    if committed.decision.outcome is Outcome.ALREADY_PAID:
        raise OrderPaid(f"order {order_no} is paid")
    leased = await pending.claim(resources.db, deadline_key(order_no), resources.settings.lease_s)
    if leased is not None:
        await close_leased(resources, leased)
    state = await find_state(resources.db, order_no)
    if state is None:
        raise NotFound(f"order {order_no}")
    if any(payment.status is PaymentStatus.PAID for payment in state.payments):
        raise OrderPaid(f"order {order_no} is paid")
    return state
