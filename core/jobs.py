"""The jobs of the delay queue: what each is called, which lane it runs in and what its id is.

A job id ends in the arm number of the row that it serves, so scheduling the same work again is another job, and a job
of an older scheduling finds another number in Postgres and does nothing. Lanes keep work apart: a backlog in one never
delays another.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from core.order import PaymentKey


class Lane(StrEnum):
    """fresh: callbacks; a user is waiting. queries: what is due by n². notifications: what the merchant must hear."""

    FRESH = "fresh"
    QUERIES = "queries"
    NOTIFICATIONS = "notifications"


class JobName(StrEnum):
    """verb_noun; also the name of the function that the worker runs."""

    QUERY_PAYMENT = "query_payment"
    CLOSE_ORDER = "close_order"
    REFUND_PAYMENT = "refund_payment"
    COMPENSATE_CALLBACK = "compensate_callback"
    PUSH_NOTIFICATION = "push_notification"


class Job(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One job: `delay_s` seconds from now by Redis's own clock, with JSON arguments."""

    lane: Lane
    name: JobName
    id: str
    args: tuple[str | int, ...]
    delay_s: float = 0.0


def query_payment(key: PaymentKey, arm_no: int, delay_s: float = 0.0) -> Job:
    """Ask the channel about one payment."""
    return Job(
        lane=Lane.QUERIES,
        name=JobName.QUERY_PAYMENT,
        id=f"q:{key.channel_account}:{key.out_trade_no}:{arm_no}",
        args=(key.channel_account, key.out_trade_no, arm_no),
        delay_s=delay_s,
    )


def close_order(order_no: str, arm_no: int, delay_s: float = 0.0) -> Job:
    """The deadline of an order: query, close at the channel, query again, and only then closed."""
    return Job(
        lane=Lane.QUERIES,
        name=JobName.CLOSE_ORDER,
        id=f"d:{order_no}:{arm_no}",
        args=(order_no, arm_no),
        delay_s=delay_s,
    )


def refund_payment(refund_no: str, arm_no: int, delay_s: float = 0.0) -> Job:
    """Have the channel give money back, or ask how that stands."""
    return Job(
        lane=Lane.QUERIES,
        name=JobName.REFUND_PAYMENT,
        id=f"r:{refund_no}:{arm_no}",
        args=(refund_no, arm_no),
        delay_s=delay_s,
    )


def compensate_callback(callback_id: str, arm_no: int, delay_s: float = 0.0) -> Job:
    """Carry on with a stored callback whose synchronous update did not happen."""
    return Job(
        lane=Lane.FRESH,
        name=JobName.COMPENSATE_CALLBACK,
        id=f"c:{callback_id}:{arm_no}",
        args=(callback_id, arm_no),
        delay_s=delay_s,
    )


def push_notification(notification_id: str, arm_no: int, delay_s: float = 0.0) -> Job:
    """Tell the merchant's order service."""
    return Job(
        lane=Lane.NOTIFICATIONS,
        name=JobName.PUSH_NOTIFICATION,
        id=f"n:{notification_id}:{arm_no}",
        args=(notification_id, arm_no),
        delay_s=delay_s,
    )
