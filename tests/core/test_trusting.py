"""A callback that nothing confirms, as tables: when it pays, what a later query makes of it, and what rests on it."""

from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from core.decision import Decision, Outcome, applied
from core.evidence import Approved, Evidence, Source
from core.lifecycle import DoublePolicy, Message, Rules, on_callback, on_query, on_refresh, on_unanswered, plan_callback
from core.order import CaseReason, OrderState, OrderStatus, PaymentKey, PaymentStatus
from tests.core.states import (
    ALIPAY,
    DEADLINE,
    NOW,
    RULES,
    WECHAT,
    a_dispute,
    a_payment,
    a_state,
    an_order,
    case_reasons,
    closed,
    closed_order,
    missing,
    order_after,
    paid,
    paid_order,
    paid_payment,
    refunded,
    unclear,
    unpaid,
)

AGO = timedelta(seconds=RULES.unanswered_s)
RECEIVED_AT = NOW - AGO
APPROVED = Approved(channel_account="alipay", out_trade_no="alipay-000001")


def with_row(state: OrderState, **row: datetime | None) -> OrderState:
    """The state with these times in the payment's pending row."""
    pending = tuple(replace(each, **row) if each.key == ALIPAY else each for each in state.pending)
    return replace(state, pending=pending)


def waiting(state: OrderState | None = None, **row: datetime | None) -> OrderState:
    """A payment whose queries have had no answer for just long enough."""
    return with_row(state or a_state(an_order(), a_payment()), **({"unanswered_since": NOW - AGO} | row))


def message(evidence: Evidence | None = None, *, later_s: float = 0.0) -> Message:
    return Message(evidence=evidence or paid(), received_at=RECEIVED_AT + timedelta(seconds=later_s))


def decided(state: OrderState, evidence: Evidence | None = None, *others: Message, rules: Rules = RULES) -> Decision:
    return on_unanswered(state, ALIPAY, message(evidence), others, rules, Source.COMPENSATION)


def unconfirmed_state() -> OrderState:
    """The order that a callback alone has paid; its pending row is there."""
    state = waiting()
    decision = decided(state)
    assert decision.change is not None
    return applied(state, decision.change)


# -- when it pays ------------------------------------------------------------------------------------------------------


def test_it_pays_the_order_and_its_row_stays_due() -> None:
    decision = decided(waiting())
    assert (decision.outcome, order_after(decision).status) == (Outcome.PAID, OrderStatus.PAID)
    assert decision.change is not None
    (payment,) = decision.change.payments
    assert (payment.status, payment.unconfirmed_since) == (PaymentStatus.PAID, NOW)
    assert decision.change.resolved == (DEADLINE,)
    (arm,) = decision.rearm
    assert (arm.key, arm.attempt, arm.delay_s, arm.expected_arm_no) == (ALIPAY, 1, 60.0, 7)


def test_the_notification_says_that_it_is_not_confirmed() -> None:
    decision = decided(waiting())
    assert decision.change is not None
    assert decision.change.notification is not None
    body = msgspec.json.decode(decision.change.notification.body)
    assert (body["type"], body["data"]["confirmed"]) == ("order.paid", False)


@pytest.mark.parametrize(
    "row",
    [
        {"unanswered_since": None},
        {"unanswered_since": NOW - AGO + timedelta(milliseconds=1)},
        {"verified_at": RECEIVED_AT},
        {"verified_at": NOW},
    ],
    ids=["no query went out", "not long enough", "an answer when it came", "an answer since it came"],
)
def test_it_waits_until_queries_have_had_no_answer_for_long_enough(row: dict[str, Any]) -> None:
    decision = decided(waiting(**row))
    assert (decision.outcome, decision.change, decision.rearm) == (Outcome.UNCLEAR, None, ())


def test_an_answer_before_the_callback_came_says_nothing_about_it() -> None:
    assert decided(waiting(verified_at=RECEIVED_AT - timedelta(seconds=1))).outcome is Outcome.PAID


@pytest.mark.parametrize(
    "evidence", [refunded(), unpaid(), closed(), missing(), unclear(), APPROVED], ids=lambda each: type(each).__name__
)
def test_only_paid_pays(evidence: Evidence) -> None:
    assert decided(waiting(), evidence).change is None


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": 1},
        {"currency": "JPY"},
        {"channel_account": "other:2088"},
        {"out_trade_no": "alipay-000009"},
    ],
    ids=str,
)
def test_what_differs_pays_nothing(changes: dict[str, Any]) -> None:
    decision = decided(waiting(), paid(**changes))
    assert (decision.outcome, order_after(decision).status) == (Outcome.MISMATCH, OrderStatus.PAYING)
    assert len(case_reasons(decision)) == 1


