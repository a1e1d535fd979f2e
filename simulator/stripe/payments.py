"""Stripe's payments: operations on sessions, PaymentIntents and refunds."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from simulator.kernel.dispatch import Call
from simulator.kernel.ledger import Key, Payment, PaymentStatus, Refund, Refusal, Terms
from simulator.kernel.simulation import Simulation
from simulator.kit.asgi import Response
from simulator.stripe.lists import page
from simulator.stripe.objects import (
    INTENT,
    SESSION,
    has_intent,
    intent_object,
    kind_of,
    refund_object,
    session_object,
)
from simulator.stripe.wire import (
    Fields,
    Invalid,
    Object,
    error_response,
    expanded_response,
    fresh_id,
    has_fraction,
    intent_id,
    minor,
    not_found,
    number_of,
)

AMOUNT_MAX = 99_999_999
ITEMS_MAX = 100
SESSION_LIVES_MIN = timedelta(minutes=30)
SESSION_LIVES_MAX = timedelta(hours=24)
FOR_EVER = timedelta(days=3650)
"""A PaymentIntent can be paid until it is cancelled."""

Run = Callable[[Simulation, Call, Fields], Response]

_CURRENCY = re.compile(r"[a-z]{3}", re.ASCII)
_INTEGER = re.compile(r"[0-9]{1,11}", re.ASCII)


# -- creating ----------------------------------------------------------------------------------------------------------


def create_session(simulation: Simulation, call: Call, form: Fields) -> Response:
    if form.get("mode") != "payment":
        raise Invalid("mode", "only sessions of mode payment are kept here")
    amount, currency, subject = _items(form)
    metadata = form.under("metadata")
    reference = form.get("client_reference_id")
    number = metadata.get("out_trade_no") or reference or fresh_id("cs_test_")
    names = {"metadata": metadata.get("out_trade_no"), "client_reference_id": reference}
    terms = Terms(
        out_trade_no=number,
        amount=minor(amount, currency),
        currency=currency.upper(),
        subject=subject,
        expires_at=_expires_at(form.get("expires_at"), call.now),
        callback_url=_callback_url(simulation, call),
        return_url=_web_address(form, "success_url"),
        transaction_id=intent_id(number),
        wire={
            "object": SESSION,
            "named_in": [place for place, name in names.items() if name == number],
            "metadata": metadata,
            "client_reference_id": reference,
            "cancel_url": form.get("cancel_url"),
        },
    )
    return _created(simulation, call, form, terms)


def create_intent(simulation: Simulation, call: Call, form: Fields) -> Response:
    currency = _currency(form, "currency")
    metadata = form.under("metadata")
    number = metadata.get("out_trade_no") or fresh_id("pi_")
    terms = Terms(
        out_trade_no=number,
        amount=minor(_amount(form, "amount", currency), currency),
        currency=currency.upper(),
        subject=form.get("description") or "",
        expires_at=call.now + FOR_EVER,
        callback_url=_callback_url(simulation, call),
        transaction_id=intent_id(number),
        wire={"object": INTENT, "named_in": ["metadata"] if "out_trade_no" in metadata else [], "metadata": metadata},
    )
    return _created(simulation, call, form, terms)


def _created(simulation: Simulation, call: Call, form: Fields, terms: Terms) -> Response:
    """Return the new object. A full ledger is a 500, which is stored for the key."""
    made = simulation.create(call.account, terms, call.now)
    if made is Refusal.FULL:
        return error_response(500, "this process keeps no more payments", type_="api_error")
    if isinstance(made, Refusal):
        return error_response(400, "the simulator has one payment for each number", code=made.lower())
    return expanded_response(_object(simulation, made, kind_of(made)), form)


def _items(form: Fields) -> tuple[int, str, str]:
    """Return the sum, the currency and the first item's name."""
    total, currencies, names = 0, set(), []
    for at in range(ITEMS_MAX):
        price = f"line_items[{at}][price_data]"
        if form.get(f"{price}[currency]") is None:
            break
        currency = _currency(form, f"{price}[currency]")
        quantity = form.get(f"line_items[{at}][quantity]") or "1"
        if not _INTEGER.fullmatch(quantity):
            raise Invalid(f"line_items[{at}][quantity]", "a quantity is a number")
        total += _amount(form, f"{price}[unit_amount]", currency) * int(quantity)
        currencies.add(currency)
        names.append(form.get(f"{price}[product_data][name]") or "")
    if len(currencies) != 1 or not names[0]:
        raise Invalid("line_items", "there are items with names and price_data, all of one currency")
    return total, currencies.pop(), names[0]


def _amount(form: Fields, name: str, currency: str) -> int:
    text = form.get(name) or ""
    if not _INTEGER.fullmatch(text) or int(text) == 0:
        raise Invalid(name, "an amount is a positive integer", "parameter_invalid_integer")
    if int(text) > AMOUNT_MAX:
        raise Invalid(name, "an amount has at most eight digits", "amount_too_large")
    if has_fraction(int(text), currency):
        raise Invalid(name, f"{currency} has no such fraction", "parameter_invalid_integer")
    return int(text)


