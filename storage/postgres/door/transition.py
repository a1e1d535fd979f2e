"""The one door: load → decide → compare-and-set. Nothing else changes an order.

A decision comes back from `core.lifecycle` as a value. One statement writes it, with payments, pending rows, refunds,
event, cases and notification, and succeeds only if the order still has the version that was decided on. Otherwise it is
decided again on fresh state. Callers bring evidence with them: no channel is called in here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import asyncpg
import msgspec

from core.decision import Arm, Change, Decision, Observation, Outcome, applied
from core.errors import ConflictsExhausted, DatabaseUnavailable, NumberTaken, TransactionClaimed
from core.order import OrderState, Payment, PaymentKey, Refund, RefundStatus
from storage.postgres.api_keys import acting_key
from storage.postgres.database import Database, document
from storage.postgres.door.statement import STATEMENT
from storage.postgres.orders import find_states
from storage.postgres.pending import PendingRow

Decide = Callable[[OrderState | None], Decision]
"""From the order as it is (None: there is none) to what is to be done. Called again after a conflict, so it is pure."""

DecideExisting = Callable[[OrderState], Decision]
"""The same about an order that exists."""

CONFLICTS_MAX = 20
"""Fifty writers on one order would be a storm; a loser wins at the latest when all the others have."""

_RETRY_PAUSES_S = (0.05, 0.25, 1.0, 3.0)
"""After a lost connection: reload and decide again. A restart of Postgres takes a second or two; beyond, the sweep."""


class Committed(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one order's turn. `decision` is the one that was committed, on `state`; no `version`: no change.

    `armed` are the pending rows that it scheduled, `cancelled` those that it ended. `notification_id` and `refund_nos`
    are new, due at once, and have the arm number 1.
    """

    state: OrderState | None
    decision: Decision
    version: int | None = None
    armed: tuple[PendingRow, ...] = ()
    cancelled: tuple[PendingRow, ...] = ()
    notification_id: str | None = None
    refund_nos: tuple[str, ...] = ()

    def has_resolved(self, key: PaymentKey) -> bool:
        """Whether the pending row of this payment is gone."""
        return any(row.key == key for row in self.cancelled)

    @property
    def state_after(self) -> OrderState | None:
        """The order as it was left here: no second reading. Pending rows that were armed are not in it."""
        change = self.decision.change
        return self.state if change is None or self.version is None else applied(self.state, change)


async def transition(
    db: Database, order_no: str, decide: Decide, *, known: OrderState | None = None, is_new: bool = False
) -> Committed:
    """One order through the door. `known` and the errors are those of `transition_many`.

    `is_new`: the first try decides on an order that is not there and does not look; if it is, nothing is inserted.
    """
    known_states = {order_no: known} if is_new or known is not None else {}
    return (await transition_many(db, {order_no: decide}, known=known_states))[order_no]


async def transition_existing(
    db: Database, order_no: str, decide: DecideExisting, *, known: OrderState | None = None
) -> Committed:
    """One order that exists, through the door; the outcome is `stale` if it does not. Raises as `transition_many`."""
    return await transition(db, order_no, partial(_decide_existing, decide), known=known)


async def transition_many(
    db: Database, moves: Mapping[str, Decide], *, known: Mapping[str, OrderState | None] = MappingProxyType({})
) -> dict[str, Committed]:
    """Many orders, one move each, in one statement; those that lose the race decide again.

    `known` are states that the caller has read already: the first try decides on them and does not load. If an order
    has moved on since, its version says so, and it is loaded.

    Raises:
        ConflictsExhausted: an order changed under every try.
        DatabaseUnavailable: Postgres was gone longer than the pauses; what was committed is found by deciding again.
        NumberTaken: a new payment has a number that is known already; no move of this call is made.
        TransactionClaimed: a move would give one channel transaction to two payments; no move of this call is made.
    """
    committed: dict[str, Committed] = {}
    left = dict(sorted(moves.items()))
    states = dict(known)
    retries = 0
    for _ in range(CONFLICTS_MAX):
        try:
            committed |= await _turn(db, left, states)
        except DatabaseUnavailable:
            if retries == len(_RETRY_PAUSES_S):
                raise
            await asyncio.sleep(_RETRY_PAUSES_S[retries])
            retries += 1
        states = {}
        left = {order_no: decide for order_no, decide in left.items() if order_no not in committed}
        if not left:
            return committed
    raise ConflictsExhausted(f"{len(left)} orders kept changing")


def _decide_existing(decide: DecideExisting, state: OrderState | None) -> Decision:
    return Decision(outcome=Outcome.STALE) if state is None else decide(state)


async def _turn(
    db: Database, moves: Mapping[str, Decide], known: Mapping[str, OrderState | None]
) -> dict[str, Committed]:
    """Load, decide, compare-and-set, once. Orders that lost the race are left out."""
    unknown = [order_no for order_no in moves if order_no not in known]
    states = {**known, **(await find_states(db, unknown) if unknown else {})}
    decisions = {order_no: decide(states.get(order_no)) for order_no, decide in moves.items()}
    written = await _commit(db, list(decisions.values()))
    return {
        order_no: written.committed(order_no, states.get(order_no), decision)
        for order_no, decision in decisions.items()
        if decision.change is None or order_no in written.changed_orders
    }


