"""One order as a story: what happened, in the order of time, and what happens next.

Both are pure functions of what is stored. The same happening may be in two tables (a callback in the inbox and the
event that it caused): it is told once. Sentences are keys of texts with the words that they take.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import msgspec
from msgspec.structs import replace

from core.decision import Outcome
from core.evidence import Source
from core.money import decimal_text
from core.order import CaseReason, OrderState, OrderStatus, Payment, PaymentKey, PaymentStatus, Pending, PendingKind

TOGETHER = timedelta(seconds=1)
"""A callback is marked as handled in the statement of its event, by another clock of the same server."""

AT_ONCE = timedelta(seconds=10)
"""A callback that was handled so soon after it came is told with what it caused."""


# -- what is stored ----------------------------------------------------------------------------------------------------


class EventFact(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the timeline: an event (with its version) or an observation (without one)."""

    at: datetime
    kind: str
    by: str
    version: int | None = None
    key: PaymentKey | None = None
    note: str = ""
    evidence: Mapping[str, Any] | None = None
    api_key: str | None = None


class CallbackFact(msgspec.Struct, frozen=True, kw_only=True):
    """A callback of the inbox. `says` is the kind of its evidence; `copies` is how often it came."""

    id: str
    key: PaymentKey
    notification_id: str
    received_at: datetime
    says: str
    copies: int = 1
    is_hint: bool = False
    attempt: int = 1
    due_at: datetime | None = None
    leased_until: datetime | None = None
    handled_at: datetime | None = None
    dead_at: datetime | None = None
    outcome: str | None = None


class RefusedFact(msgspec.Struct, frozen=True, kw_only=True):
    """A callback that was not taken: it named a payment of this order, and did not verify. `reason` is a word."""

    id: str
    key: PaymentKey
    at: datetime
    reason: str
    detail: str = ""
    copies: int = 1


class AttemptFact(msgspec.Struct, frozen=True, kw_only=True):
    """One delivery of a notification. `status` is the HTTP status or a short word."""

    attempt: int
    at: datetime
    status: str
    is_delivered: bool
    latency_ms: int | None = None
    answer: str = ""
    is_manual: bool = False


class NotificationFact(msgspec.Struct, frozen=True, kw_only=True):
    """A notification with its deliveries, oldest first. `resending_since`: a person has sent it again, whatever had
    become of it. `is_paused`: its endpoint is; `is_queued`: it waits for its turn among many that are sent again.
    """

    id: str
    version: int
    type: str
    url: str
    created_at: datetime
    attempt: int
    due_at: datetime
    leased_until: datetime | None = None
    delivered_at: datetime | None = None
    superseded_at: datetime | None = None
    dead_at: datetime | None = None
    last_status: str | None = None
    resending_since: datetime | None = None
    is_paused: bool = False
    is_queued: bool = False
    attempts: tuple[AttemptFact, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether it is still to be sent."""
        is_over = self.delivered_at is not None or self.superseded_at is not None or self.dead_at is not None
        return not is_over or self.resending_since is not None

    @property
    def is_dead(self) -> bool:
        """Whether it was given up, and nobody has sent it again."""
        is_heard = self.delivered_at is not None or self.superseded_at is not None
        return self.dead_at is not None and not is_heard and self.resending_since is None


class CaseFact(msgspec.Struct, frozen=True, kw_only=True):
    """A case, open or resolved."""

    id: int
    reason: str
    opened_at: datetime
    key: PaymentKey | None = None
    detail: str = ""
    resolved_at: datetime | None = None
    resolution: str | None = None
    by: str | None = None


class LeaseFact(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody works on a pending row until then; `process` None: it is not known who."""

    until: datetime
    process: str | None = None


class RefundWork(msgspec.Struct, frozen=True, kw_only=True):
    """When a refund that is not definite is due, and until when somebody works on it."""

    due_at: datetime
    leased_until: datetime | None = None


class OrderFacts(msgspec.Struct, frozen=True, kw_only=True):
    """All that is stored about one order. `leases` are by payment, or by the key of the deadline; `refund_work` by
    refund number. `is_cut`: the timeline is longer than what was read.
    """

    state: OrderState
    events: tuple[EventFact, ...] = ()
    callbacks: tuple[CallbackFact, ...] = ()
    refused: tuple[RefusedFact, ...] = ()
    notifications: tuple[NotificationFact, ...] = ()
    cases: tuple[CaseFact, ...] = ()
    leases: Mapping[PaymentKey, LeaseFact] = {}
    refund_work: Mapping[str, RefundWork] = {}
    is_cut: bool = False


# -- the story ---------------------------------------------------------------------------------------------------------


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
            *("capture_refused", "approval_ended"),
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
    told = _told_callbacks(facts)
    entries = [
        *_of_events(facts, told),
        *_of_callbacks(facts, told),
        *_of_notifications(facts),
        *_of_cases(facts),
    ]
    entries.sort(key=lambda entry: (entry.at, entry.version or 0))
    return tuple(_together(entries))


def _of_events(facts: OrderFacts, told: Mapping[int, CallbackFact]) -> Iterator[Entry]:
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
            callback_id=told[place].id if place in told else None,
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
        "amount": f"{decimal_text(state.order.amount, state.order.currency)} {state.order.currency}",
    }


