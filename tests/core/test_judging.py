"""Evidence and what it means: the tables behind "only evidence moves a payment" and "paid wins"."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from core.decision import Decision, Outcome
from core.evidence import Evidence, Source
from core.lifecycle import (
    LatePolicy,
    Rules,
    is_definitely_unpaid,
    mismatch,
    on_callback,
    on_late_accepted,
    on_query,
    on_refresh,
)
from core.order import CaseReason, Order, OrderState, OrderStatus, Origin, Payment, PaymentKey, PaymentStatus
from tests.core.states import (
    ALIPAY,
    DEADLINE,
    EVERY_KIND,
    EXPIRES_AT,
    MARGIN,
    NOW,
    RULES,
    WECHAT,
    WITH_MONEY,
    WITHOUT_MONEY,
    a_payment,
    a_row,
    a_state,
    an_order,
    closed,
    closed_order,
    missing,
    paid,
    paid_order,
    paid_payment,
    refunded,
    unclear,
    unpaid,
)

FLAG = Rules(late_policy=LatePolicy.FLAG)
LATER = EXPIRES_AT + MARGIN
"""The channel can no longer take money for a payment, and has had the time to report it."""

SCHEDULED = a_row(ALIPAY).arm_no

MakeEvidence = Callable[..., Evidence]


def told(state: OrderState, evidence: Evidence, rules: Rules = RULES) -> Decision:
    """By a callback."""
    return on_callback(state, ALIPAY, evidence, rules, Source.CALLBACK)


def asked(state: OrderState, evidence: Evidence, rules: Rules = RULES, arm_no: int | None = None) -> Decision:
    """By a query, which is a scheduled one when it brings the arm number."""
    return on_query(state, ALIPAY, evidence, rules, Source.QUERY, arm_no=arm_no)


def case_reasons(decision: Decision) -> list[CaseReason]:
    return [] if decision.change is None else [case.reason for case in decision.change.cases]


def order_after(decision: Decision) -> Order:
    assert decision.change is not None
    return decision.change.order


def payment_after(decision: Decision) -> Payment:
    assert decision.change is not None
    [payment] = decision.change.payments
    return payment


def notified(decision: Decision) -> str | None:
    if decision.change is None or decision.change.notification is None:
        return None
    return decision.change.notification.type


# -- amount, currency, account and number are compared on every kind of evidence ---------------------------------------

DIFFERENCES = [
    ({"channel_account": "other:2088"}, CaseReason.ACCOUNT_MISMATCH),
    ({"channel_account": "wechat"}, CaseReason.ACCOUNT_MISMATCH),
    ({"out_trade_no": "alipay-000009"}, CaseReason.NUMBER_MISMATCH),
    ({"currency": "USD"}, CaseReason.CURRENCY_MISMATCH),
    ({"currency": "cny"}, CaseReason.CURRENCY_MISMATCH),
    ({"amount": 8887}, CaseReason.AMOUNT_MISMATCH),
    ({"amount": 8889}, CaseReason.AMOUNT_MISMATCH),
    ({"amount": 0}, CaseReason.AMOUNT_MISMATCH),
    ({"amount": -8888}, CaseReason.AMOUNT_MISMATCH),
    ({"amount": 1, "currency": "USD", "channel_account": "x", "out_trade_no": "x"}, CaseReason.ACCOUNT_MISMATCH),
]


@pytest.mark.parametrize(("differs", "reason"), DIFFERENCES)
@pytest.mark.parametrize("kind", EVERY_KIND)
@pytest.mark.parametrize("by", [told, asked])
def test_every_kind_of_evidence_is_compared(
    kind: MakeEvidence, differs: dict[str, Any], reason: CaseReason, by: Callable[..., Decision]
) -> None:
    """On the callback and on the query alike: a difference opens a case, and moves neither order nor payment."""
    evidence = kind(**differs)
    assert mismatch(a_payment(), evidence) is not None
    decision = by(a_state(an_order(), a_payment(), now=LATER), evidence)
    assert (decision.outcome, case_reasons(decision)) == (Outcome.MISMATCH, [reason])
    assert decision.change is not None
    assert (decision.change.payments, decision.change.resolved) == ((), ())
    assert (order_after(decision).status, notified(decision)) == (OrderStatus.PAYING, None)


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_evidence_of_this_very_payment_is_no_mismatch(kind: MakeEvidence) -> None:
    assert mismatch(a_payment(), kind()) is None
    assert mismatch(a_payment(), kind(amount=8888, currency="CNY")) is None


@pytest.mark.parametrize("payment", [paid_payment(), a_payment(status=PaymentStatus.CLOSED)])
def test_a_mismatch_is_a_case_also_when_the_payment_is_over(payment: Payment) -> None:
    for order in (paid_order(), closed_order()):
        decision = told(a_state(order, payment), paid(amount=1))
        assert (order_after(decision).status, case_reasons(decision)) == (order.status, [CaseReason.AMOUNT_MISMATCH])


@pytest.mark.parametrize(("differs", "reason"), DIFFERENCES)
def test_a_mismatch_told_again_opens_no_second_case(differs: dict[str, Any], reason: CaseReason) -> None:
    state = a_state(an_order(), a_payment(), cases=frozenset({(ALIPAY, reason)}))
    decision = told(state, paid(**differs))
    assert (decision.outcome, decision.change) == (Outcome.MISMATCH, None)
    assert decision.observation is not None
    assert reason in decision.observation.note


def test_a_scheduled_query_with_a_mismatch_asks_again() -> None:
    decision = asked(a_state(an_order(), a_payment()), paid(amount=1), arm_no=SCHEDULED)
    assert decision.outcome is Outcome.MISMATCH
    assert [arm.attempt for arm in decision.rearm] == [3]


# -- when a payment has no money and never will ------------------------------------------------------------------------

JUST_BEFORE = LATER - timedelta(microseconds=1)
CLOSE_ASKED: dict[str, Any] = {"close_attempted_at": NOW}
REFUSED: dict[str, Any] = {"refused_at": NOW}
WATCHED: dict[str, Any] = {"origin": Origin.WATCHED}


@pytest.mark.parametrize(
    ("evidence", "payment", "now", "definite"),
    [
        (closed(), a_payment(), NOW, True),
        # The channel knows no such payment: perhaps not yet.
        (missing(), a_payment(), NOW, False),
        (missing(), a_payment(), LATER, False),
        (missing(), a_payment(**CLOSE_ASKED), NOW, False),
        (missing(), a_payment(**CLOSE_ASKED), EXPIRES_AT, False),
        (missing(), a_payment(**CLOSE_ASKED), JUST_BEFORE, False),
        (missing(), a_payment(**CLOSE_ASKED), LATER, True),
        (missing(), a_payment(**REFUSED), NOW, True),
        (missing(), a_payment(**WATCHED), JUST_BEFORE, False),
        (missing(), a_payment(**WATCHED), LATER, True),
        # It knows it, and has no money yet. That it refused to create it says nothing then.
        (unpaid(), a_payment(), NOW, False),
        (unpaid(), a_payment(), LATER, False),
        (unpaid(), a_payment(**CLOSE_ASKED), NOW, False),
        (unpaid(), a_payment(**CLOSE_ASKED), JUST_BEFORE, False),
        (unpaid(), a_payment(**CLOSE_ASKED), LATER, True),
        (unpaid(), a_payment(**REFUSED), NOW, False),
        (unpaid(), a_payment(**REFUSED), LATER, False),
        (unpaid(), a_payment(**WATCHED), JUST_BEFORE, False),
        (unpaid(), a_payment(**WATCHED), LATER, True),
        # Not knowing is never failure, money is never no money, and money under way may come whenever it likes.
        *(
            (evidence, a_payment(**CLOSE_ASKED, **REFUSED), LATER + timedelta(days=400), False)
            for evidence in (unclear(), paid(), refunded(), unpaid(under_way=True))
        ),
        (unpaid(under_way=True), a_payment(**WATCHED), LATER + timedelta(days=400), False),
    ],
)
def test_what_is_definitely_unpaid(evidence: Evidence, payment: Payment, now: datetime, definite: bool) -> None:
    assert is_definitely_unpaid(payment, evidence, RULES, now) is definite


@pytest.mark.parametrize("year", [1, 9999])
def test_a_watched_payment_may_be_payable_until_any_day_of_the_calendar(year: int) -> None:
    payment = a_payment(**WATCHED, payable_until=datetime(year, 12, 31, 23, 59, tzinfo=UTC))
    assert is_definitely_unpaid(payment, unpaid(), RULES, NOW) is (year == 1)


@pytest.mark.parametrize("evidence", WITHOUT_MONEY)
def test_an_end_without_money_ends_the_payment_and_not_the_order(evidence: Evidence) -> None:
    """The user may still pay another way: the order lives on until its deadline."""
    decision = asked(a_state(an_order(), a_payment(**CLOSE_ASKED), now=LATER), evidence, arm_no=SCHEDULED)
    assert decision.outcome is Outcome.PAYMENT_CLOSED
    assert payment_after(decision).status is PaymentStatus.CLOSED
    assert order_after(decision) == an_order(version=4)
    assert decision.change is not None
    assert decision.change.resolved == (ALIPAY,)
    assert decision.rearm == ()
    assert notified(decision) is None


def test_a_payment_whose_money_is_under_way_is_asked_about_again_long_after_its_time() -> None:
    """A bank's transfer takes days. Closed meanwhile, its money would be late, and the order lost to the buyer."""
    state = a_state(an_order(), a_payment(**CLOSE_ASKED), now=LATER + timedelta(days=5))
    decision = asked(state, unpaid(under_way=True), arm_no=SCHEDULED)
    assert decision.outcome is Outcome.STILL_OPEN
    assert decision.change is None
    assert len(decision.rearm) == 1
    assert asked(state, unpaid(), arm_no=SCHEDULED).outcome is Outcome.PAYMENT_CLOSED


