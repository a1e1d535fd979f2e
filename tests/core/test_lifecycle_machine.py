"""One order against channels that do what channels do, in any order: a model ledger, a model door, real decisions.

Callbacks come true, late, doubled, wrong or never; queries tell the truth or nothing; closes are obeyed, shrugged off
or fail; money comes after close, twice, and goes back; every decision may be made on a state that is stale by the time
it is committed. What must hold is in the invariants (I1 to I4 of the design), and at the end nothing may be stuck.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from types import MappingProxyType
from typing import Any

import hypothesis.strategies as st
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
FOREIGN = "transaction-of-another-order"
ANSWER_S_MAX = 15
"""No call of a channel takes longer, so no answer is older when it is decided on."""

Wrong = Mapping[str, Any]
"""What a channel did otherwise than it was asked to."""

PAYMENTS_MAX = 4
QUIET_DAYS = 6

picks = st.integers(0, PAYMENTS_MAX - 1)
lags = st.sampled_from([0, 0, 5, 60, LAG_S_MAX])
wrongs = st.sampled_from([*[{}] * 16, {"amount": 1}, {"currency": "USD"}, {"account": "x"}, {"number": "x"}])
DOUBTS = {
    CaseReason.AMOUNT_MISMATCH,
    CaseReason.CURRENCY_MISMATCH,
    CaseReason.ACCOUNT_MISMATCH,
    CaseReason.NUMBER_MISMATCH,
    CaseReason.TRANSACTION_CLAIMED_TWICE,
}


@dataclass
class UnderWay:
    """A decision on its way to the database, made on a state that others may change meanwhile."""

    decide: Decide
    loaded: OrderState
    seen: Evidence | None = None


class OneOrder(RuleBasedStateMachine):
    """`seen`: payments of which true evidence of their money has been committed. `truthful`: nothing is said that opens
    a doubt, under which no money goes back by itself.
    """

    @initialize(
        policy=st.sampled_from(LatePolicy),
        double=st.sampled_from(DoublePolicy),
        early=st.sampled_from([(), (5.0, 20.0)]),
        attempts_max=st.sampled_from([16, 2]),
        first=st.sampled_from([Origin.OURS, Origin.OURS, Origin.WATCHED, None]),
        second=st.booleans(),
        late=st.booleans(),
        accepted=st.booleans(),
        truthful=st.booleans(),
        refundable=st.booleans(),
    )
    def placed(
        self,
        policy: LatePolicy,
        double: DoublePolicy,
        early: tuple[float, ...],
        attempts_max: int,
        first: Origin | None,
        second: bool,
        late: bool,
        accepted: bool,
        truthful: bool,
        refundable: bool,
    ) -> None:
        backoff = Backoff(early_s=early, attempts_max=attempts_max)
        self.rules_ = Rules(backoff=backoff, late_policy=policy, double_policy=double)
        self.door = Door(NOW, frozenset({("alipay", FOREIGN), ("wechat", FOREIGN)}))
        self.ledger = Ledger()
        self.callbacks: list[tuple[PaymentKey, Evidence]] = []
        self.under_way: list[UnderWay] = []
        self.seen: set[PaymentKey] = set()
        self.numbers = 0
        self.late, self.accepted, self.truthful, self.refundable = late, accepted, truthful, refundable
        self.first = None if first is None else self._terms("alipay", first)
        assert self._place().outcome is Outcome.PLACED
        if first is Origin.WATCHED:
            self._create(PaymentKey("alipay", "alipay-000001"))
        if second:
            self._another_attempt("wechat", Origin.OURS, silent=False, conflicting=False)

    # -- the merchant --------------------------------------------------------------------------------------------------

    @rule(does=st.sampled_from(["repeats himself", "changes his mind", "closes", "accepts"]))
    def the_merchant(self, does: str) -> None:
        if does == "closes":
            self._pass(lambda state, _: on_close_requested(_there(state)))
        elif does == "accepts":
            self._accept_late()
        elif does == "repeats himself":
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
    def another_attempt(self, account: str, origin: Origin, silent: bool, conflicting: bool) -> None:
        self._another_attempt(account, origin, silent=silent, conflicting=conflicting)

    # -- the channel and the user --------------------------------------------------------------------------------------

    @rule(pick=picks, answer=st.sampled_from(["heard", "lost", "refused"]), lag_s=lags, wrong=wrongs)
    def the_channel_creates(self, pick: int, answer: str, lag_s: int, wrong: Wrong) -> None:
        payment = self._creatable(pick)
        if payment is None:
            return
        key = payment.key
        if answer == "refused":
            if key not in self.ledger.entries:
                self._pass(lambda state, _: on_create_refused(_there(state), key, "REFUSED"))
            return
        self._create(key, lag_s, wrong)
        if answer == "heard":
            created = partial(on_created, key=key, checkout=CHECKOUT, channel_reference=None, payable_until=None)
            self._pass(lambda state, _: created(_there(state)))

    @rule(pick=picks, lag_s=lags, foreign=st.sampled_from([*[False] * 9, True]), wrong=wrongs)
    def the_user_pays(self, pick: int, lag_s: int, foreign: bool, wrong: Wrong) -> None:
        payment = self._creatable(pick)
        if payment is not None:
            self._create(payment.key, 0, wrong)
        key = self._known(pick)
        if key is not None and self.ledger.can_take_money(key, self.door.now):
            self.ledger.pay(key, FOREIGN if foreign else self._transaction(), self.door.now, lag_s)

    @rule(
        pick=picks, what=st.sampled_from(["comes after all", "comes again", "goes back"]), amount=st.integers(1, 8888)
    )
    def money(self, pick: int, what: str, amount: int) -> None:
        """It comes although the channel had said that none would, or again under the same number, or is refunded."""
        key = self._known(pick)
        entry = None if key is None else self.ledger.entries.get(key)
        if key is None or entry is None:
            return
        if what == "comes after all" and not entry.has_money and self._order.is_resolved:
            self.ledger.pay(key, self._transaction(), self.door.now)
        elif what == "comes again" and entry.has_money:
            entry.transaction = self._transaction()
        elif what == "goes back" and entry.has_money:
            self.ledger.give_back_outside(key, amount)

    # -- refunds -------------------------------------------------------------------------------------------------------

    @rule(pick=picks)
    def an_operator_gives_back(self, pick: int) -> None:
        key = self._known(pick)
        if key is not None:
            self._pass(lambda state, _: on_refund_requested(_there(state), key, "anna"))

    @precondition(lambda self: self.door.refunds)
    @rule(
        pick=st.integers(0, 50),
        answer=st.sampled_from(["heard", "lost", "lost before it arrived"]),
        succeeds=st.booleans(),
        settles=st.booleans(),
    )
    def a_refund_is_worked_off(self, pick: int, answer: str, succeeds: bool, settles: bool) -> None:
        """By one worker or another: any of them may ask for it again, also when it has long been definite."""
        refund = list(self.door.refunds.values())[pick % len(self.door.refunds)]
        told = None
        if answer != "lost before it arrived":
            told = self._ask_to_refund(refund, succeeds=succeeds, settles=settles)
        if answer == "heard":
            self._answer_refund(refund, told)
        else:
            unclear = partial(
                on_refund, refund_no=refund.refund_no, refund_status=None, rules=self.rules_, note="timeout"
            )
            self._pass(lambda state, _: unclear(_there(state)))

    # -- callbacks -----------------------------------------------------------------------------------------------------

    @rule(pick=picks, arrives=st.booleans(), copies=st.integers(1, 3), conflicting=st.booleans())
    def a_callback_is_sent(self, pick: int, arrives: bool, copies: int, conflicting: bool) -> None:
        """It says what is true now; it may arrive at once, doubled, much later, or never."""
        key = self._known(pick)
        evidence = None if key is None else self._truth(key)
        if key is None or evidence is None or (isinstance(evidence, Missing) and key in self.ledger.entries):
            return
        self.callbacks.append((key, evidence))
        for _ in range(copies if arrives else 0):
            self._begin_or_pass(self._on_callback(key, evidence), conflicting, evidence)

    @precondition(lambda self: self.callbacks)
    @rule(pick=st.integers(0, 50), conflicting=st.booleans())
    def an_old_callback_arrives(self, pick: int, conflicting: bool) -> None:
        key, evidence = self.callbacks[pick % len(self.callbacks)]
        self._begin_or_pass(self._on_callback(key, evidence), conflicting, evidence)

    @precondition(lambda self: not self.truthful)
    @rule(
        pick=picks,
        wrong=st.sampled_from(
            [{"amount": 1}, {"currency": "USD"}, {"channel_account": "other:1"}, {"out_trade_no": "another-1"}]
        ),
    )
    def a_callback_speaks_of_something_else(self, pick: int, wrong: Wrong) -> None:
        key = self._known(pick)
        if key is not None:
            told = Paid(**key._asdict(), amount=8888, currency="CNY", channel_transaction_id=self._transaction())
            assert self._pass(self._on_callback(key, replace(told, **wrong))).outcome is Outcome.MISMATCH

    # -- queries -------------------------------------------------------------------------------------------------------

    @rule(pick=picks, silent=st.booleans(), scheduled=st.booleans())
    def a_query_is_answered(self, pick: int, silent: bool, scheduled: bool) -> None:
        """And on its way to the database; what else happens now happens in between."""
        key = self._known(pick)
        if key is None:
            return
        row = self.door.pending.get(key)
        arm_no = row.arm_no if scheduled and row is not None else None
        evidence = self._unclear(key) if silent else self._truth(key)
        self._begin(self._on_query(key, evidence, Source.QUERY, arm_no), evidence)

    @precondition(lambda self: self.under_way)
    @rule(pick=st.integers(0, 50), close=st.sampled_from(["obeys", "shrugs", "fails"]))
    def it_is_committed(self, pick: int, close: str) -> None:
        moving = self.under_way.pop(pick % len(self.under_way))
        before = self.door.conflicts
        decision = self._pass(moving.decide, moving.seen, moving.loaded)
        if self.door.conflicts > before:
            event("decided again after a conflict")
        for key in decision.close:
            self._close(key, close)

    @rule(silent=st.booleans())
    def somebody_looks(self, silent: bool) -> None:
        for key in on_refresh(self._state()).query:
            self._answer(key, self._unclear(key) if silent else self._truth(key), Source.REFRESH)

    @rule(close=st.sampled_from(["obeys", "shrugs", "fails"]), silent=st.booleans())
    def the_deadline_is_worked_off(self, close: str, silent: bool) -> None:
        row = self.door.pending.get(deadline_key(TERMS.order_no))
        if row is not None:
            self._work_deadline(row.arm_no, close, silent=silent)

    # -- time ----------------------------------------------------------------------------------------------------------

    @rule(until=st.sampled_from([1, 5, 10, 60, 300, 7200, EXPIRES_AT - timedelta(seconds=1), EXPIRES_AT]))
    def time_passes(self, until: int | datetime) -> None:
        """What was on its way for longer than a call may take was given up: a time-out, or a process that died."""
        before = self.door.now
        self.door.now = max(before, until) if isinstance(until, datetime) else before + timedelta(seconds=until)
        if self.door.now - before > timedelta(seconds=ANSWER_S_MAX):
            self.under_way.clear()

    # -- what must hold after every step -------------------------------------------------------------------------------

    @invariant()
    def money_that_was_seen_has_paid(self) -> None:
        """I1: true evidence of the order's own money, once committed, has paid its payment, and the order or a case."""
        for key in self.seen:
            assert self.door.payments[key].status is PaymentStatus.PAID
        if self.seen and self._order.status is not OrderStatus.PAID:
            assert self.rules_.late_policy is not LatePolicy.ACCEPT
            assert self._order.status is OrderStatus.CLOSED
            for key in self.seen:
                assert (key, CaseReason.PAID_LATE) in self.door.cases or self._is_given_back(key)

    @invariant()
    def nothing_is_paid_that_was_not_paid(self) -> None:
        """I2: same amount, currency, account and number, and a transaction that no other order has."""
        for payment in self.door.payments.values():
            if payment.status is PaymentStatus.PAID:
                entry = self.ledger.entries[payment.key]
                assert entry.has_money
                assert entry.is_as_asked(payment)
                assert payment.channel_transaction_id != FOREIGN
                assert (payment.amount, payment.currency) == (TERMS.amount, TERMS.currency)
        paid_by = self._order.paid_by
        if paid_by is not None:
            assert self.door.payments[paid_by].status is PaymentStatus.PAID

    @invariant()
    def nothing_is_closed_that_could_still_be_paid(self) -> None:
        """Except what the channel itself had called over before it took the money."""
        for payment in self.door.payments.values():
            entry = self.ledger.entries.get(payment.key)
            if payment.status is PaymentStatus.CLOSED and entry is not None:
                assert entry.came_late or not entry.has_money
                assert not self.ledger.can_take_money(payment.key, self.door.now)
        if public_status(self._order, tuple(self.door.payments.values())) is PublicStatus.CLOSED:
            assert all(payment.status is PaymentStatus.CLOSED for payment in self.door.payments.values())

    @invariant()
    def every_version_has_its_one_event(self) -> None:
        """I4; that every move is legal is asserted by the door itself."""
        assert self._order.version == len(self.door.events)

    @invariant()
    def a_row_is_pending_exactly_while_something_is_unresolved(self) -> None:
        open_ = {key for key, row in self.door.payments.items() if row.status is PaymentStatus.OPEN}
        queries = {key for key, row in self.door.pending.items() if row.kind is PendingKind.QUERY}
        deadlines = set(self.door.pending) - queries
        assert queries == open_
        assert deadlines == (set() if self._order.is_resolved else {deadline_key(TERMS.order_no)})

    @invariant()
    def the_merchant_hears_paid_once(self) -> None:
        """I3, on our side: one effect, one id."""
        told = [notification for notification in self.door.notifications if notification.type == "order.paid"]
        assert len(told) == (self._order.status is OrderStatus.PAID)
        assert len({notification.id for notification in self.door.notifications}) == len(self.door.notifications)

    @invariant()
    def what_pays_the_order_is_never_given_back(self) -> None:
        """And of the rest never more than came; what we hold to be given back is, and the merchant has heard of it."""
        assert self._order.paid_by not in {refund.key for refund in self.ledger.refunds.values()}
        for refund in self.door.refunds.values():
            assert refund.key != self._order.paid_by or refund.status is RefundStatus.FAILED
            there = self.ledger.refunds.get(refund.refund_no)
            if refund.status is RefundStatus.SUCCEEDED:
                assert there is not None
                assert there.status is RefundStatus.SUCCEEDED
        for key, entry in self.ledger.entries.items():
            assert self.ledger.given_back_by_us(key) <= entry.refunded <= entry.amount
        succeeded = [row for row in self.door.refunds.values() if row.status is RefundStatus.SUCCEEDED]
        told = [notification for notification in self.door.notifications if notification.type == "order.refunded"]
        assert len(told) == len(succeeded)

    # -- the end: faults stop, everything due is worked off, everything is asked about once more -----------------------

    def teardown(self) -> None:
        if not hasattr(self, "door"):
            return
        self.under_way.clear()
        for _ in range(QUIET_DAYS):
            self._quiet_day()
        event(f"in the end: {self._order.status}")
        for _, reason in self.door.cases:
            event(f"case: {reason}")
        left = {key for key in self.door.pending if not self._is_doubtful(key)}
        assert left <= ({deadline_key(TERMS.order_no)} if self._doubts() else set()), "nothing is stuck but doubt"
        if self.late:
            self._money_comes_late()
        for key in list(self.door.payments):
            self._answer(key, self._truth(key), Source.QUERY)
        if self.accepted:
            self._accept_late()
        self._settle_refunds()
        assert all(refund.status.is_final for refund in self.door.refunds.values())
        self._check_books()
        self._check_after_every_step()

    def _quiet_day(self) -> None:
        self.door.now += timedelta(days=1)
        for row in sorted(self.door.pending.values(), key=lambda row: row.due_at):
            if row.kind is PendingKind.DEADLINE:
                self._work_deadline(row.arm_no, "obeys")
            elif row.key in self.door.pending:
                arm_no = self.door.pending[row.key].arm_no
                decision = self._answer(row.key, self._truth(row.key), Source.QUERY, arm_no)
                for key in decision.close:
                    self._close(key, "obeys")

    def _settle_refunds(self) -> None:
        for refund in list(self.door.refunds.values()):
            if not refund.status.is_final:
                event(f"refund: {refund.reason}")
                self._answer_refund(refund, self._ask_to_refund(refund, succeeds=self.refundable, settles=True))

    def _ask_to_refund(self, refund: Refund, *, succeeds: bool, settles: bool) -> RefundStatus:
        """As `flows.refund` does: what the channel refuses, and does not know when it is asked, has failed."""
        told = self.ledger.refund(refund.refund_no, refund.key, refund.amount, succeeds=succeeds)
        if settles:
            self.ledger.settle(refund.refund_no)
        known = self.ledger.refunds.get(refund.refund_no)
        return RefundStatus.FAILED if told is None or known is None else known.status

    def _answer_refund(self, refund: Refund, told: RefundStatus | None) -> None:
        decide = partial(on_refund, refund_no=refund.refund_no, refund_status=told, rules=self.rules_)
        self._pass(lambda state, _: decide(_there(state)))

    def _is_given_back(self, key: PaymentKey) -> bool:
        refunds = (refund for refund in self.door.refunds.values() if refund.key == key)
        return any(refund.status is RefundStatus.SUCCEEDED for refund in refunds)

    def _accept_late(self) -> None:
        """As `flows.accept`: the order follows its payment, and the question is answered."""
        decision = self._pass(lambda state, _: on_late_accepted(_there(state), "anna"))
        if decision.outcome is not Outcome.NOT_ACCEPTABLE:
            self.door.cases = {case for case in self.door.cases if case[1] is not CaseReason.PAID_LATE}

    def _money_comes_late(self) -> None:
        """For everything that is over, as if a channel had made up its mind."""
        for key, entry in self.ledger.entries.items():
            if not entry.has_money:
                self.ledger.pay(key, self._transaction(), self.door.now)

    def _check_books(self) -> None:
        """Every payment with money, asked about once more, is paid here, or a case says why it is not."""
        for key, payment in self.door.payments.items():
            entry = self.ledger.entries.get(key)
            reasons = {reason for of, reason in self.door.cases if of == key}
            if entry is None or not entry.has_money:
                assert payment.status is PaymentStatus.CLOSED or reasons & DOUBTS
            elif payment.status is not PaymentStatus.PAID:
                assert not entry.is_as_asked(payment) or entry.transaction == FOREIGN
                assert reasons & DOUBTS
            elif key != self._order.paid_by:
                asks = {CaseReason.DOUBLE_PAYMENT, CaseReason.PAID_LATE, CaseReason.REFUND_FAILED}
                assert reasons & asks or self._is_given_back(key)
            elif entry.refunded:
                assert reasons & {CaseReason.REFUNDED_OUTSIDE, CaseReason.NUMBER_REUSED}
            if payment.status is PaymentStatus.PAID and entry is not None:
                is_same = payment.channel_transaction_id == entry.transaction
                assert is_same or CaseReason.NUMBER_REUSED in reasons

    def _check_after_every_step(self) -> None:
        self.money_that_was_seen_has_paid()
        self.nothing_is_paid_that_was_not_paid()
        self.every_version_has_its_one_event()
        self.a_row_is_pending_exactly_while_something_is_unresolved()
        self.the_merchant_hears_paid_once()
        self.what_pays_the_order_is_never_given_back()

    def _doubts(self) -> bool:
        return any(reason in DOUBTS for _, reason in self.door.cases)

    def _is_doubtful(self, key: PaymentKey) -> bool:
        return any(of == key and reason in DOUBTS for of, reason in self.door.cases)

    # -- parts ---------------------------------------------------------------------------------------------------------

    @property
    def _order(self) -> Order:
        assert self.door.order is not None
        return self.door.order

    def _state(self) -> OrderState:
        return _there(self.door.load())

    def _place(self, terms: OrderTerms = TERMS) -> Decision:
        return self._pass(
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

    def _known(self, pick: int) -> PaymentKey | None:
        keys = list(self.door.payments)
        return keys[pick % len(keys)] if keys else None

    def _creatable(self, pick: int) -> Payment | None:
        """What our side would ask a channel to create: open, ours, and neither created nor refused."""
        key = self._known(pick)
        payment = None if key is None else self.door.payments[key]
        if payment is None or payment.origin is Origin.WATCHED or payment.status is not PaymentStatus.OPEN:
            return None
        return None if payment.checkout or payment.refused_at or self._order.is_resolved else payment

    def _create(self, key: PaymentKey, lag_s: int = 0, wrong: Wrong = MappingProxyType({})) -> None:
        """Asked twice with the same number a channel creates once."""
        payment, said = self.door.payments.get(key), {} if self.truthful else wrong
        entry = Entry(
            key=key,
            amount=said.get("amount", TERMS.amount),
            currency=said.get("currency", TERMS.currency),
            payable_until=self._order.expires_at if payment is None else payment.payable_until,
            says=PaymentKey(said.get("account", key.channel_account), said.get("number", key.out_trade_no)),
            seen_from=self.door.now + timedelta(seconds=lag_s),
        )
        self.ledger.entries.setdefault(key, entry)

    def _truth(self, key: PaymentKey) -> Evidence:
        return self.ledger.evidence(key, self.door.now)

    def _unclear(self, key: PaymentKey) -> Unclear:
        return Unclear(**key._asdict(), reason="timeout")

    def _another_attempt(self, account: str, origin: Origin, *, silent: bool, conflicting: bool) -> None:
        """The earlier payments are queried first, as `flows.place` does."""
        unclear = []
        for payment in self._state().open_payments():
            evidence = self._unclear(payment.key) if silent else self._truth(payment.key)
            self._answer(payment.key, evidence, Source.API)
            if not isinstance(evidence, Unpaid | Missing | Closed):
                unclear.append(payment.key)
        terms = self._terms(account, origin)
        if origin is Origin.WATCHED:
            self._create(PaymentKey(account, terms.out_trade_no))
        self._begin_or_pass(
            lambda state, _: start_payment(_there(state), terms, self.rules_, unclear=tuple(unclear)), conflicting
        )

    def _on_callback(self, key: PaymentKey, evidence: Evidence) -> Decide:
        return lambda state, claimed: on_callback(
            _there(state), key, evidence, self.rules_, Source.CALLBACK, claimed=claimed
        )

    def _on_query(self, key: PaymentKey, evidence: Evidence, by: Source, arm_no: int | None = None) -> Decide:
        return lambda state, claimed: on_query(
            _there(state), key, evidence, self.rules_, by, arm_no=arm_no, claimed=claimed
        )

    def _answer(self, key: PaymentKey, evidence: Evidence, by: Source, arm_no: int | None = None) -> Decision:
        return self._pass(self._on_query(key, evidence, by, arm_no), evidence)

    def _close(self, key: PaymentKey, how: str) -> None:
        """At the channel, as `flows.close` does: what it answers is an answer also when it does not obey."""
        if how == "fails":
            return
        if how == "obeys":
            self.ledger.close(key)
        self._pass(lambda state, _: on_close_attempted(_there(state), key))
        self._answer(key, self._truth(key), Source.CLOSE)

    def _work_deadline(self, arm_no: int, close: str, *, silent: bool = False) -> None:
        looked = on_deadline(self._state(), self.rules_)
        for key in looked.query:
            told = self._answer(key, self._unclear(key) if silent else self._truth(key), Source.CLOSE)
            if told.outcome is Outcome.STILL_OPEN and key in looked.close:
                self._close(key, close)
        self._pass(lambda state, _: on_deadline(_there(state), self.rules_, arm_no=arm_no))

    def _begin_or_pass(self, decide: Decide, conflicting: bool, seen: Evidence | None = None) -> None:
        if conflicting:
            self._begin(decide, seen)
        else:
            self._pass(decide, seen)

    def _begin(self, decide: Decide, seen: Evidence | None = None) -> None:
        self.under_way.append(UnderWay(decide=decide, loaded=self._state(), seen=seen))

    def _pass(self, decide: Decide, seen: Evidence | None = None, loaded: OrderState | None = None) -> Decision:
        decision = self.door.transition(decide, loaded=loaded)
        if isinstance(seen, Paid | Refunded):
            key = PaymentKey(seen.channel_account, seen.out_trade_no)
            payment = self.door.payments.get(key)
            is_own = payment is not None and mismatch(payment, seen) is None
            if is_own and seen.channel_transaction_id != FOREIGN:
                self.seen.add(key)
        return decision


def _there(state: OrderState | None) -> OrderState:
    assert state is not None
    return state


OneOrder.TestCase.settings = settings(
    max_examples=3 * settings().max_examples // 2, stateful_step_count=40, report_multiple_bugs=False
)
TestOneOrder = OneOrder.TestCase
