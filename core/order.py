"""The order, its payments and pending rows: frozen data, the legal moves of their states, the status on a page.

One order has many payments: the user may open Alipay and then pay by WeChat Pay. `Order.version` is the optimistic lock
of the order *and* of its payments, and the number of its newest event.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cache
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec.structs import replace

from core.checkout import Payer
from core.dispute import Dispute, is_withheld
from core.errors import IllegalMove


def in_utc(struct: msgspec.Struct) -> None:
    """Turn the instants of a new struct to UTC, whatever zone a channel or a database session gave them."""
    for name in _instants(type(struct)):
        value: datetime | None = getattr(struct, name)
        if value is not None and value.tzinfo not in (UTC, None):
            msgspec.structs.force_setattr(struct, name, value.astimezone(UTC))


@cache
def _instants(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    """Names of its fields that are instants; a struct is made too often to look at all of them."""
    return tuple(field.name for field in msgspec.structs.fields(kind) if field.type in (datetime, datetime | None))


class OrderStatus(StrEnum):
    """created: nothing was started. paying: a payment is armed. paid: final. closed: ended unpaid, yet *paid wins*."""

    CREATED = "created"
    PAYING = "paying"
    PAID = "paid"
    CLOSED = "closed"


class PaymentStatus(StrEnum):
    """open: the channel may have the money or still take it. paid: it has it. closed: it has not and will not."""

    OPEN = "open"
    PAID = "paid"
    CLOSED = "closed"


ORDER_MOVES: Mapping[OrderStatus, frozenset[OrderStatus]] = MappingProxyType(
    {
        OrderStatus.CREATED: frozenset({OrderStatus.PAYING, OrderStatus.PAID, OrderStatus.CLOSED}),
        OrderStatus.PAYING: frozenset({OrderStatus.PAID, OrderStatus.CLOSED}),
        OrderStatus.CLOSED: frozenset({OrderStatus.PAID}),
        OrderStatus.PAID: frozenset(),
    }
)
PAYMENT_MOVES: Mapping[PaymentStatus, frozenset[PaymentStatus]] = MappingProxyType(
    {
        PaymentStatus.OPEN: frozenset({PaymentStatus.PAID, PaymentStatus.CLOSED}),
        PaymentStatus.CLOSED: frozenset({PaymentStatus.PAID}),
        PaymentStatus.PAID: frozenset(),
    }
)


class RefundStatus(StrEnum):
    """requested: to be requested at the channel. processing: the channel has accepted it. succeeded, failed: final."""

    REQUESTED = "requested"
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        return self in (RefundStatus.SUCCEEDED, RefundStatus.FAILED)


REFUND_MOVES: Mapping[RefundStatus, frozenset[RefundStatus]] = MappingProxyType(
    {
        RefundStatus.REQUESTED: frozenset({RefundStatus.PROCESSING, RefundStatus.SUCCEEDED, RefundStatus.FAILED}),
        RefundStatus.PROCESSING: frozenset({RefundStatus.SUCCEEDED, RefundStatus.FAILED}),
        RefundStatus.SUCCEEDED: frozenset(),
        RefundStatus.FAILED: frozenset(),
    }
)


_Status = TypeVar("_Status", OrderStatus, PaymentStatus, RefundStatus)


class RefundReason(StrEnum):
    """Reason of a refund: money came after close, it came twice, or an operator decided so."""

    LATE = "late"
    DOUBLE = "double"
    OPERATOR = "operator"


class Origin(StrEnum):
    """ours: created by nodrop. watched: created elsewhere and only queried; never closed, captured or refunded."""

    OURS = "ours"
    WATCHED = "watched"


class PaymentKey(NamedTuple):
    """Identity of a payment: our name of the account, and our number at the channel. Unique for ever."""

    channel_account: str
    out_trade_no: str


class Checkout(msgspec.Struct, frozen=True, kw_only=True):
    """The user's way to pay: `redirect` (a URL), `qr` (text to draw) or `client` (a token for a client SDK)."""

    kind: str
    value: str


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """An order to be paid. `amount` is in minor units; from `handed_off_at` on the user could pay.

    `accounts` are those among which the buyer may choose on the order's page; None: those that it has payments at.
    `payer` is kept for that page until the order is paid or closed. `unpaid_version`: the buyer came back, and every
    payment was verified unpaid after that; any later change of the order ends that knowledge.
    """

    order_no: str
    amount: int
    currency: str
    subject: str
    status: OrderStatus
    version: int
    page_token: str
    created_at: datetime
    expires_at: datetime
    paid_by: PaymentKey | None = None
    paid_at: datetime | None = None
    closed_at: datetime | None = None
    handed_off_at: datetime | None = None
    notify_url: str | None = None
    return_url: str | None = None
    metadata: dict[str, str] = {}
    accounts: tuple[str, ...] | None = None
    payer: Payer | None = None
    unpaid_version: int | None = None

    def __post_init__(self) -> None:
        in_utc(self)

    @property
    def is_resolved(self) -> bool:
        return self.status in (OrderStatus.PAID, OrderStatus.CLOSED)

    @property
    def is_known_unpaid(self) -> bool:
        return self.unpaid_version == self.version

    def next_version(self, **changes: Any) -> Order:
        """The order one version on, with these fields changed.

        Raises:
            IllegalMove: `status` may not follow the present one.
        """
        status = changes.get("status", self.status)
        _check_move("order", self.status, status, ORDER_MOVES)
        payer = None if status in (OrderStatus.PAID, OrderStatus.CLOSED) else self.payer
        return replace(self, version=self.version + 1, payer=payer, **changes)