@pytest.mark.parametrize("evidence", [unpaid(), missing()])
def test_a_callback_without_money_ends_nothing(evidence: Evidence) -> None:
    """It may have lain in the inbox for a day, and what it told was true when it was sent. Only an answer is of now."""
    decision = told(a_state(an_order(), a_payment(**CLOSE_ASKED, **REFUSED), now=LATER), evidence)
    assert (decision.outcome, decision.change) == (Outcome.STILL_OPEN, None)
    assert decision.observation is not None


def test_a_callback_that_says_closed_ends_the_payment() -> None:
    assert told(a_state(an_order(), a_payment()), closed()).outcome is Outcome.PAYMENT_CLOSED


@pytest.mark.parametrize("evidence", WITHOUT_MONEY)
@pytest.mark.parametrize("payment", [paid_payment(), a_payment(status=PaymentStatus.CLOSED)])
@pytest.mark.parametrize("order", [paid_order(), closed_order()])
def test_nothing_comes_after_an_end_but_money(evidence: Evidence, payment: Payment, order: Order) -> None:
    for decision in (told(a_state(order, payment, now=LATER), evidence), asked(a_state(order, payment), evidence)):
        assert (decision.outcome, decision.change) == (Outcome.NOTHING_NEW, None)


# -- money -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", WITH_MONEY)
@pytest.mark.parametrize("by", [told, asked])
@pytest.mark.parametrize("payment_status", [PaymentStatus.OPEN, PaymentStatus.CLOSED])
@pytest.mark.parametrize("order_status", [OrderStatus.CREATED, OrderStatus.PAYING])
def test_money_for_an_open_order_pays_it(
    kind: MakeEvidence, by: Callable[..., Decision], payment_status: PaymentStatus, order_status: OrderStatus
) -> None:
    """Also when the payment counts as closed: paid wins."""
    at = NOW - timedelta(seconds=20)
    state = a_state(an_order(status=order_status), a_payment(status=payment_status))
    decision = by(state, kind(at=at))
    order, payment = order_after(decision), payment_after(decision)
    assert decision.outcome is Outcome.PAID
    assert (order.status, order.paid_by, order.paid_at, order.version) == (OrderStatus.PAID, ALIPAY, at, 4)
    assert (payment.status, payment.channel_transaction_id, payment.paid_at) == (PaymentStatus.PAID, "t-1", at)
    assert notified(decision) == "order.paid"


