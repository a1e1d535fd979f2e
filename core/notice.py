"""Notifications for the merchant's order service: one body per version of an order, made once and sent unchanged.

The body carries the order's version and its whole state, so the receiver can drop what is older than what it has.
"""

from __future__ import annotations

from datetime import datetime
from hashlib import sha256
from typing import Literal, TypeVar

import msgspec

from core.clocks import Instant
from core.decision import Notification
from core.dispute import Dispute, DisputeKind, DisputeState
from core.order import Order, OrderStatus, Payment, PaymentStatus, Refund, RefundReason, RefundStatus

_Part = TypeVar("_Part", bound=msgspec.Struct)

NotificationType = Literal[
    "order.paid",
    "order.closed",
    "order.paid_late",
    "order.double_payment",
    "order.refunded",
    "order.disputed",
    "order.dispute_ended",
    "order.refund_failed",
]


class PaymentPart(msgspec.Struct, frozen=True, kw_only=True):
    """The payment that the message is about."""

    account: str
    out_trade_no: str
    channel_transaction_id: str | None
    amount: int
    currency: str
    status: PaymentStatus
    paid_at: Instant | None
    refunded_amount: int | None
    remaining_amount: int | None
    live: bool | None


class RefundPart(msgspec.Struct, frozen=True, kw_only=True):
    """The refund of that payment that nodrop requested, with the channel's own number of it where that is known."""

    refund_no: str
    amount: int
    currency: str
    reason: RefundReason
    status: RefundStatus
    settled_at: Instant | None
    channel_refund_no: str | None


class DisputePart(msgspec.Struct, frozen=True, kw_only=True):
    """The dispute about that payment."""

    dispute_id: str
    kind: DisputeKind
    state: DisputeState
    amount: int | None
    currency: str | None
    reason: str
    outcome: str
    respond_by: Instant | None
    opened_at: Instant
    changed_at: Instant


class MessageData(msgspec.Struct, frozen=True, kw_only=True):
    """The order at the version of the message. `late`: the money arrived after the order was closed."""

    order_no: str
    version: int
    status: OrderStatus
    amount: int
    currency: str
    paid_at: Instant | None
    closed_at: Instant | None
    late: bool
    confirmed: bool | None
    live: bool | None
    payment: PaymentPart | None
    refund: RefundPart | None
    dispute: DisputePart | None
    metadata: dict[str, str]


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A notification to the merchant's order service. Its `id` is the same in every delivery."""

    id: str
    type: NotificationType
    created_at: Instant
    data: MessageData


def notification_id(order_no: str, version: int) -> str:
    """The same for every delivery of one version: the receiver deduplicates by it."""
    return "msg_" + sha256(f"{order_no}\n{version}".encode()).hexdigest()[:32]


def order_notification(
    type_: NotificationType,
    order: Order,
    payment: Payment | None,
    *,
    now: datetime,
    late: bool,
    refund: Refund | None = None,
    dispute: Dispute | None = None,
    live: bool | None = None,
) -> Notification | None:
    """The notification of this version, or None when the order has no `notify_url`.

    `refund` and `dispute` are of this payment. `live` is needed without a payment only.
    """
    if order.notify_url is None:
        return None
    message_id = notification_id(order.order_no, order.version)
    message = Message(
        id=message_id,
        type=type_,
        created_at=now,
        data=MessageData(
            order_no=order.order_no,
            version=order.version,
            status=order.status,
            amount=order.amount,
            currency=order.currency,
            paid_at=order.paid_at,
            closed_at=order.closed_at,
            late=late,
            confirmed=None if payment is None else payment.unconfirmed_since is None,
            live=live if payment is None else payment.live,
            payment=None if payment is None else _part(PaymentPart, payment, account=payment.channel_account),
            refund=None if refund is None else _part(RefundPart, refund),
            dispute=None if dispute is None else _part(DisputePart, dispute),
            metadata=order.metadata,
        ),
    )
    return Notification(id=message_id, type=type_, url=order.notify_url, body=msgspec.json.encode(message))


def _part(kind: type[_Part], source: msgspec.Struct, **others: str) -> _Part:
    """The fields of this part, by their names in its source or from `others`."""
    return kind(**{name: others.get(name) or getattr(source, name) for name in kind.__struct_fields__})
