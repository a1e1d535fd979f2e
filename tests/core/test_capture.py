"""Rules of a capture after the buyer's approval: never for an order that is paid, closed, expired or in doubt."""

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
    defaults = {"channel_account": "alipay", "out_trade_no": "alipay-000001", "amount": 8888, "currency": "CNY"}
    return Approved(**(defaults | changes))  # type: ignore[arg-type]


def decide_query(state: OrderState, evidence: Approved | None = None, arm_no: int | None = None) -> Decision:
    return on_query(state, ALIPAY, evidence or approved(), RULES, Source.QUERY, arm_no=arm_no)


def test_an_approved_payment_is_captured_after_its_event_is_committed() -> None:
    """The event uses a version, so a payment or close that commits first wins."""
    decision = decide_query(a_state(an_order(), a_payment()))
    assert (decision.outcome, decision.capture) == (Outcome.CAPTURE_REQUESTED, (ALIPAY,))
    assert decision.change is not None
    assert decision.change.event.kind is Outcome.CAPTURE_REQUESTED
    assert decision.change.order == an_order(version=4)
    assert (decision.change.payments, decision.change.resolved, decision.change.notification) == ((), (), None)


def test_an_approval_does_not_pay_the_order() -> None:
    decision = decide_query(a_state(an_order(), a_payment()))
    assert decision.change is not None
    assert decision.change.order.status is OrderStatus.PAYING
    assert decision.change.order.paid_by is None


def test_a_scheduled_query_that_captures_is_scheduled_again() -> None:
    """The result of the capture may get lost, so queries continue until the channel says paid."""
    decision = decide_query(a_state(an_order(), a_payment()), arm_no=SCHEDULED)
    assert decision.capture == (ALIPAY,)
    (arm,) = decision.rearm
    assert (arm.key, arm.attempt, arm.expected_arm_no) == (ALIPAY, 3, SCHEDULED)


def test_a_callback_captures_nothing() -> None:
    """A callback may be a day old, and its approval out of date."""
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
    ids=["paid by another", "closed", "expired", "long expired", "watched", "payment closed", "paid"],
)
def test_a_payment_that_is_not_due_is_never_captured(state: OrderState) -> None:
    decision = decide_query(state)
    assert (decision.capture, decision.change) == ((), None)
    assert decision.observation is not None
    assert decision.observation.kind == "approved_seen"


def test_an_approval_just_before_the_deadline_is_captured() -> None:
    state = a_state(an_order(), a_payment(), now=EXPIRES_AT - timedelta(microseconds=1))
    assert decide_query(state).capture == (ALIPAY,)


@pytest.mark.parametrize(
    ("differences", "reason"),
    [
        ({"amount": 8889}, CaseReason.AMOUNT_MISMATCH),
        ({"currency": "USD"}, CaseReason.CURRENCY_MISMATCH),
        ({"channel_account": "other:P1"}, CaseReason.ACCOUNT_MISMATCH),
        ({"out_trade_no": "alipay-000009"}, CaseReason.NUMBER_MISMATCH),
    ],
)
def test_a_mismatched_approval_opens_a_case_and_is_not_captured(
    differences: dict[str, Any], reason: CaseReason
) -> None:
    decision = decide_query(a_state(an_order(), a_payment()), approved(**differences))
    assert (decision.outcome, decision.capture) == (Outcome.MISMATCH, ())
    assert decision.change is not None
    assert [case.reason for case in decision.change.cases] == [reason]


@pytest.mark.parametrize("reason", sorted(MISMATCHES))
@pytest.mark.parametrize("key", [ALIPAY, WECHAT])
def test_an_order_with_an_open_mismatch_is_not_captured(reason: CaseReason, key: PaymentKey) -> None:
    state = a_state(an_order(), a_payment(), cases=frozenset({(key, reason)}))
    assert decide_query(state).capture == ()


@pytest.mark.parametrize("reason", [CaseReason.ATTEMPTS_EXHAUSTED, CaseReason.REFUNDED_OUTSIDE])
def test_a_case_that_is_not_a_mismatch_does_not_prevent_the_capture(reason: CaseReason) -> None:
    state = a_state(an_order(), a_payment(), cases=frozenset({(ALIPAY, reason)}))
    assert decide_query(state).capture == (ALIPAY,)


def test_an_approved_payment_of_a_paid_order_is_closed_and_not_captured() -> None:
    decision = decide_query(a_state(paid_order(WECHAT), a_payment(), paid_payment(WECHAT, attempt_no=2)))
    assert (decision.close, decision.capture) == ((ALIPAY,), ())


@pytest.mark.parametrize(
    ("after", "is_closed", "is_over"),
    [
        (MARGIN, True, True),
        (MARGIN - timedelta(seconds=1), True, False),
        (MARGIN, False, False),
    ],
)
def test_an_uncaptured_approval_is_definitely_unpaid_after_the_margin(
    after: timedelta, is_closed: bool, is_over: bool
) -> None:
    """Only nodrop captures, and the margin is long enough to see a capture of the last moment."""
    payment = a_payment(close_attempted_at=EXPIRES_AT if is_closed else None)
    assert is_definitely_unpaid(payment, approved(), RULES, payment.payable_until + after) is is_over
