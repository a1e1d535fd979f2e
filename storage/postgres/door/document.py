"""Decisions as the JSON document of the door's statement: a list of rows for each table.

`operation` is what the statement does with a row: insert, update or delete.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from core.decision import Arm, Change, Decision, Observation
from core.order import Payment, PaymentKey, Refund, RefundStatus

Row = dict[str, Any]


def decisions_document(decisions: Sequence[Decision]) -> dict[str, list[Row]]:
    """All rows that these decisions want written."""
    changes = [decision.change for decision in decisions if decision.change is not None]
    observations = [decision.observation for decision in decisions if decision.observation is not None]
    return {
        "orders": [_order(change) for change in changes],
        "payments": [row for change in changes for row in _payments(change)],
        "pending": [row for decision in decisions for row in _pending(decision)],
        "events": [_event(change) for change in changes],
        "cases": [row for change in changes for row in _cases(change)],
        "refunds": [_refund(refund) for change in changes for refund in change.refunds],
        "notifications": [_notification(change) for change in changes if change.notification is not None],
        "observations": [_observation(observation) for observation in observations],
    }


def _order(change: Change) -> Row:
    row = msgspec.structs.asdict(change.order)
    account, number = row.pop("paid_by") or (None, None)
    operation = "insert" if change.is_new else "update"
    return row | {"operation": operation, "paid_by_account": account, "paid_by_out_trade_no": number}


def _payments(change: Change) -> Iterable[Row]:
    yield from (_payment(payment, "insert") for payment in change.new_payments)
    yield from (_payment(payment, "update") for payment in change.payments)


def _payment(payment: Payment, operation: str) -> Row:
    return msgspec.structs.asdict(payment) | {"operation": operation}


def _pending(decision: Decision) -> Iterable[Row]:
    """`needs_change`: only if the order changes with it. Otherwise the arm number alone guards the row."""
    change = decision.change
    yield from (_arm(arm, "update", needs_change=change is not None) for arm in decision.rearm)
    yield from (_key(key) | {"operation": "delete", "needs_change": False} for key in decision.drop)
    if change is None:
        return
    order_no = change.order.order_no
    yield from (_arm(arm, "insert", needs_change=True) for arm in change.arm)
    for key in change.resolved:
        yield _key(key) | {"operation": "delete", "needs_change": True, "order_no": order_no}


def _arm(arm: Arm, operation: str, *, needs_change: bool) -> Row:
    return _columns(arm, arm.key) | {"operation": operation, "needs_change": needs_change}


def _event(change: Change) -> Row:
    return _columns(change.event, change.event.key) | {"order_no": change.order.order_no}


def _cases(change: Change) -> Iterable[Row]:
    order_no = change.order.order_no
    for case in change.cases:
        yield _columns(case, case.key) | {"operation": "insert", "order_no": order_no}
    for resolution in change.resolutions:
        yield _columns(resolution, resolution.key) | {
            "operation": "update",
            "order_no": order_no,
            "by": change.event.by,
        }


def _refund(refund: Refund) -> Row:
    operation = "insert" if refund.status is RefundStatus.REQUESTED else "update"
    return _columns(refund, refund.key) | {"operation": operation}


def _notification(change: Change) -> Row:
    assert change.notification is not None, "called only for changes that have one"
    row = msgspec.structs.asdict(change.notification)
    return row | {"order_no": change.order.order_no, "version": change.order.version}


def _observation(observation: Observation) -> Row:
    return _columns(observation, observation.key)


def _columns(struct: msgspec.Struct, key: PaymentKey | None) -> Row:
    """The fields of a struct, its payment's key as two columns."""
    row = msgspec.structs.asdict(struct)
    del row["key"]
    return row | _key(key)


def _key(key: PaymentKey | None) -> Row:
    account, number = key or (None, None)
    return {"channel_account": account, "out_trade_no": number}
