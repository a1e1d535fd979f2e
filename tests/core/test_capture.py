"""The buyer has agreed: whether the money is taken now. Never for an order that is paid, closed, over or doubted."""

from datetime import timedelta
from typing import Any

import pytest

from core.decision import Decision, Outcome
from core.evidence import Approved, Source
from core.lifecycle import is_definitely_unpaid, on_callback, on_query
from core.lifecycle.rules import MISMATCHES
from core.order import CaseReason, OrderState, OrderStatus, Origin, PaymentKey, PaymentStatus
from tests.core.states import (
    ALIPAY,
    EXPIRES_AT,
    MARGIN,
    RULES,
    WECHAT,
    a_payment,
    a_row,
    a_state,
    an_order,
    closed_order,
    paid_order,
    paid_payment,
)

SCHEDULED = a_row(ALIPAY).arm_no


def approved(**changes: Any) -> Approved:
    told = {"channel_account": "alipay", "out_trade_no": "alipay-000001", "amount": 8888, "currency": "CNY"}
    return Approved(**(told | changes))  # type: ignore[arg-type]


def asked(state: OrderState, evidence: Approved | None = None, arm_no: int | None = None) -> Decision:
    return on_query(state, ALIPAY, evidence or approved(), RULES, Source.QUERY, arm_no=arm_no)


def test_what_the_buyer_agreed_to_is_captured_and_written_down_first() -> None:
    """The event takes a version, so whoever pays or closes the order meanwhile wins."""
    decision = asked(a_state(an_order(), a_payment()))
    assert (decision.outcome, decision.capture) == (Outcome.CAPTURE_REQUESTED, (ALIPAY,))
    assert decision.change is not None
    assert decision.change.event.kind is Outcome.CAPTURE_REQUESTED
    assert decision.change.order == an_order(version=4)
    assert (decision.change.payments, decision.change.resolved, decision.change.notification) == ((), (), None)


def test_agreement_is_not_money() -> None:
    decision = asked(a_state(an_order(), a_payment()))
    assert decision.change is not None
    assert decision.change.order.status is OrderStatus.PAYING
    assert decision.change.order.paid_by is None


def test_a_scheduled_query_that_captures_is_due_again() -> None:
    """What came of the capture may never be told: the query goes on until the channel says paid."""
    decision = asked(a_state(an_order(), a_payment()), arm_no=SCHEDULED)
    assert decision.capture == (ALIPAY,)
    (arm,) = decision.rearm
    assert (arm.key, arm.attempt, arm.expected_arm_no) == (ALIPAY, 3, SCHEDULED)


def test_a_callback_alone_captures_nothing() -> None:
    """It may have lain in the inbox for a day, and says what was true when it was sent."""
    decision = on_callback(a_state(an_order(), a_payment()), ALIPAY, approved(), RULES, Source.CALLBACK)
    assert (decision.outcome, decision.capture, decision.change) == (Outcome.STILL_OPEN, (), None)


@pytest.mark.parametrize(
    "state",
    [
        a_state(paid_order(WECHAT), a_payment(), paid_payment(WECHAT, attempt_no=2)),
        a_state(closed_order(), a_payment()),
        a_state(an_order(), a_payment(), now=EXPIRES_AT),
        a_state(an_order(), a_payment(), now=EXPIRES_AT + timedelta(days=1)),
        a_state(an_order(), a_payment(origin=Origin.WATCHED)),
        a_state(an_order(), a_payment(status=PaymentStatus.CLOSED)),
        a_state(paid_order(), paid_payment()),
    ],
    ids=["paid by another", "closed", "over", "long over", "watched", "payment closed", "paid"],
)
def test_money_that_nothing_is_owed_for_is_never_taken(state: OrderState) -> None:
    decision = asked(state)
    assert (decision.capture, decision.change) == ((), None)
    assert decision.observation is not None
    assert decision.observation.kind == "approved_seen"


def test_in_the_last_moment_it_is_still_taken() -> None:
    state = a_state(an_order(), a_payment(), now=EXPIRES_AT - timedelta(microseconds=1))
    assert asked(state).capture == (ALIPAY,)


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({"amount": 8889}, CaseReason.AMOUNT_MISMATCH),
        ({"currency": "USD"}, CaseReason.CURRENCY_MISMATCH),
        ({"channel_account": "other:P1"}, CaseReason.ACCOUNT_MISMATCH),
        ({"out_trade_no": "alipay-000009"}, CaseReason.NUMBER_MISMATCH),
    ],
)
def test_what_was_agreed_to_differently_is_a_case_and_not_taken(told: dict[str, Any], reason: CaseReason) -> None:
    decision = asked(a_state(an_order(), a_payment()), approved(**told))
    assert (decision.outcome, decision.capture) == (Outcome.MISMATCH, ())
    assert decision.change is not None
    assert [case.reason for case in decision.change.cases] == [reason]


@pytest.mark.parametrize("reason", sorted(MISMATCHES))
@pytest.mark.parametrize("key", [ALIPAY, WECHAT])
def test_while_anything_of_the_order_is_doubted_nothing_is_taken(reason: CaseReason, key: PaymentKey) -> None:
    state = a_state(an_order(), a_payment(), cases=frozenset({(key, reason)}))
    assert asked(state).capture == ()


@pytest.mark.parametrize("reason", [CaseReason.ATTEMPTS_EXHAUSTED, CaseReason.REFUNDED_OUTSIDE])
def test_a_case_that_doubts_nothing_keeps_no_money_from_being_taken(reason: CaseReason) -> None:
    state = a_state(an_order(), a_payment(), cases=frozenset({(ALIPAY, reason)}))
    assert asked(state).capture == (ALIPAY,)


def test_what_is_left_over_when_another_payment_has_paid_is_closed_and_not_taken() -> None:
    decision = asked(a_state(paid_order(WECHAT), a_payment(), paid_payment(WECHAT, attempt_no=2)))
    assert (decision.close, decision.capture) == ((ALIPAY,), ())


@pytest.mark.parametrize(
    ("after", "is_closed", "is_over"),
    [
        (MARGIN, True, True),
        (MARGIN - timedelta(seconds=1), True, False),
        (MARGIN, False, False),
    ],
)
def test_an_approval_that_was_not_taken_lapses_when_it_can_be_taken_no_more(
    after: timedelta, is_closed: bool, is_over: bool
) -> None:
    """Only we could have taken it, and a capture asked for in the last moment has had the margin to be told."""
    payment = a_payment(close_attempted_at=EXPIRES_AT if is_closed else None)
    assert is_definitely_unpaid(payment, approved(), RULES, payment.payable_until + after) is is_over
