"""One order as a story: what happened, in the order of time.

A pure function of what is stored. The same happening may be in two tables (a callback in the inbox and the event that
it caused): it is told once. Sentences are keys of texts with the words that they take.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import msgspec
from msgspec.structs import replace

from core.decision import Outcome
from core.evidence import Source
from core.order import OrderState, PaymentKey
from core.order_facts import ApprovalFact, CallbackFact, CaseFact, EventFact, NotificationFact, OrderFacts
from core.sentences import money_text

TOGETHER = timedelta(seconds=1)
"""A callback is marked as handled in the statement of its event, by another clock of the same server."""

AT_ONCE = timedelta(seconds=10)
"""A callback that was handled so soon after it came is told with what it caused."""


class Tone(StrEnum):
    """The look of an entry or a step at a glance; pages add a word and a shape to it."""

    GOOD = "good"
    WAIT = "wait"
    LOOK = "look"
    BAD = "bad"
    CALM = "calm"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One happening. `text` is the key of its sentence, which takes `values` and the words for `by` and `number`.

    `number` counts the scheduled queries of a payment. `count` entries alike follow each other, the last of them at
    `last_at`. The ids lead to what is stored about it.
    """

    at: datetime
    kind: str
    text: str
    by: str
    tone: Tone = Tone.CALM
    values: Mapping[str, str] = {}
    version: int | None = None
    key: PaymentKey | None = None
    note: str = ""
    evidence: Mapping[str, Any] | None = None
    api_key: str | None = None
    number: int | None = None
    count: int = 1
    last_at: datetime | None = None
    callback_id: str | None = None
    refused_id: str | None = None
    notification_id: str | None = None
    case_ids: tuple[int, ...] = ()


_QUERIES = frozenset({Source.QUERY, Source.SWEEP})
"""Scheduled queries; the sweep makes those whose job was lost."""

_CALLBACKS = frozenset({Source.CALLBACK, Source.COMPENSATION})

_ANSWERS = frozenset(
    {
        Outcome.PAID,
        Outcome.PAID_LATE,
        Outcome.CONFIRMED,
        Outcome.CONTRADICTED,
        Outcome.DOUBLE_PAYMENT,
        Outcome.MISMATCH,
        Outcome.NUMBER_REUSED,
        Outcome.PAYMENT_CLOSED,
        Outcome.CAPTURE_REQUESTED,
        Outcome.APPROVAL_ENDED,
        Outcome.REFUND_SEEN,
        Outcome.DISPUTED,
    }
)
"""Events that the answer to a query may cause."""

_SEEN = "_seen"

_TONES: Mapping[str, Tone] = {
    **dict.fromkeys(("paid", "confirmed", "delivered", "refunded", "dispute_ended", "paid_late_accepted"), Tone.GOOD),
    **dict.fromkeys(("unclear_seen", "refund_unclear_seen", "callback_open", "delivery_failed"), Tone.WAIT),
    **dict.fromkeys(
        (
            *("paid_late", "double_payment", "disputed", "refund_seen", "exhausted", "case_opened", "create_refused"),
            *("capture_refused", "approval_ended", "refund_asked"),
        ),
        Tone.LOOK,
    ),
    **dict.fromkeys(
        (
            *("mismatch", "contradicted", "number_reused", "refund_failed", "delivery_dead", "callback_refused"),
            "callback_dead",
        ),
        Tone.BAD,
    ),
}

KNOWN_EVENTS = frozenset(
    {
        *("placed", "started", "same", "reused", "unclear", "handed_off", "create_refused", "checkout_renewed"),
        *(
            "returned",
            "returned_unpaid",
            "paid",
            "paid_late",
            "confirmed",
            "contradicted",
            "double_payment",
            "mismatch",
        ),
        *("number_reused", "payment_closed", "capture_requested", "capture_refused", "approval_ended", "exhausted"),
        *("refund_seen", "closed", "close_requested", "close_attempted", "refund_requested", "refund_processing"),
        *("refunded", "refund_failed", "disputed", "dispute_ended", "erased", "attached"),
        *("unpaid_seen", "paid_seen", "refunded_seen", "approved_seen", "lapsed_seen", "closed_seen", "missing_seen"),
        *("unclear_seen", "disputed_seen", "refund_processing_seen", "refund_unclear_seen"),
    }
)
"""Kinds of rows of the timeline that have a sentence of their own; a row of a later release is shown by its kind."""