PAYABLE_MAX = timedelta(days=3650)
"""The longest time to pay. Without it a year 9999 could be a year 10000 in UTC, which Python cannot read. A payment
with so long a time has no known end."""


class Payment(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt to pay an order at one account.

    `channel_reference` is the id to query by where that is not our number. `payable_until` is the last moment at which
    the channel can take money. `refused_at` is when the channel refused to create it, `close_attempted_at` when it
    answered a request to close it. `unconfirmed_since`: a callback alone has paid it, and no query has confirmed that.
    `refunded_amount` is what was given back of it; None: something, and no sum is known. `channel_refunds` are the
    single refunds that it was added up from and that are not ours; the one without a number is a sum that went back
    at the channel beside refunds of ours.

    `checkout_ends_at` is when the checkout stops working (None: not known); `payer` is whom it belongs to, kept while
    the payment is open. `capture_requested_at` is when we last requested the money of an approval,
    `capture_refused_at` when the channel definitely refused that. From `given_up_at` on it is never captured.
    `live`: real money, or test money; None: started before that was kept.
    """

    channel_account: str
    out_trade_no: str
    order_no: str
    attempt_no: int
    amount: int
    currency: str
    status: PaymentStatus
    payable_until: datetime
    created_at: datetime
    method: str = ""
    origin: Origin = Origin.OURS
    checkout: Checkout | None = None
    channel_reference: str | None = None
    channel_transaction_id: str | None = None
    paid_at: datetime | None = None
    refunded_amount: int | None = 0
    channel_refunds: dict[str, int] = {}
    close_attempted_at: datetime | None = None
    refused_at: datetime | None = None
    unconfirmed_since: datetime | None = None
    checkout_ends_at: datetime | None = None
    payer: Payer | None = None
    capture_requested_at: datetime | None = None
    capture_refused_at: datetime | None = None
    given_up_at: datetime | None = None
    live: bool | None = None

    def __post_init__(self) -> None:
        in_utc(self)

    @property
    def key(self) -> PaymentKey:
        return PaymentKey(self.channel_account, self.out_trade_no)

    @property
    def remaining_amount(self) -> int | None:
        """The money of a paid payment that is still there, in minor units; None: it is not known."""
        return None if self.refunded_amount is None else max(0, self.amount - self.refunded_amount)

    def has_object(self, *ids: str | None) -> bool:
        """Whether the channel's object with these ids is surely its own: its number alone does not say so where it is
        watched by the channel's id.
        """
        return self.origin is Origin.OURS or self.channel_reference in (None, *ids)

    @property
    def has_known_end(self) -> bool:
        return self.payable_until - self.created_at < PAYABLE_MAX

    def moved_to(self, status: PaymentStatus, **changes: Any) -> Payment:
        """The payment with this status and these fields. Raises IllegalMove if it may not follow the present one."""
        _check_move("payment", self.status, status, PAYMENT_MOVES)
        return replace(self, status=status, payer=None, **changes)


class Refund(msgspec.Struct, frozen=True, kw_only=True):
    """Money of one payment that goes back, requested once; `amount` in minor units is all of it, or a part.

    `refund_no` is our number for it at the channel, and its idempotency key there. `request_key` is the key of the
    operator or program that wanted it: the same key of an order is the same refund. `note` is the operator's reason,
    which no channel sees. `attempt` counts requests and queries from 1. `last_error` is why it failed, or why the last
    attempt had no result. `channel_refund_no` is the channel's own number of it; None: not known, or there is none.
    """

    refund_no: str
    key: PaymentKey
    order_no: str
    amount: int
    currency: str
    reason: RefundReason
    status: RefundStatus
    requested_at: datetime
    settled_at: datetime | None = None
    attempt: int = 1
    last_error: str = ""
    request_key: str = ""
    note: str = ""
    channel_refund_no: str | None = None

    def __post_init__(self) -> None:
        in_utc(self)

    def moved_to(self, status: RefundStatus, **changes: Any) -> Refund:
        """The refund with this status and these fields. Raises IllegalMove if it may not follow the present one."""
        _check_move("refund", self.status, status, REFUND_MOVES)
        return replace(self, status=status, **changes)


class PendingKind(StrEnum):
    """query: a payment to be queried, open or (a last few times) closed.

    deadline: an order to be closed at `expires_at` unless it is paid.
    """

    QUERY = "query"
    DEADLINE = "deadline"


class Pending(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the temporary table: exists while something is unresolved, or a closed payment is asked once more.

    `arm_no` grows with every scheduling and is part of the job id, so a job of an older scheduling does nothing.
    `unanswered_since`: the first query that went out without a verified answer since the last one, at `verified_at`.
    """

    key: PaymentKey
    kind: PendingKind
    order_no: str
    attempt: int
    arm_no: int
    due_at: datetime
    unanswered_since: datetime | None = None
    verified_at: datetime | None = None

    def __post_init__(self) -> None:
        in_utc(self)


def _check_move(name: str, before: _Status, after: _Status, moves: Mapping[_Status, frozenset[_Status]]) -> None:
    if after != before and after not in moves[before]:
        raise IllegalMove(f"{name} from {before} to {after}")


def deadline_key(order_no: str) -> PaymentKey:
    """The pending key of an order's own deadline: no account has the empty name."""
    return PaymentKey("", order_no)


class CaseReason(StrEnum):
    """Reason of a case, which a person must decide. Doubt is a case beside the status, never a status."""

    AMOUNT_MISMATCH = "amount_mismatch"
    CURRENCY_MISMATCH = "currency_mismatch"
    ACCOUNT_MISMATCH = "account_mismatch"
    NUMBER_MISMATCH = "number_mismatch"
    NUMBER_REUSED = "number_reused"
    TRANSACTION_CLAIMED_TWICE = "transaction_claimed_twice"
    PAID_LATE = "paid_late"
    DOUBLE_PAYMENT = "double_payment"
    REFUNDED_OUTSIDE = "refunded_outside"
    REFUND_AMOUNT_UNKNOWN = "refund_amount_unknown"
    REFUND_FAILED = "refund_failed"
    DISPUTED = "disputed"
    WRONG_WORLD = "wrong_world"
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    UNKNOWN_ORDER = "unknown_order"
    CALLBACK_CONTRADICTED = "callback_contradicted"
    CALLBACK_UNREADABLE = "callback_unreadable"
    STATEMENT_PAID_HERE_ONLY = "statement_paid_here_only"
    STATEMENT_AMOUNT = "statement_amount"
    STATEMENT_CURRENCY = "statement_currency"
    STATEMENT_TRANSACTION = "statement_transaction"
    STATEMENT_DUPLICATE = "statement_duplicate"
    STATEMENT_REFUND = "statement_refund"
    STATEMENT_STATUS = "statement_status"
    STATEMENT_UNCONFIRMED = "statement_unconfirmed"
    STATEMENT_MALFORMED = "statement_malformed"
    STATEMENT_UNCLAIMED = "statement_unclaimed"
    STATEMENT_REFUND_HERE_ONLY = "statement_refund_here_only"
    STATEMENT_TOTAL = "statement_total"


class OrderState(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a decision reads, from one SQL statement; `now` is the database's clock at that moment.

    `open_cases` are payments and reasons, which are `CaseReason`; a plain text is the reason of another release.
    """

    order: Order
    now: datetime
    payments: tuple[Payment, ...] = ()
    pending: tuple[Pending, ...] = ()
    refunds: tuple[Refund, ...] = ()
    disputes: tuple[Dispute, ...] = ()
    open_cases: frozenset[tuple[PaymentKey | None, str]] = frozenset()

    def __post_init__(self) -> None:
        in_utc(self)
        for dispute in self.disputes:
            in_utc(dispute)

    def payment(self, key: PaymentKey) -> Payment | None:
        return next((payment for payment in self.payments if payment.key == key), None)

    def pending_of(self, key: PaymentKey) -> Pending | None:
        return next((row for row in self.pending if row.key == key), None)

    def refund(self, refund_no: str) -> Refund | None:
        return next((refund for refund in self.refunds if refund.refund_no == refund_no), None)

    def refunds_of(self, key: PaymentKey) -> tuple[Refund, ...]:
        return tuple(refund for refund in self.refunds if refund.key == key)

    def unconfirmed_payments(self) -> tuple[Payment, ...]:
        return tuple(payment for payment in self.payments if payment.unconfirmed_since is not None)

    @property
    def live(self) -> bool | None:
        """Whether the order is about real money: as the payment that paid it, else as all of its payments."""
        paid_by = None if self.order.paid_by is None else self.payment(self.order.paid_by)
        worlds = {payment.live for payment in (self.payments if paid_by is None else (paid_by,))}
        return worlds.pop() if len(worlds) == 1 else None

    def is_other_world(self, live: bool | None) -> bool:  # noqa: FBT001 - as `Payment.live`
        """Whether a payment of real money would come to one of test money here, or the reverse."""
        return live is not None and any(payment.live not in (None, live) for payment in self.payments)

    def disputes_of(self, key: PaymentKey) -> tuple[Dispute, ...]:
        return tuple(dispute for dispute in self.disputes if dispute.key == key)

    def open_payments(self) -> tuple[Payment, ...]:
        return tuple(payment for payment in self.payments if payment.status is PaymentStatus.OPEN)


class PublicStatus(StrEnum):
    """Status on a page. An order is never called unpaid or failed while money may be under way."""

    CREATED = "created"
    PROCESSING = "processing"
    PAID = "paid"
    CLOSED = "closed"
    REVIEW = "review"
    REFUNDED = "refunded"
    DISPUTED = "disputed"

    @property
    def is_definite(self) -> bool:
        return self in (PublicStatus.PAID, PublicStatus.CLOSED, PublicStatus.REFUNDED, PublicStatus.DISPUTED)


def public_status(order: Order, payments: tuple[Payment, ...], disputes: tuple[Dispute, ...] = ()) -> PublicStatus:
    """Status on the page of an order with these payments and disputes."""
    paid = [payment for payment in payments if payment.status is PaymentStatus.PAID]
    return page_status(
        order.status,
        is_handed_off=order.handed_off_at is not None,
        has_paid=bool(paid),
        has_open=any(payment.status is PaymentStatus.OPEN for payment in payments),
        is_all_back=all(payment.remaining_amount == 0 for payment in paid),
        is_disputed=order.paid_by is not None and is_withheld(disputes, order.paid_by),
    )


def page_status(
    status: OrderStatus,
    *,
    is_handed_off: bool,
    has_paid: bool,
    has_open: bool,
    is_all_back: bool,
    is_disputed: bool,
) -> PublicStatus:
    """Status on a page: *processing* once the user could pay; *review* when money came for a closed order; *refunded*
    when all money that came has gone back (`is_all_back`) and none is under way; *disputed* while the money that paid
    it is withheld.
    """
    if status == OrderStatus.PAID:
        return PublicStatus.DISPUTED if is_disputed else PublicStatus.PAID
    if has_paid and not has_open and is_all_back:
        return PublicStatus.REFUNDED
    if status == OrderStatus.CLOSED:
        return PublicStatus.REVIEW if has_paid else PublicStatus.CLOSED
    return PublicStatus.PROCESSING if is_handed_off else PublicStatus.CREATED


ORDER_NO = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.\-]{0,63}", re.ASCII)
OWN_NUMBER = re.compile(r"01[0-9a-f]{26}", re.ASCII)
"""The form of the numbers that nodrop makes itself. They begin with a time, which is 01 until 2039; the 28 digits of
Alipay's and WeChat Pay's own numbers begin otherwise. OUT_TRADE_NO is what nodrop takes, of other systems too.
"""
OUT_TRADE_NO = re.compile(r"[0-9A-Za-z_\-|*]{6,64}", re.ASCII)
ACCOUNT_NAME = re.compile(r"[a-z][a-z0-9\-]{0,39}", re.ASCII)
