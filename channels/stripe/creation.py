"""Creation of a payment at Stripe: the request's form and the check of its response."""

from __future__ import annotations

from datetime import timedelta

from channels.base import Create, Created
from channels.kit.signed_message import read_json
from channels.kit.web_address import web_address
from channels.stripe.money import to_stripe
from channels.stripe.objects import Intent, Session, instant
from core.errors import ChannelUnreadable
from core.order import Checkout, Payment

SESSION_LIVES_MIN = timedelta(minutes=40)
"""Stripe's minimum is 30 minutes from the request. Ten more, because a creation with a lost response is repeated, in
the same words, after 1 minute and after 5."""

SESSION_LIVES_MAX = timedelta(hours=24)
INTENT_LIVES = timedelta(days=3650)
"""A PaymentIntent has no end of its own: it takes money until it is cancelled."""


def session_form(create: Create) -> list[tuple[str, str]]:
    """Form of a session. It depends on no clock, because a repeated request must be identical."""
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
    # Outside Stripe's limits the session's end differs from the payment's. It is returned either way, and we expire the
    # session at the order's deadline.
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
    """The pay page and its end.

    Raises:
        ChannelUnreadable: the response is not about the requested session.
    """
    session = read_json(body, Session)
    found = (session.livemode, session.numbers, session.amount_total, session.currency)
    if found != (live, *_expected(payment)):
        raise ChannelUnreadable("other_payment")
    return Created(
        checkout=Checkout(kind="redirect", value=web_address(session.url or "")),
        channel_reference=session.id,
        payable_until=instant(session.expires_at),
    )


def created_intent(payment: Payment, body: bytes, *, live: bool) -> Created:
    """The client secret for the merchant's page. Raises as `created_session`."""
    intent = read_json(body, Intent)
    if (intent.livemode, intent.numbers, intent.amount, intent.currency) != (live, *_expected(payment)):
        raise ChannelUnreadable("other_payment")
    if intent.client_secret is None:
        raise ChannelUnreadable("client_secret")
    return Created(
        checkout=Checkout(kind="client", value=intent.client_secret),
        channel_reference=intent.id,
        payable_until=payment.created_at + INTENT_LIVES,
    )


def _expected(payment: Payment) -> tuple[tuple[str, ...], int, str]:
    return (payment.out_trade_no,), to_stripe(payment.amount, payment.currency), payment.currency.lower()