def test_a_paid_order_leaves_nothing_pending_for_it_and_its_payment() -> None:
    decision = told(a_state(an_order(), a_payment(), a_payment(WECHAT, attempt_no=2)), paid())
    assert decision.change is not None
    assert set(decision.change.resolved) == {ALIPAY, DEADLINE}


def test_when_a_channel_does_not_say_when_it_is_paid_now() -> None:
    decision = told(a_state(an_order(handed_off_at=None), a_payment()), paid())
    assert order_after(decision).paid_at == order_after(decision).handed_off_at == NOW


def test_other_payments_of_a_paid_order_are_due_at_once() -> None:
    """Their query finds them left over, closes them at their channel and watches them until they are definite."""
    decision = told(a_state(an_order(), a_payment(), a_payment(WECHAT, attempt_no=2)), paid())
    [arm] = decision.rearm
    assert (arm.key, arm.delay_s, arm.attempt, arm.expected_arm_no) == (WECHAT, 0.0, 2, 7)


@pytest.mark.parametrize("evidence", [unpaid(), missing()])
@pytest.mark.parametrize("arm_no", [None, SCHEDULED])
def test_a_left_over_payment_is_closed_at_its_channel(evidence: Evidence, arm_no: int | None) -> None:
    state = a_state(paid_order(WECHAT), a_payment(), paid_payment(WECHAT, attempt_no=2))
    decision = asked(state, evidence, arm_no=arm_no)
    assert (decision.outcome, decision.close) == (Outcome.STILL_OPEN, (ALIPAY,))
    assert bool(decision.rearm) is (arm_no is not None)


