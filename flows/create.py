"""Create a payment at its channel, which returns the user's checkout. Our number makes it idempotent.

A channel that is queried by its own id must know the payment before it can be queried: if the response to the creation
was lost, the payment is created once more, which returns the same payment.
"""

from __future__ import annotations

from functools import partial

import structlog

from channels.base import NO_REFERENCE, Create
from core.admission import CallKind, Urgency
from core.checkout import NO_PAYER
from core.errors import ChannelRefused, OutcomeUnknown
from core.evidence import Missing, Unclear
from core.lifecycle import on_create_refused, on_created
from core.order import Order, OrderState, Origin, Payment, PaymentStatus
from flows.channel_call import Deferred, call_channel
from flows.commit import commit_decision
from runtime.accounts import Account
from runtime.resources import Resources
from storage.postgres.orders import find_state

log = structlog.get_logger()


async def create_at_channel(
    resources: Resources, account: Account, state: OrderState, payment: Payment, urgency: Urgency = Urgency.FRESH
) -> OrderState | Deferred:
    """Create the payment and store the channel's response. Returns the order after that.

    A repetition has identical terms: subject, end and payer are those of the first request.

    Raises:
        ChannelRefused: recorded; the payment ends once a query says that the channel does not know it.
        OutcomeUnknown: it may exist; the pending row that was armed before carries on.
    """
    wanted = _create(resources, state.order, payment)
    try:
        created = await call_channel(
            resources, account, CallKind.CREATE, urgency, account.channel.create_payment, wanted
        )
    except ChannelRefused as refused:
        await commit_decision(
            resources, payment.order_no, partial(on_create_refused, key=payment.key, code=refused.code)
        )
        raise
    if isinstance(created, Deferred):
        return created
    decide = partial(
        on_created,
        key=payment.key,
        checkout=created.checkout,
        channel_reference=created.channel_reference,
        payable_until=created.payable_until,
        checkout_ends_at=created.checkout_ends_at,
    )
    return (await commit_decision(resources, payment.order_no, decide, known=state)).state_after or state


async def find_reference(
    resources: Resources, account: Account, payment: Payment
) -> Payment | Missing | Unclear | Deferred:
    """The payment with its channel reference, for a channel that is queried by its own id; or evidence without one.

    The payment is created once more, which gives the same payment back. *Missing* is the channel's own statement here
    too: it has refused to create a payment under our number, which it would have given back had it been there. Nothing
    is created for a payment that is closed: nobody was ever sent to pay it.
    """
    missing = Missing(channel_account=payment.channel_account, out_trade_no=payment.out_trade_no)
    unclear = Unclear(channel_account=payment.channel_account, out_trade_no=payment.out_trade_no, reason=NO_REFERENCE)
    if payment.refused_at is not None or payment.status is not PaymentStatus.OPEN:
        return missing
    state = await find_state(resources.db, payment.order_no)
    if state is None or payment.origin is Origin.WATCHED:
        return unclear
    try:
        after = await create_at_channel(resources, account, state, payment)
    except ChannelRefused:
        return missing
    except OutcomeUnknown as error:
        log.info("payment_create_unknown", out_trade_no=payment.out_trade_no, reason=error.detail or "unknown")
        return unclear
    if isinstance(after, Deferred):
        return after
    created = after.payment(payment.key)
    return unclear if created is None or created.channel_reference is None else created


def _create(resources: Resources, order: Order, payment: Payment) -> Create:
    base = resources.settings.public_url.rstrip("/")
    return Create(
        payment=payment,
        subject=order.subject,
        callback_url=f"{base}/callbacks/{payment.channel_account}",
        return_url=f"{base}/o/{order.page_token}/return",
        payer=payment.payer or NO_PAYER,
    )
