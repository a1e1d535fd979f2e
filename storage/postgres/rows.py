"""Rows of Postgres as the frozen data of `core`, and back as JSON documents for the one statement of the door.

Postgres holds neither NUL nor half a surrogate pair in a text, and a channel can send both. Another character takes
their place, so that no text keeps an order from being paid.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from core.order import CaseReason, Order, OrderState, Payment, PaymentKey, Pending, Refund

_encoder = msgspec.json.Encoder()


class _StateRow(msgspec.Struct, frozen=True):
    """An order with all that belongs to it, as `STATE` builds it in one JSON document."""

    order: Order
    now: datetime
    payments: tuple[Payment, ...]
    pending: tuple[Pending, ...]
    refunds: tuple[Refund, ...]
    open_cases: tuple[tuple[str | None, str | None, CaseReason], ...]


_state_decoder = msgspec.json.Decoder(_StateRow)

STATE = """
jsonb_build_object(
    'now', now(),
    'order', to_jsonb(o) || jsonb_build_object('paid_by',
        CASE WHEN o.paid_by_account IS NULL THEN NULL
             ELSE jsonb_build_array(o.paid_by_account, o.paid_by_out_trade_no) END),
    'payments', coalesce((SELECT jsonb_agg(to_jsonb(p) ORDER BY p.attempt_no)
                            FROM payments p WHERE p.order_no = o.order_no), '[]'),
    'pending', coalesce((SELECT jsonb_agg(jsonb_build_object(
                                'key', jsonb_build_array(q.channel_account, q.out_trade_no), 'kind', q.kind,
                                'order_no', q.order_no, 'attempt', q.attempt, 'arm_no', q.arm_no, 'due_at', q.due_at))
                           FROM pending q WHERE q.order_no = o.order_no), '[]'),
    'refunds', coalesce((SELECT jsonb_agg(to_jsonb(r) || jsonb_build_object(
                                'key', jsonb_build_array(r.channel_account, r.out_trade_no))
                                ORDER BY r.requested_at, r.refund_no)
                           FROM refunds r WHERE r.order_no = o.order_no), '[]'),
    'open_cases', coalesce((SELECT jsonb_agg(jsonb_build_array(c.channel_account, c.out_trade_no, c.reason))
                              FROM cases c WHERE c.order_no = o.order_no AND c.resolved_at IS NULL), '[]'))::text
"""
"""SQL expression over `orders o`: an `OrderState` as JSON text, read in the snapshot of one statement."""


def order_state(text: str) -> OrderState:
    """The `OrderState` that `STATE` built."""
    row = _state_decoder.decode(text)
    cases = frozenset(
        (None if account is None or number is None else PaymentKey(account, number), reason)
        for account, number, reason in row.open_cases
    )
    return OrderState(
        order=row.order,
        now=row.now,
        payments=row.payments,
        pending=row.pending,
        refunds=row.refunds,
        open_cases=cases,
    )


def document(value: Any) -> str:
    """JSON text for a statement, storable."""
    try:
        text = _encoder.encode(value).decode()
    except UnicodeEncodeError:
        return _clean_document(value)
    return _clean_document(value) if "\\u0000" in text else text


def storable(text: str) -> str:
    """The text as Postgres can hold it."""
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def _clean_document(value: Any) -> str:
    return _encoder.encode(_clean(msgspec.to_builtins(value))).decode()


def _clean(value: Any) -> Any:
    match value:
        case str():
            return storable(value)
        case list():
            return [_clean(item) for item in value]
        case dict():
            return {_clean(key): _clean(item) for key, item in value.items()}
    return value
