"""Closed payments are asked again, a limited number of times, and nothing but money changes them."""

from datetime import datetime, timedelta

import pytest
from msgspec.structs import replace

from core.decision import Arm, Decision, Outcome
from core.evidence import Approved, Evidence, Source
from core.lifecycle import on_query, on_refresh
from core.order import CaseReason, OrderState, Payment, PaymentStatus, PendingKind
from tests.core.states import (
    ALIPAY,
    EXPIRES_AT,
    MARGIN,
    NOW,
    RULES,
    WECHAT,
    a_payment,
    a_row,
    a_state,
    an_order,
    case_reasons,
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

DAY = timedelta(days=1)
END = EXPIRES_AT + MARGIN
"""Time at which the last report of money for the payment is due."""

CLOSED = a_payment(status=PaymentStatus.CLOSED, close_attempted_at=NOW)
ROW = a_row(ALIPAY, attempt=1)


def a_closed_state(*, now: datetime, payment: Payment = CLOSED, attempt: int = 1) -> OrderState:
    state = a_state(closed_order(), payment, now=now)
    return replace(state, pending=(replace(ROW, attempt=attempt),))


def ask(state: OrderState, evidence: Evidence) -> Decision:
    """Decide on the evidence of the scheduled question."""
    return on_query(state, ALIPAY, evidence, RULES, Source.QUERY, arm_no=ROW.arm_no)


def approved() -> Approved:
    return Approved(channel_account=ALIPAY.channel_account, out_trade_no=ALIPAY.out_trade_no)


def test_a_payment_that_closes_is_asked_again_a_margin_later() -> None:
    decision = ask(a_state(an_order(), a_payment()), closed())
    assert decision.outcome is Outcome.PAYMENT_CLOSED
    assert decision.change is not None
    assert decision.change.resolved == ()
    assert decision.rearm == (
        Arm(
            key=ALIPAY,
            kind=PendingKind.QUERY,
            order_no="A-1",
            attempt=1,
            delay_s=RULES.payable_margin_s,
            expected_arm_no=ROW.arm_no,
        ),
    )


def test_a_payment_that_its_channel_never_created_is_not_asked_again() -> None:
    decision = ask(a_state(an_order(), a_payment(refused_at=NOW)), missing())
    assert decision.change is not None
    assert (decision.change.resolved, decision.rearm) == ((ALIPAY,), ())


@pytest.mark.parametrize(
    ("now", "next_at"),
    [
        (NOW + MARGIN, END),  # closed early: after the channel's last moment for money
        (END, END + DAY),  # and a day later
        (END + DAY / 2, END + DAY),  # a worker that was late asks no question twice
        (END + DAY, None),
        (END + 9 * DAY, None),
    ],
)
@pytest.mark.parametrize("evidence", [closed(), unpaid(), missing(), approved(), unpaid(under_way=True)])
def test_questions_are_due_after_the_last_moment_for_money_and_a_day_later(
    evidence: Evidence, now: datetime, next_at: datetime | None
) -> None:
    decision = ask(a_closed_state(now=now), evidence)
    assert (decision.outcome, decision.change) == (Outcome.NOTHING_NEW, None)
    if next_at is None:
        assert (decision.rearm, decision.drop) == ((), (ALIPAY,))
    else:
        [arm] = decision.rearm
        assert (arm.attempt, arm.delay_s, arm.expected_arm_no) == (1, (next_at - now).total_seconds(), ROW.arm_no)
        assert decision.drop == ()


def test_a_payment_without_a_known_end_is_asked_for_thirty_days() -> None:
    endless = replace(CLOSED, payable_until=CLOSED.created_at + timedelta(days=3650))
    [arm] = ask(a_closed_state(now=NOW + MARGIN, payment=endless), closed()).rearm
    assert arm.delay_s == (CLOSED.created_at + timedelta(days=30) - NOW).total_seconds()


@pytest.mark.parametrize("evidence", [paid(), refunded(refunded_amount=100)])
def test_money_found_after_the_close_ends_the_questions(evidence: Evidence) -> None:
    decision = ask(a_closed_state(now=NOW + MARGIN), evidence)
    assert decision.change is not None
    assert ALIPAY in decision.change.resolved
    assert (decision.rearm, decision.drop) == ((), ())


def test_a_question_without_a_clear_answer_is_repeated_after_n_squared_minutes() -> None:
    decision = ask(a_closed_state(now=END + 2 * DAY, attempt=2), unclear())
    [arm] = decision.rearm
    assert (arm.attempt, arm.delay_s, decision.change, decision.drop) == (3, 540.0, None, ())


@pytest.mark.parametrize(("now", "is_over"), [(NOW, False), (END + 2 * DAY, True)])
def test_a_silent_channel_is_a_case_and_the_questions_end_with_the_last(now: datetime, is_over: bool) -> None:
    decision = ask(a_closed_state(now=now, attempt=16), unclear())
    assert case_reasons(decision) == [CaseReason.ATTEMPTS_EXHAUSTED]
    assert (bool(decision.rearm), decision.drop) == ((False, (ALIPAY,)) if is_over else (True, ()))


def test_an_approval_of_a_closed_payment_is_never_captured() -> None:
    for state in (a_closed_state(now=NOW), replace(a_closed_state(now=NOW), order=an_order())):
        decision = ask(state, approved())
        assert (decision.capture, decision.close, decision.change) == ((), (), None)


def test_the_row_of_a_paid_payment_ends() -> None:
    """A refresh and a callback may meet: the row is put back when the payment was still closed."""
    state = replace(a_state(paid_order(), paid_payment()), pending=(ROW,))
    assert ask(state, paid()).drop == (ALIPAY,)


# -- refreshes ---------------------------------------------------------------------------------------------------------


def test_a_refresh_queries_closed_payments_too() -> None:
    state = a_state(an_order(), CLOSED, a_payment(WECHAT, attempt_no=2))
    decision = on_refresh(replace(state, pending=(*state.pending, ROW)), RULES)
    assert decision == Decision(outcome=Outcome.STILL_OPEN, query=(WECHAT, ALIPAY))


def test_a_refresh_after_the_last_question_puts_the_row_back() -> None:
    """The row holds the lease of the query, so that one process asks at a time."""
    decision = on_refresh(a_state(closed_order(), CLOSED), RULES)
    [arm] = decision.rearm
    assert (decision.query, arm.key, arm.attempt, arm.expected_arm_no) == ((ALIPAY,), ALIPAY, 1, None)


def test_a_refresh_asks_nobody_about_a_payment_that_was_never_created() -> None:
    assert on_refresh(a_state(closed_order(), replace(CLOSED, refused_at=NOW)), RULES).query == ()


def test_an_order_that_is_paid_asks_its_open_payments_at_once_and_not_its_closed_ones() -> None:
    closed_sibling = a_payment(WECHAT, attempt_no=2, status=PaymentStatus.CLOSED)
    state = a_state(an_order(), a_payment(), closed_sibling)
    state = replace(state, pending=(*state.pending, a_row(WECHAT)))
    assert on_query(state, ALIPAY, paid(), RULES, Source.QUERY).rearm == ()
