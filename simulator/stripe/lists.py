"""Stripe's lists: refunds, events, and the transactions of the balance."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta

from simulator.kernel.base import Event, EventType
from simulator.kernel.dispatch import Call
from simulator.kernel.ledger import Key
from simulator.kernel.simulation import Simulation
from simulator.kit.asgi import Response
from simulator.stripe.disputes import dispute_type_and_object
from simulator.stripe.objects import (
    INTENT,
    charge_object,
    intent_object,
    kind_of,
    refund_object,
    session_object,
    transaction_object,
)
from simulator.stripe.wire import (
    Fields,
    Object,
    charge_id,
    expanded,
    expanded_response,
    not_found,
    number_of,
    object_response,
    page_of,
)

DAYS_MAX = timedelta(days=366)

_INTEGER = re.compile(r"[0-9]{1,11}", re.ASCII)


def list_refunds(simulation: Simulation, call: Call, query: Fields) -> Response:
    of = query.get("payment_intent") or query.get("charge")
    number = None if of is None else number_of(of)
    mine = [one for one in simulation.ledger.refunds() if one.merchant_id == call.account.merchant_id]
    return page(call, query, [refund_object(one) for one in reversed(mine) if number in (None, one.out_trade_no)])


def retrieve_charge(simulation: Simulation, call: Call, query: Fields) -> Response:
    """Return the charge of a payment that is paid."""
    id_ = call.request.params["id"]
    found = simulation.ledger.find(Key(call.account.merchant_id, number_of(id_)), call.now)
    is_there = found is not None and found.status.was_paid and charge_id(found.terms.out_trade_no) == id_
    return expanded_response(charge_object(found), query) if found and is_there else not_found("charge", id_)


def retrieve_refund(simulation: Simulation, call: Call, query: Fields) -> Response:
    id_ = call.request.params["id"]
    found = simulation.ledger.find_refund(Key(call.account.merchant_id, number_of(id_)))
    return not_found("refund", id_) if found is None else expanded_response(refund_object(found), query)


# -- events and the balance --------------------------------------------------------------------------------------------


def event_object(event: Event, pay_url: str) -> Object:
    """Return an event with its object as it was then. A payment has one event here, of several at Stripe."""
    type_, object_ = _type_and_object(event, pay_url)
    return {
        "id": event.callback_id,
        "object": "event",
        "api_version": "2025-03-31.basil",
        "created": int(event.created_at.timestamp()),
        "data": {"object": expanded(object_, ())},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "type": type_,
    }


def _type_and_object(event: Event, pay_url: str) -> tuple[str, Object]:
    payment, has_agreed = event.payment, event.payment.agreed_at is not None
    if event.dispute is not None:
        return dispute_type_and_object(event.dispute, payment)
    if event.type is EventType.REFUND_SUCCEEDED:
        return "charge.refunded", charge_object(payment)
    if kind_of(payment) == INTENT:
        is_paid = event.type is EventType.PAYMENT_PAID
        return f"payment_intent.{'succeeded' if is_paid else 'processing'}", intent_object(payment)
    is_slow = event.type is EventType.PAYMENT_PAID and has_agreed
    name = "async_payment_succeeded" if is_slow else "completed"
    return f"checkout.session.{name}", session_object(payment, pay_url)


def list_events(simulation: Simulation, call: Call, query: Fields) -> Response:
    sender, merchant_id = simulation.sender, call.account.merchant_id
    events = sender.scheduled(merchant_id)
    undelivered = {event.callback_id for event in sender.undelivered(merchant_id)}
    wanted = query.get("delivery_success")
    types = {*query.many("types"), *filter(None, [query.get("type")])}
    objects = [
        event_object(event, simulation.pay_url(event.payment))
        for event in reversed(events)
        if wanted is None or (event.callback_id not in undelivered) == (wanted == "true")
    ]
    return page(call, query, [one for one in objects if not types or one["type"] in types])


def retrieve_event(simulation: Simulation, call: Call, _: Fields) -> Response:
    id_ = call.request.params["id"]
    events = (event for event in simulation.sender.scheduled(call.account.merchant_id) if event.callback_id == id_)
    event = next(events, None)
    return (
        not_found("event", id_)
        if event is None
        else object_response(event_object(event, simulation.pay_url(event.payment)))
    )


def list_endpoints(_: Simulation, call: Call, query: Fields) -> Response:
    """Return the merchant's one webhook endpoint."""
    endpoint = {
        "id": f"we_{call.account.merchant_id}",
        "object": "webhook_endpoint",
        "created": 0,
        "enabled_events": call.account.wire.get("events", ["*"]),
        "livemode": False,
        "status": "enabled",
        "url": call.account.callback_url,
    }
    return page(call, query, [endpoint])


def list_transactions(simulation: Simulation, call: Call, query: Fields) -> Response:
    found = [
        transaction_object(row)
        for day in _days(query, call.now)
        for row in simulation.statement(call.account, day, UTC)
    ]
    return page(call, query, list(reversed(found)))


def _days(query: Fields, now: datetime) -> Iterator[date]:
    """Return the days in the bounds of `created`, at most a year."""
    since, until = (query.get(f"created[{name}]") or "" for name in ("gte", "lt"))
    end = datetime.fromtimestamp(int(until) - 1, UTC) if _INTEGER.fullmatch(until) else now
    start = datetime.fromtimestamp(int(since), UTC) if _INTEGER.fullmatch(since) else end - DAYS_MAX
    first = max(start, end - DAYS_MAX).date()
    for after in range((end.date() - first).days + 1):
        yield first + timedelta(days=after)


def page(call: Call, query: Fields, items: list[Object]) -> Response:
    path = call.request.target.partition("?")[0]
    return expanded_response(page_of([item for item in items if _is_within(item, query)], query, path), query)


def _is_within(item: Object, query: Fields) -> bool:
    """Return whether `created` is in its bounds; a malformed line has no time and is included."""
    tests: dict[str, Callable[[int, int], bool]] = {
        "gte": lambda at, bound: at >= bound,
        "gt": lambda at, bound: at > bound,
        "lte": lambda at, bound: at <= bound,
        "lt": lambda at, bound: at < bound,
    }
    at = item["created"]
    bounds = [(test, query.get(f"created[{name}]") or "") for name, test in tests.items()]
    return not at or all(test(at, int(text)) for test, text in bounds if _INTEGER.fullmatch(text))
