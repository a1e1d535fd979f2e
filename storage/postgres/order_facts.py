"""All that is stored about one order, for a person who reads its story. Nothing is decided on it."""

from __future__ import annotations

from datetime import datetime

from core.deliveries import Attempt
from core.order import PaymentKey
from core.order_facts import (
    ApprovalFact,
    AttemptFact,
    CallbackFact,
    CaseFact,
    EventFact,
    LeaseFact,
    NotificationFact,
    OrderFacts,
    RefundWork,
    RefusedFact,
)
from storage.postgres.callback_history import HINT, CallbackRow, CallbackState, callbacks_of_order
from storage.postgres.cases import CaseRow, list_cases
from storage.postgres.database import Database
from storage.postgres.deliveries import NotificationRow, notifications_of_order
from storage.postgres.orders import TIMELINE_MAX, TimelineEntry, find_state, timeline
from storage.postgres.refund_approvals import Approval, approvals_of

CASES_MAX = 200

_LEASES = """
SELECT channel_account, out_trade_no, leased_until, leased_by FROM pending
 WHERE order_no = $1 AND leased_until > clock_timestamp()"""

_REFUND_WORK = """
SELECT refund_no, due_at, leased_until FROM (SELECT * FROM refunds WHERE order_no = $1 OFFSET 0) AS r
 WHERE settled_at IS NULL"""

_SENDING = """
SELECT id, leased_until FROM (SELECT * FROM notifications WHERE order_no = $1 OFFSET 0) AS n
 WHERE leased_until > clock_timestamp()"""


async def find_facts(db: Database, order_no: str) -> OrderFacts | None:
    """All of it, read one after the other; None: there is no such order."""
    state = await find_state(db, order_no)
    if state is None:
        return None
    events = await timeline(db, order_no)
    cases, _ = await list_cases(db, open_only=False, order_no=order_no, limit=CASES_MAX)
    callbacks = await callbacks_of_order(db, order_no)
    return OrderFacts(
        state=state,
        events=tuple(map(_event, events)),
        callbacks=tuple(_callback(row) for row in callbacks if row.state is not CallbackState.REFUSED),
        refused=tuple(_refused(row) for row in callbacks if row.state is CallbackState.REFUSED),
        notifications=await _notifications(db, order_no),
        cases=tuple(map(_case, reversed(cases))),
        approvals=tuple(map(_approval, reversed(await approvals_of(db, order_no)))),
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


def _key(account: str | None, number: str | None) -> PaymentKey | None:
    return None if account is None or number is None else PaymentKey(account, number)


def _event(row: TimelineEntry) -> EventFact:
    return EventFact(
        at=row.at,
        kind=row.kind,
        by=row.by,
        version=row.version,
        key=_key(row.account, row.out_trade_no),
        note=row.note,
        evidence=row.evidence,
        api_key=row.api_key,
    )


def _case(row: CaseRow) -> CaseFact:
    return CaseFact(
        id=row.id,
        reason=row.reason,
        opened_at=row.opened_at,
        key=_key(row.account, row.out_trade_no),
        detail=row.detail,
        resolved_at=row.resolved_at,
        resolution=row.resolution,
        by=row.by,
        phrase=row.phrase,
        resolution_phrase=row.resolution_phrase,
    )


def _approval(row: Approval) -> ApprovalFact:
    return ApprovalFact(
        id=row.id,
        key=PaymentKey(row.account, row.out_trade_no),
        amount=row.amount,
        currency=row.currency,
        reason=row.reason,
        requested_by=row.requested_by,
        requested_at=row.requested_at,
        expires_at=row.expires_at,
        is_expired=row.is_expired,
        decision=row.decision,
        decided_by=row.decided_by,
        decided_at=row.decided_at,
        decided_reason=row.decided_reason,
        refund_no=row.refund_no,
    )


def _callback(row: CallbackRow) -> CallbackFact:
    return CallbackFact(
        id=row.id,
        key=PaymentKey(row.account, row.out_trade_no or ""),
        notification_id=row.notification_id or "",
        received_at=row.received_at,
        says=row.kind or row.verdict,
        copies=row.copies,
        is_hint=row.verdict == HINT,
        attempt=row.attempt,
        due_at=row.due_at,
        handled_at=row.handled_at,
        dead_at=row.dead_at,
        outcome=row.outcome,
    )


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
    rows = await notifications_of_order(db, order_no)
    leases = {row["id"]: row["leased_until"] for row in await db.fetch(_SENDING, order_no)}
    return tuple(_notification(row, leases.get(row.id)) for row in rows)


def _notification(row: NotificationRow, leased_until: datetime | None) -> NotificationFact:
    standing = row.standing
    return NotificationFact(
        id=row.id,
        version=row.version,
        type=row.type,
        url=row.url,
        created_at=row.created_at,
        attempt=row.attempt,
        due_at=row.due_at,
        leased_until=leased_until,
        delivered_at=standing.delivered_at,
        superseded_at=standing.superseded_at,
        dead_at=standing.dead_at,
        last_status=row.last_status,
        resending_since=standing.resending_since,
        is_paused=standing.is_paused,
        is_queued=standing.is_held and not standing.is_paused,
        attempts=tuple(map(_attempt, row.attempts)),
    )


def _attempt(row: Attempt) -> AttemptFact:
    return AttemptFact(
        attempt=row.no,
        at=row.at,
        status=row.status,
        is_delivered=row.ok,
        latency_ms=row.latency_ms,
        answer=row.answer,
        is_manual=row.is_manual,
    )
