"""Facts of an order as they are stored, for tests of its story and of its next steps."""

from datetime import datetime, timedelta
from typing import Any

from msgspec.structs import replace

from core.evidence import Source
from core.order import CaseReason
from core.order_facts import ApprovalFact, AttemptFact, CallbackFact, CaseFact, EventFact, NotificationFact
from tests.core.states import ALIPAY, NOW, a_payment, a_state, an_order, paid_order, paid_payment


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def an_event(kind: str, seconds: float = 0.0, by: str = Source.QUERY, **changes: Any) -> EventFact:
    return replace(EventFact(at=at(seconds), kind=kind, by=by, version=1, key=ALIPAY), **changes)


def seen(kind: str, seconds: float = 0.0, by: str = Source.QUERY, **changes: Any) -> EventFact:
    return an_event(kind, seconds, by, version=None, **changes)


def a_callback(seconds: float = 0.0, **changes: Any) -> CallbackFact:
    callback = CallbackFact(
        id="c-1",
        key=ALIPAY,
        notification_id="evt-1",
        received_at=at(seconds),
        says="paid",
        handled_at=at(seconds + 1),
        outcome="paid",
    )
    return replace(callback, **changes)


def a_notification(**changes: Any) -> NotificationFact:
    """Open, of version 1, never sent."""
    notification = NotificationFact(
        id="msg-1",
        version=1,
        type="order.paid",
        url="https://shop.test/hook",
        created_at=NOW,
        attempt=1,
        due_at=at(60),
    )
    return replace(notification, **changes)


def a_case(**changes: Any) -> CaseFact:
    return replace(
        CaseFact(id=7, reason=CaseReason.PAID_LATE, opened_at=NOW, key=ALIPAY, detail="policy flag"), **changes
    )


def an_approval(**changes: Any) -> ApprovalFact:
    """Asked for by anna, and nobody has decided."""
    approval = ApprovalFact(
        id=9,
        key=ALIPAY,
        amount=888,
        currency="CNY",
        reason="broken cup",
        requested_by="anna",
        requested_at=NOW,
        expires_at=at(3600),
    )
    return replace(approval, **changes)


def tried(attempt: int, seconds: float, status: str) -> AttemptFact:
    return AttemptFact(attempt=attempt, at=at(seconds), status=status, is_delivered=status == "200")


PAYING = a_state(an_order(), a_payment())
PAID = a_state(paid_order(), paid_payment())
