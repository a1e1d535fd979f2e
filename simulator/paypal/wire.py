"""Wire format of PayPal: requests, objects and errors.

Written from the protocol only; it shares nothing with the adapter that it checks.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from secrets import token_hex
from typing import Any

import msgspec

from simulator.kernel.ledger import Payment, PaymentStatus, Refund, RefundStatus, Terms
from simulator.kit.asgi import Response, json_response

# https://developer.paypal.com/api/rest/reference/currency-codes/ and ISO 4217: what is not written with two decimals.
_NO_DECIMALS = frozenset({"HUF", "JPY", "TWD"})
_WITHOUT_MINOR = frozenset({"JPY"})


class Money(msgspec.Struct, frozen=True, kw_only=True):
    currency_code: str
    value: str


class UnitBody(msgspec.Struct, frozen=True, kw_only=True):
    amount: Money
    custom_id: str = ""
    invoice_id: str = ""
    description: str = ""


class _Context(msgspec.Struct, frozen=True, kw_only=True):
    return_url: str | None = None


class _Paypal(msgspec.Struct, frozen=True, kw_only=True):
    experience_context: _Context = _Context()


class _Source(msgspec.Struct, frozen=True, kw_only=True):
    paypal: _Paypal = _Paypal()


class CreateBody(msgspec.Struct, frozen=True, kw_only=True):
    intent: str
    purchase_units: tuple[UnitBody, ...]
    payment_source: _Source = _Source()


class RefundBody(msgspec.Struct, frozen=True, kw_only=True):
    amount: Money | None = None
    invoice_id: str = ""
    custom_id: str = ""


class VerifyBody(msgspec.Struct, frozen=True, kw_only=True):
    auth_algo: str
    cert_url: str
    transmission_id: str
    transmission_sig: str
    transmission_time: str
    webhook_id: str
    webhook_event: msgspec.Raw


# -- errors ------------------------------------------------------------------------------------------------------------


def error(status: int, name: str, issue: str = "") -> Response:
    """Return an error in PayPal's form: a name, the issues, and a debug id."""
    details = [{"issue": issue, "description": issue.replace("_", " ").capitalize()}] if issue else []
    body = {"name": name, "message": name.replace("_", " ").capitalize(), "debug_id": token_hex(7), "details": details}
    return json_response(body, status)


def unprocessable(issue: str) -> Response:
    return error(422, "UNPROCESSABLE_ENTITY", issue)


# -- money and time ----------------------------------------------------------------------------------------------------


def money(amount: int, currency: str) -> Money:
    """Format minor units: (1250, "USD") → "12.50", (500, "JPY") → "500"."""
    value = Decimal(amount) if currency in _WITHOUT_MINOR else Decimal(amount).scaleb(-2)
    places = 0 if currency in _NO_DECIMALS else 2
    return Money(currency_code=currency, value=f"{value:.{places}f}")


def minor(amount: Money) -> int | None:
    """Parse an amount into minor units; None if it is not a positive amount of its currency."""
    if not amount.value.isascii() or not amount.value.replace(".", "", 1).isdigit():
        return None
    value = Decimal(amount.value)
    if amount.currency_code in _NO_DECIMALS and "." in amount.value:
        return None
    scaled = value if amount.currency_code in _WITHOUT_MINOR else value.scaleb(2)
    return int(scaled) if scaled == scaled.to_integral_value() and scaled > 0 else None


def instant(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# -- objects -----------------------------------------------------------------------------------------------------------


def order_id(number: str) -> str:
    """Return PayPal's id of the order. It contains the number, by which calls and faults are counted."""
    return base64.b32encode(number.encode()).decode().rstrip("=")


def number_in(id_: str) -> str:
    """Return the number in an order id, or the text itself if it is no order id."""
    try:
        return base64.b32decode(id_ + "=" * (-len(id_) % 8)).decode("ascii")
    except (binascii.Error, ValueError):
        return id_


def order_object(
    payment: Payment,
    refunds: Iterable[Refund],
    pay_url: str,
    *,
    id_: str = "",
    full: bool = True,
    taken: Iterable[dict[str, Any]] = (),
    status: str | None = None,
) -> dict[str, Any]:
    """Return an order, with its unit if `full`. `id_` replaces its id in a faulty response about another order.

    `taken` are refunds as which reversals are booked, `status` is the capture's because of disputes.
    """
    order: dict[str, Any] = {"id": id_ or order_id(payment.terms.out_trade_no), "status": _order_status(payment)}
    if full:
        order |= {"intent": "CAPTURE", "create_time": instant(payment.created_at)}
        order["purchase_units"] = [unit_object(payment, (*map(refund_object, refunds), *taken), status)]
    order["links"] = [{"href": pay_url, "rel": "payer-action", "method": "GET"}]
    return order


def _order_status(payment: Payment) -> str:
    if payment.status.was_paid:
        return "COMPLETED"
    if payment.status is PaymentStatus.CLOSED:
        return "VOIDED"
    return "PAYER_ACTION_REQUIRED" if payment.agreed_at is None else "APPROVED"


def unit_object(
    payment: Payment, refunds: tuple[dict[str, Any], ...] = (), status: str | None = None
) -> dict[str, Any]:
    terms = payment.terms
    unit: dict[str, Any] = {
        "reference_id": "default",
        "amount": money(terms.amount, terms.currency),
        "payee": {"merchant_id": payment.merchant_id},
        **ids_of(terms),
        "description": terms.subject,
    }
    if payment.status.was_paid:
        captures = [capture_object(payment) | ({} if status is None else {"status": status})]
        unit["payments"] = {"captures": captures, **({"refunds": list(refunds)} if refunds else {})}
    return unit


def ids_of(terms: Terms) -> dict[str, str]:
    """Return the two ids that the merchant may set, as it has set them; an empty one is left out."""
    ids = terms.wire or {"custom_id": terms.out_trade_no, "invoice_id": terms.out_trade_no}
    return {name: ids[name] for name in ("custom_id", "invoice_id") if ids.get(name)}


def capture_object(payment: Payment) -> dict[str, Any]:
    terms = payment.terms
    whole = payment.refunded_amount >= terms.amount
    refunded = "REFUNDED" if whole else "PARTIALLY_REFUNDED"
    return {
        "id": payment.transaction_id,
        "status": refunded if payment.refunded_amount else "COMPLETED",
        "amount": money(terms.amount, terms.currency),
        "final_capture": True,
        **ids_of(terms),
        "create_time": instant(payment.paid_at),
        "update_time": instant(payment.paid_at),
        "supplementary_data": {"related_ids": {"order_id": order_id(terms.out_trade_no)}},
    }


_REFUND_STATUS = {
    RefundStatus.PROCESSING: "PENDING",
    RefundStatus.SUCCEEDED: "COMPLETED",
    RefundStatus.FAILED: "FAILED",
}


def refund_id(refund_no: str) -> str:
    """Return PayPal's own id of a refund: the same in responses, events and transactions."""
    return f"R{base64.b32encode(refund_no.encode()).decode().rstrip('=')}"


def refund_object(refund: Refund) -> dict[str, Any]:
    return {
        "id": refund_id(refund.refund_no),
        "status": _REFUND_STATUS[refund.status],
        "amount": money(refund.amount, refund.currency),
        "custom_id": refund.out_trade_no,
        **({} if refund.in_console else {"invoice_id": refund.refund_no}),
        "create_time": instant(refund.created_at),
    }
