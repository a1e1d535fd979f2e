"""Jobs by lane: thin functions from arq's arguments to the flows. Their results are not used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.jobs import JobName, Lane
from core.order import PaymentKey
from flows.close import close_scheduled
from flows.compensation import compensate_callback as compensate
from flows.notify import push_notification as push
from flows.query import query_scheduled
from flows.refund import refund_scheduled
from worker.running import JobFunction


async def query_payment(ctx: dict[str, Any], channel_account: str, out_trade_no: str, arm_no: int) -> None:
    """Query the channel about one payment; without a definite result it is due again in (attempt + 1)² units."""
    await query_scheduled(ctx["resources"], PaymentKey(channel_account, out_trade_no), arm_no)


async def close_order(ctx: dict[str, Any], order_no: str, arm_no: int) -> None:
    """Close an order at its deadline: query, close at the channel, query again, and only then close it here."""
    await close_scheduled(ctx["resources"], order_no, arm_no)


async def refund_payment(ctx: dict[str, Any], refund_no: str, arm_no: int) -> None:
    """Request a refund from the channel, or query its state, until it is definite."""
    await refund_scheduled(ctx["resources"], refund_no, arm_no)


async def compensate_callback(ctx: dict[str, Any], callback_id: str, arm_no: int) -> None:
    """Continue with a stored callback whose synchronous update did not happen."""
    await compensate(ctx["resources"], callback_id, arm_no)


async def push_notification(ctx: dict[str, Any], notification_id: str, arm_no: int) -> None:
    """Send a notification to the merchant's order service."""
    await push(ctx["resources"], ctx["notifier"], notification_id, arm_no)


FUNCTIONS: Mapping[Lane, Mapping[str, JobFunction]] = {
    Lane.FRESH: {JobName.COMPENSATE_CALLBACK: compensate_callback},
    Lane.QUERIES: {
        JobName.QUERY_PAYMENT: query_payment,
        JobName.CLOSE_ORDER: close_order,
        JobName.REFUND_PAYMENT: refund_payment,
    },
    Lane.NOTIFICATIONS: {JobName.PUSH_NOTIFICATION: push_notification},
}
"""Every job by lane and name. For a rolling deploy, add a function here one deploy before anything enqueues it."""
