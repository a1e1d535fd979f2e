"""A model of the door in memory: the effects of `storage.postgres.door` on one order, without I/O.

An assertion fails where a constraint or trigger of the schema would refuse the change.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

from msgspec.structs import replace

from core.decision import Arm, Change, Decision, Event, Notification, applied
from core.dispute import Dispute
from core.order import (
    ORDER_MOVES,
    PAYMENT_MOVES,
    REFUND_MOVES,
    CaseReason,
    Order,
    OrderState,
    OrderStatus,
    Origin,
    Payment,
    PaymentKey,
    PaymentStatus,
    Pending,
    Refund,
    RefundStatus,
)

Decide = Callable[[OrderState | None, bool], Decision]
"""A function from the state, and whether another payment has the channel transaction, to a decision."""

CONFLICTS_MAX = 20


class TransactionClaimed(Exception):
    """Another payment of the account already has this channel transaction."""


class Door:
    """One order with its rows. `other_transactions` are channel transactions of other orders."""

    def __init__(self, now: datetime, other_transactions: frozenset[tuple[str, str]]) -> None:
        self.now = now
        self.other_transactions = other_transactions
        self.order: Order | None = None
        self.payments: dict[PaymentKey, Payment] = {}
        self.pending: dict[PaymentKey, Pending] = {}
        self.refunds: dict[str, Refund] = {}
        self.disputes: dict[tuple[str, str, str], Dispute] = {}
        self.cases: set[tuple[PaymentKey | None, CaseReason]] = set()
        self.events: list[Event] = []
        self.notifications: list[Notification] = []
        self.conflicts = 0

    def load(self) -> OrderState | None:
        if self.order is None:
            return None
        return OrderState(
            order=self.order,
            now=self.now,
            payments=tuple(self.payments.values()),
            pending=tuple(self.pending.values()),
            refunds=tuple(self.refunds.values()),
            disputes=tuple(self.disputes.values()),
            open_cases=frozenset(self.cases),
        )

    def transition(self, decide: Decide, *, loaded: OrderState | None = None) -> Decision:
        """Load, decide, compare-and-set; decide again after a conflict. `loaded` is a stale state to start with."""
        state, claimed = loaded or self.load(), False
        for _ in range(CONFLICTS_MAX):
            decision = decide(state, claimed)
            try:
                if self._commit(decision):
                    return decision
                self.conflicts += 1
            except TransactionClaimed:
                claimed = True
            state = self.load()
        raise AssertionError("a decision on fresh state without competitors still conflicts")

    def _commit(self, decision: Decision) -> bool:
        change = decision.change
        if change is not None:
            if not self._is_current(change):
                return False
            self._refuse_claimed(change)
            expected = applied(self.load(), change)
            self._change(change)
            self._check_applied(expected)
        for arm in decision.rearm:
            self._rearm(arm)
        for key in decision.drop:
            self.pending.pop(key, None)
        return True

    def _is_current(self, change: Change) -> bool:
        if change.is_new:
            return self.order is None
        return self.order is not None and self.order.version == change.order.version - 1

    def _refuse_claimed(self, change: Change) -> None:
        for payment in change.payments:
            own_transactions = {row.channel_transaction_id for key, row in self.payments.items() if key != payment.key}
            transaction = payment.channel_transaction_id
            if transaction and (
                (payment.channel_account, transaction) in self.other_transactions or transaction in own_transactions
            ):
                raise TransactionClaimed

    def _change(self, change: Change) -> None:
        self._move_order(change)
        for payment in change.new_payments:
            assert payment.key not in self.payments
            assert payment.attempt_no == 1 + len(self.payments)
            self.payments[payment.key] = payment
        for payment in change.payments:
            before = self.payments[payment.key].status
            assert payment.status == before or payment.status in PAYMENT_MOVES[before]
            assert (payment.status is PaymentStatus.PAID) == (payment.paid_at is not None)
            self.payments[payment.key] = payment
        for key in change.resolved:
            self.pending.pop(key, None)
        for arm in change.arm:
            assert arm.key not in self.pending
            self.pending[arm.key] = self._row(arm, 1)
        for refund in change.refunds:
            self._move_refund(refund)
        self.disputes |= {(dispute.dispute_id, *dispute.key): dispute for dispute in change.disputes}
        self.cases |= {(case.key, case.reason) for case in change.cases}
        self.cases -= {(resolution.key, resolution.reason) for resolution in change.resolutions}
        self.events.append(change.event)
        if change.notification is not None:
            self.notifications.append(change.notification)

    def _check_applied(self, expected: OrderState) -> None:
        """The state that the flows go on with after a commit is the one that is stored, but for pending rows."""
        stored = self.load()
        assert stored is not None
        assert replace(stored, now=expected.now, pending=expected.pending) == expected

    def _move_order(self, change: Change) -> None:
        before, after = self.order, change.order
        if before is not None:
            assert after.status == before.status or after.status in ORDER_MOVES[before.status]
            assert (after.order_no, after.amount, after.currency) == (before.order_no, before.amount, before.currency)
        assert (after.status is OrderStatus.PAID) == (after.paid_by is not None) == (after.paid_at is not None)
        assert after.status is not OrderStatus.CLOSED or after.closed_at is not None
        self.order = after

    def _move_refund(self, refund: Refund) -> None:
        existing, payment = self.refunds.get(refund.refund_no), self.payments[refund.key]
        assert (refund.settled_at is not None) == refund.status.is_final
        if existing is None:
            assert refund.status is RefundStatus.REQUESTED
            assert (payment.status, payment.origin) == (PaymentStatus.PAID, Origin.OURS)
        else:
            is_numbered = existing.channel_refund_no is None and refund.channel_refund_no is not None
            is_move = refund.status in REFUND_MOVES[existing.status]
            assert is_move or (is_numbered and refund.status is existing.status)
            assert existing.channel_refund_no in (None, refund.channel_refund_no)
            assert (refund.key, refund.amount, refund.currency) == (existing.key, existing.amount, existing.currency)
        self.refunds[refund.refund_no] = refund
        live = [row for row in self.refunds.values() if row.key == refund.key and row.status is not RefundStatus.FAILED]
        assert sum(row.amount for row in live) <= payment.amount

    def _rearm(self, arm: Arm) -> None:
        row = self.pending.get(arm.key)
        if arm.expected_arm_no is None:
            self.pending.setdefault(arm.key, self._row(arm, 1))
        elif row is not None and row.arm_no == arm.expected_arm_no:
            self.pending[arm.key] = self._row(arm, row.arm_no + 1)

    def _row(self, arm: Arm, arm_no: int) -> Pending:
        return Pending(
            key=arm.key,
            kind=arm.kind,
            order_no=arm.order_no,
            attempt=arm.attempt,
            arm_no=arm_no,
            due_at=arm.at or self.now + timedelta(seconds=arm.delay_s or 0.0),
        )