def _told_callbacks(facts: OrderFacts) -> dict[int, CallbackFact]:
    """The callback behind each row of the timeline that was made by one, by the place of the row."""
    told = {}
    for place, event in enumerate(facts.events):
        if event.by not in _CALLBACKS:
            continue
        causes = [row for row in facts.callbacks if row.key == event.key and _may_cause(row, event)]
        if causes:
            told[place] = max(causes, key=lambda row: row.received_at)
    return told


def _may_cause(callback: CallbackFact, event: EventFact) -> bool:
    end = callback.handled_at or callback.dead_at
    return callback.received_at - TOGETHER <= event.at and (end is None or event.at <= end + TOGETHER)


def _of_callbacks(facts: OrderFacts, told: Mapping[int, CallbackFact]) -> Iterator[Entry]:
    """Callbacks that are not told with what they caused, and those that were refused."""
    events = facts.events
    with_event = {
        callback.id
        for place, callback in told.items()
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


# -- what happens next -------------------------------------------------------------------------------------------------


class WaitsFor(StrEnum):
    """The one who acts next."""

    PERSON = "person"
    WORKER = "worker"
    BUYER = "buyer"
    NOBODY = "nobody"


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happens next. `at` None: now, or whenever somebody acts. `text` and `values`: as of an entry."""

    text: str
    waits_for: WaitsFor
    at: datetime | None = None
    tone: Tone = Tone.CALM
    values: Mapping[str, str] = {}
    key: PaymentKey | None = None
    notification_id: str | None = None
    callback_id: str | None = None
    refund_no: str | None = None
    dispute_id: str | None = None
    case_id: int | None = None


_PLACES = {WaitsFor.PERSON: 0, WaitsFor.WORKER: 1, WaitsFor.BUYER: 2, WaitsFor.NOBODY: 3}


def next_steps(facts: OrderFacts) -> tuple[Step, ...]:
    """All that happens next, what waits for a person first, then by time; never empty: nothing has a reason too."""
    steps = [
        *_case_steps(facts),
        *_dispute_steps(facts),
        *_query_steps(facts),
        *_deadline_steps(facts),
        *_callback_steps(facts),
        *_refund_steps(facts),
        *_delivery_steps(facts),
        *_buyer_steps(facts.state),
    ]
    if not steps:
        return (Step(text=_reason_for_nothing(facts), waits_for=WaitsFor.NOBODY, tone=Tone.GOOD),)
    now = facts.state.now
    return tuple(sorted(steps, key=lambda step: (_PLACES[step.waits_for], step.at or now)))


def _case_steps(facts: OrderFacts) -> Iterator[Step]:
    for case in facts.cases:
        if case.resolved_at is None:
            values = {"reason": case.reason, "detail": case.detail or "-"}
            yield Step(
                text="case_waits",
                waits_for=WaitsFor.PERSON,
                tone=Tone.LOOK,
                values=values,
                key=case.key,
                case_id=case.id,
            )


def _dispute_steps(facts: OrderFacts) -> Iterator[Step]:
    for dispute in facts.state.disputes:
        if dispute.state.is_final:
            continue
        is_person = dispute.respond_by is not None and dispute.state == "open"
        yield Step(
            text="dispute_answer" if is_person else "dispute_decided",
            waits_for=WaitsFor.PERSON if is_person else WaitsFor.NOBODY,
            at=dispute.respond_by if is_person else None,
            tone=Tone.LOOK,
            values={"account": dispute.channel_account, "dispute": dispute.dispute_id, "kind": dispute.kind.value},
            key=PaymentKey(*dispute.key),
            dispute_id=dispute.dispute_id,
        )


def _query_steps(facts: OrderFacts) -> Iterator[Step]:
    state = facts.state
    rows = {row.key: row for row in state.pending if row.kind is PendingKind.QUERY}
    for key, row in rows.items():
        yield _query_step(facts, key, row)
    for payment in state.open_payments():
        if payment.key not in rows:
            yield Step(
                text="query_missing",
                waits_for=WaitsFor.PERSON,
                tone=Tone.BAD,
                values={"account": payment.channel_account},
                key=payment.key,
            )


def _query_step(facts: OrderFacts, key: PaymentKey, row: Pending) -> Step:
    state = facts.state
    values = {"account": key.channel_account, "attempt": str(row.attempt), "process": "-"}
    text = _text_of_query(state, state.payment(key), key)
    return _due(text, "query", row.due_at, facts.leases.get(key), state.now, values, key=key)


def _text_of_query(state: OrderState, payment: Payment | None, key: PaymentKey) -> str:
    if (key, CaseReason.ATTEMPTS_EXHAUSTED) in state.open_cases:
        return "query_daily"
    if payment is not None and payment.status is PaymentStatus.CLOSED:
        return "query_after_close"
    if payment is not None and payment.status is PaymentStatus.PAID:
        return "query_confirm"
    return "query_due"


def _due(
    text: str,
    work: str,
    due_at: datetime,
    lease: LeaseFact | None,
    now: datetime,
    values: dict[str, str],
    **about: Any,
) -> Step:
    """Work of a worker: somebody is at it, or it is due at that time, or it is overdue."""
    if lease is not None and lease.until > now:
        values["process"] = lease.process or "-"
        return Step(text=f"{work}_leased", waits_for=WaitsFor.WORKER, at=lease.until, values=values, **about)
    if due_at <= now:
        return Step(
            text=f"{work}_overdue", waits_for=WaitsFor.WORKER, at=due_at, tone=Tone.WAIT, values=values, **about
        )
    return Step(text=text, waits_for=WaitsFor.WORKER, at=due_at, values=values, **about)


def _deadline_steps(facts: OrderFacts) -> Iterator[Step]:
    state = facts.state
    row = next((row for row in state.pending if row.kind is PendingKind.DEADLINE), None)
    if row is not None:
        values = {"attempt": str(row.attempt), "process": "-"}
        text = "deadline_due" if row.attempt <= 1 else "deadline_again"
        yield _due(text, "deadline", row.due_at, facts.leases.get(row.key), state.now, values)
    elif not state.order.is_resolved:
        yield Step(text="deadline_missing", waits_for=WaitsFor.PERSON, tone=Tone.BAD)


def _callback_steps(facts: OrderFacts) -> Iterator[Step]:
    now = facts.state.now
    for row in facts.callbacks:
        if row.handled_at is None and row.dead_at is None and row.due_at is not None:
            values = {"attempt": str(row.attempt), "account": row.key.channel_account, "process": "-"}
            yield _due(
                "callback_due", "callback", row.due_at, _lease(row.leased_until), now, values, callback_id=row.id
            )


def _refund_steps(facts: OrderFacts) -> Iterator[Step]:
    state = facts.state
    for refund in state.refunds:
        if refund.status.is_final:
            continue
        values = {
            "attempt": str(refund.attempt),
            "refund": refund.refund_no,
            "error": refund.last_error or "-",
            "amount": f"{decimal_text(refund.amount, refund.currency)} {refund.currency}",
            "process": "-",
        }
        work = facts.refund_work.get(refund.refund_no) or RefundWork(due_at=state.now)
        about = {"refund_no": refund.refund_no, "key": refund.key}
        yield _due("refund_due", "refund", work.due_at, _lease(work.leased_until), state.now, values, **about)


def _delivery_steps(facts: OrderFacts) -> Iterator[Step]:
    now = facts.state.now
    for row in facts.notifications:
        values = {
            "attempt": str(row.attempt),
            "type": row.type,
            "status": row.last_status or "-",
            "url": row.url,
            "process": "-",
        }
        if row.is_dead or (row.is_open and row.is_paused):
            yield Step(
                text="delivery_dead" if row.is_dead else "delivery_paused",
                waits_for=WaitsFor.PERSON,
                tone=Tone.BAD if row.is_dead else Tone.LOOK,
                values=values,
                notification_id=row.id,
            )
        elif row.is_open:
            text = "delivery_due" if row.last_status is None else "delivery_again"
            text = "delivery_queued" if row.is_queued else text
            yield _due(text, "delivery", row.due_at, _lease(row.leased_until), now, values, notification_id=row.id)


def _lease(until: datetime | None) -> LeaseFact | None:
    return None if until is None else LeaseFact(until=until)


def _buyer_steps(state: OrderState) -> Iterator[Step]:
    """The buyer may still pay. Not said of a payment that was never created at its channel, or is given up."""
    if state.order.is_resolved:
        return
    open_payments = state.open_payments()
    if not open_payments and state.now < state.order.expires_at:
        yield Step(text="buyer_starts", waits_for=WaitsFor.BUYER, at=state.order.expires_at)
    for payment in open_payments:
        if payment.refused_at is None and payment.given_up_at is None and state.now < payment.payable_until:
            yield Step(
                text="buyer_pays",
                waits_for=WaitsFor.BUYER,
                at=payment.payable_until if payment.has_known_end else None,
                values={"account": payment.channel_account},
                key=payment.key,
            )


def _reason_for_nothing(facts: OrderFacts) -> str:
    """The reason why nothing happens any more. The order is resolved: an open one has a deadline, or lacks it."""
    state = facts.state
    if state.order.status is OrderStatus.PAID:
        return _reason_when_paid(facts)
    paid = [payment for payment in state.payments if payment.status is PaymentStatus.PAID]
    if not paid:
        return "nothing_closed"
    return "nothing_returned" if all(payment.remaining_amount == 0 for payment in paid) else "nothing_decided"


def _reason_when_paid(facts: OrderFacts) -> str:
    if facts.state.order.notify_url is None:
        return "nothing_paid_unnotified"
    delivered: Sequence[NotificationFact] = [row for row in facts.notifications if row.delivered_at is not None]
    return "nothing_paid_notified" if delivered else "nothing_paid"


STEP_TEXTS = (
    *("case_waits", "dispute_answer", "dispute_decided"),
    *(
        "query_due",
        "query_daily",
        "query_after_close",
        "query_confirm",
        "query_leased",
        "query_overdue",
        "query_missing",
    ),
    *("deadline_due", "deadline_again", "deadline_leased", "deadline_overdue", "deadline_missing"),
    *("callback_due", "callback_leased", "callback_overdue"),
    *("refund_due", "refund_leased", "refund_overdue"),
    *("delivery_due", "delivery_again", "delivery_leased", "delivery_overdue", "delivery_queued"),
    *("delivery_paused", "delivery_dead"),
    *("buyer_starts", "buyer_pays"),
    *("nothing_closed", "nothing_returned", "nothing_decided"),
    *("nothing_paid", "nothing_paid_notified", "nothing_paid_unnotified"),
)
"""Keys of the sentences about steps."""

ENTRY_TEXTS = (
    *sorted(KNOWN_EVENTS),
    *("paid_late_accepted", "unknown"),
    *("callback", "callback_hint", "callback_open", "callback_dead", "callback_refused"),
    *("delivered", "delivery_failed", "delivery_superseded", "delivery_dead"),
    *("case_opened", "case_resolved"),
)
"""Keys of the sentences about entries."""