def test_a_transaction_of_another_payment_pays_nothing() -> None:
    decision = on_unanswered(waiting(), ALIPAY, message(), (), RULES, Source.CALLBACK, claimed=True)
    assert case_reasons(decision) == [CaseReason.TRANSACTION_CLAIMED_TWICE]


@pytest.mark.parametrize(
    ("other", "pays"),
    [
        (message(paid(), later_s=9), True),
        (message(unpaid(), later_s=-9), True),
        (message(APPROVED, later_s=-9), True),
        (message(unpaid(), later_s=9), False),
        (message(APPROVED, later_s=9), False),
        (message(refunded(), later_s=-9), False),
        (message(refunded(), later_s=9), False),
        (message(closed(), later_s=-9), False),
        (message(missing(), later_s=-9), False),
        (message(unclear(), later_s=-9), False),
        (message(paid(channel_transaction_id="t-2"), later_s=-9), False),
        (message(paid(amount=1), later_s=-9), False),
    ],
    ids=str,
)
def test_no_other_callback_speaks_against_it(other: Message, *, pays: bool) -> None:
    assert (decided(waiting(), None, other).outcome is Outcome.PAID) is pays


@pytest.mark.parametrize("reason", [reason for reason in CaseReason if reason is not CaseReason.ATTEMPTS_EXHAUSTED])
@pytest.mark.parametrize("key", [ALIPAY, WECHAT, None], ids=str)
def test_no_case_is_open_about_the_order(reason: CaseReason, key: PaymentKey | None) -> None:
    state = a_state(an_order(), a_payment(), cases=frozenset({(key, reason)}))
    assert decided(waiting(state)).change is None


def test_used_up_attempts_are_what_it_is_made_for() -> None:
    state = a_state(an_order(), a_payment(), cases=frozenset({(ALIPAY, CaseReason.ATTEMPTS_EXHAUSTED)}))
    assert decided(waiting(state)).outcome is Outcome.PAID


@pytest.mark.parametrize(
    "state",
    [
        a_state(closed_order(), a_payment()),
        a_state(paid_order(WECHAT), a_payment(), paid_payment(WECHAT)),
        a_state(an_order(), a_payment(refused_at=NOW)),
        a_state(an_order(), a_payment(close_attempted_at=NOW)),
        a_state(an_order(), a_payment(WECHAT)),
        replace(a_state(an_order(), a_payment()), disputes=(a_dispute(),)),
        a_state(an_order(), a_payment(refunded_amount=1)),
        a_state(an_order(), a_payment(refunded_amount=None)),
    ],
    ids=[
        "closed order",
        "paid order",
        "refused",
        "closed at the channel",
        "unknown payment",
        "disputed",
        "refunded",
        "refunded by an unknown sum",
    ],
)
def test_what_is_ended_or_doubted_is_not_paid_by_a_callback_alone(state: OrderState) -> None:
    assert decided(waiting(state)).change is None


@pytest.mark.parametrize("status", [PaymentStatus.CLOSED, PaymentStatus.PAID])
def test_only_an_open_payment_is_paid_by_a_callback_alone(status: PaymentStatus) -> None:
    state = waiting()
    payment = paid_payment() if status is PaymentStatus.PAID else a_payment(status=status)
    assert decided(replace(state, payments=(payment,))).change is None


def test_without_a_pending_row_nobody_can_have_asked() -> None:
    assert decided(replace(waiting(), pending=())).change is None


# -- what a later answer makes of it -----------------------------------------------------------------------------------


def test_a_query_confirms_it_and_ends_its_row() -> None:
    decision = on_query(unconfirmed_state(), ALIPAY, paid(), RULES, Source.QUERY, arm_no=7)
    assert (decision.outcome, decision.rearm) == (Outcome.CONFIRMED, ())
    assert decision.change is not None
    assert decision.change.payments[0].unconfirmed_since is None
    assert decision.change.resolved == (ALIPAY,)
    assert order_after(decision).status is OrderStatus.PAID


@pytest.mark.parametrize("evidence", [unpaid(), closed(), missing(), APPROVED], ids=lambda each: type(each).__name__)
def test_an_answer_that_says_otherwise_is_a_case_and_the_row_stays_due(evidence: Evidence) -> None:
    decision = on_query(unconfirmed_state(), ALIPAY, evidence, RULES, Source.QUERY, arm_no=7)
    assert decision.outcome is Outcome.CONTRADICTED
    assert case_reasons(decision) == [CaseReason.CALLBACK_CONTRADICTED]
    assert order_after(decision).status is OrderStatus.PAID
    assert [arm.key for arm in decision.rearm] == [ALIPAY]


