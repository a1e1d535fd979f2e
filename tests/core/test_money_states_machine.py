"""A state machine of one order whose channels say anything, in any order, and never have to be true.

Money is refunded before it is seen, disputed, restored, paid by a callback alone, captured late or twice, or is another
payment's. Whatever comes: no decision fails, money that is not there pays no order, and money that pays nothing is a
question to a person. `test_lifecycle_machine` has the channels that tell the truth.
"""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from core.backoff import Backoff
from core.checkout import CheckoutRules
from core.decision import Decision
from core.dispute import DisputeKind, DisputeState, is_withheld
from core.evidence import Approved, Closed, Disputed, Evidence, Missing, Paid, Refunded, Source, Unclear, Unpaid
from core.lifecycle import (
    Approval,
    DoublePolicy,
    LatePolicy,
    Message,
    OrderTerms,
    PaymentTerms,
    Queried,
    RefundRequest,
    Rules,
    is_free_of_money,
    is_verified_unpaid,
    on_callback,
    on_capture_refused,
    on_close_attempted,
    on_deadline,
    on_dispute,
    on_late_accepted,
    on_query,
    on_refresh,
    on_refund,
    on_refund_requested,
    on_unanswered,
    outside_amount,
    place,
    promised_amount,
    refundable_amount,
    start_payment,
)
from core.order import (
    CaseReason,
    OrderState,
    Origin,
    Payment,
    PaymentKey,
    PaymentStatus,
    PendingKind,
    RefundReason,
    RefundStatus,
    deadline_key,
)
from tests.core.model_door import Decide, Door
from tests.core.states import NOW

TERMS = OrderTerms(order_no="A-1", amount=100, currency="CNY", subject="Tea", notify_url="https://shop.test/hook")
ELSEWHERE = "transaction-of-another-order"
PAYMENTS_MAX = 4
DISPUTES = {"claim": DisputeKind.CLAIM, "reversal": DisputeKind.REVERSAL, "refund": DisputeKind.REFUND}
ASKED = {CaseReason.DOUBLE_PAYMENT, CaseReason.PAID_LATE, CaseReason.REFUND_FAILED}

indexes = st.integers(0, PAYMENTS_MAX - 1)
origins = st.sampled_from([Origin.OURS, Origin.OURS, Origin.WATCHED])
accounts = st.sampled_from(["alipay", "wechat", "paypal"])
transactions = st.sampled_from([*["own"] * 9, "shared", ELSEWHERE])
money: st.SearchStrategy[dict[str, Any]] = st.builds(
    dict, amount=st.sampled_from([*[100] * 19, 99]), currency=st.just("CNY")
)
statements = st.one_of(
    st.tuples(st.sampled_from([Paid]), money),
    st.builds(
        lambda fields, sum_, single: (Refunded, fields | {"refunded_amount": sum_, "refunds": single}),
        money,
        st.sampled_from([None, 30, 100]),
        st.sampled_from([{}, {"x": 30}, {"y": 70}]),
    ),
    st.tuples(st.just(Unpaid), st.builds(dict, under_way=st.booleans())),
    st.tuples(st.sampled_from([Approved, Closed, Missing]), st.just({})),
    st.tuples(st.just(Unclear), st.just({"reason": "timeout"})),
)
"""Kind of the evidence, and its fields."""
Statement = tuple[type, dict[str, Any]]
IsFree = Callable[[Payment, Evidence], bool]


