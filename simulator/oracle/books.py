"""Nodrop's own rows, as the oracle compares them with the channel and the merchant."""

from __future__ import annotations

from datetime import datetime

import msgspec


class PaymentRef(msgspec.Struct, frozen=True):
    account: str
    out_trade_no: str


class OrderRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row of nodrop's orders. `expects_effect`: its merchant has a notification URL that does not return 410."""

    order_no: str
    amount: int
    currency: str
    status: str
    version: int
    paid_by: PaymentRef | None = None
    expects_effect: bool = True


class PaymentRow(msgspec.Struct, frozen=True, kw_only=True):
    account: str
    out_trade_no: str
    order_no: str
    amount: int
    currency: str
    status: str
    channel_transaction_id: str | None = None

    @property
    def ref(self) -> PaymentRef:
        return PaymentRef(self.account, self.out_trade_no)


class CaseRow(msgspec.Struct, frozen=True, kw_only=True):
    """An open case. Resolved cases are not read."""

    reason: str
    detail: str = ""
    order_no: str | None = None
    account: str | None = None
    out_trade_no: str | None = None


class CallbackRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the inbox; `body_sha256` in hexadecimal."""

    account: str
    notification_id: str
    body_sha256: str


class EventRow(msgspec.Struct, frozen=True, kw_only=True):
    """An event of an order. Late money pays an order only by its account's policy, or by an operator."""

    order_no: str
    version: int
    kind: str = ""
    by: str = ""

    @property
    def is_of_paid_order(self) -> bool:
        """Whether the order is paid with this event, or was before it."""
        return self.kind in ("paid", "double_payment") or (self.kind, self.by) == ("paid_late", "operator")


class DueRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row with a due time, of any table: pending, inbox, outbox, refunds.

    `ref`: of a pending row its payment, or no account and the order's number where it is a deadline. `waits_until`: the
    moment for which it waits, the end of an order or the last moment for money of a closed payment.
    """

    table: str
    order_no: str
    due_at: datetime
    leased_until: datetime | None = None
    ref: PaymentRef | None = None
    waits_until: datetime | None = None


class RefundRow(msgspec.Struct, frozen=True, kw_only=True):
    """A refund that has succeeded in nodrop's rows. `reason`: late, double, or operator."""

    account: str
    refund_no: str
    amount: int
    currency: str
    out_trade_no: str = ""
    reason: str = "late"

    @property
    def ref(self) -> PaymentRef:
        return PaymentRef(self.account, self.out_trade_no)


class Books(msgspec.Struct, frozen=True, kw_only=True):
    """Nodrop's own rows. `refunds` is None where it keeps none."""

    orders: tuple[OrderRow, ...] = ()
    payments: tuple[PaymentRow, ...] = ()
    cases: tuple[CaseRow, ...] = ()
    callbacks: tuple[CallbackRow, ...] = ()
    events: tuple[EventRow, ...] = ()
    due: tuple[DueRow, ...] = ()
    refunds: tuple[RefundRow, ...] | None = None
