"""The one door: load → decide → compare-and-set. Nothing else changes an order.

A decision comes back from `core.lifecycle` as a value; this module writes it, with payments, pending rows, refunds,
event, cases and notification, in one statement that succeeds only if the order still has the version that was decided
on. Otherwise it decides again on fresh state. Callers bring evidence with them: no channel is called in here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import asyncpg
import msgspec

from core.decision import Arm, Change, Decision, Outcome, applied
from core.errors import ConflictsExhausted, DatabaseUnavailable, NumberTaken
from core.order import OrderState, PaymentKey, PendingKind, Refund
from storage.postgres.database import Database
from storage.postgres.orders import find_states
from storage.postgres.rows import document

Decide = Callable[[OrderState | None], Decision]
"""From the order as it is (None: there is none) to what is to be done. Called again after a conflict, so it is pure."""

DecideExisting = Callable[[OrderState], Decision]
"""The same about an order that exists."""

CONFLICTS_MAX = 20
"""Fifty writers on one order would be a storm; a loser wins at the latest when all the others have."""

_LOST_PAUSES_S = (0.05, 0.25, 1.0, 3.0)
"""After a lost connection: reload and decide again. A restart of Postgres takes a second or two; beyond, the sweep."""


class Armed(msgspec.Struct, frozen=True, kw_only=True):
    """A pending row that a commit has scheduled: what Redis is to be reminded of."""

    key: PaymentKey
    kind: PendingKind
    order_no: str
    arm_no: int
    delay_s: float


class Committed(msgspec.Struct, frozen=True, kw_only=True):
    """What one order's turn at the door came to. `decision` is the one that was committed; its state came before it.

    `notification_id` and `refund_nos` are new, due at once, and have the arm number 1.
    """

    state: OrderState | None
    decision: Decision
    version: int | None = None
    armed: tuple[Armed, ...] = ()
    cancelled: tuple[Armed, ...] = ()
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


def of_existing(decide: DecideExisting) -> Decide:
    """The decision about an order that exists; *stale* if it does not."""
    return partial(_decide_existing, decide)


def _decide_existing(decide: DecideExisting, state: OrderState | None) -> Decision:
    return Decision(outcome=Outcome.STALE) if state is None else decide(state)


class TransactionClaimed(Exception):
    """Another payment of the account already has this channel transaction."""


async def transition(db: Database, order_no: str, decide: Decide, *, known: OrderState | None = None) -> Committed:
    """One order through the door. `known` and the errors are those of `transition_many`."""
    known_states = {} if known is None else {order_no: known}
    return (await transition_many(db, {order_no: decide}, known=known_states))[order_no]


async def transition_many(
    db: Database, moves: Mapping[str, Decide], *, known: Mapping[str, OrderState] = MappingProxyType({})
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
    done: dict[str, Committed] = {}
    left = dict(sorted(moves.items()))
    states = dict(known)
    lost = 0
    for _ in range(CONFLICTS_MAX):
        try:
            done |= await _turn(db, left, states)
        except DatabaseUnavailable:
            if lost == len(_LOST_PAUSES_S):
                raise
            await asyncio.sleep(_LOST_PAUSES_S[lost])
            lost += 1
        states = {}
        left = {order_no: decide for order_no, decide in left.items() if order_no not in done}
        if not left:
            return done
    raise ConflictsExhausted(f"{len(left)} orders kept changing")


async def _turn(db: Database, moves: Mapping[str, Decide], known: Mapping[str, OrderState]) -> dict[str, Committed]:
    """Load, decide, compare-and-set, once. Orders that lost are not in the answer."""
    unknown = [order_no for order_no in moves if order_no not in known]
    states = {**known, **(await find_states(db, unknown) if unknown else {})}
    decided = {order_no: decide(states.get(order_no)) for order_no, decide in moves.items()}
    result = await _commit(db, list(decided.values()))
    return {
        order_no: result.of(order_no, states.get(order_no), decision)
        for order_no, decision in decided.items()
        if decision.change is None or order_no in result.versions
    }


class _Result:
    """What the statement returned, by order."""

    def __init__(self, rows: Sequence[asyncpg.Record]) -> None:
        self._rows = rows
        self.versions = {row["order_no"]: row["number"] for row in rows if row["what"] == "won"}

    def of(self, order_no: str, state: OrderState | None, decision: Decision) -> Committed:
        return Committed(
            state=state,
            decision=decision,
            version=self.versions.get(order_no),
            armed=self._pending("armed", order_no),
            cancelled=self._pending("gone", order_no),
            notification_id=next((row["text"] for row in self._of("told", order_no)), None),
            refund_nos=tuple(row["text"] for row in self._of("refund", order_no)),
        )

    def _of(self, what: str, order_no: str) -> list[asyncpg.Record]:
        return [row for row in self._rows if row["what"] == what and row["order_no"] == order_no]

    def _pending(self, what: str, order_no: str) -> tuple[Armed, ...]:
        return tuple(
            Armed(
                key=PaymentKey(row["account"], row["text"]),
                kind=PendingKind(row["kind"]),
                order_no=order_no,
                arm_no=row["number"],
                delay_s=max(0.0, float(row["delay_s"])),
            )
            for row in self._of(what, order_no)
        )


async def _commit(db: Database, decisions: Sequence[Decision]) -> _Result:
    if not any(_has_effect(decision) for decision in decisions):
        return _Result([])
    try:
        return _Result(await db.fetch(_STATEMENT, document(_document(decisions))))
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name == "payments_transaction":
            raise TransactionClaimed from error
        if error.constraint_name in _TAKEN:
            raise NumberTaken("a payment with this number is already known at this account") from None
        raise


_TAKEN = frozenset({"payments_pkey", "pending_pkey"})
"""A known number violates the one, and the other too while its payment is open; Postgres names whichever it likes."""


def _has_effect(decision: Decision) -> bool:
    return bool(decision.change or decision.rearm or decision.drop or decision.observation)


def _document(decisions: Sequence[Decision]) -> dict[str, Any]:
    """All decisions as one JSON document with a list for each table."""
    changes = [decision.change for decision in decisions if decision.change is not None]
    rearm = [_arm(arm, guarded=d.change is not None) for d in decisions for arm in d.rearm]
    observed = [d.observation for d in decisions if d.observation is not None]
    return {
        "orders": [_order(change) for change in changes],
        "new_payments": [_payment(row) for change in changes for row in change.new_payments],
        "payments": [_payment(row) for change in changes for row in change.payments],
        "resolved": [{"order_no": change.order.order_no, **_key(key)} for change in changes for key in change.resolved],
        "drop": [_key(key) for decision in decisions for key in decision.drop],
        "arm": [_arm(arm, guarded=True) for change in changes for arm in change.arm],
        "rearm": rearm,
        "events": [_event(change) for change in changes],
        "cases": [
            {"order_no": change.order.order_no, "reason": case.reason, "detail": case.detail, **_key(case.key)}
            for change in changes
            for case in change.cases
        ],
        "answers": [
            {"order_no": change.order.order_no, "reason": row.reason, "resolution": row.resolution, **_key(row.key)}
            | {"by": change.event.by}
            for change in changes
            for row in change.resolutions
        ],
        "refunds": [_refund(refund) for change in changes for refund in change.refunds],
        "notifications": [_notification(change) for change in changes if change.notification is not None],
        "observations": [
            {"order_no": row.order_no, "kind": row.kind, "by": row.by, "note": row.note, **_key(row.key)}
            for row in observed
        ],
    }


def _key(key: PaymentKey | None) -> dict[str, str | None]:
    if key is None:
        return {"channel_account": None, "out_trade_no": None}
    return {"channel_account": key.channel_account, "out_trade_no": key.out_trade_no}


def _order(change: Change) -> dict[str, Any]:
    row = msgspec.structs.asdict(change.order)
    paid_by = row.pop("paid_by")
    account, number = paid_by if paid_by is not None else (None, None)
    return row | {"is_new": change.is_new, "paid_by_account": account, "paid_by_out_trade_no": number}


def _payment(payment: msgspec.Struct) -> dict[str, Any]:
    return msgspec.structs.asdict(payment)


def _arm(arm: Arm, *, guarded: bool) -> dict[str, Any]:
    row = msgspec.structs.asdict(arm)
    del row["key"]
    return row | _key(arm.key) | {"guarded": guarded}


def _refund(refund: Refund) -> dict[str, Any]:
    row = msgspec.structs.asdict(refund)
    del row["key"]
    return row | _key(refund.key)


def _event(change: Change) -> dict[str, Any]:
    event = change.event
    row = {"order_no": change.order.order_no, "kind": event.kind, "by": event.by, "note": event.note}
    return row | {"evidence": event.evidence, **_key(event.key)}


def _notification(change: Change) -> dict[str, Any]:
    notification = change.notification
    assert notification is not None
    row = msgspec.structs.asdict(notification)
    return row | {"order_no": change.order.order_no, "version": change.order.version}


# `won` is the compare-and-set: every other part hangs on it, so a lost race writes nothing. What comes without a change
# is guarded by nothing (observations) or by the arm number (moves of pending rows).
_STATEMENT = """
WITH doc AS MATERIALIZED (SELECT $1::text::jsonb AS d),
moves AS MATERIALIZED (
    SELECT m.* FROM doc, jsonb_to_recordset(d->'orders') AS m(
        order_no text, is_new boolean, amount bigint, currency text, subject text, status text, version integer,
        page_token text, created_at timestamptz, expires_at timestamptz, handed_off_at timestamptz,
        paid_by_account text, paid_by_out_trade_no text, paid_at timestamptz, closed_at timestamptz,
        notify_url text, return_url text, metadata jsonb)
),
inserted AS (
    INSERT INTO orders (order_no, amount, currency, subject, status, version, page_token, created_at, expires_at,
                        handed_off_at, notify_url, return_url, metadata)
    SELECT order_no, amount, currency, subject, status, version, page_token, created_at, expires_at,
           handed_off_at, notify_url, return_url, metadata
      FROM moves WHERE is_new
    ON CONFLICT (order_no) DO NOTHING
    RETURNING order_no, version
),
updated AS (
    UPDATE orders o
       SET version = m.version, status = m.status, expires_at = m.expires_at, handed_off_at = m.handed_off_at,
           paid_by_account = m.paid_by_account, paid_by_out_trade_no = m.paid_by_out_trade_no, paid_at = m.paid_at,
           closed_at = m.closed_at, updated_at = now()
      FROM moves m
     WHERE NOT m.is_new AND o.order_no = m.order_no AND o.version = m.version - 1
    RETURNING o.order_no, o.version
),
won AS (SELECT * FROM inserted UNION ALL SELECT * FROM updated),
new_payments AS (
    INSERT INTO payments (channel_account, out_trade_no, order_no, attempt_no, method, origin, amount, currency, status,
                          channel_reference, payable_until, created_at)
    SELECT p.channel_account, p.out_trade_no, p.order_no, p.attempt_no, p.method, p.origin, p.amount, p.currency,
           p.status, p.channel_reference, p.payable_until, p.created_at
      FROM doc, jsonb_to_recordset(d->'new_payments') AS p(
           channel_account text, out_trade_no text, order_no text, attempt_no integer, method text, origin text,
           amount bigint, currency text, status text, channel_reference text, payable_until timestamptz,
           created_at timestamptz)
      JOIN won USING (order_no)
),
payments_moved AS (
    UPDATE payments t
       SET status = p.status, checkout = p.checkout, channel_reference = p.channel_reference,
           channel_transaction_id = p.channel_transaction_id, payable_until = p.payable_until, paid_at = p.paid_at,
           refunded_amount = p.refunded_amount, close_attempted_at = p.close_attempted_at, refused_at = p.refused_at
      FROM doc, jsonb_to_recordset(d->'payments') AS p(
           channel_account text, out_trade_no text, order_no text, status text, checkout jsonb, channel_reference text,
           channel_transaction_id text, payable_until timestamptz, paid_at timestamptz, refunded_amount bigint,
           close_attempted_at timestamptz, refused_at timestamptz)
      JOIN won USING (order_no)
     WHERE t.channel_account = p.channel_account AND t.out_trade_no = p.out_trade_no
),
resolved AS (
    DELETE FROM pending t
     USING doc, jsonb_to_recordset(d->'resolved') AS r(order_no text, channel_account text, out_trade_no text)
      JOIN won USING (order_no)
     WHERE t.channel_account = r.channel_account AND t.out_trade_no = r.out_trade_no
    RETURNING t.channel_account, t.out_trade_no, t.kind, t.order_no, t.arm_no
),
dropped AS (
    DELETE FROM pending t
     USING doc, jsonb_to_recordset(d->'drop') AS r(channel_account text, out_trade_no text)
     WHERE t.channel_account = r.channel_account AND t.out_trade_no = r.out_trade_no
    RETURNING t.channel_account, t.out_trade_no, t.kind, t.order_no, t.arm_no
),
armed AS (
    INSERT INTO pending (channel_account, out_trade_no, kind, order_no, attempt, arm_no, due_at)
    SELECT a.channel_account, a.out_trade_no, a.kind, a.order_no, a.attempt, 1,
           coalesce(a.at, now() + make_interval(secs => a.delay_s))
      FROM doc, jsonb_to_recordset(d->'arm') AS a(
           channel_account text, out_trade_no text, kind text, order_no text, attempt integer, at timestamptz,
           delay_s double precision)
      JOIN won USING (order_no)
    RETURNING channel_account, out_trade_no, kind, order_no, arm_no, due_at
),
rearmed AS (
    UPDATE pending t
       SET attempt = a.attempt, arm_no = t.arm_no + 1, leased_at = NULL, leased_until = NULL,
           due_at = coalesce(a.at, now() + make_interval(secs => a.delay_s)),
           answered_from = coalesce(t.leased_at, t.answered_from)
      FROM doc, jsonb_to_recordset(d->'rearm') AS a(
           channel_account text, out_trade_no text, order_no text, attempt integer, at timestamptz,
           delay_s double precision, expected_arm_no integer, guarded boolean)
     WHERE t.channel_account = a.channel_account AND t.out_trade_no = a.out_trade_no AND t.arm_no = a.expected_arm_no
       AND (NOT a.guarded OR EXISTS (SELECT FROM won WHERE won.order_no = a.order_no))
    RETURNING t.channel_account, t.out_trade_no, t.kind, t.order_no, t.arm_no, t.due_at
),
events AS (
    INSERT INTO order_events (order_no, version, kind, by, channel_account, out_trade_no, evidence, note)
    SELECT e.order_no, won.version, e.kind, e.by, e.channel_account, e.out_trade_no, e.evidence, e.note
      FROM doc, jsonb_to_recordset(d->'events') AS e(
           order_no text, kind text, by text, channel_account text, out_trade_no text, evidence jsonb, note text)
      JOIN won USING (order_no)
),
opened AS (
    INSERT INTO cases (order_no, channel_account, out_trade_no, reason, detail)
    SELECT c.order_no, c.channel_account, c.out_trade_no, c.reason, c.detail
      FROM doc, jsonb_to_recordset(d->'cases') AS c(
           order_no text, channel_account text, out_trade_no text, reason text, detail text)
      JOIN won USING (order_no)
    ON CONFLICT DO NOTHING
),
answered AS (
    UPDATE cases t
       SET resolved_at = now(), resolution = a.resolution, by = a.by
      FROM doc, jsonb_to_recordset(d->'answers') AS a(
           order_no text, channel_account text, out_trade_no text, reason text, resolution text, by text)
      JOIN won USING (order_no)
     WHERE t.order_no = a.order_no AND t.channel_account = a.channel_account AND t.out_trade_no = a.out_trade_no
       AND t.reason = a.reason AND t.resolved_at IS NULL
),
refunds_requested AS (
    INSERT INTO refunds (refund_no, channel_account, out_trade_no, order_no, amount, currency, reason, status,
                         requested_at)
    SELECT r.refund_no, r.channel_account, r.out_trade_no, r.order_no, r.amount, r.currency, r.reason, r.status,
           r.requested_at
      FROM doc, jsonb_to_recordset(d->'refunds') AS r(
           refund_no text, channel_account text, out_trade_no text, order_no text, amount bigint, currency text,
           reason text, status text, requested_at timestamptz)
      JOIN won USING (order_no)
     WHERE r.status = 'requested'
    RETURNING refund_no, order_no
),
refunds_moved AS (
    UPDATE refunds t
       SET status = r.status, settled_at = r.settled_at, last_error = r.last_error,
           leased_until = CASE WHEN r.settled_at IS NULL THEN t.leased_until END
      FROM doc, jsonb_to_recordset(d->'refunds') AS r(
           refund_no text, order_no text, status text, settled_at timestamptz, last_error text)
      JOIN won USING (order_no)
     WHERE t.refund_no = r.refund_no AND r.status <> 'requested'
),
superseded AS (
    -- What tells of money is never superseded: the merchant must have heard it, whatever came after.
    UPDATE notifications t
       SET superseded_at = now()
      FROM doc, jsonb_to_recordset(d->'notifications') AS n(order_no text)
      JOIN won USING (order_no)
     WHERE t.order_no = n.order_no AND t.type = 'order.closed'
       AND t.delivered_at IS NULL AND t.superseded_at IS NULL
),
told AS (
    INSERT INTO notifications (id, order_no, version, type, url, body)
    SELECT n.id, n.order_no, n.version, n.type, n.url, decode(n.body, 'base64')
      FROM doc, jsonb_to_recordset(d->'notifications') AS n(
           id text, order_no text, version integer, type text, url text, body text)
      JOIN won USING (order_no)
    RETURNING id, order_no
),
observed AS (
    INSERT INTO observations (order_no, kind, by, channel_account, out_trade_no, note)
    SELECT s.order_no, s.kind, s.by, s.channel_account, s.out_trade_no, s.note
      FROM doc, jsonb_to_recordset(d->'observations') AS s(
           order_no text, kind text, by text, channel_account text, out_trade_no text, note text)
)
SELECT 'won' AS what, order_no, version AS number, NULL AS account, NULL AS text, NULL AS kind, 0.0 AS delay_s FROM won
UNION ALL
SELECT 'armed', order_no, arm_no, channel_account, out_trade_no, kind, extract(epoch FROM due_at - now())
  FROM (SELECT * FROM armed UNION ALL SELECT * FROM rearmed) AS scheduled
UNION ALL
SELECT 'gone', order_no, arm_no, channel_account, out_trade_no, kind, 0
  FROM (SELECT * FROM resolved UNION ALL SELECT * FROM dropped) AS ended
UNION ALL
SELECT 'told', order_no, 0, NULL, id, NULL, 0 FROM told
UNION ALL
SELECT 'refund', order_no, 0, NULL, refund_no, NULL, 0 FROM refunds_requested
"""