def story_of(facts: OrderFacts) -> tuple[Entry, ...]:
    """All that happened to the order, oldest first."""
    callback_of = _callbacks_of_events(facts)
    entries = [
        *_of_events(facts, callback_of),
        *_of_callbacks(facts, callback_of),
        *_of_notifications(facts),
        *_of_cases(facts),
        *_of_approvals(facts.approvals),
    ]
    entries.sort(key=lambda entry: (entry.at, entry.version or 0))
    return tuple(_together(entries))


def _of_events(facts: OrderFacts, callback_of: Mapping[int, CallbackFact]) -> Iterator[Entry]:
    notifications = {row.version: row.id for row in facts.notifications}
    cases = _cases_by_opening(facts.cases)
    numbers: dict[PaymentKey, int] = {}
    for place, event in enumerate(facts.events):
        number = None
        if event.key is not None and event.by in _QUERIES and (event.kind in _ANSWERS or event.kind.endswith(_SEEN)):
            number = numbers[event.key] = numbers.get(event.key, 0) + 1
        is_event = event.version is not None
        text = _text_of(event)
        yield Entry(
            at=event.at,
            kind=event.kind,
            text=text,
            by=event.by,
            tone=_TONES.get(text, Tone.CALM),
            values=_values(facts.state, event),
            version=event.version,
            key=event.key,
            note=event.note,
            evidence=event.evidence,
            api_key=event.api_key,
            number=number,
            callback_id=callback_of[place].id if place in callback_of else None,
            notification_id=notifications.get(event.version) if event.version is not None else None,
            case_ids=cases.get(event.at, ()) if is_event else (),
        )


def _text_of(event: EventFact) -> str:
    if event.kind == Outcome.PAID_LATE and event.by == Source.OPERATOR:
        return "paid_late_accepted"
    return event.kind if event.kind in KNOWN_EVENTS else "unknown"


def _values(state: OrderState, event: EventFact) -> dict[str, str]:
    """The words that a sentence about an event may take."""
    return {
        "kind": event.kind,
        "account": event.key.channel_account if event.key is not None and event.key.channel_account else "-",
        "note": event.note or "-",
        "amount": money_text(state.order.amount, state.order.currency),
    }


def _callbacks_of_events(facts: OrderFacts) -> dict[int, CallbackFact]:
    """The callback behind each row of the timeline that was made by one, by the place of the row."""
    callback_of = {}
    for place, event in enumerate(facts.events):
        if event.by not in _CALLBACKS:
            continue
        causes = [row for row in facts.callbacks if row.key == event.key and _may_cause(row, event)]
        if causes:
            callback_of[place] = max(causes, key=lambda row: row.received_at)
    return callback_of


def _may_cause(callback: CallbackFact, event: EventFact) -> bool:
    end = callback.handled_at or callback.dead_at
    return callback.received_at - TOGETHER <= event.at and (end is None or event.at <= end + TOGETHER)


def _of_callbacks(facts: OrderFacts, callback_of: Mapping[int, CallbackFact]) -> Iterator[Entry]:
    """Callbacks that are not told with what they caused, and those that were refused."""
    events = facts.events
    with_event = {
        callback.id
        for place, callback in callback_of.items()
        if events[place].version is not None and events[place].at - callback.received_at <= AT_ONCE
    }
    for callback in facts.callbacks:
        if callback.id in with_event and callback.handled_at is not None:
            continue
        text = _text_of_callback(callback)
        yield Entry(
            at=callback.received_at,
            kind="callback",
            text=text,
            by=Source.CALLBACK,
            tone=_TONES.get(text, Tone.CALM),
            values={
                "says": callback.says,
                "account": callback.key.channel_account,
                "outcome": callback.outcome or "-",
                "copies": str(callback.copies),
            },
            key=callback.key,
            callback_id=callback.id,
        )
    for refused in facts.refused:
        yield Entry(
            at=refused.at,
            kind="callback_refused",
            text="callback_refused",
            by=Source.CALLBACK,
            tone=Tone.BAD,
            values={
                "reason": refused.reason,
                "detail": refused.detail or "-",
                "account": refused.key.channel_account,
                "copies": str(refused.copies),
            },
            key=refused.key,
            refused_id=refused.id,
        )


