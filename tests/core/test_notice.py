import re
from typing import Any, get_args

import msgspec
import pytest

from core.decision import Notification
from core.notice import NotificationType, notification_id, order_notification
from core.order import Order
from tests.core.states import NOW, an_order, closed_order, paid_order, paid_payment

FIELDS = {
    "order_no",
    "version",
    "status",
    "amount",
    "currency",
    "paid_at",
    "closed_at",
    "late",
    "confirmed",
    "live",
    "payment",
    "refund",
    "dispute",
    "metadata",
}


def paid_notification(
    order: Order | None = None, *, type_: NotificationType = "order.paid", late: bool = False
) -> Notification:
    notification = order_notification(type_, order or paid_order(), paid_payment(), now=NOW, late=late)
    assert notification is not None
    return notification


def body_of(notification: Notification) -> dict[str, Any]:
    body: dict[str, Any] = msgspec.json.decode(notification.body)
    return body


def test_the_same_version_has_the_same_id_and_bytes() -> None:
    """The merchant detects repeated deliveries by the id, so they must be equal."""
    assert paid_notification() == paid_notification()
    assert paid_notification().id == notification_id("A-1", 3)


def test_another_version_or_order_has_another_id() -> None:
    ids = {notification_id(order_no, version) for order_no in ("A-1", "A-11", "A") for version in (1, 11, 111)}
    assert len(ids) == 9
    assert all(re.fullmatch(r"msg_[0-9a-f]{32}", id_) for id_ in ids)


def test_order_number_and_version_are_separated_in_the_id() -> None:
    assert notification_id("A-1", 12) != notification_id("A-11", 2)


def test_the_body_carries_the_whole_state_of_the_order() -> None:
    body = body_of(paid_notification(paid_order(metadata={"cart": "7"})))
    assert (body["id"], body["type"], body["created_at"]) == (
        paid_notification().id,
        "order.paid",
        "2026-03-01T12:00:00Z",
    )
    assert set(body["data"]) == FIELDS
    assert body["data"] | {"payment": None} == {
        "order_no": "A-1",
        "version": 3,
        "status": "paid",
        "amount": 8888,
        "currency": "CNY",
        "paid_at": "2026-03-01T12:00:00Z",
        "closed_at": None,
        "late": False,
        "confirmed": True,
        "live": None,
        "payment": None,
        "refund": None,
        "dispute": None,
        "metadata": {"cart": "7"},
    }
    assert body["data"]["payment"] == {
        "account": "alipay",
        "out_trade_no": "alipay-000001",
        "channel_transaction_id": "t-1",
        "amount": 8888,
        "currency": "CNY",
        "status": "paid",
        "paid_at": "2026-03-01T12:00:00Z",
        "refunded_amount": 0,
        "remaining_amount": 8888,
        "live": None,
    }


def test_the_body_holds_no_secret_of_ours() -> None:
    """The page token opens the order page and is not part of the notification."""
    assert b"page-token" not in paid_notification().body


def test_late_money_is_marked_as_late() -> None:
    assert body_of(paid_notification(late=True))["data"]["late"] is True


def test_a_closed_order_has_no_payment_in_its_notification() -> None:
    notification = order_notification("order.closed", closed_order(), None, now=NOW, late=False)
    assert notification is not None
    assert (body_of(notification)["data"]["payment"], body_of(notification)["data"]["status"]) == (None, "closed")


@pytest.mark.parametrize("type_", get_args(NotificationType))
def test_an_order_without_notify_url_has_no_notification(type_: NotificationType) -> None:
    order = an_order(notify_url=None)
    assert order_notification(type_, order, paid_payment(), now=NOW, late=False) is None
