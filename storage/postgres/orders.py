"""Reading orders. Nothing here writes: an order changes only through the door."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from core.codes import read_code
from core.dispute import Dispute
from core.evidence import Evidence
from core.lifecycle import named_payment, other_named
from core.order import CaseReason, Order, OrderState, OrderStatus, Origin, Payment, PaymentKey, Pending, Refund
from storage.postgres.cursors import decode_cursor, encode_cursor, is_text
from storage.postgres.database import Database, storable
from storage.postgres.gathered import Gathered
from storage.postgres.payments import PAYMENT_JSON, find_payments_by_ids


class _StateRow(msgspec.Struct, frozen=True):
    """An order with all that belongs to it, as `_STATE` builds it in one JSON document."""

    order: Order
    now: datetime
    payments: tuple[Payment, ...]
    pending: tuple[Pending, ...]
    refunds: tuple[Refund, ...]
    disputes: tuple[Dispute, ...]
    open_cases: tuple[tuple[str | None, str | None, str], ...]


_state_decoder = msgspec.json.Decoder(_StateRow)

_STATE = f"""
jsonb_build_object(
    'now', now(),
    'order', to_jsonb(o) || jsonb_build_object('paid_by',
        CASE WHEN o.paid_by_account IS NULL THEN NULL
             ELSE jsonb_build_array(o.paid_by_account, o.paid_by_out_trade_no) END),
    'payments', coalesce((SELECT jsonb_agg({PAYMENT_JSON} ORDER BY p.attempt_no)
                            FROM payments p WHERE p.order_no = o.order_no), '[]'),
    'pending', coalesce((SELECT jsonb_agg(jsonb_build_object(
                                'key', jsonb_build_array(q.channel_account, q.out_trade_no), 'kind', q.kind,
                                'order_no', q.order_no, 'attempt', q.attempt, 'arm_no', q.arm_no, 'due_at', q.due_at,
                                'unanswered_since', q.unanswered_since, 'verified_at', q.verified_at))
                           FROM pending q WHERE q.order_no = o.order_no), '[]'),
    'refunds', coalesce((SELECT jsonb_agg(to_jsonb(r) || jsonb_build_object(
                                'key', jsonb_build_array(r.channel_account, r.out_trade_no))
                                ORDER BY r.requested_at, r.refund_no)
                           FROM (SELECT * FROM refunds WHERE order_no = o.order_no OFFSET 0) r), '[]'),
    'disputes', coalesce((SELECT jsonb_agg(to_jsonb(t) ORDER BY t.opened_at, t.dispute_id)
                            FROM (SELECT * FROM disputes WHERE order_no = o.order_no OFFSET 0) t), '[]'),
    'open_cases', coalesce((SELECT jsonb_agg(jsonb_build_array(c.channel_account, c.out_trade_no, c.reason))
                              FROM (SELECT * FROM cases WHERE order_no = o.order_no OFFSET 0) c
                             WHERE c.resolved_at IS NULL), '[]'))::text
"""
"""SQL expression over `orders o`: an `OrderState` as JSON text, read in the snapshot of one statement. OFFSET keeps the
planner from walking an index that has the order of an aggregate, or only open cases, while it looks short."""

# LIMIT keeps the planner from joining the whole table with as many numbers as it expects: each is looked up by its key.
_FIND_MANY = f"""
SELECT {_STATE}
  FROM unnest($1::text[]) AS wanted(order_no)
 CROSS JOIN LATERAL (SELECT * FROM orders WHERE orders.order_no = wanted.order_no LIMIT 1) AS o"""
_FIND_BY_PAYMENT = f"""
SELECT k.channel_account, k.out_trade_no, {_STATE}
  FROM unnest($1::text[], $2::text[]) AS wanted(channel_account, out_trade_no)
 CROSS JOIN LATERAL (SELECT * FROM payments p
                      WHERE p.channel_account = wanted.channel_account AND p.out_trade_no = wanted.out_trade_no
                      LIMIT 1) AS k
 CROSS JOIN LATERAL (SELECT * FROM orders WHERE orders.order_no = k.order_no LIMIT 1) AS o"""
_FIND_BY_TOKEN = f"""
SELECT {_STATE}
  FROM orders o
 WHERE o.page_token = $1 AND o.created_at > now() - make_interval(days => $2)"""
# The page is found first: a sort would have the states of all orders made. Payments are counted order by order, where
# EXISTS would read all of the account's.
_LIST = f"""
SELECT o.created_at, o.order_no, {_STATE} AS state
  FROM (SELECT * FROM orders
         WHERE ($1::text IS NULL OR status = $1)
           AND ($2::text IS NULL
                OR 0 < (SELECT count(*) FROM (SELECT * FROM payments WHERE order_no = orders.order_no OFFSET 0) AS p
                         WHERE p.channel_account = $2))
           AND created_at >= coalesce($3::timestamptz, '-infinity')
           AND created_at < coalesce($4::timestamptz, 'infinity')
           AND (created_at, order_no) < (coalesce($5::timestamptz, 'infinity'), coalesce($6, ''))
         ORDER BY created_at DESC, order_no DESC
         LIMIT $7) AS o
 ORDER BY o.created_at DESC, o.order_no DESC"""
_TIMELINE = """
SELECT at, kind, by, version, channel_account, out_trade_no, note, evidence::text, api_key
  FROM order_events WHERE order_no = $1
