"""The one door: load → decide → compare-and-set. Nothing else changes an order.

A decision comes back from `core.lifecycle` as a value. One statement writes it, with payments, pending rows, refunds,
event, cases and notification, and succeeds only if the order still has the version that was decided on. Otherwise it is
decided again on fresh state. Callers bring evidence with them: no channel is called in here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import asyncpg
import msgspec

from core.decision import Arm, Change, Decision, Outcome, applied
from core.dispute import Dispute
from core.errors import ConflictsExhausted, DatabaseUnavailable, NumberTaken, RowLocked, TransactionClaimed
from core.order import OrderState, Payment, PaymentKey, Refund, RefundStatus
from core.sentences import encode_phrase
from storage.postgres.api_keys import acting_key
from storage.postgres.database import Database, document
from storage.postgres.door.shapes import SHAPES
from storage.postgres.gathered import Gathered
from storage.postgres.orders import find_state
from storage.postgres.pending import PendingRow

Decide = Callable[[OrderState | None], Decision]
"""From the order as it is (None: there is none) to what is to be done. Called again after a conflict, so it is pure."""

DecideExisting = Callable[[OrderState], Decision]
"""The same about an order that exists."""

CONFLICTS_MAX = 20
"""Fifty writers on one order would be a storm; a loser wins at the latest when all the others have."""

BATCH_MAX = 50
"""Decisions of one statement, of which a process has one under way: with more under way each has fewer decisions."""

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
    """One order through the door. If it loses the race, it decides again.

    `known` is the order as the caller has just read it: the first try decides on that and does not load. `is_new`: the
    first try decides on an order that is not there. If either is wrong by now, nothing is written, and it is loaded.

    Raises:
        ConflictsExhausted: the order changed under every try.
        DatabaseUnavailable: Postgres was gone longer than the pauses; what was committed is found by deciding again.
        NumberTaken: a new payment has a number that is known already; nothing is written.
        TransactionClaimed: one channel transaction would belong to two payments; nothing is written.
    """
    state, loads, retries = known, known is None and not is_new, 0
    for _ in range(CONFLICTS_MAX):
        try:
            if loads:
                state = await find_state(db, order_no)
            decision = decide(state)
            written = await _commit(db, order_no, decision)
            if decision.change is None or order_no in written.changed_orders:
                return written.committed(order_no, state, decision)
        except DatabaseUnavailable:
            if retries == len(_RETRY_PAUSES_S):
                raise
            await asyncio.sleep(_RETRY_PAUSES_S[retries])
            retries += 1
        loads = True
    raise ConflictsExhausted(f"order {order_no} kept changing")


async def transition_existing(
    db: Database, order_no: str, decide: DecideExisting, *, known: OrderState | None = None
) -> Committed:
    """One order that exists, through the door; the outcome is `stale` if it does not. Raises as `transition`."""
    return await transition(db, order_no, partial(_decide_existing, decide), known=known)


def _decide_existing(decide: DecideExisting, state: OrderState | None) -> Decision:
    return Decision(outcome=Outcome.STALE) if state is None else decide(state)


class _Written(msgspec.Struct, frozen=True, kw_only=True):
    """The result of the statement: rows by the number of their order."""

    changed_orders: dict[str, int] = {}
    scheduled_pending: dict[str, tuple[PendingRow, ...]] = {}
    deleted_pending: dict[str, tuple[PendingRow, ...]] = {}
    inserted_notifications: dict[str, str] = {}
    inserted_refunds: dict[str, tuple[str, ...]] = {}
    left_orders: dict[str, bool] = {}

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


class _Commit(NamedTuple):
    """A decision on its way to the statement, and the API key of the request that it came with."""

    order_no: str
    decision: Decision
    api_key: str | None


async def _commit(db: Database, order_no: str, decision: Decision) -> _Written:
    """Write the decision, together with those of other callers."""
    if not _has_effect(decision):
        return _Written()
    return await _write_gathered(db, _Commit(order_no, decision, acting_key.get()))


def _order_no(commit: _Commit) -> str:
    return commit.order_no


async def _write_together(db: Database, commits: list[_Commit]) -> list[_Written | Exception]:
    written = await _write(db, sorted(commits, key=_order_no), together=True)
    return [RowLocked() if commit.order_no in written.left_orders else written for commit in commits]


async def _write_alone(db: Database, commit: _Commit) -> _Written:
    return await _write(db, [commit], together=False)


_write_gathered = Gathered(_write_together, alone=_write_alone, key=_order_no, batch_max=BATCH_MAX)


async def _write(db: Database, commits: Sequence[_Commit], *, together: bool) -> _Written:
    rows = _document(commits)
    operations = {f"{table}.{row['operation']}" for table, of_table in rows.items() for row in of_table}
    shape = next(shape for shape in SHAPES if operations <= shape.operations)
    try:
        return _decoder.decode(await db.fetch_text(shape.together if together else shape.alone, document(rows)))
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name == "payments_transaction":
            raise TransactionClaimed from error
        if error.constraint_name in _KNOWN_NUMBER:
            raise NumberTaken("a payment with this number is already known at this account") from None
        raise


def _has_effect(decision: Decision) -> bool:
    return bool(decision.change or decision.rearm or decision.drop or decision.observation or decision.handled)


# -- the document of the statement -------------------------------------------------------------------------------------

_Row = dict[str, Any]


def _document(commits: Sequence[_Commit]) -> dict[str, list[_Row]]:
    """All rows that these decisions write, by table. `operation`: insert, update or delete."""
    decisions = [commit.decision for commit in commits]
    changes = [decision.change for decision in decisions if decision.change is not None]
    return {
        "orders": [_order(change) for change in changes],
        "payments": [row for change in changes for row in _payments(change)],
        "pending": [row for decision in decisions for row in _pending(decision)],
        "events": [_event(commit) for commit in commits if commit.decision.change is not None],
        "cases": [row for change in changes for row in _cases(change)],
        "refunds": [_refund(refund) for change in changes for refund in change.refunds],
        "disputes": [_dispute(dispute) for change in changes for dispute in change.disputes],
        "notifications": [_notification(change) for change in changes if change.notification is not None],
        "observations": [row for decision in decisions for row in _observations(decision)],
        "callbacks": [row for decision in decisions for row in _callbacks(decision)],
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
    order_no = None if change is None else change.order.order_no
    for key in decision.drop:
        yield _key(key) | {"operation": "delete", "needs_change": change is not None, "order_no": order_no}
    if change is None:
        return
    yield from (_arm(arm, "insert", needs_change=True) for arm in change.arm)
    for key in change.resolved:
        yield _key(key) | {"operation": "delete", "needs_change": True, "order_no": order_no}


def _arm(arm: Arm, operation: str, *, needs_change: bool) -> _Row:
    return _columns(arm, arm.key) | {"operation": operation, "needs_change": needs_change}


def _event(commit: _Commit) -> _Row:
    assert commit.decision.change is not None, "called only for decisions that have one"
    event = commit.decision.change.event
    return _columns(event, event.key) | {
        "operation": "insert",
        "order_no": commit.order_no,
        "api_key": commit.api_key,
    }


def _cases(change: Change) -> Iterable[_Row]:
    order_no = change.order.order_no
    for case in change.cases:
        yield _columns(case, case.key) | {"operation": "insert", "order_no": order_no} | _phrase("detail", case.detail)
    for resolution in change.resolutions:
        yield (
            _columns(resolution, resolution.key)
            | {
                "operation": "update",
                "order_no": order_no,
                "by": change.event.by,
            }
            | _phrase("resolution", resolution.resolution)
        )


def _phrase(name: str, text: str) -> _Row:
    return {name: str(text), "phrase": encode_phrase(text)}


def _refund(refund: Refund) -> _Row:
    operation = "insert" if refund.status is RefundStatus.REQUESTED else "update"
    return _columns(refund, refund.key) | {"operation": operation}


def _dispute(dispute: Dispute) -> _Row:
    return msgspec.structs.asdict(dispute) | {"operation": "write"}


def _notification(change: Change) -> _Row:
    """Supersede: an earlier one may have said that the order is closed."""
    assert change.notification is not None, "called only for changes that have one"
    row = msgspec.structs.asdict(change.notification)
    is_reopened = row["type"] == "order.paid" and change.order.closed_at is not None
    operation = "supersede" if is_reopened else "insert"
    return row | {"operation": operation, "order_no": change.order.order_no, "version": change.order.version}


def _callbacks(decision: Decision) -> Iterable[_Row]:
    if decision.handled is not None:
        order_no = None if decision.change is None else decision.change.order.order_no
        row = {"operation": "update", "order_no": order_no, "needs_change": order_no is not None}
        yield msgspec.structs.asdict(decision.handled) | row


def _observations(decision: Decision) -> Iterable[_Row]:
    if decision.observation is not None:
        row = _columns(decision.observation, decision.observation.key)
        yield row | {"operation": "insert", "needs_change": decision.change is not None}


def _columns(struct: msgspec.Struct, key: PaymentKey | None) -> _Row:
    """The fields of a struct, its payment's key as two columns."""
    row = msgspec.structs.asdict(struct)
    del row["key"]
    return row | _key(key)


def _key(key: PaymentKey | None) -> _Row:
    account, number = key or (None, None)
    return {"channel_account": account, "out_trade_no": number}
