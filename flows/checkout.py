"""The checkout of a payment: the first one, and a fresh one under the same number when it has ended."""

from __future__ import annotations

import structlog

from core.admission import Urgency
from core.checkout import NO_PAYER
from core.errors import ChannelRefused, OutcomeUnknown, PaymentRefused, PaymentUnclear
from core.evidence import Source
from core.lifecycle import PaymentTerms, open_payment
from core.order import OrderState, Origin, Payment
from flows.ask import query_now
from flows.channel_call import Deferred
from flows.create import create_at_channel
from runtime.accounts import Account
from runtime.resources import Resources
from storage.postgres import pending
from storage.postgres.orders import find_state

log = structlog.get_logger()


async def create_checkout(
    resources: Resources, state: OrderState, account: Account, terms: PaymentTerms, urgency: Urgency = Urgency.FRESH
) -> OrderState:
    """Create the payment at its channel if it has no checkout yet. If the outcome is unknown, it is queried later."""
    row = None if state.order.is_resolved else open_payment(state, terms)
    if row is None or row.origin is not Origin.OURS or row.checkout is not None or row.refused_at is not None:
        return state
    try:
        after = await create_at_channel(resources, account, state, row, urgency)
    except ChannelRefused as refused:
        await _confirm_refusal(resources, account, row)
        raise PaymentRefused(f"the channel refused the payment: {refused.code}") from None
    except OutcomeUnknown as error:
        reason = error.detail or "unknown"
        log.warning("payment_create_unknown", order_no=row.order_no, out_trade_no=row.out_trade_no, reason=reason)
        return state
    if isinstance(after, Deferred):
        log.warning("payment_create_waits", order_no=row.order_no, account=account.config.name, reason=after.reason)
        return state
    return after


async def renew_checkout(
    resources: Resources, account: Account, state: OrderState, ended: Payment, terms: PaymentTerms, urgency: Urgency
) -> OrderState | None:
    """Create the payment again under its number, with identical terms, for a fresh checkout.

    None: its channel gives none, or not for this payer.

    Raises:
        PaymentUnclear: the channel gives no clear response.
    """
    is_anothers = ended.payer is not None and terms.payer not in (NO_PAYER, ended.payer)
    if is_anothers or ended.refused_at is not None or not account.channel.checkouts.renews:
        return None
    try:
        after = await create_at_channel(resources, account, state, ended, urgency)
    except ChannelRefused as refused:
        log.info("checkout_not_renewed", out_trade_no=ended.out_trade_no, reason=refused.code)
        return None
    except OutcomeUnknown as error:
        log.warning("checkout_not_renewed", out_trade_no=ended.out_trade_no, reason=error.detail or "unknown")
        raise PaymentUnclear("the channel gave no fresh checkout, and the payment can still be paid") from None
    if isinstance(after, Deferred):
        raise PaymentUnclear("the channel cannot be asked for a fresh checkout now")
    return after


async def _confirm_refusal(resources: Resources, account: Account, row: Payment) -> None:
    """Query a refused payment: the refusal ends it once the channel does not know it."""
    leased = await pending.claim(resources.db, row.key, resources.settings.lease_s)
    state = await find_state(resources.db, row.order_no)
    refused = None if state is None else state.payment(row.key)
    if leased is not None and refused is not None:
        await query_now(resources, account, refused, by=Source.API, urgency=Urgency.FRESH, leased=leased)
