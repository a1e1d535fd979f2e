"""Stripe's operations: a form or query in, an object out; each change runs once for an idempotency key."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from weakref import WeakKeyDictionary

import msgspec
from msgspec.structs import replace

from simulator.kernel.dispatch import Call, Operation
from simulator.kernel.faults import CallKind, Fault
from simulator.kernel.ledger import Ledger
from simulator.kernel.simulation import Simulation
from simulator.kit.asgi import Request, Response
from simulator.stripe.lists import (
    list_endpoints,
    list_events,
    list_refunds,
    list_transactions,
    retrieve_charge,
    retrieve_event,
    retrieve_refund,
)
from simulator.stripe.objects import INTENT, SESSION
from simulator.stripe.payments import Run, close, create_intent, create_session, list_payments, refund, retrieve
from simulator.stripe.wire import Fields, Invalid, error_response, number_of

KEY_CHARACTERS_MAX = 255
KEYS_KEPT_FOR = timedelta(hours=24)
KEYS_MAX = 100_000

_PAYMENT = re.compile(r"(?:^|&)payment_intent=([0-9A-Za-z_]+)", re.ASCII)


class _StoredResponse(msgspec.Struct, frozen=True):
    """The first response to a key, with its parameters; until `busy_until` the key is in use."""

    parameters: tuple[str, tuple[tuple[str, str], ...]]
    response: Response
    at: datetime
    busy_until: datetime


_stored_responses: WeakKeyDictionary[Ledger, dict[tuple[str, str], _StoredResponse]] = WeakKeyDictionary()
"""By ledger, so that a reset deletes both."""


def _read_handler(run: Run) -> Callable[[Simulation, Call], Response]:
    """Return the handler of an operation without effect; its parameters are in the query."""

    def handle(simulation: Simulation, call: Call) -> Response:
        try:
            return run(simulation, call, Fields.read(call.request.query))
        except Invalid as wrong:
            return error_response(400, str(wrong), code=wrong.code, param=wrong.param)

    return handle


def _change_handler(kind: CallKind, run: Run) -> Callable[[Simulation, Call], Response]:
    """Return the handler of an operation with an effect, once for a key; its parameters are in the form."""

    def handle(simulation: Simulation, call: Call) -> Response:
        try:
            return _idempotent(simulation, call, kind, run, Fields.read(call.request.body.decode("latin-1")))
        except Invalid as wrong:
            return error_response(400, str(wrong), code=wrong.code, param=wrong.param)

    return handle


def _idempotent(simulation: Simulation, call: Call, kind: CallKind, run: Run, form: Fields) -> Response:
    """Run once for a key: https://docs.stripe.com/api/idempotent_requests. A 500 is stored like any response."""
    key = call.request.headers.get("idempotency-key", "")
    if not key:
        return run(simulation, call, form)
    if len(key) > KEY_CHARACTERS_MAX:
        raise Invalid("Idempotency-Key", "a key has at most 255 characters")
    responses = _stored_responses.setdefault(simulation.ledger, {})
    place, parameters = (call.account.merchant_id, key), (call.request.target, tuple(sorted(form.pairs)))
    known = responses.get(place)
    if known is None or call.now - known.at >= KEYS_KEPT_FOR:
        response = run(simulation, call, form)
        responses[place] = _StoredResponse(
            parameters, response, call.now, call.now + _processing_time(simulation, call, kind, key)
        )
        if len(responses) > KEYS_MAX:
            del responses[next(iter(responses))]
        return response
    if call.now < known.busy_until:
        return error_response(
            409,
            "another request uses this key",
            code="idempotency_key_in_use",
            type_="idempotency_error",
        )
    if known.parameters != parameters:
        return error_response(400, "this key was used with other parameters", type_="idempotency_error")
    return replace(known.response, headers=(*known.response.headers, ("idempotent-replayed", "true")))


def _processing_time(simulation: Simulation, call: Call, kind: CallKind, number: str) -> timedelta:
    """Return how long the response is delayed, and the key in use."""
    profile = simulation.faults.profile
    is_slow = kind in profile.affected and simulation.faults.applies(Fault.SLOW, number, call.nth)
    return timedelta(seconds=profile.slow_s if is_slow else 0)


def _by_id(request: Request) -> str:
    return number_of(request.params["id"])


def _by_key(request: Request) -> str:
    return request.headers.get("idempotency-key", "")


def _by_payment(request: Request) -> str:
    """Return the number of the payment of a list, or an empty string."""
    found = _PAYMENT.search(request.query)
    return "" if found is None else number_of(found[1])


def _post(kind: CallKind, pattern: str, number: Callable[[Request], str], run: Run) -> Operation:
    return Operation(kind=kind, method="POST", pattern=pattern, number=number, handle=_change_handler(kind, run))


def _get(kind: CallKind, pattern: str, number: Callable[[Request], str], run: Run) -> Operation:
    return Operation(kind=kind, method="GET", pattern=pattern, number=number, handle=_read_handler(run))


OPERATIONS: tuple[Operation, ...] = (
    _post(CallKind.CREATE, "/v1/checkout/sessions", _by_key, create_session),
    _get(CallKind.QUERY, "/v1/checkout/sessions", _by_payment, list_payments(SESSION)),
    _get(CallKind.QUERY, "/v1/checkout/sessions/{id}", _by_id, retrieve(SESSION)),
    _post(CallKind.CLOSE, "/v1/checkout/sessions/{id}/expire", _by_id, close(SESSION)),
    _post(CallKind.CREATE, "/v1/payment_intents", _by_key, create_intent),
    _get(CallKind.QUERY, "/v1/payment_intents", _by_payment, list_payments(INTENT)),
    _get(CallKind.QUERY, "/v1/payment_intents/{id}", _by_id, retrieve(INTENT)),
    _post(CallKind.CLOSE, "/v1/payment_intents/{id}/cancel", _by_id, close(INTENT)),
    _get(CallKind.QUERY, "/v1/charges/{id}", _by_id, retrieve_charge),
    _post(CallKind.REFUND, "/v1/refunds", _by_key, refund),
    _get(CallKind.QUERY_REFUND, "/v1/refunds", _by_payment, list_refunds),
    _get(CallKind.QUERY_REFUND, "/v1/refunds/{id}", _by_id, retrieve_refund),
    _get(CallKind.UNDELIVERED, "/v1/events", _by_payment, list_events),
    _get(CallKind.UNDELIVERED, "/v1/events/{id}", _by_id, retrieve_event),
    _get(CallKind.UNDELIVERED, "/v1/webhook_endpoints", _by_payment, list_endpoints),
    _get(CallKind.STATEMENT, "/v1/balance_transactions", _by_payment, list_transactions),
)
