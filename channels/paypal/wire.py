"""PayPal's orders, captures, refunds and events, and their evidence.

An order's `COMPLETED` only means that the buyer has nothing left to do; its capture shows whether there is money.
https://developer.paypal.com/docs/api/orders/v2/
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec.structs import replace

from channels.base import ChannelRefund, RefundState
from channels.kit.signed_message import read_json
from channels.kit.unreadable import clean_ids
from core.errors import ChannelUnreadable, InvalidRequest
from core.evidence import Approved, Closed, Evidence, Lapsed, Paid, Refunded, Unclear, Unpaid, distinct_ids
from core.money import decimal_text, exponent, minor_units
from core.order import OWN_NUMBER

WHOLE_UNITS_ONLY = frozenset({"HUF", "JPY", "TWD"})
"""Currencies that PayPal accepts without decimals; ISO 4217 has two for HUF and TWD.
https://developer.paypal.com/api/rest/reference/currency-codes/
"""

Id = Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Za-z_\-]{1,128}\Z")]
Instant = Annotated[datetime, msgspec.Meta(tz=True)]
_Currency = Annotated[str, msgspec.Meta(pattern=r"\A[A-Z]{3}\Z")]


class Money(msgspec.Struct, frozen=True, kw_only=True):
    currency_code: _Currency
    value: Annotated[str, msgspec.Meta(max_length=32)]

    @property
    def minor(self) -> int:
        try:
            return minor_units(self.value, self.currency_code)
        except InvalidRequest:
            raise ChannelUnreadable("amount") from None


class Payee(msgspec.Struct, frozen=True, kw_only=True):
    merchant_id: Id | None = None


class _Link(msgspec.Struct, frozen=True, kw_only=True):
    href: str
    rel: str


class _RelatedIds(msgspec.Struct, frozen=True, kw_only=True):
    order_id: str | None = None
    capture_id: str | None = None


class _Supplement(msgspec.Struct, frozen=True, kw_only=True):
    related_ids: _RelatedIds = _RelatedIds()


class _WithNumbers(msgspec.Struct, frozen=True, kw_only=True):
    """An object with both of the ids that a merchant may set. Ours have our number in both; a shop that creates its own
    payments often has a customer or a JSON document in the one and its number, with a prefix, in the other.

    Events name the order of a capture and the capture of a refund in `supplementary_data`.
    """

    custom_id: str | None = None
    invoice_id: str | None = None
    payee: Payee = Payee()
    supplementary_data: _Supplement = _Supplement()

    @property
    def numbers(self) -> tuple[str, ...]:
        return distinct_ids(self.custom_id, self.invoice_id)

    @property
    def related(self) -> tuple[str, ...]:
        related = self.supplementary_data.related_ids
        return distinct_ids(related.order_id, related.capture_id)


class Capture(_WithNumbers, frozen=True, kw_only=True):
    id: Id
    status: Literal["COMPLETED", "DECLINED", "PARTIALLY_REFUNDED", "PENDING", "REFUNDED", "FAILED"]
    amount: Money
    create_time: Instant


_REFUND_STATES = {
    "COMPLETED": RefundState.SUCCEEDED,
    "PENDING": RefundState.PROCESSING,
    "FAILED": RefundState.FAILED,
    "CANCELLED": RefundState.FAILED,
}

_OWN_REFUND = re.compile(rf"r(\d+_)?{OWN_NUMBER.pattern}", re.ASCII)
"""The numbers that nodrop gives to refunds of its payments."""


class Refund(_WithNumbers, frozen=True, kw_only=True):
    """Its `invoice_id` is our refund number, its `custom_id` the number of the payment. PayPal books a reversal as one
    too, which nothing in it tells from a refund that the merchant made in the console.
    """

    id: Id
    status: Literal["CANCELLED", "COMPLETED", "FAILED", "PENDING"]
    amount: Money | None = None

    @property
    def own_number(self) -> str | None:
        """Our number, if it is a refund of ours."""
        number = self.invoice_id
        return number if number is not None and _OWN_REFUND.fullmatch(number) else None

    @property
    def number(self) -> str:
        """Our number of a refund of ours, PayPal's id of any other."""
        return self.own_number or self.id

    @property
    def as_channel_has_it(self) -> ChannelRefund:
        return ChannelRefund(state=_REFUND_STATES[self.status], channel_refund_no=self.id)


