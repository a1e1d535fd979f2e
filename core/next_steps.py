"""The next steps of one order: when, and who acts. Nothing has a reason, too.

A pure function of what is stored. Sentences are keys of texts with the words that they take.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from core.deliveries import endpoint_of
from core.order import CaseReason, OrderState, OrderStatus, Payment, PaymentKey, PaymentStatus, Pending, PendingKind
from core.order_facts import LeaseFact, NotificationFact, OrderFacts, RefundWork
from core.sentences import money_text
from core.story import Tone


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
    approval_id: int | None = None


_PLACES = {WaitsFor.PERSON: 0, WaitsFor.WORKER: 1, WaitsFor.BUYER: 2, WaitsFor.NOBODY: 3}


def next_steps(facts: OrderFacts) -> tuple[Step, ...]:
    """All that happens next, what waits for a person first, then by time; never empty: nothing has a reason too."""
    steps = [
        *_case_steps(facts),
        *_approval_steps(facts),
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


def _approval_steps(facts: OrderFacts) -> Iterator[Step]:
    """Refunds that wait for a second operator, or that a process did not come to request once one had agreed."""
    for approval in facts.approvals:
        is_waiting = approval.decision is None
        is_over = approval.is_expired or approval.refund_no is not None
        if not is_over and (is_waiting or approval.decision == "approved"):
            yield Step(
                text="approval_waits" if is_waiting else "approval_unfinished",
                waits_for=WaitsFor.PERSON,
                at=approval.expires_at,
                tone=Tone.LOOK,
                values={
                    "amount": money_text(approval.amount, approval.currency),
                    "person": (approval.requested_by if is_waiting else approval.decided_by) or "-",
                },
                key=approval.key,
                approval_id=approval.id,
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
            "amount": money_text(refund.amount, refund.currency),
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
            "url": endpoint_of(row.url),
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
    *("case_waits", "approval_waits", "approval_unfinished", "dispute_answer", "dispute_decided"),
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