def test_the_case_opens_once_and_a_confirmation_ends_it() -> None:
    state = unconfirmed_state()
    first = on_query(state, ALIPAY, unpaid(), RULES, Source.QUERY)
    assert first.change is not None
    doubted = applied(state, first.change)
    assert on_query(doubted, ALIPAY, unpaid(), RULES, Source.QUERY).change is None
    confirmed = on_query(doubted, ALIPAY, paid(), RULES, Source.QUERY)
    assert confirmed.change is not None
    assert applied(doubted, confirmed.change).open_cases == frozenset()


def test_an_unclear_answer_changes_nothing_and_the_row_stays_due() -> None:
    decision = on_query(unconfirmed_state(), ALIPAY, unclear(), RULES, Source.QUERY, arm_no=7)
    assert (decision.outcome, decision.change) == (Outcome.UNCLEAR, None)
    assert [arm.key for arm in decision.rearm] == [ALIPAY]


def test_a_refund_that_a_query_shows_confirms_that_the_money_was_there() -> None:
    decision = on_query(unconfirmed_state(), ALIPAY, refunded(), RULES, Source.QUERY, arm_no=7)
    assert decision.change is not None
    (payment,) = decision.change.payments
    assert (payment.unconfirmed_since, payment.refunded_amount) == (None, 100)
    assert ALIPAY in decision.change.resolved
    assert CaseReason.REFUNDED_OUTSIDE in case_reasons(decision)


@pytest.mark.parametrize(("amount", "is_told"), [(8888, True), (None, True), (100, False)])
def test_unconfirmed_money_that_had_gone_back_is_told_to_the_merchant(amount: int | None, *, is_told: bool) -> None:
    """The merchant heard *paid*, of money that no query has ever shown to be there."""
    state = unconfirmed_state()
    decision = on_query(state, ALIPAY, refunded(refunded_amount=amount), RULES, Source.QUERY, arm_no=7)
    assert decision.change is not None
    notification = decision.change.notification
    assert (None if notification is None else notification.type) == ("order.refunded" if is_told else None)
    assert (order_after(decision).status, order_after(decision).paid_by) == (OrderStatus.PAID, ALIPAY)


def test_a_sum_that_a_callback_tells_ends_no_question_of_unconfirmed_money() -> None:
    """Something went back, and then how much: both said by callbacks, which confirm nothing."""
    state = unconfirmed_state()
    for amount in (None, 100):
        decision = on_callback(state, ALIPAY, refunded(refunded_amount=amount), RULES, Source.CALLBACK)
        assert decision.change is not None
        state = applied(state, decision.change)
    (payment,) = state.payments
    assert (payment.refunded_amount, payment.unconfirmed_since) == (100, NOW)
    assert state.pending_of(ALIPAY) is not None


def test_other_money_under_its_number_does_not_confirm_it() -> None:
    decision = on_query(unconfirmed_state(), ALIPAY, paid(channel_transaction_id="t-2"), RULES, Source.QUERY, arm_no=7)
    assert case_reasons(decision) == [CaseReason.NUMBER_REUSED]
    assert [arm.key for arm in decision.rearm] == [ALIPAY]


@pytest.mark.parametrize("evidence", [paid(), unpaid()], ids=["paid", "unpaid"])
def test_another_callback_confirms_and_contradicts_nothing(evidence: Evidence) -> None:
    assert on_callback(unconfirmed_state(), ALIPAY, evidence, RULES, Source.CALLBACK).change is None


@pytest.mark.parametrize("evidence", [paid(), refunded(), unpaid()], ids=["paid", "refunded", "unpaid"])
def test_another_callback_about_it_is_a_reason_to_query(evidence: Evidence) -> None:
    (payment,) = unconfirmed_state().payments
    plan = plan_callback(payment, evidence, trusts_callback=False)
    assert (plan.commits, plan.queries) == (True, True)


def test_a_refresh_queries_it() -> None:
    assert on_refresh(unconfirmed_state(), RULES).query == (ALIPAY,)


# -- what rests on it --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_confirmed", [False, True])
def test_no_automatic_refund_rests_on_it(*, is_confirmed: bool) -> None:
    """A second payment of the order is confirmed: which of the two is false money is for a person to say."""
    rules = Rules(double_policy=DoublePolicy.REFUND)
    first = paid_payment(unconfirmed_since=None if is_confirmed else NOW)
    state = a_state(paid_order(), first, a_payment(WECHAT))
    decision = on_query(state, WECHAT, paid(WECHAT, channel_transaction_id="t-9"), rules, Source.QUERY)
    assert decision.change is not None
    assert bool(decision.change.refunds) is is_confirmed
    assert CaseReason.DOUBLE_PAYMENT in case_reasons(decision)