UNION ALL
SELECT at, kind, by, NULL, channel_account, out_trade_no, note, NULL, NULL
  FROM observations WHERE order_no = $1
 ORDER BY at, version NULLS LAST
 LIMIT $2"""

TIMELINE_MAX = 1000


class TimelineEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An event (with its version) or an observation (without one)."""

    at: datetime
    kind: str
    by: str
    version: int | None
    account: str | None
    out_trade_no: str | None
    note: str
    evidence: dict[str, Any] | None
    api_key: str | None


async def find_now(db: Database) -> datetime:
    """The database's clock: the one clock."""
    now: datetime = await db.fetchval("SELECT now()")
    return now


async def find_state(db: Database, order_no: str) -> OrderState | None:
    """The order with its payments, pending rows, refunds and open cases."""
    return await _find_by_number(db, order_no)


async def find_states(db: Database, order_nos: list[str]) -> dict[str, OrderState]:
    """Many at once, by order number."""
    states = [_order_state(row[0]) for row in await db.fetch(_FIND_MANY, order_nos)]
    return {state.order.order_no: state for state in states}


async def find_state_by_payment(db: Database, key: PaymentKey) -> OrderState | None:
    """The order of one payment, by account *and* number: the same number at another account is another payment."""
    return await _find_by_payment(db, key)


async def _states_of(db: Database, order_nos: list[str]) -> list[OrderState | None]:
    states = await find_states(db, sorted(set(order_nos)))
    return [states.get(order_no) for order_no in order_nos]


async def _states_by_payment(db: Database, keys: list[PaymentKey]) -> list[OrderState | None]:
    accounts, numbers = zip(*sorted(set(keys)), strict=True)
    rows = await db.fetch(_FIND_BY_PAYMENT, accounts, numbers)
    by_key = {PaymentKey(account, number): _order_state(text) for account, number, text in rows}
    return [by_key.get(key) for key in keys]


_find_by_number = Gathered(_states_of)
_find_by_payment = Gathered(_states_by_payment)


async def find_named_payment(db: Database, account: str, evidence: Evidence) -> tuple[OrderState, Payment] | None:
    """The payment that evidence of this account is about, by any id in it, with its order.

    A number of ours is looked for first, and names no other payment. A watched payment is not meant if the message
    names another one: its query tells.
    """
    key = PaymentKey(account, storable(evidence.out_trade_no))
    state = await find_state_by_payment(db, key)
    payment = None if state is None else state.payment(key)
    if payment is None or payment.origin is not Origin.OURS:
        named = await _find_named(db, account, evidence)
        state = None if named is None else await find_state(db, named.order_no)
        payment = None if state is None or named is None else state.payment(named.key)
    return None if state is None or payment is None else (state, payment)


async def _find_named(db: Database, account: str, evidence: Evidence) -> Payment | None:
    found = await find_payments_by_ids(db, account, evidence.every_id)
    named = named_payment(evidence.every_id, found)
    if named is None or named.origin is Origin.OURS:
        return named
    return other_named(named, evidence, found) or named


async def find_state_by_page_token(db: Database, token: str, *, days: int) -> OrderState | None:
    """The order that this token may look at, while the token is valid."""
    text = await db.fetchval(_FIND_BY_TOKEN, token, days)
    return None if text is None else _order_state(text)


async def list_orders(
    db: Database,
    *,
    status: OrderStatus | None = None,
    account: str | None = None,
    created_after: datetime | None = None,
    created_before: datetime | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> tuple[list[OrderState], str | None]:
    """Newest first, and the cursor of the next page (None at the end).

    Raises:
        InvalidRequest: the cursor is not one of ours.
    """
    at, order_no = decode_cursor(cursor, is_text)
    rows = await db.fetch(_LIST, status, account, created_after, created_before, at, order_no, limit + 1)
    states = [_order_state(row["state"]) for row in rows[:limit]]
    last = rows[limit - 1] if len(rows) > limit else None
    return states, None if last is None else encode_cursor(last["created_at"], last["order_no"])


async def timeline(db: Database, order_no: str) -> list[TimelineEntry]:
    """Events and observations of an order, oldest first, at most `TIMELINE_MAX`."""
    rows = await db.fetch(_TIMELINE, order_no, TIMELINE_MAX)
    return [
        TimelineEntry(
            at=row["at"],
            kind=row["kind"],
            by=row["by"],
            version=row["version"],
            account=row["channel_account"],
            out_trade_no=row["out_trade_no"],
            note=row["note"],
            evidence=None if row["evidence"] is None else msgspec.json.decode(row["evidence"]),
            api_key=row["api_key"],
        )
        for row in rows
    ]


def _order_state(text: str) -> OrderState:
    """The `OrderState` that `_STATE` built."""
    row = _state_decoder.decode(text)
    cases = frozenset(
        (None if account is None or number is None else PaymentKey(account, number), read_code(CaseReason, reason))
        for account, number, reason in row.open_cases
    )
    return OrderState(
        order=row.order,
        now=row.now,
        payments=row.payments,
        pending=row.pending,
        refunds=row.refunds,
        disputes=row.disputes,
        open_cases=cases,
    )
