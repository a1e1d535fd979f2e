from datetime import timedelta

import pytest
from msgspec.structs import replace

from core.decision import Decision, Outcome
from core.evidence import Approved, Evidence, Source
from core.lifecycle import on_close_attempted, on_close_requested, on_deadline
from core.order import CaseReason, Order, OrderState, OrderStatus, Origin, Payment, PaymentStatus
from tests.core.states import (
    ALIPAY,
    DEADLINE,
    EXPIRES_AT,
    NOW,
    RULES,
    WECHAT,
    a_payment,
    a_row,
    a_state,
    an_order,
    closed_order,
    missing,
    paid_order,
    paid_payment,
    unclear,
    unpaid,
)

SCHEDULED = a_row(DEADLINE).arm_no
OPEN_PAYMENT = a_payment()
CLOSED_PAYMENT = a_payment(WECHAT, attempt_no=2, status=PaymentStatus.CLOSED)


def approved() -> Approved:
    return Approved(channel_account=ALIPAY.channel_account, out_trade_no=ALIPAY.out_trade_no)


def expired_state(*payments: Payment, status: OrderStatus = OrderStatus.PAYING) -> OrderState:
    """State of an order at its deadline."""
    return a_state(an_order(status=status), *payments, now=EXPIRES_AT)


# -- the deadline ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("payments", [(), (CLOSED_PAYMENT,), (CLOSED_PAYMENT, a_payment(status=PaymentStatus.CLOSED))])
@pytest.mark.parametrize("status", [OrderStatus.CREATED, OrderStatus.PAYING])
def test_an_order_closes_once_every_payment_is_definite(payments: tuple[Payment, ...], status: OrderStatus) -> None:
    decision = on_deadline(expired_state(*payments, status=status), RULES, arm_no=SCHEDULED)
    change = decision.change
    assert change is not None
    assert decision.outcome is Outcome.CLOSED
    assert (change.order.status, change.order.closed_at, change.order.version) == (OrderStatus.CLOSED, EXPIRES_AT, 4)
    assert change.resolved == (DEADLINE,)
    assert change.notification is not None
    assert change.notification.type == "order.closed"
    assert decision.rearm == ()


@pytest.mark.parametrize("arm_no", [None, SCHEDULED])
def test_an_order_with_an_open_payment_stays_open(arm_no: int | None) -> None:
    """Time is not evidence: query, close at the channel, query with_case."""
    decision = on_deadline(expired_state(OPEN_PAYMENT, CLOSED_PAYMENT), RULES, arm_no=arm_no)
    assert (decision.outcome, decision.change) == (Outcome.NOT_YET, None)
    assert (decision.query, decision.close) == ((ALIPAY,), (ALIPAY,))
    assert bool(decision.rearm) is (arm_no is not None)


def test_a_watched_payment_is_queried_and_never_closed() -> None:
    decision = on_deadline(expired_state(a_payment(origin=Origin.WATCHED)), RULES)
    assert (decision.query, decision.close) == ((ALIPAY,), ())


@pytest.mark.parametrize("answer", [unpaid(), missing(), approved()])
def test_an_order_closes_while_its_watched_payment_is_asked_on(answer: Evidence) -> None:
    """The payment was made elsewhere, and takes money as long as its channel says."""
    watched = a_payment(origin=Origin.WATCHED, payable_until=EXPIRES_AT + timedelta(days=7))
    decision = on_deadline(expired_state(watched, CLOSED_PAYMENT), RULES, arm_no=SCHEDULED, answers={ALIPAY: answer})
    change = decision.change
    assert change is not None
    assert (decision.outcome, change.order.status) == (Outcome.CLOSED, OrderStatus.CLOSED)
    assert (change.payments, change.resolved) == ((), (DEADLINE,))


@pytest.mark.parametrize("answer", [unclear(), unpaid(under_way=True), unpaid(amount=1), None])
def test_an_order_stays_open_while_its_watched_payment_may_have_money(answer: Evidence | None) -> None:
    answers = {} if answer is None else {ALIPAY: answer}
    decision = on_deadline(expired_state(a_payment(origin=Origin.WATCHED)), RULES, arm_no=SCHEDULED, answers=answers)
    assert (decision.outcome, decision.change, len(decision.rearm)) == (Outcome.NOT_YET, None, 1)


def test_a_watched_payment_does_not_close_an_order_with_an_open_payment_of_ours() -> None:
    state = expired_state(a_payment(origin=Origin.WATCHED), a_payment(WECHAT, attempt_no=2))
    answers = {ALIPAY: unpaid(), WECHAT: unpaid(WECHAT)}
    assert on_deadline(state, RULES, arm_no=SCHEDULED, answers=answers).change is None


def test_money_under_way_at_a_deadline_opens_no_case() -> None:
    """A bank transfer takes days, and its channel says so."""
    state = replace(expired_state(OPEN_PAYMENT), pending=(a_row(ALIPAY), a_row(DEADLINE, attempt=16)))
    decision = on_deadline(state, RULES, arm_no=SCHEDULED, answers={ALIPAY: unpaid(under_way=True)})
    assert (decision.change, decision.rearm[0].delay_s) == (None, 256 * 60.0)