@pytest.mark.parametrize(
    ("order", "payment", "evidence"),
    [
        (an_order(), a_payment(), unpaid()),  # the user may still pay with it
        (paid_order(WECHAT), a_payment(**CLOSE_ASKED), unpaid()),  # asked already
        (paid_order(WECHAT), a_payment(**WATCHED), unpaid()),  # not ours to close
        (paid_order(WECHAT), a_payment(), unclear()),  # may have the money
        (paid_order(WECHAT), a_payment(), paid()),
        (paid_order(WECHAT), a_payment(), unpaid(amount=1)),
    ],
)
def test_what_is_not_left_over_is_not_closed(order: Order, payment: Payment, evidence: Evidence) -> None:
    state = a_state(order, payment, paid_payment(WECHAT, attempt_no=2, channel_transaction_id="t-2"))
    assert asked(state, evidence, arm_no=SCHEDULED).close == ()


@pytest.mark.parametrize("kind", WITH_MONEY)
def test_money_for_a_closed_order_pays_it_and_is_a_case(kind: MakeEvidence) -> None:
    decision = told(a_state(closed_order(), a_payment(status=PaymentStatus.CLOSED)), kind())
    order = order_after(decision)
    assert decision.outcome is Outcome.PAID_LATE
    assert (order.status, order.paid_by, order.closed_at) == (OrderStatus.PAID, ALIPAY, NOW)
    assert CaseReason.PAID_LATE in case_reasons(decision)
    assert notified(decision) == "order.paid"
    assert decision.change is not None
    assert decision.change.notification is not None
    assert b'"late":true' in decision.change.notification.body


@pytest.mark.parametrize("kind", WITH_MONEY)
def test_late_money_that_is_flagged_leaves_the_order_closed_and_says_so(kind: MakeEvidence) -> None:
    decision = told(a_state(closed_order(), a_payment(status=PaymentStatus.CLOSED)), kind(), FLAG)
    assert (decision.outcome, order_after(decision).status) == (Outcome.PAID_LATE, OrderStatus.CLOSED)
    assert payment_after(decision).status is PaymentStatus.PAID
    assert CaseReason.PAID_LATE in case_reasons(decision)
    assert notified(decision) == "order.paid_late"


