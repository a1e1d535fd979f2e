"""The public state of an order, as JSON for its page and its stream."""

from __future__ import annotations

import msgspec

from api.pages.html import amount_text
from core.clocks import Instant
from core.order import OrderState, PublicStatus, public_status


class PageStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The state that an order's page may know. `retry_after_s`: seconds for which its refresh button stays off.

    `live` false: test money.
    """

    status: PublicStatus
    version: int
    amount: int
    currency: str
    amount_text: str
    subject: str
    paid_at: Instant | None
    retry_after_s: int
    definite: bool
    live: bool | None


def view_status(state: OrderState, retry_after_s: int) -> PageStatus:
    order, status = state.order, public_status(state.order, state.payments, state.disputes)
    return PageStatus(
        status=status,
        version=order.version,
        amount=order.amount,
        currency=order.currency,
        amount_text=amount_text(state),
        subject=order.subject,
        paid_at=order.paid_at,
        retry_after_s=retry_after_s,
        definite=status.is_definite,
        live=state.live,
    )
