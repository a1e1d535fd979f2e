"""A state machine of one order: a model of the channels' ledger, a model of the door, and the real decisions.

Callbacks are genuine, late, repeated, mismatched or lost; queries return true evidence or none; closes succeed, are
ignored or fail; money arrives after the close, twice, and is refunded; a decision may use a state that is stale when it
is committed. The invariants are I1 to I4 of docs/architecture.md, and at the end nothing may be stuck.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from types import MappingProxyType
from typing import Any

import hypothesis.strategies as st
import msgspec
from hypothesis import event, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from core.backoff import Backoff
from core.decision import Decision, Outcome
from core.evidence import Closed, Evidence, Missing, Paid, Refunded, Source, Unclear, Unpaid
from core.lifecycle import (
    DoublePolicy,
    LatePolicy,
    OrderTerms,
    PaymentTerms,
    RefundRequest,
    Rules,
    mismatch,
    on_callback,
    on_close_attempted,
    on_close_requested,
    on_create_refused,
    on_created,
    on_deadline,
    on_late_accepted,
    on_query,
    on_refresh,
    on_refund,
    on_refund_requested,
    place,
    start_payment,
)
from core.order import (
    CaseReason,
    Checkout,
    Order,
    OrderState,
    OrderStatus,
    Origin,
    Payment,
    PaymentKey,
    PaymentStatus,
    PendingKind,
    PublicStatus,
    Refund,
    RefundReason,
    RefundStatus,
    deadline_key,
    public_status,
)
from tests.core.model_door import Decide, Door
from tests.core.model_ledger import LAG_S_MAX, Entry, Ledger
from tests.core.states import NOW

TERMS = OrderTerms(order_no="A-1", amount=8888, currency="CNY", subject="Tea", notify_url="https://shop.test/hook")
EXPIRES_AT = NOW + timedelta(minutes=30)
CHECKOUT = Checkout(kind="redirect", value="https://pay.test/1")
OTHER_TRANSACTION = "transaction-of-another-order"
CALL_S_MAX = 15
"""No channel call takes longer, so no result is older when it is decided on."""

Deviation = Mapping[str, Any]
"""Fields in which a channel deviated from the request."""

PAYMENTS_MAX = 4
QUIET_DAYS = 6

payment_indexes = st.integers(0, PAYMENTS_MAX - 1)
lags = st.sampled_from([0, 0, 5, 60, LAG_S_MAX])
deviations = st.sampled_from([*[{}] * 16, {"amount": 1}, {"currency": "USD"}, {"account": "x"}, {"number": "x"}])
DOUBTS = {
    CaseReason.AMOUNT_MISMATCH,
    CaseReason.CURRENCY_MISMATCH,
    CaseReason.ACCOUNT_MISMATCH,
    CaseReason.NUMBER_MISMATCH,
    CaseReason.TRANSACTION_CLAIMED_TWICE,
}
GONE_BACK = {CaseReason.REFUNDED_OUTSIDE, CaseReason.REFUND_AMOUNT_UNKNOWN}


@dataclass
class UncommittedDecision:
    """A decision that is not committed yet; others may change the state that it was made on."""

    decide: Decide
    loaded: OrderState
    evidence: Evidence | None = None


class OneOrder(RuleBasedStateMachine):
    """`confirmed`: payments whose true evidence of money is committed. `without_mismatches`: no evidence opens a
    mismatch case, which would stop automatic refunds.
    """

    @initialize(
        policy=st.sampled_from(LatePolicy),
        double_policy=st.sampled_from(DoublePolicy),
        early=st.sampled_from([(), (5.0, 20.0)]),
        attempts_max=st.sampled_from([16, 2]),
        first=st.sampled_from([Origin.OURS, Origin.OURS, Origin.WATCHED, None]),
        second=st.booleans(),
        late=st.booleans(),
        accepted=st.booleans(),
        without_mismatches=st.booleans(),
        refundable=st.booleans(),
    )
    def order_is_placed(
        self,
        policy: LatePolicy,
        double_policy: DoublePolicy,
        early: tuple[float, ...],
        attempts_max: int,
        first: Origin | None,
        second: bool,
        late: bool,
        accepted: bool,
        without_mismatches: bool,
        refundable: bool,
    ) -> None:
        backoff = Backoff(early_s=early, attempts_max=attempts_max)
        self.rules_ = Rules(backoff=backoff, late_policy=policy, double_policy=double_policy)
        self.door = Door(NOW, frozenset({("alipay", OTHER_TRANSACTION), ("wechat", OTHER_TRANSACTION)}))
        self.ledger = Ledger()
        self.callbacks: list[tuple[PaymentKey, Evidence]] = []
        self.uncommitted: list[UncommittedDecision] = []
        self.confirmed: set[PaymentKey] = set()
        self.numbers = 0
        self.late, self.accepted, self.without_mismatches, self.refundable = (
            late,
            accepted,
            without_mismatches,
            refundable,
        )
        self.first = None if first is None else self._terms("alipay", first)
        assert self._place().outcome is Outcome.PLACED
        if first is Origin.WATCHED:
            self._create(PaymentKey("alipay", "alipay-000001"))
        if second:
            self._start_payment("wechat", Origin.OURS, silent=False, conflicting=False)

    # -- the merchant --------------------------------------------------------------------------------------------------

    @rule(action=st.sampled_from(["repeats the order", "changes the terms", "closes", "accepts"]))
    def merchant_acts(self, action: str) -> None:
        if action == "closes":
            self._commit(lambda state, _: on_close_requested(_existing(state)))
        elif action == "accepts":
            self._accept_late()
        elif action == "repeats the order":
            assert self._place().outcome is Outcome.SAME
        else:
            assert self._place(replace(TERMS, amount=TERMS.amount + 1)).outcome is Outcome.OTHER_TERMS

    @precondition(lambda self: len(self.door.payments) < PAYMENTS_MAX)
    @rule(
        account=st.sampled_from(["alipay", "wechat"]),
        origin=st.sampled_from([Origin.OURS, Origin.OURS, Origin.WATCHED]),
        silent=st.booleans(),
        conflicting=st.booleans(),
    )
    def merchant_starts_payment(self, account: str, origin: Origin, silent: bool, conflicting: bool) -> None:
        self._start_payment(account, origin, silent=silent, conflicting=conflicting)

    # -- the channel and the user --------------------------------------------------------------------------------------

    @rule(
        index=payment_indexes, answer=st.sampled_from(["received", "lost", "refused"]), lag_s=lags, deviation=deviations
    )
    def channel_creates_payment(self, index: int, answer: str, lag_s: int, deviation: Deviation) -> None:
        payment = self._creatable(index)
        if payment is None:
            return
        key = payment.key
        if answer == "refused":
            if key not in self.ledger.entries:
                self._commit(lambda state, _: on_create_refused(_existing(state), key, "REFUSED"))
            return
        self._create(key, lag_s, deviation)
        if answer == "received":
            created = partial(on_created, key=key, checkout=CHECKOUT, channel_reference=None, payable_until=None)
            self._commit(lambda state, _: created(_existing(state)))

    @rule(
        index=payment_indexes,
        lag_s=lags,
        is_other_transaction=st.sampled_from([*[False] * 9, True]),
        deviation=deviations,
    )
    def buyer_pays(self, index: int, lag_s: int, is_other_transaction: bool, deviation: Deviation) -> None:
        payment = self._creatable(index)
        if payment is not None:
            self._create(payment.key, 0, deviation)
        key = self._payment_key(index)
        if key is not None and self.ledger.can_take_money(key, self.door.now):
            self.ledger.pay(
                key, OTHER_TRANSACTION if is_other_transaction else self._transaction(), self.door.now, lag_s
            )

    @rule(
        index=payment_indexes,
        change=st.sampled_from(["arrives late", "arrives again", "is refunded"]),
        amount=st.integers(1, 8888),
    )
    def money_changes(self, index: int, change: str, amount: int) -> None:
        """Money arrives after the channel excluded it, or again under the same number, or is refunded."""
        key = self._payment_key(index)
        entry = None if key is None else self.ledger.entries.get(key)
        if key is None or entry is None:
            return
        if change == "arrives late" and not entry.has_money and self._order.is_resolved:
            self.ledger.pay(key, self._transaction(), self.door.now)
        elif change == "arrives again" and entry.has_money:
            entry.transaction = self._transaction()
        elif change == "is refunded" and entry.has_money:
            self.ledger.refund_outside(key, amount)

    @rule(index=payment_indexes)
    def refund_notice_names_a_refund(self, index: int) -> None:
        """The query that follows it also gets the channel's numbers, and the sum where the channel tells no total."""
        key = self._payment_key(index)
        evidence = None if key is None else self._true_evidence(key)
        if key is not None and isinstance(evidence, Refunded) and evidence.refunded_amount is None:
            outside = self.ledger.amount_refunded_outside(key)
            evidence = replace(evidence, refunds={"console-1": outside} if outside else {})
        if key is not None and isinstance(evidence, Refunded):
            numbers = {refund_no: _number_there(refund_no) for refund_no in self.ledger.refunds}
            evidence = replace(evidence, refund_numbers=numbers)
            self._commit_evidence(key, evidence, Source.CALLBACK)

    # -- refunds -------------------------------------------------------------------------------------------------------

    @rule(index=payment_indexes, amount=st.sampled_from([None, 1, 30, TERMS.amount]), ticket=st.integers(0, 3))
    def operator_requests_refund(self, index: int, amount: int | None, ticket: int) -> None:
        """Of all that is left, or of a part; a ticket is refunded once, however often."""
        key = self._payment_key(index)
        if key is not None:
            request = RefundRequest(
                key=key, by="anna", amount=amount, request_key="" if amount is None else f"t-{ticket}"
            )
            self._commit(lambda state, _: on_refund_requested(_existing(state), request))

    @precondition(lambda self: self.door.refunds)
    @rule(
        index=st.integers(0, 50),
        answer=st.sampled_from(["received", "lost", "lost before it arrived"]),
        succeeds=st.booleans(),
        settles=st.booleans(),
        has_number=st.booleans(),
    )
    def refund_job_runs(self, index: int, answer: str, succeeds: bool, settles: bool, has_number: bool) -> None:
        """Any worker may run the job again, also when the refund is definite. An answer may have no number."""
        refund = list(self.door.refunds.values())[index % len(self.door.refunds)]
        refund_state = None
        if answer != "lost before it arrived":
            refund_state = self._request_refund(refund, succeeds=succeeds, settles=settles)
        if answer == "received":
            self._commit_refund_state(refund, refund_state, _number_there(refund.refund_no) if has_number else None)
        else:
            unclear = partial(
                on_refund, refund_no=refund.refund_no, refund_status=None, rules=self.rules_, note="timeout"
            )
            self._commit(lambda state, _: unclear(_existing(state)))

    # -- callbacks -----------------------------------------------------------------------------------------------------

    @rule(index=payment_indexes, arrives=st.booleans(), copies=st.integers(1, 3), conflicting=st.booleans())
    def channel_sends_callback(self, index: int, arrives: bool, copies: int, conflicting: bool) -> None:
        """Send a callback with the current state; it may arrive at once, repeated, much later, or never."""
        key = self._payment_key(index)
        evidence = None if key is None else self._true_evidence(key)
        if key is None or evidence is None or (isinstance(evidence, Missing) and key in self.ledger.entries):
            return
        self.callbacks.append((key, evidence))
        for _ in range(copies if arrives else 0):
            self._start_or_commit(self._on_callback(key, evidence), conflicting, evidence)

    @precondition(lambda self: self.callbacks)
    @rule(index=st.integers(0, 50), conflicting=st.booleans())
    def old_callback_arrives(self, index: int, conflicting: bool) -> None:
        key, evidence = self.callbacks[index % len(self.callbacks)]
        self._start_or_commit(self._on_callback(key, evidence), conflicting, evidence)

    @precondition(lambda self: not self.without_mismatches)
    @rule(
        index=payment_indexes,
        deviation=st.sampled_from(
            [{"amount": 1}, {"currency": "USD"}, {"channel_account": "other:1"}, {"out_trade_no": "another-1"}]
        ),
    )
    def mismatched_callback_arrives(self, index: int, deviation: Deviation) -> None:
        key = self._payment_key(index)
        if key is not None:
            evidence = Paid(**key._asdict(), amount=8888, currency="CNY", channel_transaction_id=self._transaction())
            assert self._commit(self._on_callback(key, replace(evidence, **deviation))).outcome is Outcome.MISMATCH

    # -- queries -------------------------------------------------------------------------------------------------------

    @rule(index=payment_indexes, silent=st.booleans(), scheduled=st.booleans())
    def query_gets_response(self, index: int, silent: bool, scheduled: bool) -> None:
        """Start a decision on the result; other rules may run before it is committed."""
        key = self._payment_key(index)
        if key is None:
            return
        row = self.door.pending.get(key)
        arm_no = row.arm_no if scheduled and row is not None else None
        evidence = self._unclear(key) if silent else self._true_evidence(key)
        self._start(self._on_query(key, evidence, Source.QUERY, arm_no), evidence)

    @precondition(lambda self: self.uncommitted)
    @rule(index=st.integers(0, 50), close=st.sampled_from(["obeys", "ignores", "fails"]))
    def decision_is_committed(self, index: int, close: str) -> None:
        uncommitted_decision = self.uncommitted.pop(index % len(self.uncommitted))
        before = self.door.conflicts
        decision = self._commit(uncommitted_decision.decide, uncommitted_decision.evidence, uncommitted_decision.loaded)
        if self.door.conflicts > before:
            event("decided again after a conflict")
        for key in decision.close:
            self._close(key, close)

    @rule(silent=st.booleans())
    def refresh_runs(self, silent: bool) -> None:
        for key in self._commit(lambda state, _: on_refresh(_existing(state), self.rules_)).query:
            self._commit_evidence(key, self._unclear(key) if silent else self._true_evidence(key), Source.REFRESH)

    @rule(close=st.sampled_from(["obeys", "ignores", "fails"]), silent=st.booleans())
    def deadline_job_runs(self, close: str, silent: bool) -> None:
        row = self.door.pending.get(deadline_key(TERMS.order_no))
        if row is not None:
            self._work_deadline(row.arm_no, close, silent=silent)

    # -- time ----------------------------------------------------------------------------------------------------------

    @rule(until=st.sampled_from([1, 5, 10, 60, 300, 7200, EXPIRES_AT - timedelta(seconds=1), EXPIRES_AT]))
    def time_passes(self, until: int | datetime) -> None:
        """Decisions older than the longest call are dropped, as after a time-out or a killed process."""
        before = self.door.now
        self.door.now = max(before, until) if isinstance(until, datetime) else before + timedelta(seconds=until)
        if self.door.now - before > timedelta(seconds=CALL_S_MAX):
            self.uncommitted.clear()

    # -- invariants after every step -----------------------------------------------------------------------------------

    @invariant()
    def confirmed_money_has_paid(self) -> None:
        """I1: committed true evidence of money has paid its payment, and the order is paid or has a case.

        Money that has gone back, or nobody knows how much of it, is a case.
        """
        for key in self.confirmed:
            assert self.door.payments[key].status is PaymentStatus.PAID
        gone = {key for key in self.confirmed if not self.door.payments[key].remaining_amount}
        for key in gone:
            reasons = {reason for of, reason in self.door.cases if of == key}
            assert reasons & GONE_BACK or self._goes_back(key)
        if self.confirmed - gone and self._order.status is not OrderStatus.PAID:
            assert self.rules_.late_policy is not LatePolicy.ACCEPT
            assert self._order.status is OrderStatus.CLOSED
            for key in self.confirmed - gone:
                assert (key, CaseReason.PAID_LATE) in self.door.cases or self._is_refunded(key)

    @invariant()
    def only_real_money_pays(self) -> None:
        """I2: same amount, currency, account and number, and a transaction that no other order has."""
        for payment in self.door.payments.values():
            if payment.status is PaymentStatus.PAID:
                entry = self.ledger.entries[payment.key]
                assert entry.has_money
                assert entry.matches(payment)
                assert payment.channel_transaction_id != OTHER_TRANSACTION
                assert (payment.amount, payment.currency) == (TERMS.amount, TERMS.currency)
        paid_by = self._order.paid_by
        if paid_by is not None:
            assert self.door.payments[paid_by].status is PaymentStatus.PAID

    @invariant()
    def nothing_payable_is_closed(self) -> None:
        """Except payments that the channel reported as closed before it took the money."""
        for payment in self.door.payments.values():
            entry = self.ledger.entries.get(payment.key)
            if payment.status is PaymentStatus.CLOSED and entry is not None:
                assert entry.paid_late or not entry.has_money
                assert not self.ledger.can_take_money(payment.key, self.door.now)
        if public_status(self._order, tuple(self.door.payments.values())) is PublicStatus.CLOSED:
            assert all(
                payment.status is PaymentStatus.CLOSED or payment.origin is Origin.WATCHED
                for payment in self.door.payments.values()
            )

    @invariant()
    def every_version_has_one_event(self) -> None:
        """I4: the model of the door asserts that every move is legal."""
        assert self._order.version == len(self.door.events)

    @invariant()
    def pending_rows_match_unresolved_work(self) -> None:
        open_ = {key for key, row in self.door.payments.items() if row.status is PaymentStatus.OPEN}
        queries = {key for key, row in self.door.pending.items() if row.kind is PendingKind.QUERY}
        deadlines = set(self.door.pending) - queries
        closed = {key for key, row in self.door.payments.items() if row.status is PaymentStatus.CLOSED}
        unknown = {key for key, row in self.door.payments.items() if row.refunded_amount is None}
        assert open_ <= queries <= open_ | closed | unknown
        assert deadlines == (set() if self._order.is_resolved else {deadline_key(TERMS.order_no)})

    @invariant()
    def merchant_is_notified_of_paid_once(self) -> None:
        """I3: one paid notification, of money that is there, and one id for each notification."""
        notifications = [notification for notification in self.door.notifications if notification.type == "order.paid"]
        assert len(notifications) == (self._order.status is OrderStatus.PAID)
        for notification in notifications:
            assert msgspec.json.decode(notification.body)["data"]["payment"]["remaining_amount"] > 0
        assert len({notification.id for notification in self.door.notifications}) == len(self.door.notifications)

    @invariant()
    def only_operators_refund_paying_money(self) -> None:
        """Refunds never exceed the payment; a succeeded refund is real, and the merchant is notified of it."""
        keys = [refund.request_key for refund in self.door.refunds.values() if refund.request_key]
        assert len(keys) == len(set(keys))
        for refund in self.door.refunds.values():
            assert refund.channel_refund_no in (None, _number_there(refund.refund_no))
            by_operator = refund.reason is RefundReason.OPERATOR
            assert refund.key != self._order.paid_by or by_operator or refund.status is RefundStatus.FAILED
            there = self.ledger.refunds.get(refund.refund_no)
            if refund.status is RefundStatus.SUCCEEDED:
                assert there is not None
                assert there.status is RefundStatus.SUCCEEDED
        for key, entry in self.ledger.entries.items():
            assert self.ledger.amount_refunded_by_nodrop(key) <= entry.refunded <= entry.amount
        succeeded = [row for row in self.door.refunds.values() if row.status is RefundStatus.SUCCEEDED]
        refunded = [notice for notice in self.door.notifications if notice.type == "order.refunded"]
        of_ours = [notice for notice in refunded if msgspec.json.decode(notice.body)["data"]["refund"] is not None]
        assert len(of_ours) == len(succeeded)

    # -- the end: faults stop, due work is done, every payment is queried once more ------------------------------------

    def teardown(self) -> None:
        if not hasattr(self, "door"):
            return
        self.uncommitted.clear()
        for _ in range(QUIET_DAYS):
            self._quiet_day()
        event(f"in the end: {self._order.status}")
        for _, reason in self.door.cases:
            event(f"case: {reason}")
        unresolved = {key for key in self.door.pending if not self._is_doubtful(key)}
        event(f"rows of closed payments: {len(unresolved)}")
        assert unresolved <= ({deadline_key(TERMS.order_no)} if self._doubts() else set()), (
            "only an order in doubt may have pending rows"
        )
        if self.late:
            self._pay_late()
        for key in list(self.door.payments):
            self._commit_evidence(key, self._true_evidence(key), Source.QUERY)
        if self.accepted:
            self._accept_late()
        self._settle_refunds()
        assert all(refund.status.is_final for refund in self.door.refunds.values())
        for key in list(self.door.payments):  # beside a refund under way, a sum does not say whose it is
            self._commit_evidence(key, self._true_evidence(key), Source.QUERY)
        self._check_books()
        self._check_after_every_step()

    def _quiet_day(self) -> None:
        self.door.now += timedelta(days=1)
        for row in sorted(self.door.pending.values(), key=lambda row: row.due_at):
            if row.kind is PendingKind.DEADLINE:
                self._work_deadline(row.arm_no, "obeys")
            elif row.key in self.door.pending:
                arm_no = self.door.pending[row.key].arm_no
                decision = self._commit_evidence(row.key, self._true_evidence(row.key), Source.QUERY, arm_no)
                for key in decision.close:
                    self._close(key, "obeys")

    def _settle_refunds(self) -> None:
        for refund in list(self.door.refunds.values()):
            if not refund.status.is_final:
                event(f"refund: {refund.reason}")
                refund_state = self._request_refund(refund, succeeds=self.refundable, settles=True)
                self._commit_refund_state(refund, refund_state, None)

    def _request_refund(self, refund: Refund, *, succeeds: bool, settles: bool) -> RefundStatus:
        """As `flows.refund`: a refund that the channel refuses and does not know has failed."""
        response = self.ledger.refund(refund.refund_no, refund.key, refund.amount, succeeds=succeeds)
        if settles:
            self.ledger.settle(refund.refund_no)
        refund_there = self.ledger.refunds.get(refund.refund_no)
        return RefundStatus.FAILED if response is None or refund_there is None else refund_there.status

    def _commit_refund_state(self, refund: Refund, refund_state: RefundStatus | None, number: str | None) -> None:
        decide = partial(on_refund, refund_no=refund.refund_no, refund_status=refund_state, rules=self.rules_)
        self._commit(lambda state, _: decide(_existing(state), channel_refund_no=number))

    def _goes_back(self, key: PaymentKey) -> bool:
        return any(row.key == key and row.status is not RefundStatus.FAILED for row in self.door.refunds.values())

    def _is_refunded(self, key: PaymentKey) -> bool:
        refunds = (refund for refund in self.door.refunds.values() if refund.key == key)
        return any(refund.status is RefundStatus.SUCCEEDED for refund in refunds)

    def _accept_late(self) -> None:
        """As `flows.accept`: the order becomes paid by its payment, and the case is resolved."""
        decision = self._commit(lambda state, _: on_late_accepted(_existing(state), "anna"))
        if decision.outcome is not Outcome.NOT_ACCEPTABLE:
            self.door.cases = {case for case in self.door.cases if case[1] is not CaseReason.PAID_LATE}

    def _pay_late(self) -> None:
        """Pay every payment without money late."""
        for key, entry in self.ledger.entries.items():
            if not entry.has_money:
                self.ledger.pay(key, self._transaction(), self.door.now)

    def _check_books(self) -> None:
        """After a last query every payment with money is paid here or has a case with the reason."""
        for key, payment in self.door.payments.items():
            entry = self.ledger.entries.get(key)
            reasons = {reason for of, reason in self.door.cases if of == key}
            if entry is None or not entry.has_money:
                assert payment.status is PaymentStatus.CLOSED or reasons & DOUBTS
            elif payment.status is not PaymentStatus.PAID:
                assert not entry.matches(payment) or entry.transaction == OTHER_TRANSACTION
                assert reasons & DOUBTS
            elif key != self._order.paid_by:
                open_questions = {CaseReason.DOUBLE_PAYMENT, CaseReason.PAID_LATE, CaseReason.REFUND_FAILED}
                open_questions |= set() if payment.remaining_amount else GONE_BACK
                assert reasons & open_questions or self._is_refunded(key)
            elif self.ledger.amount_refunded_outside(key) and not self._hides_outside(key):
                assert reasons & (GONE_BACK | {CaseReason.NUMBER_REUSED})
            if payment.status is PaymentStatus.PAID and entry is not None:
                is_same = payment.channel_transaction_id == entry.transaction
                assert is_same or CaseReason.NUMBER_REUSED in reasons

    def _hides_outside(self, key: PaymentKey) -> bool:
        """Whether the channel tells no total, and a refund of ours explains that something went back. A statement's row
        or a notice names the other one.
        """
        evidence = self._true_evidence(key)
        return isinstance(evidence, Refunded) and evidence.refunded_amount is None and self._is_refunded(key)

    def _check_after_every_step(self) -> None:
        self.confirmed_money_has_paid()
        self.only_real_money_pays()
        self.every_version_has_one_event()
        self.pending_rows_match_unresolved_work()
        self.merchant_is_notified_of_paid_once()
        self.only_operators_refund_paying_money()

    def _doubts(self) -> bool:
        return any(reason in DOUBTS for _, reason in self.door.cases)

    def _is_doubtful(self, key: PaymentKey) -> bool:
        return any(of == key and reason in DOUBTS for of, reason in self.door.cases)

    # -- helpers -------------------------------------------------------------------------------------------------------

    @property
    def _order(self) -> Order:
        assert self.door.order is not None
        return self.door.order

    def _state(self) -> OrderState:
        return _existing(self.door.load())

    def _place(self, terms: OrderTerms = TERMS) -> Decision:
        return self._commit(
            lambda state, _: place(
                terms, self.first, state, self.rules_, now=self.door.now, expires_at=EXPIRES_AT, page_token="token"
            )
        )

    def _terms(self, account: str, origin: Origin) -> PaymentTerms:
        self.numbers += 1
        return PaymentTerms(account=account, out_trade_no=f"{account}-{self.numbers:06}", origin=origin)

    def _transaction(self) -> str:
        self.numbers += 1
        return f"t-{self.numbers}"

    def _payment_key(self, index: int) -> PaymentKey | None:
        keys = list(self.door.payments)
        return keys[index % len(keys)] if keys else None

    def _creatable(self, index: int) -> Payment | None:
        """A payment that nodrop would create at the channel: open, ours, neither created nor refused."""
        key = self._payment_key(index)
        payment = None if key is None else self.door.payments[key]
        if payment is None or payment.origin is Origin.WATCHED or payment.status is not PaymentStatus.OPEN:
            return None
        return None if payment.checkout or payment.refused_at or self._order.is_resolved else payment

    def _create(self, key: PaymentKey, lag_s: int = 0, deviation: Deviation = MappingProxyType({})) -> None:
        """Create a payment once for each number."""
        payment, fields = self.door.payments.get(key), {} if self.without_mismatches else deviation
        entry = Entry(
            key=key,
            amount=fields.get("amount", TERMS.amount),
            currency=fields.get("currency", TERMS.currency),
            payable_until=EXPIRES_AT if payment is None or not payment.has_known_end else payment.payable_until,
            reported_key=PaymentKey(fields.get("account", key.channel_account), fields.get("number", key.out_trade_no)),
            visible_from=self.door.now + timedelta(seconds=lag_s),
        )
        self.ledger.entries.setdefault(key, entry)

    def _true_evidence(self, key: PaymentKey) -> Evidence:
        evidence = self.ledger.evidence(key, self.door.now)
        payment, entry = self.door.payments.get(key), self.ledger.entries.get(key)
        if isinstance(evidence, Unpaid) and entry is not None and payment is not None:
            is_named = payment.origin is Origin.WATCHED and not payment.has_known_end
            return replace(evidence, payable_until=entry.payable_until) if is_named else evidence
        return evidence

    def _unclear(self, key: PaymentKey) -> Unclear:
        return Unclear(**key._asdict(), reason="timeout")

    def _start_payment(self, account: str, origin: Origin, *, silent: bool, conflicting: bool) -> None:
        """The earlier payments are queried first, as `flows.place` does."""
        unclear = []
        for payment in self._state().open_payments():
            evidence = self._unclear(payment.key) if silent else self._true_evidence(payment.key)
            self._commit_evidence(payment.key, evidence, Source.API)
            if not isinstance(evidence, Unpaid | Missing | Closed):
                unclear.append(payment.key)
        terms = self._terms(account, origin)
        if origin is Origin.WATCHED:
            self._create(PaymentKey(account, terms.out_trade_no))
        self._start_or_commit(
            lambda state, _: start_payment(_existing(state), terms, self.rules_, unclear=tuple(unclear)), conflicting
        )

    def _on_callback(self, key: PaymentKey, evidence: Evidence) -> Decide:
        return lambda state, claimed: on_callback(
            _existing(state), key, evidence, self.rules_, Source.CALLBACK, claimed=claimed
        )

    def _on_query(self, key: PaymentKey, evidence: Evidence, by: Source, arm_no: int | None = None) -> Decide:
        return lambda state, claimed: on_query(
            _existing(state), key, evidence, self.rules_, by, arm_no=arm_no, claimed=claimed
        )

    def _commit_evidence(self, key: PaymentKey, evidence: Evidence, by: Source, arm_no: int | None = None) -> Decision:
        return self._commit(self._on_query(key, evidence, by, arm_no), evidence)

    def _close(self, key: PaymentKey, how: str) -> None:
        """Close at the channel as `flows.close`; the close counts as attempted also when the channel ignores it."""
        if how == "fails":
            return
        if how == "obeys":
            self.ledger.close(key)
        self._commit(lambda state, _: on_close_attempted(_existing(state), key))
        self._commit_evidence(key, self._true_evidence(key), Source.CLOSE)

    def _work_deadline(self, arm_no: int, close: str, *, silent: bool = False) -> None:
        plan = on_deadline(self._state(), self.rules_)
        answers = {key: self._unclear(key) if silent else self._true_evidence(key) for key in plan.query}
        for key, evidence in answers.items():
            decision = self._commit_evidence(key, evidence, Source.CLOSE)
            if decision.outcome is Outcome.STILL_OPEN and key in plan.close:
                self._close(key, close)
        self._commit(lambda state, _: on_deadline(_existing(state), self.rules_, arm_no=arm_no, answers=answers))

    def _start_or_commit(self, decide: Decide, conflicting: bool, evidence: Evidence | None = None) -> None:
        if conflicting:
            self._start(decide, evidence)
        else:
            self._commit(decide, evidence)

    def _start(self, decide: Decide, evidence: Evidence | None = None) -> None:
        self.uncommitted.append(UncommittedDecision(decide=decide, loaded=self._state(), evidence=evidence))

    def _commit(self, decide: Decide, evidence: Evidence | None = None, loaded: OrderState | None = None) -> Decision:
        decision = self.door.transition(decide, loaded=loaded)
        if isinstance(evidence, Paid | Refunded):
            key = PaymentKey(evidence.channel_account, evidence.out_trade_no)
            payment = self.door.payments.get(key)
            is_own = payment is not None and mismatch(payment, evidence) is None
            if is_own and evidence.channel_transaction_id != OTHER_TRANSACTION:
                self.confirmed.add(key)
        return decision


def _number_there(refund_no: str) -> str:
    """The channel's own number of a refund."""
    return f"there-{refund_no}"


def _existing(state: OrderState | None) -> OrderState:
    assert state is not None
    return state


OneOrder.TestCase.settings = settings(
    max_examples=3 * settings().max_examples // 2, stateful_step_count=40, report_multiple_bugs=False
)
TestOneOrder = OneOrder.TestCase
