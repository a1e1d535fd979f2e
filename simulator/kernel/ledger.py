"""The ledger of a channel: its payments, their states and their refunds. The oracle takes it for the truth.

    unpaid → paid → refunded (in part or in full)
    unpaid → closed, on request or at `expires_at`; money that is on its way can still settle a closed payment

Pure and in memory: `now` is an argument, refusals are values; no HTTP, signatures or faults here.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, tzinfo
from enum import StrEnum
from hashlib import blake2b
from typing import Any, NamedTuple, TypeGuard

import msgspec
from msgspec.structs import replace

PAYMENTS_MAX = 200_000
"""A full ledger refuses new payments; it never deletes one.

A payment with its events, tallies and arrivals takes about 2.5 KB: half a gigabyte in all.
"""


class PaymentStatus(StrEnum):
    UNPAID = "unpaid"
    PAID = "paid"
    CLOSED = "closed"
    REFUNDED = "refunded"

    @property
    def was_paid(self) -> bool:
        return self in (PaymentStatus.PAID, PaymentStatus.REFUNDED)


class RefundStatus(StrEnum):
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class Refusal(StrEnum):
    """Refusals of the ledger. The value is the error code of the sandbox channel."""

    NUMBER_REUSED = "NUMBER_REUSED"
    PAYMENT_NOT_EXIST = "PAYMENT_NOT_EXIST"
    REFUND_NOT_EXIST = "REFUND_NOT_EXIST"
    ALREADY_PAID = "ALREADY_PAID"
    NOT_PAID = "NOT_PAID"
    NOT_PAYABLE = "NOT_PAYABLE"
    NOT_AGREED = "NOT_AGREED"
    AMOUNT_EXCEEDED = "AMOUNT_EXCEEDED"
    FULL = "FULL"


class Key(NamedTuple):
    """Merchant and number: two merchants may use the same number."""

    merchant_id: str
    number: str


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """Terms of a payment. The same number with equal terms is the same payment.

    `transaction_id` is set by a channel that numbers a payment before it is paid; `wire` is the channel's own data.
    """

    out_trade_no: str
    amount: int
    currency: str
    subject: str
    expires_at: datetime
    callback_url: str
    return_url: str | None = None
    transaction_id: str | None = None
    wire: dict[str, Any] = {}


class Payment(msgspec.Struct, frozen=True, kw_only=True):
    """State of a payment. `settled_late`: the money arrived after the payment was closed.

    `opened_at`: the buyer first saw the pay page (scanned the code). `agreed_at`: the buyer approved the payment at a
    channel that takes the money later, and has done so `agreements` times. `link_ends_at`: from then on the pay page
    with this `token` takes nothing (None: it works as long as the payment).
    """

    merchant_id: str
    terms: Terms
    token: str
    created_at: datetime
    status: PaymentStatus = PaymentStatus.UNPAID
    transaction_id: str | None = None
    paid_at: datetime | None = None
    closed_at: datetime | None = None
    refunded_amount: int = 0
    settled_late: bool = False
    opened_at: datetime | None = None
    agreed_at: datetime | None = None
    agreements: int = 0
    link_ends_at: datetime | None = None

    @property
    def key(self) -> Key:
        return Key(self.merchant_id, self.terms.out_trade_no)


class Refund(msgspec.Struct, frozen=True, kw_only=True):
    """`in_console`: the merchant made it in the channel's console and not by a call."""

    merchant_id: str
    refund_no: str
    out_trade_no: str
    amount: int
    currency: str
    created_at: datetime
    status: RefundStatus = RefundStatus.PROCESSING
    refunded_at: datetime | None = None
    in_console: bool = False

    @property
    def key(self) -> Key:
        return Key(self.merchant_id, self.refund_no)


class Row(NamedTuple):
    """A line of the statement of a day: `payment` or `refund`."""

    type: str
    out_trade_no: str
    transaction_id: str
    refund_no: str
    amount: int
    currency: str
    at: datetime


class Total(msgspec.Struct, frozen=True, kw_only=True):
    """Sums of a merchant in one currency, in minor units; `paid` includes refunded money."""

    merchant_id: str
    currency: str
    payments: int = 0
    paid_count: int = 0
    paid: int = 0
    refunded: int = 0