def test_an_indefinite_deadline_is_retried_after_n_squared_minutes() -> None:
    [arm] = on_deadline(expired_state(OPEN_PAYMENT), RULES, arm_no=SCHEDULED).rearm
    assert (arm.key, arm.attempt, arm.delay_s, arm.expected_arm_no) == (DEADLINE, 2, 240.0, SCHEDULED)


def test_a_deadline_job_with_an_old_arm_number_schedules_nothing() -> None:
    assert on_deadline(expired_state(OPEN_PAYMENT), RULES, arm_no=SCHEDULED - 1).rearm == ()


def test_used_up_attempts_at_a_deadline_open_a_case_and_close_nothing() -> None:
    state = replace(expired_state(OPEN_PAYMENT), pending=(a_row(ALIPAY), a_row(DEADLINE, attempt=16)))
    decision = on_deadline(state, RULES, arm_no=SCHEDULED)
    change = decision.change
    assert change is not None
    assert decision.outcome is Outcome.EXHAUSTED
    assert [(case.reason, case.key) for case in change.cases] == [(CaseReason.ATTEMPTS_EXHAUSTED, None)]
    assert change.order.status is OrderStatus.PAYING
    assert change.resolved == ()
    assert decision.rearm[0].delay_s == 86_400.0
    with_case = replace(state, open_cases=frozenset({(None, CaseReason.ATTEMPTS_EXHAUSTED)}))
    assert on_deadline(with_case, RULES, arm_no=SCHEDULED).change is None


@pytest.mark.parametrize("payments", [(), (OPEN_PAYMENT,), (CLOSED_PAYMENT,)])
def test_an_order_is_not_closed_before_its_deadline(payments: tuple[Payment, ...]) -> None:
    """The job may run early, because Redis has another clock."""
    state = a_state(an_order(), *payments, now=EXPIRES_AT - timedelta(microseconds=1))
    assert on_deadline(state, RULES, arm_no=SCHEDULED) == Decision(outcome=Outcome.NOT_YET)


@pytest.mark.parametrize("order", [paid_order(), closed_order()])
def test_the_deadline_of_a_resolved_order_is_dropped(order: Order) -> None:
    state = replace(a_state(order, paid_payment(), now=EXPIRES_AT), pending=(a_row(DEADLINE),))
    assert on_deadline(state, RULES, arm_no=SCHEDULED) == Decision(outcome=Outcome.NOTHING_NEW, drop=(DEADLINE,))
    assert on_deadline(replace(state, pending=()), RULES) == Decision(outcome=Outcome.NOTHING_NEW)


# -- a close request of the merchant -----------------------------------------------------------------------------------


def test_a_close_request_moves_the_deadline_to_now_and_closes_nothing_itself() -> None:
    decision = on_close_requested(a_state(an_order(), OPEN_PAYMENT))
    change = decision.change
    assert change is not None
    assert decision.outcome is Outcome.CLOSE_REQUESTED
    assert change.order == an_order(version=4, expires_at=NOW)
    assert (change.event.by, change.notification, change.resolved) == (Source.API, None, ())
    [arm] = decision.rearm
    assert (arm.key, arm.delay_s, arm.attempt, arm.expected_arm_no) == (DEADLINE, 0.0, 1, 7)


def test_a_close_request_after_the_deadline_changes_nothing() -> None:
    assert on_close_requested(expired_state(OPEN_PAYMENT)) == Decision(outcome=Outcome.CLOSE_REQUESTED)


@pytest.mark.parametrize(
    ("order", "outcome"), [(paid_order(), Outcome.ALREADY_PAID), (closed_order(), Outcome.ALREADY_CLOSED)]
)
def test_a_resolved_order_is_not_closed(order: Order, outcome: Outcome) -> None:
    assert on_close_requested(a_state(order, paid_payment())) == Decision(outcome=outcome)


# -- the response to our close request ---------------------------------------------------------------------------------


def test_a_close_response_is_recorded_and_closes_nothing() -> None:
    """The next query gives the result."""
    decision = on_close_attempted(expired_state(OPEN_PAYMENT), ALIPAY)
    change = decision.change
    assert change is not None
    assert decision.outcome is Outcome.CLOSE_ATTEMPTED
    assert change.payments == (a_payment(close_attempted_at=EXPIRES_AT),)
    assert change.order == an_order(version=4)
    assert change.resolved == ()


@pytest.mark.parametrize(
    "payment", [a_payment(close_attempted_at=NOW), paid_payment(), a_payment(status=PaymentStatus.CLOSED)]
)
def test_a_repeated_or_late_close_response_changes_nothing(payment: Payment) -> None:
    assert on_close_attempted(expired_state(payment), ALIPAY) == Decision(outcome=Outcome.NOTHING_NEW)
    assert on_close_attempted(expired_state(), ALIPAY) == Decision(outcome=Outcome.UNKNOWN_PAYMENT)


def test_an_operator_ends_an_order_as_it_was_looked_at() -> None:
    state = a_state(an_order(), a_payment())
    moved = on_close_requested(state, expected_version=state.order.version - 1)
    assert (moved.outcome, moved.change) == (Outcome.MOVED, None)
    decision = on_close_requested(state, by=Source.OPERATOR, by_name="anna", expected_version=state.order.version)
    assert decision.change is not None
    assert (decision.change.event.by, decision.change.event.note) == (Source.OPERATOR, "by anna")