class AnythingSaid(RuleBasedStateMachine):
    """Statements are drawn independently of earlier ones."""

    @initialize(
        late=st.sampled_from(LatePolicy),
        double=st.sampled_from(DoublePolicy),
        attempts_max=st.sampled_from([16, 2]),
        account=accounts,
        origin=origins,
    )
    def order_is_placed(
        self, late: LatePolicy, double: DoublePolicy, attempts_max: int, account: str, origin: Origin
    ) -> None:
        self.rules_ = Rules(backoff=Backoff(attempts_max=attempts_max), late_policy=late, double_policy=double)
        self.door = Door(NOW, frozenset((name, ELSEWHERE) for name in ("alipay", "wechat", "paypal")))
        self.numbers = 0
        first, until = self._terms(account, origin), NOW + timedelta(minutes=30)
        self._commit(
            lambda state, _: place(TERMS, first, state, self.rules_, now=NOW, expires_at=until, page_token="token")
        )

    # -- statements of the channels ---------------------------------------------------------------------------------

    @rule(
        index=indexes,
        statement=statements,
        transaction=transactions,
        scheduled=st.booleans(),
        others=st.lists(statements, min_size=PAYMENTS_MAX, max_size=PAYMENTS_MAX),
        is_new=st.booleans(),
    )
    def query_is_answered(
        self, index: int, statement: Statement, transaction: str, scheduled: bool, others: list[Statement], is_new: bool
    ) -> None:
        """A capture that is due is claimed after the order's other payments were asked."""
        key = self._key(index)
        evidence, row = self._evidence(key, statement, transaction), self.door.pending.get(key)
        arm_no = row.arm_no if row is not None and scheduled else None
        decision = self._query(key, evidence, arm_no=arm_no)
        if decision.query:
            queried = self._ask(decision.query, others, free=is_free_of_money)
            self._query(key, evidence, approval=Approval(queried=queried, is_new=is_new))

    @rule(index=indexes, statement=statements, transaction=transactions)
    def callback_arrives(self, index: int, statement: Statement, transaction: str) -> None:
        key, rules = self._key(index), self._rules(index)
        evidence = self._evidence(key, statement, transaction)
        self._commit(
            lambda state, claimed: on_callback(_existing(state), key, evidence, rules, Source.CALLBACK, claimed=claimed)
        )

    @rule(index=indexes, transaction=transactions)
    def callback_alone_says_paid(self, index: int, transaction: str) -> None:
        key, rules = self._key(index), self._rules(index)
        if key in self.door.pending:
            since = self.door.now - timedelta(seconds=rules.unanswered_s)
            self.door.pending[key] = replace(self.door.pending[key], unanswered_since=since)
        paid = self._evidence(key, (Paid, {"amount": 100, "currency": "CNY"}), transaction)
        message = Message(evidence=paid, received_at=self.door.now)
        self._commit(
            lambda state, claimed: on_unanswered(
                _existing(state), key, message, (), rules, Source.CALLBACK, claimed=claimed
            )
        )

    @rule(
        index=indexes,
        dispute_id=st.sampled_from(sorted(DISPUTES)),
        state=st.sampled_from([each for each in DisputeState if each is not DisputeState.CLOSED]),
        is_talk=st.booleans(),
        ago_s=st.sampled_from([0, 0, 0, 500]),
    )
    def dispute_is_told(self, index: int, dispute_id: str, state: DisputeState, is_talk: bool, ago_s: int) -> None:
        """A dispute that is won stays won."""
        key, kind = self._key(index), DISPUTES[dispute_id]
        known = self.door.disputes.get((dispute_id, *key))
        if known is not None and known.state is DisputeState.WON:
            return
        evidence = Disputed(
            **key._asdict(),
            dispute_id=dispute_id,
            dispute_kind=DisputeKind.INQUIRY if is_talk and kind is DisputeKind.CLAIM else kind,
            state=state,
            changed_at=self.door.now - timedelta(seconds=ago_s),
        )
        self._commit(lambda before, _: on_dispute(_existing(before), key, evidence, Source.CALLBACK))

    # -- what is done --------------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.door.payments) < PAYMENTS_MAX)
    @rule(
        account=accounts,
        origin=origins,
        answers=st.lists(statements, min_size=PAYMENTS_MAX, max_size=PAYMENTS_MAX),
    )
    def another_payment_is_started(self, account: str, origin: Origin, answers: list[Statement]) -> None:
        open_keys = tuple(payment.key for payment in self._state().open_payments())
        queried = self._ask(open_keys, answers, free=is_verified_unpaid)
        terms = self._terms(account, origin)
        start = partial(
            start_payment,
            terms=terms,
            rules=self._rules_of(account),
            unclear=tuple(key for key in open_keys if key not in queried),
            queried=queried,
        )
        self._commit(lambda state, _: start(_existing(state)))

    @rule(
        index=indexes,
        action=st.sampled_from(["refuses a capture", "closes", "accepts", "refunds", "refunds a part", "refreshes"]),
    )
    def somebody_acts(self, index: int, action: str) -> None:
        key, state = self._key(index), self._state()
        payment = state.payment(key)
        assert payment is not None
        decide = {
            "refuses a capture": partial(on_capture_refused, captured=payment, code="DECLINED", by=Source.QUERY),
            "closes": partial(on_close_attempted, key=key),
            "accepts": partial(on_late_accepted, by_name="anna"),
            "refunds": partial(on_refund_requested, request=RefundRequest(key=key, by="anna")),
            "refunds a part": partial(on_refund_requested, request=RefundRequest(key=key, by="anna", amount=30)),
            "refreshes": partial(on_refresh, rules=self.rules_),
        }[action]
        self._commit(lambda state, _: decide(_existing(state)))

    @precondition(lambda self: self.door.refunds)
    @rule(index=indexes, status=st.sampled_from([None, *RefundStatus]))
    def refund_is_answered(self, index: int, status: RefundStatus | None) -> None:
        refund_no = list(self.door.refunds)[index % len(self.door.refunds)]
        status = None if status is RefundStatus.REQUESTED else status
        decide = partial(on_refund, refund_no=refund_no, refund_status=status, rules=self.rules_)
        self._commit(lambda state, _: decide(_existing(state)))

    @rule(answers=st.lists(statements, min_size=PAYMENTS_MAX, max_size=PAYMENTS_MAX))
    def deadline_comes(self, answers: list[Statement]) -> None:
        row = self.door.pending.get(deadline_key(TERMS.order_no))
        keys = [payment.key for payment in self._state().open_payments()]
        evidence = {key: self._evidence(key, statement, "own") for key, statement in zip(keys, answers, strict=False)}
        arm_no = None if row is None else row.arm_no
        self._commit(lambda state, _: on_deadline(_existing(state), self.rules_, arm_no=arm_no, answers=evidence))

    @rule(seconds=st.sampled_from([1, 60, 600, 7200]))
    def time_passes(self, seconds: int) -> None:
        self.door.now += timedelta(seconds=seconds)

    # -- invariants ----------------------------------------------------------------------------------------------------

    @invariant()
    def money_that_pays_nothing_is_a_question(self) -> None:
        state = self._state()
        for payment in state.payments:
            has_money = payment.status is PaymentStatus.PAID and payment.remaining_amount
            if has_money and payment.key != state.order.paid_by and not _is_away(state, payment):
                assert self._reasons(payment) & ASKED

    @invariant()
    def money_that_is_away_is_a_case(self) -> None:
        state = self._state()
        for payment in state.payments:
            reasons = self._reasons(payment)
            if is_withheld(state.disputes, payment.key):
                assert CaseReason.DISPUTED in reasons
            assert payment.refunded_amount is None or CaseReason.REFUND_AMOUNT_UNKNOWN not in reasons
            if payment.refunded_amount is None:
                assert CaseReason.REFUND_AMOUNT_UNKNOWN in reasons
            elif outside_amount(state, payment):
                assert CaseReason.REFUNDED_OUTSIDE in reasons

    @invariant()
    def what_is_not_definite_is_asked_about(self) -> None:
        state = self._state()
        queries = {row.key for row in state.pending if row.kind is PendingKind.QUERY}
        assert {payment.key for payment in (*state.open_payments(), *state.unconfirmed_payments())} <= queries
        assert (state.pending_of(deadline_key(TERMS.order_no)) is None) == state.order.is_resolved

    # -- helpers -------------------------------------------------------------------------------------------------------

    def _commit(self, decide: Decide) -> Decision:
        before, notified = self.door.load(), len(self.door.notifications)
        decision = self.door.transition(decide)
        after = self._state()
        assert before is None or before.order.paid_by in (None, after.order.paid_by)
        for notification in self.door.notifications[notified:]:
            if notification.type == "order.paid":
                self._check_paid(after)
        for key in decision.capture:
            assert before is not None
            _check_capture(before, key)
        self._check_refunds(decision, after)
        return decision

    def _check_paid(self, after: OrderState) -> None:
        """Once, and of money that is there."""
        assert [each.type for each in self.door.notifications].count("order.paid") == 1
        assert after.order.paid_by is not None
        payment = after.payment(after.order.paid_by)
        assert payment is not None
        assert payment.remaining_amount
        assert not _is_away(after, payment)

    def _check_refunds(self, decision: Decision, after: OrderState) -> None:
        """Of money that is there: by itself of all that is left, and only where every payment is confirmed."""
        for refund in () if decision.change is None else decision.change.refunds:
            payment = after.payment(refund.key)
            assert payment is not None
            if refund.status is RefundStatus.REQUESTED:
                assert payment.unconfirmed_since is None
                assert promised_amount(after, refund.key) + outside_amount(after, payment) <= payment.amount
                assert not is_withheld(after.disputes, refund.key)
                if refund.reason is not RefundReason.OPERATOR:
                    assert refund.key != after.order.paid_by
                    assert refund.amount == payment.remaining_amount
                    assert not after.unconfirmed_payments()

    def _query(self, key: PaymentKey, evidence: Evidence, **more: Any) -> Decision:
        rules = self._rules_of(key.channel_account)
        return self._commit(
            lambda state, claimed: on_query(
                _existing(state), key, evidence, rules, Source.QUERY, claimed=claimed, **more
            )
        )

    def _ask(self, keys: tuple[PaymentKey, ...], answers: list[Statement], *, free: IsFree) -> Queried:
        """Query these payments without a capture. Returns those that the channel calls free of money."""
        queried = {}
        for key, statement in zip(keys, answers, strict=False):
            evidence = self._evidence(key, statement, "own")
            self._query(key, evidence, after_capture=True)
            if free(self.door.payments[key], evidence):
                queried[key] = self.door.payments[key].capture_requested_at
        return queried

    def _evidence(self, key: PaymentKey, statement: Statement, transaction: str) -> Evidence:
        kind, fields = statement
        if kind in (Paid, Refunded):
            number = f"transaction-{key.out_trade_no}" if transaction == "own" else transaction
            fields = fields | {"channel_transaction_id": number}
        evidence: Evidence = kind(**key._asdict(), **fields)
        return evidence

    def _terms(self, account: str, origin: Origin) -> PaymentTerms:
        self.numbers += 1
        return PaymentTerms(account=account, out_trade_no=f"{account}-{self.numbers:06}", origin=origin)

    def _state(self) -> OrderState:
        return _existing(self.door.load())

    def _key(self, index: int) -> PaymentKey:
        keys = list(self.door.payments)
        return keys[index % len(keys)]

    def _rules(self, index: int) -> Rules:
        return self._rules_of(self._key(index).channel_account)

    def _rules_of(self, account: str) -> Rules:
        return replace(self.rules_, checkouts=CheckoutRules(needs_capture=account == "paypal"))

    def _reasons(self, payment: Payment) -> set[CaseReason]:
        return {reason for key, reason in self.door.cases if key == payment.key}


def _is_away(state: OrderState, payment: Payment) -> bool:
    return is_withheld(state.disputes, payment.key) or refundable_amount(state, payment) == 0


def _check_capture(before: OrderState, key: PaymentKey) -> None:
    """Nothing is captured after it was given up, nor for an order that is over."""
    payment = before.payment(key)
    assert payment is not None
    assert (payment.status, payment.origin, payment.given_up_at) == (PaymentStatus.OPEN, Origin.OURS, None)
    assert not before.order.is_resolved
    assert before.now < before.order.expires_at


def _existing(state: OrderState | None) -> OrderState:
    assert state is not None
    return state


AnythingSaid.TestCase.settings = settings(
    max_examples=settings().max_examples, stateful_step_count=40, report_multiple_bugs=False
)
TestAnythingSaid = AnythingSaid.TestCase
