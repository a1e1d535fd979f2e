"""All that is stored about one order, for a person who reads its story. Nothing is decided on it."""

from __future__ import annotations

from core.evidence import kind_of
from core.order import PaymentKey
from core.story import (
    CallbackFact,
    CaseFact,
    EventFact,
    LeaseFact,
    NotificationFact,
    OrderFacts,
    RefundWork,
    RefusedFact,
)
from storage.postgres.callback_history import CallbackRow, refused_of_order
from storage.postgres.cases import CaseRow, list_cases
from storage.postgres.database import Database
from storage.postgres.inbox import evidence_decoder
from storage.postgres.orders import TIMELINE_MAX, TimelineEntry, find_state, timeline

CASES_MAX = 200
CALLBACKS_MAX = 500
NOTIFICATIONS_MAX = 200

_LEASES = """
SELECT channel_account, out_trade_no, leased_until, leased_by FROM pending
 WHERE order_no = $1 AND leased_until > clock_timestamp()"""

_REFUND_WORK = """
SELECT refund_no, due_at, leased_until FROM (SELECT * FROM refunds WHERE order_no = $1 OFFSET 0) AS r
 WHERE settled_at IS NULL"""

_NOTIFICATIONS = f"""
SELECT id, version, type, url, created_at, attempt, due_at, leased_until, delivered_at, superseded_at, dead_at,
       last_status
  FROM notifications WHERE order_no = $1 ORDER BY version LIMIT {NOTIFICATIONS_MAX}"""

# A callback is filed under the number of the payment that it names.
_CALLBACKS = f"""
SELECT c.id::text, c.channel_account, c.out_trade_no, c.notification_id, c.received_at, c.evidence::text, c.copies,
       c.is_hint, c.attempt, c.due_at, c.leased_until, c.handled_at, c.dead_at, c.outcome
  FROM (SELECT * FROM payments WHERE order_no = $1 OFFSET 0) AS p
 CROSS JOIN LATERAL (
       SELECT * FROM callbacks
        WHERE callbacks.channel_account = p.channel_account AND callbacks.out_trade_no = p.out_trade_no OFFSET 0) AS c
 ORDER BY c.received_at, c.id
 LIMIT {CALLBACKS_MAX}"""


async def find_facts(db: Database, order_no: str) -> OrderFacts | None:
    """All of it, read one after the other; None: there is no such order."""
    state = await find_state(db, order_no)
    if state is None:
        return None
    events = await timeline(db, order_no)
    cases, _ = await list_cases(db, open_only=False, order_no=order_no, limit=CASES_MAX)
    return OrderFacts(
        state=state,
        events=tuple(map(_event, events)),
        callbacks=await _callbacks(db, order_no),
        refused=tuple(map(_refused, await refused_of_order(db, order_no))),
        notifications=await _notifications(db, order_no),
        cases=tuple(map(_case, reversed(cases))),
        leases={
            PaymentKey(row["channel_account"], row["out_trade_no"]): LeaseFact(
                until=row["leased_until"], process=row["leased_by"]
            )
            for row in await db.fetch(_LEASES, order_no)
        },
        refund_work={
            row["refund_no"]: RefundWork(due_at=row["due_at"], leased_until=row["leased_until"])
            for row in await db.fetch(_REFUND_WORK, order_no)
        },
        is_cut=len(events) == TIMELINE_MAX,
    )


def _event(row: TimelineEntry) -> EventFact:
    key = None if row.account is None or row.out_trade_no is None else PaymentKey(row.account, row.out_trade_no)
    return EventFact(
        at=row.at,
        kind=row.kind,
        by=row.by,
        version=row.version,
        key=key,
        note=row.note,
        evidence=row.evidence,
        api_key=row.api_key,
    )


def _case(row: CaseRow) -> CaseFact:
    key = None if row.account is None or row.out_trade_no is None else PaymentKey(row.account, row.out_trade_no)
    return CaseFact(
        id=row.id,
        reason=row.reason,
        opened_at=row.opened_at,
        key=key,
        detail=row.detail,
        resolved_at=row.resolved_at,
        resolution=row.resolution,
        by=row.by,
    )


async def _callbacks(db: Database, order_no: str) -> tuple[CallbackFact, ...]:
    facts = []
    for row in await db.fetch(_CALLBACKS, order_no):
        fields = dict(row)
        key = PaymentKey(fields.pop("channel_account"), fields.pop("out_trade_no"))
        says = kind_of(evidence_decoder.decode(fields.pop("evidence")))
        facts.append(CallbackFact(key=key, says=says, **fields))
    return tuple(facts)


def _refused(row: CallbackRow) -> RefusedFact:
    return RefusedFact(
        id=row.id,
        key=PaymentKey(row.account, row.out_trade_no or ""),
        at=row.received_at,
        reason=row.verdict,
        detail=row.detail,
        copies=row.copies,
    )


async def _notifications(db: Database, order_no: str) -> tuple[NotificationFact, ...]:
    return tuple(NotificationFact(**dict(row)) for row in await db.fetch(_NOTIFICATIONS, order_no))
