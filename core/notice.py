"""Notifications for the merchant's order service: one body per version of an order, made once and sent unchanged.

The body carries the order's version and its whole state, so the receiver can drop what is older than what it has.
"""

from __future__ import annotations

from datetime import datetime
from hashlib import sha256
from typing import Literal

import msgspec

from core.decision import Notification
from core.dispute import Dispute
from core.order import Order, Payment, Refund

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
    body = {
        "id": message_id,
        "type": type_,
        "created_at": now,
        "data": {
            "order_no": order.order_no,
            "version": order.version,
            "status": order.status,
            "amount": order.amount,
            "currency": order.currency,
            "paid_at": order.paid_at,
            "closed_at": order.closed_at,
            "late": late,
            "confirmed": None if payment is None else payment.unconfirmed_since is None,
            "live": live if payment is None else payment.live,
            "payment": None if payment is None else _payment(payment),
            "refund": None if refund is None else _refund(refund),
            "dispute": None if dispute is None else _dispute(dispute),
            "metadata": order.metadata,
        },
    }
    return Notification(id=message_id, type=type_, url=order.notify_url, body=msgspec.json.encode(body))


def _payment(payment: Payment) -> dict[str, object]:
    return {
        "account": payment.channel_account,
        "out_trade_no": payment.out_trade_no,
        "channel_transaction_id": payment.channel_transaction_id,
        "amount": payment.amount,
        "currency": payment.currency,
        "status": payment.status,
        "paid_at": payment.paid_at,
        "refunded_amount": payment.refunded_amount,
        "remaining_amount": payment.remaining_amount,
        "live": payment.live,
    }


def _refund(refund: Refund) -> dict[str, object]:
    return {
        "refund_no": refund.refund_no,
        "amount": refund.amount,
        "currency": refund.currency,
        "reason": refund.reason,
        "status": refund.status,
        "settled_at": refund.settled_at,
    }


def _dispute(dispute: Dispute) -> dict[str, object]:
    return {
        "dispute_id": dispute.dispute_id,
        "kind": dispute.kind,
        "state": dispute.state,
        "amount": dispute.amount,
        "currency": dispute.currency,
        "reason": dispute.reason,
        "outcome": dispute.outcome,
        "respond_by": dispute.respond_by,
        "opened_at": dispute.opened_at,
        "changed_at": dispute.changed_at,
    }
