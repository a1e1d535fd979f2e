"""The end of a checkout whose channel gives it a life and no date."""

from __future__ import annotations

from datetime import datetime, timedelta

from core.order import Payment


def checkout_end(payment: Payment, life: timedelta, now: datetime) -> datetime:
    """The end of a checkout that was requested just now.

    The response to an earlier request may have been lost, and the channel may have returned that checkout again: so the
    life counts from the payment's start until it has passed once.
    """
    first_end = payment.created_at + life
    return first_end if now < first_end else now + life