class RefundResource(_WithNumbers, frozen=True, kw_only=True):
    """The object of an event about a refund; its link `up` leads to the capture."""

    links: tuple[_Link, ...] = ()

    @property
    def capture_id(self) -> str:
        up = next((link.href for link in self.links if link.rel == "up"), "")
        return up.rpartition("/captures/")[2] if "/captures/" in up else ""


class _Payments(msgspec.Struct, frozen=True, kw_only=True):
    captures: tuple[Capture, ...] = ()
    refunds: tuple[Refund, ...] = ()


class _Unit(_WithNumbers, frozen=True, kw_only=True):
    amount: Money
    payments: _Payments = _Payments()


class PaypalOrder(msgspec.Struct, frozen=True, kw_only=True):
    id: Id
    status: Literal["CREATED", "SAVED", "APPROVED", "VOIDED", "COMPLETED", "PAYER_ACTION_REQUIRED"]
    purchase_units: tuple[_Unit, ...]
    create_time: Instant | None = None
    links: tuple[_Link, ...] = ()

    @property
    def unit(self) -> _Unit:
        """The one purchase unit. Our orders have one; with several it would be unclear what was paid."""
        if len(self.purchase_units) != 1:
            raise ChannelUnreadable("purchase_units")
        return self.purchase_units[0]

    @property
    def ids(self) -> tuple[str, ...]:
        """Every id of the order and of its captures."""
        captures = self.unit.payments.captures
        of_captures = (id_ for capture in captures for id_ in (*capture.numbers, capture.id))
        return distinct_ids(*self.unit.numbers, self.id, *of_captures)

    @property
    def approve_url(self) -> str:
        """Address for the buyer; older orders call it `approve`."""
        return next((link.href for link in self.links if link.rel in ("payer-action", "approve")), "")


_MONEY_TYPES = ("CHECKOUT.", "PAYMENT.", "CUSTOMER.DISPUTE.")
_NO_MONEY = ("PAYMENT.PAYOUT",)
"""PAYMENT.PAYOUTSBATCH and PAYMENT.PAYOUTS-ITEM: money that the merchant sends."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """An event of an app. Events cover everything that the app sells, also what other systems sell with it."""

    id: Id
    event_type: Annotated[str, msgspec.Meta(max_length=128)]
    create_time: Instant | None = None
    resource: msgspec.Raw = msgspec.Raw(b"null")

    @property
    def is_about_money(self) -> bool:
        return self.event_type.startswith(_MONEY_TYPES) and not self.event_type.startswith(_NO_MONEY)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of its resource that can be read, also when the resource as a whole cannot."""
        try:
            return msgspec.json.decode(self.resource, type=_AnyResource).ids
        except msgspec.DecodeError:
            return ()


class _AnyResource(msgspec.Struct, frozen=True, kw_only=True):
    """The ids of a resource of any kind. None of them is checked for its form."""

    id: Any = None
    custom_id: Any = None
    invoice_id: Any = None
    order_id: Any = None
    custom: Any = None
    invoice_number: Any = None
    parent_payment: Any = None
    purchase_units: Any = None
    supplementary_data: Any = None

    @property
    def ids(self) -> tuple[str, ...]:
        units = [unit for unit in _list(self.purchase_units) if isinstance(unit, dict)]
        of_units = (unit.get(name) for unit in units for name in ("custom_id", "invoice_id"))
        # The older API's words for the same.
        older = (self.custom, self.invoice_number, self.parent_payment)
        return clean_ids(self.custom_id, self.invoice_id, *of_units, *older, *self._related, self.order_id, self.id)

    @property
    def _related(self) -> list[object]:
        data = self.supplementary_data if isinstance(self.supplementary_data, dict) else {}
        related = data.get("related_ids")
        return list(related.values()) if isinstance(related, dict) else []


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


