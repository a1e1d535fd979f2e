"""Notifications: their types, and the proof that one is genuine (https://www.standardwebhooks.com).

`verify` wants the bytes as they were on the wire: a framework's parsed body, encoded again, has another signature.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from nodrop_client.codec import Mismatch, decode
from nodrop_client.errors import NotificationForged, NotificationStale, NotificationUnreadable
from nodrop_client.models import DisputeState, OrderStatus, PaymentStatus, RefundStatus

TOLERANCE_S = 300
KEY_BYTES_MIN = 24


class NotificationType(StrEnum):
    PAID = "order.paid"
    CLOSED = "order.closed"
    PAID_LATE = "order.paid_late"
    DOUBLE_PAYMENT = "order.double_payment"
    REFUNDED = "order.refunded"
    DISPUTED = "order.disputed"
    DISPUTE_ENDED = "order.dispute_ended"
    REFUND_FAILED = "order.refund_failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class NotifiedPayment:
    """The payment that the message is about."""

    account: str
    out_trade_no: str
    channel_transaction_id: str | None
    amount: int
    currency: str
    status: PaymentStatus | str
    paid_at: datetime | None
    refunded_amount: int | None
    remaining_amount: int | None
    live: bool | None


@dataclass(frozen=True, kw_only=True, slots=True)
class NotifiedRefund:
    """The refund of that payment which the service requested. `channel_refund_no`: the channel's own number of it."""

    refund_no: str
    amount: int
    currency: str
    reason: str
    status: RefundStatus | str
    settled_at: datetime | None
    channel_refund_no: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class NotifiedDispute:
    """The dispute about that payment."""

    dispute_id: str
    kind: str
    state: DisputeState | str
    amount: int | None
    currency: str | None
    reason: str
    outcome: str
    respond_by: datetime | None
    opened_at: datetime
    changed_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class NotificationData:
    """The order at the version of the message. `status` is the order's, whatever the type of the message is."""

    order_no: str
    version: int
    status: OrderStatus | str
    amount: int
    currency: str
    paid_at: datetime | None
    closed_at: datetime | None
    late: bool
    confirmed: bool | None
    live: bool | None
    payment: NotifiedPayment | None
    refund: NotifiedRefund | None
    dispute: NotifiedDispute | None
    metadata: dict[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Notification:
    """A notification. `id` is its `webhook-id`, the same in every delivery."""

    id: str
    type: NotificationType | str
    created_at: datetime
    data: NotificationData


def verify(
    headers: Mapping[str, str],
    body: bytes,
    secrets: str | Sequence[str],
    *,
    tolerance_s: float = TOLERANCE_S,
    now: float | None = None,
) -> Notification:
    """Return the notification, once its signature and its time are right. While a secret is changed, give both.

    Raises:
        NotificationForged: no signature is by one of these secrets.
        NotificationStale: it is genuine, and `webhook-timestamp` is further than `tolerance_s` from `now`.
        NotificationUnreadable: it is genuine, and no notification that this release can read.
        ValueError: a secret is none.
    """
    keys = [_key(secret) for secret in ([secrets] if isinstance(secrets, str) else secrets)]
    named = {name.lower(): value for name, value in headers.items()}
    id_, timestamp = named.get("webhook-id", ""), named.get("webhook-timestamp", "")
    if not _is_signed(f"{id_}.{timestamp}.".encode(errors="replace") + body, named.get("webhook-signature", ""), keys):
        raise NotificationForged("no signature is by this secret")
    if not (timestamp.isascii() and timestamp.isdecimal()):
        raise NotificationUnreadable("webhook-timestamp is no time")
    if abs((time.time() if now is None else now) - float(timestamp)) > tolerance_s:
        raise NotificationStale("webhook-timestamp is too far from this clock")
    try:
        notification = decode(Notification, body)
    except Mismatch as error:
        raise NotificationUnreadable(str(error)) from None
    if notification.id != id_:
        raise NotificationUnreadable("webhook-id is not the id in the body")
    return notification


def _is_signed(signed: bytes, signatures: str, keys: Sequence[bytes]) -> bool:
    """Whether one of the signatures is by one of the keys. Each is compared in constant time."""
    expected = [b"v1," + base64.b64encode(hmac.digest(key, signed, "sha256")) for key in keys]
    given = [one.encode(errors="replace") for one in signatures.split(" ")]
    return any([hmac.compare_digest(one, each) for one in expected for each in given])  # noqa: C419 - all, for the same time


def _key(secret: str) -> bytes:
    """The key of a secret. An empty one would let anybody sign."""
    text = secret.removeprefix("whsec_").rstrip("=")
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) < KEY_BYTES_MIN:
        raise ValueError(f'a secret is "whsec_" and base64 of at least {KEY_BYTES_MIN} bytes')
    return key
