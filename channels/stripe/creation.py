"""Creating a payment at Stripe: what is asked for, and whether the answer is about it."""

from __future__ import annotations

from datetime import timedelta

from channels.base import Create, Created
from channels.kit.json_body import read_json
from channels.kit.web_address import web_address
from channels.stripe.money import to_stripe
from channels.stripe.objects import Intent, Session, instant
from core.errors import ChannelUnreadable
from core.order import Checkout, Payment

SESSION_LIVES_MIN = timedelta(minutes=40)
"""Stripe wants 30 minutes from when it is asked. Ten more: a creation whose answer was lost is asked for again, word by
word or it is an error, after 1 minute and after 5."""

SESSION_LIVES_MAX = timedelta(hours=24)
INTENT_LIVES = timedelta(days=3650)
"""A PaymentIntent has no end of its own: it takes money until it is cancelled."""


def session_form(create: Create) -> list[tuple[str, str]]:
    """Made of what does not change, the clock least of all: asking again has to be word for word the same."""
    payment, price = create.payment, "line_items[0][price_data]"
    form = [
        ("mode", "payment"),
        ("line_items[0][quantity]", "1"),
        (f"{price}[currency]", payment.currency.lower()),
        (f"{price}[unit_amount]", str(to_stripe(payment.amount, payment.currency))),
        (f"{price}[product_data][name]", create.subject),
        ("client_reference_id", payment.out_trade_no),
        ("metadata[out_trade_no]", payment.out_trade_no),
        ("payment_intent_data[metadata][out_trade_no]", payment.out_trade_no),
        ("success_url", create.return_url),
        ("cancel_url", create.return_url),
    ]
    # A session that may not live as long, or as short, as the payment lives by Stripe's own rule. It is told to the
    # payment either way, and expired by us at the order's deadline.
    if payment.payable_until <= payment.created_at + SESSION_LIVES_MAX:
        until = max(payment.payable_until, payment.created_at + SESSION_LIVES_MIN)
        form.append(("expires_at", str(int(until.timestamp()))))
    return form


def intent_form(create: Create) -> list[tuple[str, str]]:
    payment = create.payment
    return [
        ("amount", str(to_stripe(payment.amount, payment.currency))),
        ("currency", payment.currency.lower()),
        ("automatic_payment_methods[enabled]", "true"),
        ("description", create.subject),
        ("metadata[out_trade_no]", payment.out_trade_no),
    ]


def created_session(payment: Payment, body: bytes, *, live: bool) -> Created:
    """The pay page, and until when it takes money.

    Raises:
        ChannelUnreadable: it is not the session that was asked for.
    """
    session = read_json(body, Session)
    if session.livemode is not live or (session.named_number, session.amount_total, session.currency) != _expected(
        payment
    ):
        raise ChannelUnreadable("other_payment")
    return Created(
        checkout=Checkout(kind="redirect", value=web_address(session.url or "")),
        channel_reference=session.id,
        payable_until=instant(session.expires_at),
    )


def created_intent(payment: Payment, body: bytes, *, live: bool) -> Created:
    """The secret with which the merchant's page pays. Raises as `created_session`."""
    intent = read_json(body, Intent)
    if intent.livemode is not live or (intent.named_number, intent.amount, intent.currency) != _expected(payment):
        raise ChannelUnreadable("other_payment")
    if intent.client_secret is None:
        raise ChannelUnreadable("client_secret")
    return Created(
        checkout=Checkout(kind="client", value=intent.client_secret),
        channel_reference=intent.id,
        payable_until=payment.created_at + INTENT_LIVES,
    )


def _expected(payment: Payment) -> tuple[str, int, str]:
    return payment.out_trade_no, to_stripe(payment.amount, payment.currency), payment.currency.lower()
