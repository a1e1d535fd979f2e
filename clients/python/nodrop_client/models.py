"""Orders, payments and cases as the service shows them, and what is sent to place or list them.

Amounts are integers in the currency's minor units: 8888 is 88.88 CNY. Times are aware. A status that a later service
adds stays a text. The fields and their meaning are those of the service's `/openapi.json`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class OrderStatus(StrEnum):
    """created: no payment was started. paying: one was. paid: ship. closed: ended without money."""

    CREATED = "created"
    PAYING = "paying"
    PAID = "paid"
    CLOSED = "closed"


class PublicStatus(StrEnum):
    """Status on the order's page."""

    CREATED = "created"
    PROCESSING = "processing"
    PAID = "paid"
    CLOSED = "closed"
    REVIEW = "review"
    REFUNDED = "refunded"
    DISPUTED = "disputed"


class PaymentStatus(StrEnum):
    OPEN = "open"
    PAID = "paid"
    CLOSED = "closed"


class RefundStatus(StrEnum):
    REQUESTED = "requested"
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class DisputeState(StrEnum):
    OPEN = "open"
    UNDER_REVIEW = "under_review"
    WON = "won"
    LOST = "lost"
    CLOSED = "closed"


_DEFINITE = frozenset({PublicStatus.PAID, PublicStatus.CLOSED, PublicStatus.REFUNDED, PublicStatus.DISPUTED})


# -- requests ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Payer:
    """Data about the buyer that some methods need. They are not shown by `repr`, and belong into no log."""

    openid: str | None = field(default=None, repr=False)
    client_ip: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Watch:
    """A payment that was created elsewhere: the service only queries it."""

    out_trade_no: str
    channel_reference: str | None = None
    payable_until: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class NewPayment:
    """A payment to start. `method` is one of the channel's own; empty: the channel's first."""

    account: str
    method: str = ""
    payer: Payer | None = None
    watch: Watch | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class NewOrder:
    """An order to place. `order_no` is the idempotency key; without `account` no payment is started yet.

    Among `accounts` the buyer chooses on the order's page.
    """

    order_no: str
    amount: int
    currency: str
    subject: str
    account: str | None = None
    method: str = ""
    expires_in_s: float | None = None
    notify_url: str | None = None
    return_url: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    payer: Payer | None = None
    watch: Watch | None = None
    accounts: Sequence[str] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class OrdersQuery:
    """Choice of orders to list. `limit` is the size of a page."""

    status: str | None = None
    account: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    cursor: str | None = None
    limit: int = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class CasesQuery:
    """Choice of cases to list. `limit` is the size of a page; `sort` is `newest` or `oldest` first."""

    open: bool = True
    reason: str | None = None
    order_no: str | None = None
    assignee: str | None = None
    unassigned: bool | None = None
    sort: str | None = None
    cursor: str | None = None
    limit: int = 50


# -- answers -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class PaidBy:
    account: str
    out_trade_no: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkout:
    """`kind` redirect: a URL to send the buyer to. qr: a text to draw. client: a token for the channel's own SDK.

    From `ends_at` on it does not work: placing the same order again brings one that does.
    """

    kind: str
    value: str
    ends_at: datetime | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Payment:
    """One attempt to pay. `confirmed` false: a callback alone has paid it, and no query has confirmed that yet."""

    out_trade_no: str
    account: str
    method: str
    attempt_no: int
    status: PaymentStatus | str
    origin: str
    amount: int
    currency: str
    checkout: Checkout | None
    channel_reference: str | None
    channel_transaction_id: str | None
    payable_until: datetime
    paid_at: datetime | None
    confirmed: bool | None
    refunded_amount: int | None
    remaining_amount: int | None
    live: bool | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Refund:
    """Money of one payment that goes back, or has gone: late or double money by policy, any by an operator.

    `key` is the one that the refund was requested with. `channel_refund_no` is the channel's own number of it; None: it
    is not known yet, or the channel gives none.
    """

    refund_no: str
    account: str
    out_trade_no: str
    amount: int
    currency: str
    reason: str
    status: RefundStatus | str
    requested_at: datetime
    settled_at: datetime | None
    key: str | None = None
    channel_refund_no: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Dispute:
    """A channel takes money back, or could not give it back. `withheld`: the money is not there."""

    dispute_id: str
    account: str
    out_trade_no: str
    kind: str
    state: DisputeState | str
    withheld: bool
    amount: int | None
    currency: str | None
    reason: str
    outcome: str
    respond_by: datetime | None
    opened_at: datetime
    changed_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenCase:
    """A question about this order that a person has to answer."""

    reason: str
    account: str | None
    out_trade_no: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """An order with its payments. `version` grows with every change. `live` false: test money, ship nothing for it."""

    order_no: str
    status: OrderStatus | str
    public_status: PublicStatus | str
    version: int
    amount: int
    currency: str
    subject: str
    order_page: str
    created_at: datetime
    expires_at: datetime
    handed_off_at: datetime | None
    paid_at: datetime | None
    closed_at: datetime | None
    paid_by: PaidBy | None
    notify_url: str | None
    return_url: str | None
    metadata: dict[str, str]
    payments: tuple[Payment, ...]
    refunds: tuple[Refund, ...]
    disputes: tuple[Dispute, ...]
    live: bool | None
    open_cases: tuple[OpenCase, ...]
    accounts: tuple[str, ...] | None = None

    @property
    def is_paid(self) -> bool:
        return self.status == OrderStatus.PAID

    @property
    def is_definite(self) -> bool:
        """Whether the order has ended, paid or closed, and no person has to decide about its money."""
        return self.status in (OrderStatus.PAID, OrderStatus.CLOSED) and self.public_status in _DEFINITE

    @property
    def checkout(self) -> Checkout | None:
        """The way to pay of the newest payment that is open. None: there is no such payment, or its channel has not
        answered yet; placing the same order again asks it again, and `order_page` offers the ways there are.
        """
        open_payments = [payment for payment in self.payments if payment.status == PaymentStatus.OPEN]
        return max(open_payments, key=lambda payment: payment.attempt_no).checkout if open_payments else None


@dataclass(frozen=True, kw_only=True, slots=True)
class OrderPage:
    orders: tuple[Order, ...]
    next_cursor: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class TimelineEntry:
    """Something that changed the order (with a version) or was only seen (without one)."""

    at: datetime
    kind: str
    by: str
    version: int | None
    account: str | None
    out_trade_no: str | None
    note: str
    evidence: dict[str, Any] | None
    api_key: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeline:
    entries: tuple[TimelineEntry, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A question for a person, open until `resolved_at`. `assignee` works on it; `version` grows with each act."""

    id: int
    order_no: str | None
    account: str | None
    out_trade_no: str | None
    reason: str
    detail: str
    opened_at: datetime
    resolved_at: datetime | None
    resolution: str | None
    by: str | None
    assignee: str | None = None
    assigned_at: datetime | None = None
    version: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class CasePage:
    cases: tuple[Case, ...]
    next_cursor: str | None
