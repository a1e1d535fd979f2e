"""Stripe's events, in callbacks and in the list of undelivered ones.

https://docs.stripe.com/api/events/types ; each has a snapshot of its object at the time of the event.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec.structs import replace

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
from core.evidence import Evidence, Unpaid

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


class _Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    object: msgspec.Raw


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


def event_evidence(event: Event, *, account: str, account_id: str | None) -> Evidence | None:
    """Evidence of an event, if it is about a payment. `account` is our name for the account, `account_id` Stripe's.

    A thin event has nothing of its object, not even our number, so it is no evidence; the payment's query follows. An
    object made elsewhere without a number is identified by the id of its payment or its own.
    """
    if event.data is None or not isinstance(event.created, int):
        return None
    named_account = account if event.account in (None, account_id) else f"other:{event.account}"
    at = instant(event.created)
    if event.type in _INTENT_EVENTS:
        intent = read_raw(event.data.object, Intent)
        return intent_evidence(intent, account=named_account, number=(*intent.numbers, intent.id)[0], at=at)
    if event.type in _SESSION_EVENTS:
        session = read_raw(event.data.object, Session)
        if session.mode != "payment":
            return None
        number = (*session.numbers, session.id)[0]
        evidence = session_evidence(session, account=named_account, number=number, at=at)
        # The session stays complete and unpaid, as it was while the payment was under way.
        has_failed = event.type == "checkout.session.async_payment_failed" and isinstance(evidence, Unpaid)
        return replace(evidence, under_way=False) if has_failed else evidence
    if event.type == _REFUND_EVENT:
        charge = read_raw(event.data.object, Charge)
        return charge_evidence(charge, account=named_account, number=charge.ids[0])
    if event.type in DISPUTE_EVENTS:
        return dispute_evidence(read_raw(event.data.object, Dispute), account=named_account, at=at)
    if event.type in REFUND_EVENTS:
        return refund_evidence(read_raw(event.data.object, Refund), account=named_account, at=at)
    return None