def _text_of_callback(callback: CallbackFact) -> str:
    if callback.dead_at is not None:
        return "callback_dead"
    if callback.handled_at is None:
        return "callback_open"
    return "callback_hint" if callback.is_hint else "callback"


def _of_notifications(facts: OrderFacts) -> Iterator[Entry]:
    """Deliveries, and the ends of notifications. That one was written is told with its event."""
    for row in facts.notifications:
        for attempt in row.attempts:
            text = "delivered" if attempt.is_delivered else "delivery_failed"
            yield _delivery(row, text, attempt.at, attempt.attempt, attempt.status)
        if row.delivered_at is not None and not any(attempt.is_delivered for attempt in row.attempts):
            yield _delivery(row, "delivered", row.delivered_at, row.attempt, row.last_status)
        if row.superseded_at is not None:
            yield _delivery(row, "delivery_superseded", row.superseded_at, row.attempt, row.last_status)
        if row.dead_at is not None:
            yield _delivery(row, "delivery_dead", row.dead_at, row.attempt, row.last_status)


def _delivery(row: NotificationFact, text: str, at: datetime, attempt: int, status: str | None) -> Entry:
    return Entry(
        at=at,
        kind=text,
        text=text,
        by="notification",
        tone=_TONES.get(text, Tone.CALM),
        values={"type": row.type, "attempt": str(attempt), "status": status or "-"},
        notification_id=row.id,
    )


def _cases_by_opening(cases: Iterable[CaseFact]) -> dict[datetime, tuple[int, ...]]:
    opened: dict[datetime, tuple[int, ...]] = {}
    for case in cases:
        opened[case.opened_at] = (*opened.get(case.opened_at, ()), case.id)
    return opened


def _of_cases(facts: OrderFacts) -> Iterator[Entry]:
    """Cases that no event has opened or ended: a statement of the door has one instant."""
    moments = {event.at for event in facts.events if event.version is not None}
    for case in facts.cases:
        values = {
            "reason": case.reason,
            "person": case.by or "-",
            "resolution": case.resolution or "-",
            "detail": case.detail or "-",
        }
        about = {"kind": "case", "values": values, "key": case.key, "case_ids": (case.id,)}
        if case.opened_at not in moments:
            yield Entry(at=case.opened_at, text="case_opened", by="case", tone=Tone.LOOK, **about)  # type: ignore[arg-type]
        if case.resolved_at is not None and case.resolved_at not in moments:
            yield Entry(at=case.resolved_at, text="case_resolved", by=case.by or "case", **about)  # type: ignore[arg-type]


def _of_approvals(approvals: Iterable[ApprovalFact]) -> Iterator[Entry]:
    """Refunds that a second operator has to agree to. That one agreed is told with the refund."""
    for row in approvals:
        yield _approval(row, "refund_asked", row.requested_at, row.requested_by, row.reason)
        if row.decision == "declined" and row.decided_at is not None:
            yield _approval(row, "refund_declined", row.decided_at, row.decided_by or "-", row.decided_reason)


def _approval(row: ApprovalFact, text: str, at: datetime, by: str, reason: str) -> Entry:
    return Entry(
        at=at,
        kind="approval",
        text=text,
        by=by,
        tone=_TONES.get(text, Tone.CALM),
        values={"amount": money_text(row.amount, row.currency), "reason": reason or "-"},
        key=row.key,
    )


def _together(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Entries in which refreshes that saw the same, one after another, are one entry."""
    last: Entry | None = None
    for entry in entries:
        if last is not None and _is_again(last, entry):
            last = replace(last, count=last.count + 1, last_at=entry.at)
            continue
        if last is not None:
            yield last
        last = entry
    if last is not None:
        yield last


def _is_again(last: Entry, entry: Entry) -> bool:
    if entry.by != Source.REFRESH or entry.version is not None or last.version is not None:
        return False
    return (last.text, last.by, last.key, last.note) == (entry.text, entry.by, entry.key, entry.note)


ENTRY_TEXTS = (
    *sorted(KNOWN_EVENTS),
    *("paid_late_accepted", "unknown"),
    *("callback", "callback_hint", "callback_open", "callback_dead", "callback_refused"),
    *("delivered", "delivery_failed", "delivery_superseded", "delivery_dead"),
    *("case_opened", "case_resolved"),
    *("refund_asked", "refund_declined"),
)
"""Keys of the sentences about entries."""
