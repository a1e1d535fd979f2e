"""Stripe's events, in callbacks and in the list of undelivered ones.

https://docs.stripe.com/api/events/types ; each has a snapshot of its object at the time of the event.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from channels.kit.unreadable import clean_ids
from channels.stripe.api import read_raw
from channels.stripe.disputes import DISPUTE_EVENTS, REFUND_EVENTS, Dispute, dispute_evidence, refund_evidence
from channels.stripe.objects import (
    Charge,
    Id,
    Intent,
    Refund,
    Seconds,
    Session,
    charge_evidence,
    instant,
    intent_evidence,
    session_evidence,
)
from core.errors import ChannelUnreadable
from core.evidence import Evidence, Unclear, Unpaid

_INTENT_EVENTS = (
    "payment_intent.succeeded",
    "payment_intent.payment_failed",
    "payment_intent.processing",
    "payment_intent.requires_action",
    "payment_intent.amount_capturable_updated",
    "payment_intent.canceled",
)
_SESSION_EVENTS = (
    "checkout.session.completed",
    "checkout.session.async_payment_succeeded",
    "checkout.session.async_payment_failed",
    "checkout.session.expired",
)
_REFUND_EVENT = "charge.refunded"
EVENTS = (*_INTENT_EVENTS, *_SESSION_EVENTS, _REFUND_EVENT, *DISPUTE_EVENTS, *REFUND_EVENTS)

_MONEY_TYPES = ("payment_intent.", "checkout.session.", "charge.", "refund.")
_NO_MONEY = ("payment_intent.created",)
_THIN = "v1."
"""Before the type of a thin event about an object of the first API."""


class _Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    object: msgspec.Raw


class _Related(msgspec.Struct, frozen=True, kw_only=True):
    id: Any = None


class AnyObject(msgspec.Struct, frozen=True, kw_only=True):
    """The ids of an object of any kind. None of them is checked for its form."""

    id: Any = None
    metadata: Any = None
    client_reference_id: Any = None
    payment_intent: Any = None
    charge: Any = None

    @property
    def ids(self) -> tuple[str, ...]:
        metadata = self.metadata if isinstance(self.metadata, dict) else {}
        number = metadata.get("out_trade_no")
        return clean_ids(number, self.client_reference_id, self.id, self.payment_intent, self.charge)


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a callback. `account` is set only for accounts that are connected to ours.

    An event of Stripe's second API, `v2.core.event`, is thin: it has no object, and its time is text.
    """

    id: Id
    object: Literal["event", "v2.core.event"]
    type: str
    livemode: bool
    created: Seconds | str
    account: Id | None = None
    data: _Snapshot | None = None
    related_object: _Related | None = None

    @property
    def is_about_money(self) -> bool:
        """Whether it is about a payment, a refund or a dispute: not about a payout, a customer, a subscription."""
        name = self.type.removeprefix(_THIN)
        return name.startswith(_MONEY_TYPES) and name not in _NO_MONEY

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of its object that can be read, also when the object as a whole cannot."""
        if self.data is None:
            return clean_ids(None if self.related_object is None else self.related_object.id)
        try:
            return msgspec.json.decode(self.data.object, type=AnyObject).ids
        except msgspec.DecodeError:
            return ()


def event_evidence(event: Event, *, account: str, account_id: str | None) -> Evidence | None:
    """Evidence of an event, if it is about money. `account` is our name for the account, `account_id` Stripe's.

    An event that is not read further, or that has no object (a thin one), is a question about its payment. An object
    made elsewhere without a number is identified by the id of its payment or its own.
    """
    if not event.is_about_money:
        return None
    named_account = account if event.account in (None, account_id) else f"other:{event.account}"
    if event.data is None or not isinstance(event.created, int):
        return _question(event, named_account)
    return _snapshot_evidence(event, event.data.object, account=named_account, at=instant(event.created))


def _snapshot_evidence(event: Event, object_: msgspec.Raw, *, account: str, at: datetime) -> Evidence | None:
    if event.type in _INTENT_EVENTS:
        intent = read_raw(object_, Intent)
        return intent_evidence(intent, account=account, number=(*intent.numbers, intent.id)[0], at=at)
    if event.type in _SESSION_EVENTS:
        return _session_evidence(event, read_raw(object_, Session), account=account, at=at)
    if event.type == _REFUND_EVENT:
        charge = read_raw(object_, Charge)
        return charge_evidence(charge, account=account, number=charge.ids[0])
    if event.type in DISPUTE_EVENTS:
        return dispute_evidence(read_raw(object_, Dispute), account=account, at=at)
    if event.type in REFUND_EVENTS:
        return refund_evidence(read_raw(object_, Refund), account=account, at=at)
    return _question(event, account)


def _session_evidence(event: Event, session: Session, *, account: str, at: datetime) -> Evidence | None:
    """Evidence of a session; None for other uses than payments, whose PaymentIntent has events of its own."""
    if session.mode != "payment":
        return None
    number = (*session.numbers, session.id)[0]
    evidence = session_evidence(session, account=account, number=number, at=at)
    # The session stays complete and unpaid, as it was while the payment was under way.
    has_failed = event.type == "checkout.session.async_payment_failed" and isinstance(evidence, Unpaid)
    return replace(evidence, under_way=False) if has_failed else evidence


def _question(event: Event, account: str) -> Unclear:
    if not event.ids:
        raise ChannelUnreadable("no_id")
    number, *others = event.ids
    return Unclear(channel_account=account, out_trade_no=number, ids=tuple(others), reason="other_event")