class _Written(msgspec.Struct, frozen=True, kw_only=True):
    """The result of the statement: rows by the number of their order."""

    changed_orders: dict[str, int] = {}
    scheduled_pending: dict[str, tuple[PendingRow, ...]] = {}
    deleted_pending: dict[str, tuple[PendingRow, ...]] = {}
    inserted_notifications: dict[str, str] = {}
    inserted_refunds: dict[str, tuple[str, ...]] = {}

    def committed(self, order_no: str, state: OrderState | None, decision: Decision) -> Committed:
        return Committed(
            state=state,
            decision=decision,
            version=self.changed_orders.get(order_no),
            armed=self.scheduled_pending.get(order_no, ()),
            cancelled=self.deleted_pending.get(order_no, ()),
            notification_id=self.inserted_notifications.get(order_no),
            refund_nos=self.inserted_refunds.get(order_no, ()),
        )


_decoder = msgspec.json.Decoder(_Written)

_KNOWN_NUMBER = frozenset({"payments_pkey", "pending_pkey"})
"""A known number violates the one, and the other too while its payment is open; Postgres names whichever it likes."""


async def _commit(db: Database, decisions: Sequence[Decision]) -> _Written:
    if not any(_has_effect(decision) for decision in decisions):
        return _Written()
    try:
        return _decoder.decode(await db.fetch_text(STATEMENT, document(_document(decisions))))
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name == "payments_transaction":
            raise TransactionClaimed from error
        if error.constraint_name in _KNOWN_NUMBER:
            raise NumberTaken("a payment with this number is already known at this account") from None
        raise


def _has_effect(decision: Decision) -> bool:
    return bool(decision.change or decision.rearm or decision.drop or decision.observation)


# -- the document of the statement -------------------------------------------------------------------------------------

_Row = dict[str, Any]


def _document(decisions: Sequence[Decision]) -> dict[str, list[_Row]]:
    """All rows that these decisions write, by table. `operation`: insert, update or delete."""
    changes = [decision.change for decision in decisions if decision.change is not None]
    observations = [decision.observation for decision in decisions if decision.observation is not None]
    return {
        "orders": [_order(change) for change in changes],
        "payments": [row for change in changes for row in _payments(change)],
        "pending": [row for decision in decisions for row in _pending(decision)],
        "events": [_event(change) for change in changes],
        "cases": [row for change in changes for row in _cases(change)],
        "refunds": [_refund(refund) for change in changes for refund in change.refunds],
        "disputes": [msgspec.structs.asdict(dispute) for change in changes for dispute in change.disputes],
        "notifications": [_notification(change) for change in changes if change.notification is not None],
        "observations": [_observation(observation) for observation in observations],
    }


def _order(change: Change) -> _Row:
    row = msgspec.structs.asdict(change.order)
    account, number = row.pop("paid_by") or (None, None)
    operation = "insert" if change.is_new else "update"
    return row | {"operation": operation, "paid_by_account": account, "paid_by_out_trade_no": number}


def _payments(change: Change) -> Iterable[_Row]:
    yield from (_payment(payment, "insert") for payment in change.new_payments)
    yield from (_payment(payment, "update") for payment in change.payments)


def _payment(payment: Payment, operation: str) -> _Row:
    return msgspec.structs.asdict(payment) | {"operation": operation}


def _pending(decision: Decision) -> Iterable[_Row]:
    """`needs_change`: only if the order changes with it. Otherwise the arm number alone guards the row."""
    change = decision.change
    for arm in decision.rearm:
        yield _arm(arm, "insert" if arm.expected_arm_no is None else "update", needs_change=change is not None)
    yield from (_key(key) | {"operation": "delete", "needs_change": False} for key in decision.drop)
    if change is None:
        return
    order_no = change.order.order_no
    yield from (_arm(arm, "insert", needs_change=True) for arm in change.arm)
    for key in change.resolved:
        yield _key(key) | {"operation": "delete", "needs_change": True, "order_no": order_no}


def _arm(arm: Arm, operation: str, *, needs_change: bool) -> _Row:
    return _columns(arm, arm.key) | {"operation": operation, "needs_change": needs_change}


def _event(change: Change) -> _Row:
    return _columns(change.event, change.event.key) | {"order_no": change.order.order_no, "api_key": acting_key.get()}


def _cases(change: Change) -> Iterable[_Row]:
    order_no = change.order.order_no
    for case in change.cases:
        yield _columns(case, case.key) | {"operation": "insert", "order_no": order_no}
    for resolution in change.resolutions:
        yield _columns(resolution, resolution.key) | {
            "operation": "update",
            "order_no": order_no,
            "by": change.event.by,
        }


def _refund(refund: Refund) -> _Row:
    operation = "insert" if refund.status is RefundStatus.REQUESTED else "update"
    return _columns(refund, refund.key) | {"operation": operation}


def _notification(change: Change) -> _Row:
    assert change.notification is not None, "called only for changes that have one"
    row = msgspec.structs.asdict(change.notification)
    return row | {"order_no": change.order.order_no, "version": change.order.version}


def _observation(observation: Observation) -> _Row:
    return _columns(observation, observation.key)


def _columns(struct: msgspec.Struct, key: PaymentKey | None) -> _Row:
    """The fields of a struct, its payment's key as two columns."""
    row = msgspec.structs.asdict(struct)
    del row["key"]
    return row | _key(key)


def _key(key: PaymentKey | None) -> _Row:
    account, number = key or (None, None)
    return {"channel_account": account, "out_trade_no": number}
