"""The public state of an order, as JSON for its page and its stream."""

from __future__ import annotations

import msgspec

from api.pages.html import amount_text
from api.pages.money import shown_amount
from api.pages.texts import LANGUAGES
from core.clocks import Instant
from core.order import OrderState, PublicStatus, public_status
from core.phase import Phase, phase_of, returned_money


class GoingBack(msgspec.Struct, frozen=True, kw_only=True):
    """Money that came late or twice and goes back; `settled_at`: when all of it had gone back."""

    amount_text: str
    since: Instant
    settled_at: Instant | None


class PageStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The state that an order's page may know. `retry_after_s`: seconds for which its refresh button stays off.

    `live` false: test money. `amount_text` is for programs, `amount_shown` in the reader's way.
    `phase` says more than `status`: what the page shows.
    """

    status: PublicStatus
    phase: Phase
    version: int
    amount: int
    currency: str
    amount_text: str
    amount_shown: str
    subject: str
    paid_at: Instant | None
    going_back: GoingBack | None
    retry_after_s: int
    definite: bool
    live: bool | None


def view_status(state: OrderState, retry_after_s: int, lang: str) -> PageStatus:
    order, status = state.order, public_status(state.order, state.payments, state.disputes)
    return PageStatus(
        status=status,
        phase=phase_of(state),
        version=order.version,
        amount=order.amount,
        currency=order.currency,
        amount_text=amount_text(order.amount, order.currency),
        amount_shown=shown_amount(order.amount, order.currency, LANGUAGES[lang]),
        subject=order.subject,
        paid_at=order.paid_at,
        going_back=_going_back(state),
        retry_after_s=retry_after_s,
        definite=status.is_definite,
        live=state.live,
    )


def _going_back(state: OrderState) -> GoingBack | None:
    money = returned_money(state)
    if money is None:
        return None
    text = amount_text(money.amount, money.currency)
    return GoingBack(amount_text=text, since=money.since, settled_at=money.settled_at)