class _EventType(msgspec.Struct, frozen=True, kw_only=True):
    name: str


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook and its events; the name `*` stands for all."""

    url: str
    event_types: tuple[_EventType, ...] = ()


class OwnAccount(msgspec.Struct, frozen=True, kw_only=True):
    """Our account's name and merchant id, for the evidence's `channel_account`."""

    account: str
    merchant_id: str

    def name_for(self, payee: Payee) -> str:
        return self.account if payee.merchant_id in (None, self.merchant_id) else f"other:{payee.merchant_id}"


def amount_value(amount: int, currency: str) -> str | None:
    """Minor units as PayPal writes them: (1250, "USD") → "12.50", (1200, "HUF") → "12"; None when impossible."""
    text = decimal_text(amount, currency)
    if currency not in WHOLE_UNITS_ONLY or exponent(currency) == 0:
        return text
    whole, _, fraction = text.partition(".")
    return None if fraction.strip("0") else whole


def order_evidence(order: PaypalOrder, number: str, own: OwnAccount) -> Evidence:
    """Evidence of the order, compared with nothing. `number` is the number of the payment.

    Captured money counts first, with any order status. A failed or declined capture ends a completed order, which takes
    no second one: *closed*. A pending one (a bank transfer, a review) is *unpaid* and under way.
    """
    unit = order.unit
    captures = unit.payments.captures
    common: dict[str, Any] = {
        "channel_account": own.name_for(unit.payee),
        "out_trade_no": number,
        "ids": order.ids,
        "amount": unit.amount.minor,
        "currency": unit.amount.currency_code,
    }
    with_money = [capture for capture in captures if capture.status in _WITH_MONEY]
    if len(with_money) > 1 or (order.status == "COMPLETED" and not captures):
        raise ChannelUnreadable("captures")
    if with_money:
        return _money_evidence(with_money[0], unit, common)
    if any(capture.status == "PENDING" for capture in captures):
        return Unpaid(**common, under_way=True)
    match order.status:
        case "APPROVED":
            return Approved(**common)
        case "VOIDED" | "COMPLETED":
            return Closed(**common)
    return Unpaid(**common)


def failed_capture(body: bytes) -> str | None:
    """Code for a response in which every capture has failed; None if there is another one, or none to read."""
    try:
        captures = read_json(body, PaypalOrder).unit.payments.captures
    except ChannelUnreadable:
        return None
    has_failed = bool(captures) and all(capture.status in _WITHOUT_MONEY for capture in captures)
    return f"CAPTURE_{captures[-1].status}" if has_failed else None


def event_evidence(event: Event, own: OwnAccount) -> Evidence | None:
    """Evidence of an event; None when it is about no payment that can be one of ours.

    Its number is the first that the object has, or else PayPal's own id: any id of it may be the one that is known. An
    event about a refund lacks the payment's amount, so it is `Unclear` and only starts a query.
    """
    if not event.is_about_money:
        return None
    if event.event_type == "CHECKOUT.ORDER.APPROVED":
        order = read_json(bytes(event.resource), PaypalOrder)
        if len(order.purchase_units) != 1:
            return _question(event, own)  # ours have one
        return _approval_evidence(order_evidence(order, order.ids[0], own), event)
    if event.event_type in _OF_CAPTURES:
        return _capture_evidence(event.event_type, read_json(bytes(event.resource), Capture), own)
    if event.event_type in _OF_REFUNDS:
        refund = read_json(bytes(event.resource), RefundResource)
        ids = distinct_ids(*refund.numbers, *refund.related, refund.capture_id)
        if ids:
            account = own.name_for(refund.payee)
            return Unclear(channel_account=account, out_trade_no=ids[0], ids=ids, reason="refund_told")
    if event.event_type == _LAPSED_EVENT:
        return _lapsed_evidence(read_json(bytes(event.resource), _Lapsed), event, own)
    return _question(event, own)


def _question(event: Event, own: OwnAccount) -> Unclear:
    """An event that is not read further only starts a query of its payment."""
    if not event.ids:
        raise ChannelUnreadable("no_id")
    number, *others = event.ids
    return Unclear(channel_account=own.account, out_trade_no=number, ids=tuple(others), reason="other_event")


_WITHOUT_MONEY = frozenset({"DECLINED", "FAILED"})


class _Lapsed(msgspec.Struct, frozen=True, kw_only=True):
    """An order that PayPal has cancelled because nobody captured it in time; the buyer gets back what was set aside.
    https://developer.paypal.com/docs/checkout/apm/reference/handle-uncaptured-payments/
    """

    order_id: Id
    purchase_units: tuple[_WithNumbers, ...] = ()


def _lapsed_evidence(lapsed: _Lapsed, event: Event, own: OwnAccount) -> Lapsed:
    numbers = [number for unit in lapsed.purchase_units for number in unit.numbers]
    ids = distinct_ids(*numbers, lapsed.order_id)
    return Lapsed(channel_account=own.account, out_trade_no=ids[0], ids=ids, at=event.create_time)


DISPUTE_EVENTS = ("CUSTOMER.DISPUTE.CREATED", "CUSTOMER.DISPUTE.UPDATED", "CUSTOMER.DISPUTE.RESOLVED")
REVERSAL_EVENT = "PAYMENT.CAPTURE.REVERSED"
_LAPSED_EVENT = "CHECKOUT.PAYMENT-APPROVAL.REVERSED"
_WITH_MONEY = frozenset({"COMPLETED", "PARTIALLY_REFUNDED", "REFUNDED"})
_OF_CAPTURES = frozenset(
    {
        "PAYMENT.CAPTURE.COMPLETED",
        "PAYMENT.CAPTURE.PENDING",
        "PAYMENT.CAPTURE.DENIED",
        "PAYMENT.CAPTURE.DECLINED",
    }
)
_OF_REFUNDS = frozenset({"PAYMENT.CAPTURE.REFUNDED"})
EVENTS = (
    "CHECKOUT.ORDER.APPROVED",
    _LAPSED_EVENT,
    *sorted(_OF_CAPTURES - {"PAYMENT.CAPTURE.DENIED"}),
    *sorted(_OF_REFUNDS),
    REVERSAL_EVENT,
    *DISPUTE_EVENTS,
)
"""Every event that is read. PAYMENT.CAPTURE.DENIED is DECLINED under another name, and an app is subscribed to one."""


def _approval_evidence(evidence: Evidence, event: Event) -> Evidence:
    """An approval has the time of its event, by which a new one is told from the resend of an old one."""
    return replace(evidence, at=event.create_time) if isinstance(evidence, Approved) else evidence


def _capture_evidence(event_type: str, capture: Capture, own: OwnAccount) -> Evidence:
    ids = distinct_ids(*capture.numbers, *capture.related, capture.id)
    common: dict[str, Any] = {
        "channel_account": own.name_for(capture.payee),
        "out_trade_no": ids[0],
        "ids": ids,
        "amount": capture.amount.minor,
        "currency": capture.amount.currency_code,
    }
    if event_type != "PAYMENT.CAPTURE.COMPLETED":
        return Unpaid(**common, under_way=event_type == "PAYMENT.CAPTURE.PENDING")
    if capture.status not in _WITH_MONEY:
        raise ChannelUnreadable("capture_status")
    return Paid(**common, channel_transaction_id=capture.id, at=capture.create_time)


def _money_evidence(capture: Capture, unit: _Unit, common: dict[str, Any]) -> Evidence:
    """A capture is PARTIALLY_REFUNDED while a buyer disputes it, and COMPLETED again when the merchant wins; a reversal
    is in the list of refunds. https://github.com/paypal/Checkout-NodeJS-SDK/issues/31
    """
    fields = common | {
        "amount": capture.amount.minor,
        "currency": capture.amount.currency_code,
        "channel_transaction_id": capture.id,
        "at": capture.create_time,
        "shows_disputes": True,
    }
    refunds = _refunds_done(unit.payments.refunds, capture.amount.currency_code)
    refunded = sum(refunds.values())
    if capture.status == "COMPLETED" and refunded == 0:
        return Paid(**fields)
    if capture.status == "REFUNDED":  # fully, also without a refund in the list
        refunded = max(refunded, capture.amount.minor)
    return Refunded(
        **fields,
        refunded_amount=refunded or None,  # None: in part, and not listed yet
        refunds=refunds,
        refund_numbers={one.own_number: one.id for one in unit.payments.refunds if one.own_number is not None},
    )


def _refunds_done(refunds: Iterable[Refund], currency: str) -> dict[str, int]:
    done = {one.number: one.amount for one in refunds if one.status == "COMPLETED" and one.amount is not None}
    if any(amount.currency_code != currency for amount in done.values()):
        raise ChannelUnreadable("refund_currency")
    return {number: amount.minor for number, amount in done.items()}