@pytest.mark.parametrize("payment_status", [PaymentStatus.OPEN, PaymentStatus.CLOSED])
@pytest.mark.parametrize("rules", [RULES, FLAG])
def test_a_second_payment_is_a_case_and_pays_nothing_twice(payment_status: PaymentStatus, rules: Rules) -> None:
    second = paid_payment(WECHAT, attempt_no=2, channel_transaction_id="t-2")
    state = a_state(paid_order(WECHAT), a_payment(status=payment_status), second)
    decision = told(state, paid(), rules)
    order = order_after(decision)
    assert decision.outcome is Outcome.DOUBLE_PAYMENT
    assert (order.paid_by, order.version) == (WECHAT, 4)
    assert payment_after(decision).status is PaymentStatus.PAID
    assert case_reasons(decision) == [CaseReason.DOUBLE_PAYMENT]
    assert notified(decision) == "order.double_payment"
    assert decision.change is not None
    assert decision.change.resolved == (ALIPAY,)


@pytest.mark.parametrize("order", [paid_order(), closed_order()])
def test_the_same_money_told_again_is_nothing_new(order: Order) -> None:
    decision = told(a_state(order, paid_payment()), paid())
    assert (decision.outcome, decision.change) == (Outcome.NOTHING_NEW, None)
    assert decision.observation is not None
    assert decision.observation.kind == "paid_seen"


@pytest.mark.parametrize("kind", WITH_MONEY)
def test_other_money_under_the_same_number_is_a_case(kind: MakeEvidence) -> None:
    decision = told(a_state(paid_order(), paid_payment()), kind(channel_transaction_id="t-9"))
    assert (decision.outcome, case_reasons(decision)) == (Outcome.NUMBER_REUSED, [CaseReason.NUMBER_REUSED])
    assert decision.change is not None
    assert decision.change.payments == ()


def test_a_refund_never_unpays_an_order() -> None:
    decision = told(a_state(paid_order(), paid_payment()), refunded(refunded_amount=8888))
    payment = payment_after(decision)
    assert (payment.status, payment.refunded_amount) == (PaymentStatus.PAID, 8888)
    assert order_after(decision).status is OrderStatus.PAID
    assert case_reasons(decision) == [CaseReason.REFUNDED_OUTSIDE]
    assert notified(decision) is None


def test_money_that_was_given_back_before_we_heard_of_it_pays_and_is_a_case() -> None:
    """It *was* paid: the merchant hears both, and a person decides."""
    decision = told(a_state(an_order(), a_payment()), refunded(refunded_amount=8888))
    assert (decision.outcome, payment_after(decision).refunded_amount) == (Outcome.PAID, 8888)
    assert case_reasons(decision) == [CaseReason.REFUNDED_OUTSIDE]


def test_money_of_which_an_untold_part_was_given_back_before_we_heard_of_it_is_a_case_too() -> None:
    """WeChat Pay says that something went back and not how much: goods must not leave for it unseen."""
    decision = told(a_state(an_order(), a_payment()), refunded(refunded_amount=0))
    assert (decision.outcome, payment_after(decision).refunded_amount) == (Outcome.PAID, 0)
    assert case_reasons(decision) == [CaseReason.REFUNDED_OUTSIDE]
    assert decision.change is not None
    assert decision.change.cases[0].detail == "of 8888 CNY something was refunded at the channel"


@pytest.mark.parametrize("amount", [0, 50, 100])
def test_a_refund_that_is_known_is_nothing_new(amount: int) -> None:
    state = a_state(paid_order(), paid_payment(refunded_amount=100))
    assert told(state, refunded(refunded_amount=amount)).change is None


