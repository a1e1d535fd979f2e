"""Stripe's lists: refunds, events, and the transactions of the balance."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from simulator.kernel.base import Asked, Event, EventType
from simulator.kernel.ledger import Key
from simulator.kit.asgi import Response
from simulator.stripe.objects import (
    INTENT,
    charge_object,
    intent_object,
    kind_of,
    refund_object,
    session_object,
    transaction_object,
)
from simulator.stripe.wire import Fields, Object, answer, expanded, no_such, number_of, page_of, told

if TYPE_CHECKING:
    from simulator.kernel.simulation import FarSide

DAYS_MAX = timedelta(days=366)

_INTEGER = re.compile(r"[0-9]{1,11}", re.ASCII)


def list_refunds(far_side: FarSide, asked: Asked, query: Fields) -> Response:
    of = query.get("payment_intent") or query.get("charge")
    number = None if of is None else number_of(of)
    mine = [one for one in far_side.ledger.refunds() if one.merchant_id == asked.account.merchant_id]
    return page(asked, query, [refund_object(one) for one in reversed(mine) if number in (None, one.out_trade_no)])


def retrieve_refund(far_side: FarSide, asked: Asked, query: Fields) -> Response:
    id_ = asked.request.params["id"]
    found = far_side.ledger.find_refund(Key(asked.account.merchant_id, number_of(id_)))
    return no_such("refund", id_) if found is None else told(refund_object(found), query)


# -- events and the balance --------------------------------------------------------------------------------------------


def event_object(event: Event, pay_url: str) -> Object:
    """An event with its object as it was then: the one of several that decides, for a payment has one here."""
    type_, told = _what_happened(event, pay_url)
    return {
        "id": event.callback_id,
        "object": "event",
        "api_version": "2025-03-31.basil",
        "created": int(event.created_at.timestamp()),
        "data": {"object": expanded(told, ())},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "type": type_,
    }


def _what_happened(event: Event, pay_url: str) -> tuple[str, Object]:
    payment, has_agreed = event.payment, event.payment.agreed_at is not None
    if event.type is EventType.REFUND_SUCCEEDED:
        return "charge.refunded", charge_object(payment)
    if kind_of(payment) == INTENT:
        is_paid = event.type is EventType.PAYMENT_PAID
        return f"payment_intent.{'succeeded' if is_paid else 'processing'}", intent_object(payment)
    is_slow = event.type is EventType.PAYMENT_PAID and has_agreed
    name = "async_payment_succeeded" if is_slow else "completed"
    return f"checkout.session.{name}", session_object(payment, pay_url)


def list_events(far_side: FarSide, asked: Asked, query: Fields) -> Response:
    sender, merchant_id = far_side.sender, asked.account.merchant_id
    events = sender.offered(merchant_id)
    undelivered = {event.callback_id for event in sender.undelivered(merchant_id)}
    wanted = query.get("delivery_success")
    types = {*query.many("types"), *filter(None, [query.get("type")])}
    told = [
        event_object(event, far_side.pay_url(event.payment))
        for event in reversed(events)
        if wanted is None or (event.callback_id not in undelivered) == (wanted == "true")
    ]
    return page(asked, query, [one for one in told if not types or one["type"] in types])


def retrieve_event(far_side: FarSide, asked: Asked, _: Fields) -> Response:
    id_ = asked.request.params["id"]
    events = (event for event in far_side.sender.offered(asked.account.merchant_id) if event.callback_id == id_)
    event = next(events, None)
    return no_such("event", id_) if event is None else answer(event_object(event, far_side.pay_url(event.payment)))


def list_transactions(far_side: FarSide, asked: Asked, query: Fields) -> Response:
    found = [
        transaction_object(row)
        for day in _days(query, asked.now)
        for row in far_side.statement(asked.account, day, UTC)
    ]
    return page(asked, query, list(reversed(found)))


def _days(query: Fields, now: datetime) -> Iterator[date]:
    """The days that `created` asks for, the last year at most."""
    since, until = (query.get(f"created[{name}]") or "" for name in ("gte", "lt"))
    end = datetime.fromtimestamp(int(until) - 1, UTC) if _INTEGER.fullmatch(until) else now
    start = datetime.fromtimestamp(int(since), UTC) if _INTEGER.fullmatch(since) else end - DAYS_MAX
    first = max(start, end - DAYS_MAX).date()
    for after in range((end.date() - first).days + 1):
        yield first + timedelta(days=after)


def page(asked: Asked, query: Fields, items: list[Object]) -> Response:
    path = asked.request.target.partition("?")[0]
    return told(page_of([item for item in items if _is_within(item, query)], query, path), query)


def _is_within(item: Object, query: Fields) -> bool:
    """`created` between its bounds; a line that is spoilt has no time, and is told with its day."""
    tests: dict[str, Callable[[int, int], bool]] = {
        "gte": lambda at, bound: at >= bound,
        "gt": lambda at, bound: at > bound,
        "lte": lambda at, bound: at <= bound,
        "lt": lambda at, bound: at < bound,
    }
    at = item["created"]
    bounds = [(test, query.get(f"created[{name}]") or "") for name, test in tests.items()]
    return not at or all(test(at, int(text)) for test, text in bounds if _INTEGER.fullmatch(text))
