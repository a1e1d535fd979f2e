"""Stripe's operations: forms in, objects out, and each change made once under its idempotency key."""

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
from simulator.stripe.lists import list_events, list_refunds, list_transactions, retrieve_event, retrieve_refund
from simulator.stripe.objects import INTENT, SESSION
from simulator.stripe.payments import Run, close, create_intent, create_session, list_payments, refund, retrieve
from simulator.stripe.wire import Fields, Invalid, number_of, refused

KEY_CHARACTERS_MAX = 255
KEYS_KEPT_FOR = timedelta(hours=24)
KEYS_MAX = 100_000

_PAYMENT = re.compile(r"(?:^|&)payment_intent=([0-9A-Za-z_]+)", re.ASCII)


class _Kept(msgspec.Struct, frozen=True):
    """The first answer to a key, and what was asked; until `busy_until` that one is still being worked on."""

    asked_for: tuple[str, tuple[tuple[str, str], ...]]
    response: Response
    at: datetime
    busy_until: datetime


_kept: WeakKeyDictionary[Ledger, dict[tuple[str, str], _Kept]] = WeakKeyDictionary()
"""With the ledger, so that a reset forgets both."""


def _reading(run: Run) -> Callable[[Simulation, Call], Response]:
    """What only tells: the query in the address says what."""

    def handle(simulation: Simulation, call: Call) -> Response:
        try:
            return run(simulation, call, Fields.read(call.request.query))
        except Invalid as wrong:
            return refused(400, str(wrong), code=wrong.code, param=wrong.param)

    return handle


def _changing(kind: CallKind, run: Run) -> Callable[[Simulation, Call], Response]:
    """What changes something, and does so once for each key: the form says what."""

    def handle(simulation: Simulation, call: Call) -> Response:
        try:
            return _once(simulation, call, kind, run, Fields.read(call.request.body.decode("latin-1")))
        except Invalid as wrong:
            return refused(400, str(wrong), code=wrong.code, param=wrong.param)

    return handle


def _once(simulation: Simulation, call: Call, kind: CallKind, run: Run, form: Fields) -> Response:
    """https://docs.stripe.com/api/idempotent_requests : a 500 is kept like any other answer."""
    key = call.request.headers.get("idempotency-key", "")
    if not key:
        return run(simulation, call, form)
    if len(key) > KEY_CHARACTERS_MAX:
        raise Invalid("Idempotency-Key", "a key has at most 255 characters")
    kept = _kept.setdefault(simulation.ledger, {})
    place, asked_for = (call.account.merchant_id, key), (call.request.target, tuple(sorted(form.pairs)))
    known = kept.get(place)
    if known is None or call.now - known.at >= KEYS_KEPT_FOR:
        response = run(simulation, call, form)
        kept[place] = _Kept(asked_for, response, call.now, call.now + _takes(simulation, call, kind, key))
        if len(kept) > KEYS_MAX:
            del kept[next(iter(kept))]
        return response
    if call.now < known.busy_until:
        return refused(
            409, "another request with this key is at work", code="idempotency_key_in_use", type_="idempotency_error"
        )
    if known.asked_for != asked_for:
        return refused(400, "this key was used with other parameters", type_="idempotency_error")
    return replace(known.response, headers=(*known.response.headers, ("idempotent-replayed", "true")))


def _takes(simulation: Simulation, call: Call, kind: CallKind, number: str) -> timedelta:
    """How long the answer to this call is held back: as long the key is in use."""
    profile = simulation.faults.profile
    is_slow = kind in profile.affected and simulation.faults.strikes(Fault.SLOW, number, call.nth)
    return timedelta(seconds=profile.slow_s if is_slow else 0)


def _by_id(request: Request) -> str:
    return number_of(request.params["id"])


def _by_key(request: Request) -> str:
    return request.headers.get("idempotency-key", "")


def _by_payment(request: Request) -> str:
    """Of a list, if it is one of a payment's."""
    found = _PAYMENT.search(request.query)
    return "" if found is None else number_of(found[1])


def _post(kind: CallKind, pattern: str, number: Callable[[Request], str], run: Run) -> Operation:
    return Operation(kind=kind, method="POST", pattern=pattern, number=number, handle=_changing(kind, run))


def _get(kind: CallKind, pattern: str, number: Callable[[Request], str], run: Run) -> Operation:
    return Operation(kind=kind, method="GET", pattern=pattern, number=number, handle=_reading(run))


OPERATIONS: tuple[Operation, ...] = (
    _post(CallKind.CREATE, "/v1/checkout/sessions", _by_key, create_session),
    _get(CallKind.QUERY, "/v1/checkout/sessions", _by_payment, list_payments(SESSION)),
    _get(CallKind.QUERY, "/v1/checkout/sessions/{id}", _by_id, retrieve(SESSION)),
    _post(CallKind.CLOSE, "/v1/checkout/sessions/{id}/expire", _by_id, close(SESSION)),
    _post(CallKind.CREATE, "/v1/payment_intents", _by_key, create_intent),
    _get(CallKind.QUERY, "/v1/payment_intents", _by_payment, list_payments(INTENT)),
    _get(CallKind.QUERY, "/v1/payment_intents/{id}", _by_id, retrieve(INTENT)),
    _post(CallKind.CLOSE, "/v1/payment_intents/{id}/cancel", _by_id, close(INTENT)),
    _post(CallKind.REFUND, "/v1/refunds", _by_key, refund),
    _get(CallKind.QUERY_REFUND, "/v1/refunds", _by_payment, list_refunds),
    _get(CallKind.QUERY_REFUND, "/v1/refunds/{id}", _by_id, retrieve_refund),
    _get(CallKind.UNDELIVERED, "/v1/events", _by_payment, list_events),
    _get(CallKind.UNDELIVERED, "/v1/events/{id}", _by_id, retrieve_event),
    _get(CallKind.STATEMENT, "/v1/balance_transactions", _by_payment, list_transactions),
)
