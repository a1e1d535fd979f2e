"""Notifications as the service makes them, signed by the library of Standard Webhooks."""

import base64
from datetime import UTC, datetime

import msgspec
from standardwebhooks import Webhook

from core.decision import Notification as Made
from core.notice import NotificationType, notification_id, order_notification
from core.order import OrderStatus
from nodrop_client import Notification, verify
from tests.core.states import NOW, a_dispute, a_refund, an_order, paid_payment

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
SENT_AT = 1_795_408_413


def made(
    version: int = 3,
    status: OrderStatus = OrderStatus.PAID,
    type_: NotificationType = "order.paid",
    *,
    order_no: str = "A-1",
    is_whole: bool = False,
) -> Made:
    """A notification of the service. `is_whole`: with a refund and a dispute, too."""
    order = an_order(order_no=order_no, version=version, status=status, metadata={"cart": "茶 7"})
    refund, dispute = (a_refund(), a_dispute()) if is_whole else (None, None)
    notice = order_notification(
        type_, order, paid_payment(live=True), now=NOW, late=False, refund=refund, dispute=dispute
    )
    assert notice is not None
    return notice


def signed(id_: str, body: bytes, *secrets: str, at: int = SENT_AT) -> dict[str, str]:
    """The headers of a delivery, with a signature by each of the secrets."""
    moment = datetime.fromtimestamp(at, UTC)
    signatures = [Webhook(secret).sign(id_, moment, body.decode()) for secret in secrets or (SECRET,)]
    return {"webhook-id": id_, "webhook-timestamp": str(at), "webhook-signature": " ".join(signatures)}


def received(version: int = 3, status: OrderStatus = OrderStatus.PAID, *, order_no: str = "A-1") -> Notification:
    """The notification as a shop has it, once it is verified."""
    notice = made(version, status, order_no=order_no)
    assert notice.id == notification_id(order_no, version)
    return verify(signed(notice.id, notice.body), notice.body, SECRET, now=SENT_AT)


def altered(body: bytes, **changes: object) -> bytes:
    """The body with other fields."""
    return msgspec.json.encode(msgspec.json.decode(body) | changes)
