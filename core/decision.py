"""Decisions as plain values: the change to commit and what follows it. `storage.postgres.door` carries them out.

A decision is computed again on fresh state after a version conflict, so it holds no effect of its own.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

from core.dispute import Dispute
from core.evidence import Evidence, Source
from core.order import CaseReason, Order, OrderState, OrderStatus, Payment, PaymentKey, PendingKind, Refund


class Outcome(StrEnum):
    """The result of a decision, in one word for callers, logs and metrics."""

    # placing and starting
    PLACED = "placed"
    STARTED = "started"
    SAME = "same"
    OTHER_TERMS = "other_terms"
    OTHER_WORLD = "other_world"
    REUSED = "reused"
    UNCLEAR = "unclear"
    HANDED_OFF = "handed_off"
    CREATE_REFUSED = "create_refused"
    CHECKOUT_RENEWED = "checkout_renewed"
    CHECKOUT_ENDED = "checkout_ended"
    RETURNED = "returned"
    RETURNED_UNPAID = "returned_unpaid"
    # evidence
    PAID = "paid"
    PAID_LATE = "paid_late"
    CONFIRMED = "confirmed"
    CONTRADICTED = "contradicted"
    DOUBLE_PAYMENT = "double_payment"
    MISMATCH = "mismatch"
    NUMBER_REUSED = "number_reused"
    PAYMENT_CLOSED = "payment_closed"
    STILL_OPEN = "still_open"
    CAPTURE_REQUESTED = "capture_requested"
    CAPTURE_REFUSED = "capture_refused"
    APPROVAL_ENDED = "approval_ended"
    EXHAUSTED = "exhausted"
    REFUND_SEEN = "refund_seen"
    UNKNOWN_PAYMENT = "unknown_payment"
    NOTHING_NEW = "nothing_new"
    # closing
    CLOSED = "closed"
    CLOSE_REQUESTED = "close_requested"
    CLOSE_ATTEMPTED = "close_attempted"
    NOT_YET = "not_yet"
    STALE = "stale"
    ALREADY_PAID = "already_paid"
    ALREADY_CLOSED = "already_closed"
    # refunds
    REFUND_REQUESTED = "refund_requested"
    REFUND_PROCESSING = "refund_processing"
    REFUNDED = "refunded"
    REFUND_FAILED = "refund_failed"
    NOT_REFUNDABLE = "not_refundable"
    NEEDS_APPROVAL = "needs_approval"
    # disputes
    DISPUTED = "disputed"
    DISPUTE_ENDED = "dispute_ended"
    # an operator's decisions
    NOT_ACCEPTABLE = "not_acceptable"
    ATTACHED = "attached"
    MOVED = "moved"
    # personal data
    ERASED = "erased"
    NOT_ERASABLE = "not_erasable"


class Arm(msgspec.Struct, frozen=True, kw_only=True):
    """Put a pending row: due `delay_s` seconds after the commit, or at `at`.

    `expected_arm_no` is the row's arm number when it is moved (the row is left alone if it has another by then), None
    when it is new.
    """

    key: PaymentKey
    kind: PendingKind
    order_no: str
    attempt: int
    delay_s: float | None = None
    at: datetime | None = None
    expected_arm_no: int | None = None


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A question for a person. Unique per payment and reason while it is open."""

    reason: CaseReason
    key: PaymentKey | None
    detail: str


class CaseResolution(msgspec.Struct, frozen=True, kw_only=True):
    """The resolution of a case without a person; it has no effect if the case is not open."""

    reason: CaseReason
    key: PaymentKey
    resolution: str


class Notification(msgspec.Struct, frozen=True, kw_only=True):
    """A message for the merchant's order service: its bytes are made once, so that every delivery is the same."""

    id: str
    type: str
    url: str
    body: bytes


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """The line in the order's history; its number is the order's new version."""

    kind: Outcome
    by: Source
    key: PaymentKey | None = None
    evidence: Evidence | None = None
    note: str = ""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A legal move: the order as it shall be (`order.version` is the new one) with all that is written with it.

    `resolved` are the pending rows that end with it, whether the state that was decided on showed them or not.
    `refunds` are new ones (*requested*) and those that have moved, `disputes` those that are new or have moved,
    `resolutions` end the cases that this settles.
    """

    order: Order
    event: Event
    is_new: bool = False
    new_payments: tuple[Payment, ...] = ()
    payments: tuple[Payment, ...] = ()
    resolved: tuple[PaymentKey, ...] = ()
    arm: tuple[Arm, ...] = ()
    cases: tuple[Case, ...] = ()
    refunds: tuple[Refund, ...] = ()
    disputes: tuple[Dispute, ...] = ()
    resolutions: tuple[CaseResolution, ...] = ()
    notification: Notification | None = None

    @property
    def pays_order(self) -> bool:
        """Whether the order becomes paid with it: late money may leave it closed."""
        return self.event.kind in (Outcome.PAID, Outcome.PAID_LATE) and self.order.status is OrderStatus.PAID


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """Something that changed nothing: query 2 returned unpaid, a response was cut off."""

    order_no: str
    kind: str
    by: Source
    key: PaymentKey | None = None
    note: str = ""


class Handled(msgspec.Struct, frozen=True, kw_only=True):
    """A callback of the inbox whose work ends with a decision."""

    id: str
    outcome: Outcome


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome, the change if there is one, and what follows after the commit.

    `rearm` moves pending rows without changing the order (guarded by their arm numbers, not by the version); one
    without an expected arm number is put where there is no row.
    `close` are payments to be closed at their channels, `capture` those whose money the channel is to take now, `query`
    those to be queried. `handled` ends with the commit of the change, or without one.
    """

    outcome: Outcome
    change: Change | None = None
    rearm: tuple[Arm, ...] = ()
    drop: tuple[PaymentKey, ...] = ()
    observation: Observation | None = None
    close: tuple[PaymentKey, ...] = ()
    capture: tuple[PaymentKey, ...] = ()
    query: tuple[PaymentKey, ...] = ()
    handled: Handled | None = None

    @property
    def is_capture_due(self) -> bool:
        """Whether a queried payment is to be captured: now, or once the order's other payments are asked."""
        return bool(self.capture or self.query)


def applied(state: OrderState | None, change: Change) -> OrderState:
    """The state after a change, but for the pending rows that it armed: their due times are the database's."""
    moved = {payment.key: payment for payment in change.payments}
    before = () if state is None else state.payments
    refunds = {} if state is None else {refund.refund_no: refund for refund in state.refunds}
    refunds |= {refund.refund_no: refund for refund in change.refunds}
    disputes = {} if state is None else {(one.dispute_id, *one.key): one for one in state.disputes}
    disputes |= {(one.dispute_id, *one.key): one for one in change.disputes}
    opened = frozenset((case.key, case.reason) for case in change.cases)
    resolved = {(resolution.key, resolution.reason) for resolution in change.resolutions}
    return OrderState(
        order=change.order,
        now=change.order.created_at if state is None else state.now,
        payments=(*(moved.get(payment.key, payment) for payment in before), *change.new_payments),
        pending=() if state is None else tuple(row for row in state.pending if row.key not in change.resolved),
        refunds=tuple(refunds.values()),
        disputes=tuple(disputes.values()),
        open_cases=opened if state is None else (state.open_cases | opened) - resolved,
    )