def _currency(form: Fields, name: str) -> str:
    text = form.get(name) or ""
    if not _CURRENCY.fullmatch(text):
        raise Invalid(name, "a currency is three small letters")
    return text


def _expires_at(text: str | None, now: datetime) -> datetime:
    """Parse `expires_at`: https://docs.stripe.com/payments/checkout/managing-limited-inventory."""
    if text is None:
        return (now + SESSION_LIVES_MAX).replace(microsecond=0)
    until = datetime.fromtimestamp(int(text), UTC) if _INTEGER.fullmatch(text) else now
    if not now + SESSION_LIVES_MIN <= until <= now + SESSION_LIVES_MAX:
        raise Invalid("expires_at", "expires_at is between 30 minutes and 24 hours from now")
    return until


def _web_address(form: Fields, name: str) -> str:
    text = form.get(name) or ""
    if urlsplit(text).scheme not in ("http", "https"):
        raise Invalid(name, f"{name} is a web address")
    return text


def _callback_url(simulation: Simulation, call: Call) -> str:
    """Return the URL of the account's endpoint; an account without one gets no callbacks."""
    url = call.account.callback_url
    if url and not simulation.may_call(url):
        raise Invalid("callback_url", "the account's endpoint is no address that this process may call")
    return url


# -- one payment -------------------------------------------------------------------------------------------------------


def retrieve(kind: str) -> Run:
    def run(simulation: Simulation, call: Call, query: Fields) -> Response:
        id_ = call.request.params["id"]
        found = simulation.query_payment(call.account, number_of(id_), call.nth, call.now)
        if isinstance(found, Refusal) or not _is_a(found, kind):
            return not_found(kind, id_)
        return expanded_response(_object(simulation, found, kind), query)

    return run


def close(kind: str) -> Run:
    """Close an open object: https://docs.stripe.com/api/checkout/sessions/expire and …/payment_intents/cancel."""

    def run(simulation: Simulation, call: Call, form: Fields) -> Response:
        id_ = call.request.params["id"]
        number = number_of(id_)
        found = simulation.ledger.find(Key(call.account.merchant_id, number), call.now)
        if found is None or kind_of(found) != kind:
            return not_found(kind, id_)
        closed: Payment | Refusal = Refusal.NOT_PAYABLE
        if found.status is PaymentStatus.UNPAID and found.agreed_at is None:
            closed = simulation.close(call.account, number, call.now)
        if closed is Refusal.PAYMENT_NOT_EXIST:
            return not_found(kind, id_)
        if isinstance(closed, Refusal):
            code = None if kind == SESSION else "payment_intent_unexpected_state"
            return error_response(400, f"Only a {kind} that is open can be ended", code=code)
        return expanded_response(_object(simulation, closed, kind), form)

    return run


def list_payments(kind: str) -> Run:
    def run(simulation: Simulation, call: Call, query: Fields) -> Response:
        intent = query.get("payment_intent") if kind == SESSION else None
        found = [
            one
            for one in simulation.ledger.payments(call.now)
            if one.merchant_id == call.account.merchant_id
            and _is_a(one, kind)
            and (intent is None or (has_intent(one) and intent_id(one.terms.out_trade_no) == intent))
        ]
        return page(call, query, [_object(simulation, one, kind) for one in reversed(found)])

    return run


def _is_a(payment: Payment, kind: str) -> bool:
    return has_intent(payment) if kind == INTENT else kind_of(payment) == SESSION


def _object(simulation: Simulation, payment: Payment, kind: str) -> Object:
    return intent_object(payment) if kind == INTENT else session_object(payment, simulation.pay_url(payment))


# -- refunds -----------------------------------------------------------------------------------------------------------


def refund(simulation: Simulation, call: Call, form: Fields) -> Response:
    id_ = form.get("payment_intent") or form.get("charge") or ""
    number = number_of(id_)
    payment = simulation.ledger.find(Key(call.account.merchant_id, number), call.now)
    if payment is None:
        return not_found("payment_intent", id_)
    currency, left = payment.terms.currency.lower(), payment.terms.amount - payment.refunded_amount
    amount = left if form.get("amount") is None else minor(_amount(form, "amount", currency), currency)
    refund_no = form.under("metadata").get("refund_no") or fresh_id("re_")
    made = simulation.refund(call.account, number, refund_no, amount, call.now)
    if isinstance(made, Refund):
        return expanded_response(refund_object(made), form)
    code = "charge_already_refunded" if made is Refusal.AMOUNT_EXCEEDED and left == 0 else None
    return error_response(400, f"{made}: there is nothing to give back like that", code=code)