def test_a_further_refund_is_kept_without_a_second_case() -> None:
    cases = frozenset({(ALIPAY, CaseReason.REFUNDED_OUTSIDE)})
    state = a_state(paid_order(), paid_payment(refunded_amount=100), cases=cases)
    decision = told(state, refunded(refunded_amount=300))
    assert (payment_after(decision).refunded_amount, case_reasons(decision)) == (300, [])


@pytest.mark.parametrize("kind", WITH_MONEY)
@pytest.mark.parametrize("arm_no", [None, SCHEDULED])
def test_money_that_another_payment_has_claimed_is_a_case(kind: MakeEvidence, arm_no: int | None) -> None:
    state = a_state(an_order(), a_payment())
    decision = on_query(state, ALIPAY, kind(), RULES, Source.QUERY, arm_no=arm_no, claimed=True)
    assert (decision.outcome, case_reasons(decision)) == (Outcome.MISMATCH, [CaseReason.TRANSACTION_CLAIMED_TWICE])
    assert order_after(decision).status is OrderStatus.PAYING
    assert decision.change is not None
    assert decision.change.payments == ()


@pytest.mark.parametrize("payment", [a_payment(status=PaymentStatus.CLOSED), a_payment()])
def test_nobody_makes_an_order_paid_whose_channel_has_confirmed_nothing(payment: Payment) -> None:
    assert on_late_accepted(a_state(closed_order(), payment), "anna") == Decision(outcome=Outcome.NOT_ACCEPTABLE)


def test_late_money_that_an_operator_accepts_pays_the_order() -> None:
    ended = a_payment(WECHAT, attempt_no=2, status=PaymentStatus.CLOSED)
    decision = on_late_accepted(a_state(closed_order(), ended, paid_payment()), "anna")
    order = order_after(decision)
    assert (decision.outcome, order.status, order.paid_by) == (Outcome.PAID_LATE, OrderStatus.PAID, ALIPAY)
    assert (case_reasons(decision), notified(decision)) == ([], "order.paid")
    assert decision.change is not None
    assert (decision.change.event.by, decision.change.event.note) == (Source.OPERATOR, "by anna")


def test_of_two_late_payments_an_operator_accepts_one_and_the_other_came_twice() -> None:
    second = paid_payment(WECHAT, attempt_no=2, channel_transaction_id="t-2")
    decision = on_late_accepted(a_state(closed_order(), paid_payment(), second), "anna")
    assert decision.change is not None
    [case] = decision.change.cases
    assert (case.reason, case.key) == (CaseReason.DOUBLE_PAYMENT, WECHAT)


def test_a_paid_order_is_not_accepted_again() -> None:
    decision = on_late_accepted(a_state(paid_order(), paid_payment()), "anna")
    assert decision == Decision(outcome=Outcome.ALREADY_PAID)


# -- not knowing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "state",
    [
        a_state(an_order(), a_payment(), now=LATER + timedelta(days=30)),
        a_state(paid_order(), paid_payment()),
        a_state(closed_order(), a_payment(status=PaymentStatus.CLOSED)),
    ],
)
def test_unclear_changes_nothing(state: OrderState) -> None:
    """Time-outs, 5xx, silence, unsigned errors: they are seen, and only the next query time changes."""
    for decision in (told(state, unclear()), asked(state, unclear())):
        assert (decision.outcome, decision.change, decision.rearm) == (Outcome.UNCLEAR, None, ())
        assert decision.observation is not None
        assert (decision.observation.kind, decision.observation.note) == ("unclear_seen", "timeout")


@pytest.mark.parametrize("evidence", [unpaid(), missing(), unclear()])
def test_a_scheduled_query_that_learns_nothing_is_due_again_after_n_squared_minutes(evidence: Evidence) -> None:
    decision = asked(a_state(an_order(), a_payment()), evidence, arm_no=SCHEDULED)
    [arm] = decision.rearm
    assert (arm.key, arm.attempt, arm.delay_s, arm.expected_arm_no) == (ALIPAY, 3, 540.0, SCHEDULED)
    assert decision.change is None