class Ledger:
    """All payments and refunds of one channel process."""

    def __init__(self, payments_max: int = PAYMENTS_MAX) -> None:
        self._payments_max = payments_max
        self._payments: dict[Key, Payment] = {}
        self._refunds: dict[Key, Refund] = {}
        self._keys_by_token: dict[str, Key] = {}
        self._promised: dict[Key, int] = {}  # sum of refunds, succeeded or processing

    def create(self, merchant_id: str, terms: Terms, now: datetime) -> Payment | Refusal:
        """Create a payment; return the known one if number and terms are the same."""
        known = self.find(Key(merchant_id, terms.out_trade_no), now)
        if known is not None:
            return known if known.terms == terms else Refusal.NUMBER_REUSED
        if len(self._payments) >= self._payments_max:
            return Refusal.FULL
        token = _name("token", merchant_id, terms.out_trade_no)
        payment = Payment(merchant_id=merchant_id, terms=terms, token=token, created_at=now)
        self._keys_by_token[token] = payment.key
        return self._keep(payment)

    def find(self, key: Key, now: datetime) -> Payment | None:
        """Return the payment at `now`: an unpaid one is closed from `expires_at` on."""
        payment = self._payments.get(key)
        if payment is None or payment.status is not PaymentStatus.UNPAID or now < payment.terms.expires_at:
            return payment
        return self._keep(replace(payment, status=PaymentStatus.CLOSED, closed_at=payment.terms.expires_at))

    def hand_out_link(self, key: Key, ends_at: datetime, now: datetime) -> Payment:
        """Return the payment with a link that works: the same one until its end, then another one."""
        payment = self._payments[key]
        if payment.link_ends_at is None:
            return self._keep(replace(payment, link_ends_at=ends_at))
        if now < payment.link_ends_at:
            return payment
        token = _name("token", key.merchant_id, key.number, payment.token)
        self._keys_by_token[token] = key
        return self._keep(replace(payment, token=token, link_ends_at=ends_at))

    def find_by_token(self, token: str, now: datetime) -> Payment | None:
        """Return the payment whose pay page has this token."""
        key = self._keys_by_token.get(token)
        return None if key is None else self.find(key, now)

    def open(self, key: Key, now: datetime) -> Payment | None:
        """Record the buyer's first look at the pay page. Where a scan makes the trade, the link holds from then on."""
        payment = self.find(key, now)
        if payment is None or payment.opened_at is not None:
            return payment
        ends_at = None if payment.terms.wire.get("link_holds_once_opened") else payment.link_ends_at
        return self._keep(replace(payment, opened_at=now, link_ends_at=ends_at))

    def agree(self, key: Key, now: datetime, *, again: bool = False) -> Payment | Refusal:
        """Record the buyer's approval; the money is taken later. A repeat changes nothing, unless it is `again`."""
        payment = self.find(key, now)
        if payment is None:
            return Refusal.PAYMENT_NOT_EXIST
        if payment.status.was_paid or (payment.agreed_at is not None and not again):
            return payment
        if payment.status is PaymentStatus.CLOSED:
            return Refusal.NOT_PAYABLE
        return self._keep(replace(payment, agreed_at=now, agreements=payment.agreements + 1))

    def pay(self, key: Key, now: datetime) -> Payment | Refusal:
        """Record the buyer's money. A payment takes money once: a repeat changes nothing."""
        payment = self.find(key, now)
        if payment is None:
            return Refusal.PAYMENT_NOT_EXIST
        if payment.status.was_paid:
            return payment
        return Refusal.NOT_PAYABLE if payment.status is PaymentStatus.CLOSED else self._paid(payment, now)

    def settle_late(self, key: Key, now: datetime) -> Payment | Refusal:
        """Record money that arrives for a closed payment."""
        payment = self.find(key, now)
        if payment is None:
            return Refusal.PAYMENT_NOT_EXIST
        if payment.status is not PaymentStatus.CLOSED:
            return Refusal.NOT_PAYABLE
        return self._paid(replace(payment, settled_late=True), now)

    def close(self, key: Key, now: datetime) -> Payment | Refusal:
        """Close an unpaid payment. A repeat changes nothing."""
        payment = self.find(key, now)
        if payment is None:
            return Refusal.PAYMENT_NOT_EXIST
        if payment.status.was_paid:
            return Refusal.ALREADY_PAID
        if payment.status is PaymentStatus.CLOSED:
            return payment
        return self._keep(replace(payment, status=PaymentStatus.CLOSED, closed_at=now))

    def refund(
        self, key: Key, refund_no: str, amount: int, now: datetime, *, in_console: bool = False
    ) -> Refund | Refusal:
        """Create a refund in `processing`; return the known one if number and terms are the same."""
        known = self._refunds.get(Key(key.merchant_id, refund_no))
        if known is not None:
            same = (known.out_trade_no, known.amount) == (key.number, amount)
            return known if same else Refusal.NUMBER_REUSED
        payment = self.find(key, now)
        if payment is None:
            return Refusal.PAYMENT_NOT_EXIST
        if not payment.status.was_paid:
            return Refusal.NOT_PAID
        promised = self._promised.get(key, 0) + amount
        if promised > payment.terms.amount:
            return Refusal.AMOUNT_EXCEEDED
        self._promised[key] = promised
        refund = Refund(
            merchant_id=key.merchant_id,
            refund_no=refund_no,
            out_trade_no=key.number,
            amount=amount,
            currency=payment.terms.currency,
            created_at=now,
            in_console=in_console,
        )
        self._refunds[refund.key] = refund
        return refund

    def settle_refund(self, key: Key, now: datetime, *, succeeds: bool) -> Refund | Refusal:
        """End a refund in `processing`, and add it to its payment's refunded amount if it succeeds."""
        refund = self._refunds.get(key)
        if refund is None:
            return Refusal.REFUND_NOT_EXIST
        if refund.status is not RefundStatus.PROCESSING:
            return refund
        of_payment = Key(key.merchant_id, refund.out_trade_no)
        if not succeeds:
            self._promised[of_payment] -= refund.amount
            refund = self._refunds[key] = replace(refund, status=RefundStatus.FAILED)
            return refund
        payment = self._payments[of_payment]
        given_back = payment.refunded_amount + refund.amount
        self._keep(replace(payment, status=PaymentStatus.REFUNDED, refunded_amount=given_back))
        refund = self._refunds[key] = replace(refund, status=RefundStatus.SUCCEEDED, refunded_at=now)
        return refund

    def find_refund(self, key: Key) -> Refund | None:
        """Return the refund with this number."""
        return self._refunds.get(key)

    def payments(self, now: datetime) -> Iterator[Payment]:
        """Return all payments at `now`, oldest first."""
        return (payment for key in list(self._payments) if (payment := self.find(key, now)) is not None)

    def refunds(self) -> Iterator[Refund]:
        """Return all refunds, oldest first."""
        return iter(list(self._refunds.values()))

    def statement(self, merchant_id: str, day: date, zone: tzinfo = UTC) -> Iterator[Row]:
        """Return the rows of one day of `zone`: payments by `paid_at`, then succeeded refunds by `refunded_at`."""
        for payment in self._payments.values():
            if payment.merchant_id == merchant_id and _is_on(payment.paid_at, day, zone):
                terms = payment.terms
                transaction_id = payment.transaction_id or ""
                yield Row(
                    "payment", terms.out_trade_no, transaction_id, "", terms.amount, terms.currency, payment.paid_at
                )
        for refund in self._refunds.values():
            at = refund.refunded_at
            if refund.merchant_id == merchant_id and _is_on(at, day, zone):
                paid = self._payments[Key(merchant_id, refund.out_trade_no)]
                yield Row(
                    "refund",
                    refund.out_trade_no,
                    paid.transaction_id or "",
                    refund.refund_no,
                    refund.amount,
                    refund.currency,
                    at,
                )

    def totals(self) -> list[Total]:
        """Return sums by merchant and currency, in order of first appearance."""
        found: dict[tuple[str, str], Total] = {}
        for payment in self._payments.values():
            terms, was_paid = payment.terms, payment.status.was_paid
            group = (payment.merchant_id, terms.currency)
            total = found.get(group) or Total(merchant_id=group[0], currency=group[1])
            found[group] = replace(
                total,
                payments=total.payments + 1,
                paid_count=total.paid_count + was_paid,
                paid=total.paid + (terms.amount if was_paid else 0),
                refunded=total.refunded + payment.refunded_amount,
            )
        return list(found.values())

    def _paid(self, payment: Payment, now: datetime) -> Payment:
        transaction_id = payment.terms.transaction_id or _name("transaction", *payment.key)
        return self._keep(replace(payment, status=PaymentStatus.PAID, transaction_id=transaction_id, paid_at=now))

    def _keep(self, payment: Payment) -> Payment:
        self._payments[payment.key] = payment
        return payment


def _is_on(at: datetime | None, day: date, zone: tzinfo) -> TypeGuard[datetime]:
    return at is not None and at.astimezone(zone).date() == day


def _name(*parts: str) -> str:
    """Return a name that is the same in every run: it is made from the number and not counted."""
    return blake2b("\x1f".join(parts).encode(), digest_size=12).hexdigest()
