"""The truth: which payments a channel knows, what became of each, and what was given back.

    unpaid → paid → refunded (in part or in full)
    unpaid → closed, on request or at `expires_at`; a closed one may still be settled by money that was under way

Pure and in memory: `now` is an argument, refusals are values, and nothing here knows of HTTP, signatures or faults.
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
"""Payments are the truth and cannot be forgotten, so a full ledger refuses new ones instead.

With its events, tallies and arrivals a payment takes about 2.5 KB: half a gigabyte in all.
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
    """What the ledger will not do; the value is the error code of the sandbox channel."""

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
    """A number is the merchant's own: two merchants may use the same."""

    merchant_id: str
    number: str


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What a payment is for. Equal terms under one number are the same payment.

    `transaction_id` is for a channel that numbers a payment before it is paid, `wire` what else its file keeps of it.
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
    """A payment as it is. `settled_late` says that the money came after it had been closed.

    `opened_at` is when the buyer first saw the pay page (scanned the code), `agreed_at` when the buyer agreed to pay at
    a channel that takes the money later.
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

    @property
    def key(self) -> Key:
        return Key(self.merchant_id, self.terms.out_trade_no)


class Refund(msgspec.Struct, frozen=True, kw_only=True):
    merchant_id: str
    refund_no: str
    out_trade_no: str
    amount: int
    currency: str
    created_at: datetime
    status: RefundStatus = RefundStatus.PROCESSING
    refunded_at: datetime | None = None

    @property
    def key(self) -> Key:
        return Key(self.merchant_id, self.refund_no)


class Row(NamedTuple):
    """A line of the statement: money that came (`payment`) or went back (`refund`) on that day."""

    type: str
    out_trade_no: str
    transaction_id: str
    refund_no: str
    amount: int
    currency: str
    at: datetime


class Total(msgspec.Struct, frozen=True, kw_only=True):
    """Sums in minor units of one merchant in one currency; `paid` includes what was refunded later."""

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
        self._promised: dict[Key, int] = {}  # what is given back or about to be

    def create(self, merchant_id: str, terms: Terms, now: datetime) -> Payment | Refusal:
        """The new payment, or the one that has this number already when its terms are the same."""
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
        """The payment as it is at `now`: an unpaid one is closed from `expires_at` on."""
        payment = self._payments.get(key)
        if payment is None or payment.status is not PaymentStatus.UNPAID or now < payment.terms.expires_at:
            return payment
        return self._keep(replace(payment, status=PaymentStatus.CLOSED, closed_at=payment.terms.expires_at))

    def find_by_token(self, token: str, now: datetime) -> Payment | None:
        """The payment whose pay page has this token."""
        key = self._keys_by_token.get(token)
        return None if key is None else self.find(key, now)

    def open(self, key: Key, now: datetime) -> Payment | None:
        """The buyer looks at it, for the first time or again."""
        payment = self.find(key, now)
        if payment is None or payment.opened_at is not None:
            return payment
        return self._keep(replace(payment, opened_at=now))

    def agree(self, key: Key, now: datetime) -> Payment | Refusal:
        """The buyer agrees to pay; the money is taken later. Agreeing again changes nothing."""
        payment = self.find(key, now)
        if payment is None:
            return Refusal.PAYMENT_NOT_EXIST
        if payment.status.was_paid or payment.agreed_at is not None:
            return payment
        if payment.status is PaymentStatus.CLOSED:
            return Refusal.NOT_PAYABLE
        return self._keep(replace(payment, agreed_at=now))

    def pay(self, key: Key, now: datetime) -> Payment | Refusal:
        """The buyer pays. A payment takes money once: paying again changes nothing."""
        payment = self.find(key, now)
        if payment is None:
            return Refusal.PAYMENT_NOT_EXIST
        if payment.status.was_paid:
            return payment
        return Refusal.NOT_PAYABLE if payment.status is PaymentStatus.CLOSED else self._paid(payment, now)

    def settle_late(self, key: Key, now: datetime) -> Payment | Refusal:
        """Money that was under way arrives for a closed payment."""
        payment = self.find(key, now)
        if payment is None:
            return Refusal.PAYMENT_NOT_EXIST
        if payment.status is not PaymentStatus.CLOSED:
            return Refusal.NOT_PAYABLE
        return self._paid(replace(payment, settled_late=True), now)

    def close(self, key: Key, now: datetime) -> Payment | Refusal:
        """No money any more; closing a closed one is the same closed one."""
        payment = self.find(key, now)
        if payment is None:
            return Refusal.PAYMENT_NOT_EXIST
        if payment.status.was_paid:
            return Refusal.ALREADY_PAID
        if payment.status is PaymentStatus.CLOSED:
            return payment
        return self._keep(replace(payment, status=PaymentStatus.CLOSED, closed_at=now))

    def refund(self, key: Key, refund_no: str, amount: int, now: datetime) -> Refund | Refusal:
        """A refund in `processing`, or the one that has this number already when its terms are the same."""
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
        )
        self._refunds[refund.key] = refund
        return refund

    def settle_refund(self, key: Key, now: datetime, *, succeeds: bool) -> Refund | Refusal:
        """A refund in `processing` becomes definite, and with it what its payment has given back."""
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
        """The refund with this refund number."""
        return self._refunds.get(key)

    def payments(self, now: datetime) -> Iterator[Payment]:
        """All payments as they are at `now`, oldest first."""
        return (payment for key in list(self._payments) if (payment := self.find(key, now)) is not None)

    def refunds(self) -> Iterator[Refund]:
        """All refunds, oldest first."""
        return iter(list(self._refunds.values()))

    def statement(self, merchant_id: str, day: date, zone: tzinfo = UTC) -> Iterator[Row]:
        """The money of one day of `zone`: payments by `paid_at`, then succeeded refunds by `refunded_at`."""
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
        """Sums by merchant and currency, in the order in which they first appear."""
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


def _name(kind: str, merchant_id: str, number: str) -> str:
    """A name that is the same in every run: made from the number, not counted."""
    return blake2b(f"{kind}\x1f{merchant_id}\x1f{number}".encode(), digest_size=12).hexdigest()