@pytest.mark.parametrize("evidence", [unpaid(), missing(), unclear(), paid(amount=1)])
@pytest.mark.parametrize("arm_no", [None, 6, 8])
def test_only_the_scheduled_query_advances_the_attempt(evidence: Evidence, arm_no: int | None) -> None:
    """Not a refresh or a callback's query, which bring no arm number, and not the job of another scheduling."""
    assert asked(a_state(an_order(), a_payment()), evidence, arm_no=arm_no).rearm == ()


@pytest.mark.parametrize("evidence", [unpaid(), missing(), unclear()])
@pytest.mark.parametrize("attempt", [16, 17, 100])
def test_used_up_attempts_open_a_case_and_never_close(evidence: Evidence, attempt: int) -> None:
    """Giving up is not evidence: the row stays and is due once a day."""
    state = at_attempt(attempt)
    decision = asked(state, evidence, arm_no=SCHEDULED)
    [arm] = decision.rearm
    assert (arm.attempt, arm.delay_s) == (attempt + 1, 86_400.0)
    assert (decision.outcome, case_reasons(decision)) == (Outcome.EXHAUSTED, [CaseReason.ATTEMPTS_EXHAUSTED])
    assert decision.change is not None
    assert decision.change.order == an_order(version=4)
    assert (decision.change.payments, decision.change.resolved) == ((), ())


def test_the_fifteenth_attempt_opens_no_case() -> None:
    decision = asked(at_attempt(15), unclear(), arm_no=SCHEDULED)
    assert (decision.change, decision.rearm[0].attempt) == (None, 16)


def test_used_up_attempts_open_one_case_in_all() -> None:
    state = at_attempt(20, cases=frozenset({(ALIPAY, CaseReason.ATTEMPTS_EXHAUSTED)}))
    decision = asked(state, unclear(), arm_no=SCHEDULED)
    assert (decision.outcome, decision.change) == (Outcome.UNCLEAR, None)
    assert decision.rearm[0].attempt == 21


def test_a_mismatch_at_the_last_attempt_opens_both_cases() -> None:
    decision = asked(at_attempt(16), paid(amount=1), arm_no=SCHEDULED)
    assert case_reasons(decision) == [CaseReason.AMOUNT_MISMATCH, CaseReason.ATTEMPTS_EXHAUSTED]
    assert decision.outcome is Outcome.MISMATCH


@pytest.mark.parametrize("kind", WITH_MONEY)
def test_money_at_the_last_attempt_and_after_it_pays(kind: MakeEvidence) -> None:
    decision = asked(at_attempt(40), kind(), arm_no=SCHEDULED)
    assert (decision.outcome, decision.rearm) == (Outcome.PAID, ())


def at_attempt(attempt: int, cases: frozenset[tuple[PaymentKey | None, CaseReason]] = frozenset()) -> OrderState:
    row = a_row(ALIPAY, attempt=attempt)
    return OrderState(order=an_order(), now=NOW, payments=(a_payment(),), pending=(row,), open_cases=cases)


# -- nobody's payment, and a look --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_evidence_of_a_payment_that_is_not_this_orders_changes_nothing(kind: MakeEvidence) -> None:
    state = a_state(an_order(), a_payment())
    decision = on_query(state, WECHAT, kind(WECHAT), RULES, Source.QUERY, arm_no=SCHEDULED)
    assert decision == Decision(outcome=Outcome.UNKNOWN_PAYMENT)


def test_a_refresh_asks_about_what_is_open() -> None:
    state = a_state(an_order(), a_payment(), a_payment(WECHAT, attempt_no=2, status=PaymentStatus.CLOSED))
    assert on_refresh(state) == Decision(outcome=Outcome.STILL_OPEN, query=(ALIPAY,))


@pytest.mark.parametrize("order", [paid_order(), closed_order(), an_order(status=OrderStatus.CREATED)])
def test_a_refresh_of_what_is_definite_asks_nobody(order: Order) -> None:
    assert on_refresh(a_state(order, paid_payment())) == Decision(outcome=Outcome.NOTHING_NEW)
