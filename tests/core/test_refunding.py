"""Money that goes back: what is requested, once, and what each answer of the channel makes of it."""

import re
from datetime import timedelta
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given
from msgspec.structs import replace

from core.backoff import Backoff
from core.decision import Decision, Outcome, applied
from core.evidence import Evidence, Source
from core.lifecycle import (
    DoublePolicy,
    LatePolicy,
    Rules,
    on_callback,
    on_late_accepted,
    on_refund,
    on_refund_requested,
    refund_number,
)
from core.lifecycle.rules import MISMATCHES
from core.order import (
    OUT_TRADE_NO,
    REFUND_MOVES,
    CaseReason,
    Order,
    OrderState,
    OrderStatus,
    Origin,
    Payment,
    PaymentKey,
    PaymentStatus,
    Refund,
    RefundReason,
    RefundStatus,
)
from tests.core.states import (
    ALIPAY,
    NOW,
    RULES,
    WECHAT,
    a_payment,
    a_refund,
    a_state,
    an_order,
    closed_order,
    paid,
    paid_order,
    paid_payment,
    refunded,
)

LATE = Rules(late_policy=LatePolicy.REFUND)
DOUBLE = Rules(double_policy=DoublePolicy.REFUND)
BOTH = Rules(late_policy=LatePolicy.REFUND, double_policy=DoublePolicy.REFUND)
TAKEN = r"[0-9A-Za-z_\-|*@]{1,64}"
"""What WeChat Pay takes as `out_refund_no`; no channel takes less."""

SECOND = paid(WECHAT, channel_transaction_id="t-2")
CLOSED_PAYMENT = a_payment(status=PaymentStatus.CLOSED)


def came_late(rules: Rules = LATE, evidence: Evidence | None = None, **changes: Any) -> Decision:
    """Money for a closed order."""
    state = a_state(closed_order(), replace(CLOSED_PAYMENT, **changes))
    return on_callback(state, ALIPAY, evidence or paid(), rules, Source.CALLBACK)


def came_twice(rules: Rules = DOUBLE, evidence: Evidence = SECOND, **changes: Any) -> Decision:
    """Money of the second payment, for an order that the first one has paid."""
    state = a_state(paid_order(), paid_payment(), a_payment(WECHAT, attempt_no=2, **changes))
    return on_callback(state, WECHAT, evidence, rules, Source.CALLBACK)


def refunds_in(decision: Decision) -> list[Refund]:
    return [] if decision.change is None else list(decision.change.refunds)


def reasons_in(decision: Decision) -> list[CaseReason]:
    return [] if decision.change is None else [case.reason for case in decision.change.cases]


def order_after(decision: Decision) -> Order:
    assert decision.change is not None
    return decision.change.order


def notified(decision: Decision) -> dict[str, Any]:
    assert decision.change is not None
    assert decision.change.notification is not None
    body: dict[str, Any] = msgspec.json.decode(decision.change.notification.body)
    return body


def late_state(*refunds: Refund, **changes: Any) -> OrderState:
    """A closed order whose payment has money, and the case that says so."""
    cases = frozenset({(ALIPAY, CaseReason.PAID_LATE)}) | changes.pop("cases", frozenset())
    return a_state(closed_order(), paid_payment(**changes), cases=cases, refunds=refunds)


def answered(state: OrderState, told: RefundStatus | None, note: str = "", rules: Rules = RULES) -> Decision:
    return on_refund(state, state.refunds[-1].refund_no, told, rules, note=note)


# -- what the policies request -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "status", "refunds"),
    [
        (LatePolicy.ACCEPT, OrderStatus.PAID, 0),
        (LatePolicy.FLAG, OrderStatus.CLOSED, 0),
        (LatePolicy.REFUND, OrderStatus.CLOSED, 1),
    ],
)
def test_what_late_money_comes_to_is_the_accounts_policy(policy: LatePolicy, status: OrderStatus, refunds: int) -> None:
    """The payment is paid, and the case open, either way. What a second payment's policy is has no part in it."""
    for double in DoublePolicy:
        decision = came_late(Rules(late_policy=policy, double_policy=double))
        assert decision.change is not None
        assert (decision.outcome, reasons_in(decision)) == (Outcome.PAID_LATE, [CaseReason.PAID_LATE])
        assert [payment.status for payment in decision.change.payments] == [PaymentStatus.PAID]
        assert (order_after(decision).status, len(refunds_in(decision))) == (status, refunds)


@pytest.mark.parametrize(("policy", "refunds"), [(DoublePolicy.FLAG, 0), (DoublePolicy.REFUND, 1)])
def test_what_a_second_payments_money_comes_to_is_the_accounts_policy(policy: DoublePolicy, refunds: int) -> None:
    for late in LatePolicy:
        decision = came_twice(Rules(late_policy=late, double_policy=policy))
        assert (decision.outcome, reasons_in(decision)) == (Outcome.DOUBLE_PAYMENT, [CaseReason.DOUBLE_PAYMENT])
        assert (order_after(decision).status, order_after(decision).paid_by) == (OrderStatus.PAID, ALIPAY)
        assert len(refunds_in(decision)) == refunds


def test_a_refund_is_of_all_that_came_and_the_merchant_hears_of_it_at_once() -> None:
    decision = came_late()
    assert refunds_in(decision) == [a_refund()]
    told = notified(decision)
    assert (told["type"], told["data"]["status"], told["data"]["late"]) == ("order.paid_late", "closed", True)
    assert told["data"]["refund"] == {
        "refund_no": "ralipay-000001",
        "amount": 8888,
        "currency": "CNY",
        "reason": "late",
        "status": "requested",
        "settled_at": None,
    }
    second = came_twice()
    assert refunds_in(second) == [a_refund(WECHAT, reason=RefundReason.DOUBLE)]
    assert (notified(second)["type"], notified(second)["data"]["refund"]["reason"]) == (
        "order.double_payment",
        "double",
    )


def test_only_what_is_left_goes_back() -> None:
    """Somebody has given back a part at the channel, which is a case of its own."""
    decision = came_late(evidence=refunded(refunded_amount=100))
    assert [refund.amount for refund in refunds_in(decision)] == [8788]
    assert reasons_in(decision) == [CaseReason.PAID_LATE, CaseReason.REFUNDED_OUTSIDE]
    assert refunds_in(came_late(evidence=refunded(refunded_amount=8888))) == []


def test_a_watched_payment_is_never_refunded() -> None:
    assert refunds_in(came_late(origin=Origin.WATCHED)) == []
    assert reasons_in(came_late(origin=Origin.WATCHED)) == [CaseReason.PAID_LATE]
    assert refunds_in(came_twice(origin=Origin.WATCHED)) == []


@pytest.mark.parametrize("reason", sorted(MISMATCHES))
def test_nothing_goes_back_by_itself_while_anything_of_the_order_is_doubted(reason: CaseReason) -> None:
    state = a_state(closed_order(), CLOSED_PAYMENT, cases=frozenset({(ALIPAY, reason)}))
    decision = on_callback(state, ALIPAY, paid(), LATE, Source.CALLBACK)
    assert (refunds_in(decision), reasons_in(decision)) == ([], [CaseReason.PAID_LATE])


def test_money_that_pays_an_order_is_never_refunded() -> None:
    """Also when it comes through the same account and under the same policies."""
    decision = on_callback(a_state(an_order(), a_payment()), ALIPAY, paid(), BOTH, Source.CALLBACK)
    assert (decision.outcome, refunds_in(decision)) == (Outcome.PAID, [])


def test_the_same_money_told_again_requests_nothing_more() -> None:
    state = a_state(closed_order(), CLOSED_PAYMENT)
    decision = came_late()
    assert decision.change is not None
    again = on_callback(applied(state, decision.change), ALIPAY, paid(), LATE, Source.CALLBACK)
    assert (again.outcome, again.change) == (Outcome.NOTHING_NEW, None)


# -- the number --------------------------------------------------------------------------------------------------------


@given(st.from_regex(OUT_TRADE_NO, fullmatch=True), st.integers(1, 99))
def test_a_refunds_number_is_one_that_every_channel_takes_and_always_the_same(number: str, nth: int) -> None:
    assert re.fullmatch(TAKEN, refund_number(number, nth), re.ASCII)
    assert refund_number(number, nth) == refund_number(number, nth)


@given(st.sets(st.from_regex(r"[0-9a-f]{28}", fullmatch=True), min_size=2, max_size=4), st.integers(1, 9))
def test_refunds_of_different_payments_or_attempts_have_different_numbers(numbers: set[str], nth: int) -> None:
    assert len({refund_number(number, n) for number in numbers for n in (nth, nth + 1)}) == 2 * len(numbers)
    longer = [number * 2 + "x" * 8 for number in numbers]
    assert len({refund_number(number) for number in longer}) == len(longer)


# -- what an operator requests -----------------------------------------------------------------------------------------


def requested(state: OrderState, key: PaymentKey = ALIPAY) -> Decision:
    return on_refund_requested(state, key, "anna")


def test_an_operator_gives_back_flagged_money_once() -> None:
    state = late_state()
    decision = requested(state)
    assert refunds_in(decision) == [a_refund(reason=RefundReason.OPERATOR)]
    assert decision.change is not None
    assert (decision.change.event.by, decision.change.event.note) == (Source.OPERATOR, "ralipay-000001 by anna")
    assert order_after(decision).version == state.order.version + 1
    again = requested(applied(state, decision.change))
    assert (again.outcome, again.change) == (Outcome.NOTHING_NEW, None)


def test_an_operator_gives_back_a_second_payments_money() -> None:
    state = a_state(paid_order(), paid_payment(), paid_payment(WECHAT, attempt_no=2, channel_transaction_id="t-2"))
    assert [refund.key for refund in refunds_in(requested(state, WECHAT))] == [WECHAT]


@pytest.mark.parametrize(
    "state",
    [
        a_state(an_order(), a_payment()),
        a_state(closed_order(), CLOSED_PAYMENT),
        a_state(paid_order(), paid_payment()),
        a_state(closed_order(), paid_payment(origin=Origin.WATCHED)),
        a_state(closed_order(), paid_payment(refunded_amount=8888)),
        a_state(closed_order(), paid_payment(WECHAT)),
    ],
    ids=["open", "closed", "paid the order", "watched", "given back", "of another number"],
)
def test_what_an_operator_cannot_give_back(state: OrderState) -> None:
    assert requested(state) == Decision(outcome=Outcome.NOT_REFUNDABLE)


def test_after_a_failure_another_refund_has_another_number() -> None:
    """The channel has the first one, and has said that it failed."""
    failed = a_refund(status=RefundStatus.FAILED, settled_at=NOW)
    assert [refund.refund_no for refund in refunds_in(requested(late_state(failed)))] == ["r2_alipay-000001"]


@pytest.mark.parametrize("status", [RefundStatus.REQUESTED, RefundStatus.PROCESSING, RefundStatus.SUCCEEDED])
def test_money_that_is_going_back_cannot_be_accepted(status: RefundStatus) -> None:
    """Otherwise the order would be paid with money that the buyer has again."""
    state = late_state(a_refund(status=status))
    assert on_late_accepted(state, "anna") == Decision(outcome=Outcome.NOT_ACCEPTABLE)
    other = paid_payment(WECHAT, attempt_no=2, channel_transaction_id="t-2")
    accepted = on_late_accepted(replace(state, payments=(*state.payments, other)), "anna")
    assert order_after(accepted).paid_by == WECHAT
    assert CaseReason.DOUBLE_PAYMENT not in reasons_in(accepted)


def test_money_whose_refund_failed_can_be_accepted() -> None:
    failed = a_refund(status=RefundStatus.FAILED, settled_at=NOW)
    assert order_after(on_late_accepted(late_state(failed), "anna")).paid_by == ALIPAY


# -- what the channel says of it ---------------------------------------------------------------------------------------


def test_a_refund_that_succeeded_answers_the_case_tells_the_merchant_and_leaves_the_order_closed() -> None:
    decision = answered(late_state(a_refund(status=RefundStatus.PROCESSING)), RefundStatus.SUCCEEDED)
    assert decision.outcome is Outcome.REFUNDED
    assert decision.change is not None
    [refund], [payment] = decision.change.refunds, decision.change.payments
    assert (refund.status, refund.settled_at) == (RefundStatus.SUCCEEDED, NOW)
    assert (payment.status, payment.refunded_amount) == (PaymentStatus.PAID, 8888)
    assert [(answer.reason, answer.resolution) for answer in decision.change.resolutions] == [
        (CaseReason.PAID_LATE, "refunded")
    ]
    told = notified(decision)
    assert (told["type"], told["data"]["status"], told["data"]["late"]) == ("order.refunded", "closed", True)
    assert (told["data"]["refund"]["status"], told["data"]["payment"]["refunded_amount"]) == ("succeeded", 8888)
    assert order_after(decision) == replace(closed_order(), version=closed_order().version + 1)


def test_a_refund_never_unpays_an_order() -> None:
    """The second payment goes back; the first one has paid the order and keeps it paid."""
    payments = (paid_payment(), paid_payment(WECHAT, attempt_no=2, channel_transaction_id="t-2"))
    cases = frozenset({(WECHAT, CaseReason.DOUBLE_PAYMENT)})
    state = a_state(paid_order(), *payments, cases=cases, refunds=(a_refund(WECHAT, reason=RefundReason.DOUBLE),))
    decision = answered(state, RefundStatus.SUCCEEDED)
    assert decision.change is not None
    after = applied(state, decision.change)
    assert (after.order.status, after.order.paid_by) == (OrderStatus.PAID, ALIPAY)
    assert after.open_cases == frozenset()
    assert (notified(decision)["data"]["status"], notified(decision)["data"]["late"]) == ("paid", False)


def test_a_partial_refund_seen_never_unpays_an_order() -> None:
    state = a_state(paid_order(), paid_payment())
    for evidence in (refunded(refunded_amount=1), refunded(refunded_amount=8888)):
        decision = on_callback(state, ALIPAY, evidence, BOTH, Source.CALLBACK)
        assert (order_after(decision).status, refunds_in(decision)) == (OrderStatus.PAID, [])
        assert reasons_in(decision) == [CaseReason.REFUNDED_OUTSIDE]


def test_a_refund_that_failed_is_a_case_and_the_question_of_the_money_stays_open() -> None:
    state = late_state(a_refund())
    decision = answered(state, RefundStatus.FAILED, "refused: AMOUNT_EXCEEDED")
    assert (decision.outcome, reasons_in(decision)) == (Outcome.REFUND_FAILED, [CaseReason.REFUND_FAILED])
    assert decision.change is not None
    assert decision.change.notification is None
    assert "AMOUNT_EXCEEDED" in decision.change.cases[0].detail
    after = applied(state, decision.change)
    assert after.open_cases == {(ALIPAY, CaseReason.PAID_LATE), (ALIPAY, CaseReason.REFUND_FAILED)}
    assert after.payments == state.payments
    assert [(row.status, row.settled_at, row.last_error) for row in after.refunds] == [
        (RefundStatus.FAILED, NOW, "refused: AMOUNT_EXCEEDED")
    ]


def test_success_after_a_failure_answers_that_too() -> None:
    first = a_refund(status=RefundStatus.FAILED, settled_at=NOW)
    second = a_refund(refund_no="r2_alipay-000001")
    state = late_state(first, second, cases=frozenset({(ALIPAY, CaseReason.REFUND_FAILED)}))
    decision = answered(state, RefundStatus.SUCCEEDED)
    assert decision.change is not None
    assert applied(state, decision.change).open_cases == frozenset()


def test_processing_is_written_down_once_and_seen_after_that() -> None:
    state = late_state(a_refund())
    first = answered(state, RefundStatus.PROCESSING)
    assert [refund.status for refund in refunds_in(first)] == [RefundStatus.PROCESSING]
    assert first.change is not None
    again = answered(applied(state, first.change), RefundStatus.PROCESSING)
    assert (again.change, again.observation is not None) == (None, True)


@pytest.mark.parametrize("status", [RefundStatus.REQUESTED, RefundStatus.PROCESSING])
def test_not_being_told_is_never_failure(status: RefundStatus) -> None:
    decision = answered(late_state(a_refund(status=status)), None, "timeout")
    assert (decision.outcome, decision.change) == (Outcome.UNCLEAR, None)
    assert decision.observation is not None
    assert decision.observation.note == "ralipay-000001: timeout"


@pytest.mark.parametrize("told", [None, RefundStatus.PROCESSING])
def test_used_up_attempts_open_a_case_once_and_move_nothing_else(told: RefundStatus | None) -> None:
    rules = Rules(backoff=Backoff(attempts_max=3))
    for attempt, cases in ((1, []), (2, []), (3, [CaseReason.ATTEMPTS_EXHAUSTED])):
        state = late_state(a_refund(status=RefundStatus.PROCESSING, attempt=attempt))
        assert reasons_in(answered(state, told, "timeout", rules)) == cases
    told_before = late_state(
        a_refund(status=RefundStatus.PROCESSING, attempt=9), cases=frozenset({(ALIPAY, CaseReason.ATTEMPTS_EXHAUSTED)})
    )
    assert answered(told_before, told, "timeout", rules).change is None


def test_the_last_attempt_may_find_it_processing_and_open_the_case_at_once() -> None:
    state = late_state(a_refund(attempt=3))
    decision = answered(state, RefundStatus.PROCESSING, rules=Rules(backoff=Backoff(attempts_max=3)))
    assert [refund.status for refund in refunds_in(decision)] == [RefundStatus.PROCESSING]
    assert reasons_in(decision) == [CaseReason.ATTEMPTS_EXHAUSTED]


@pytest.mark.parametrize("status", [status for status in RefundStatus if status.is_final])
@pytest.mark.parametrize("told", [*RefundStatus, None])
def test_what_is_definite_stays_so(status: RefundStatus, told: RefundStatus | None) -> None:
    assert answered(late_state(a_refund(status=status)), told) == Decision(outcome=Outcome.NOTHING_NEW)


@pytest.mark.parametrize("status", RefundStatus)
@pytest.mark.parametrize("told", [*RefundStatus, None])
def test_every_move_of_a_refund_is_in_the_table(status: RefundStatus, told: RefundStatus | None) -> None:
    for refund in refunds_in(answered(late_state(a_refund(status=status)), told)):
        assert refund.status in REFUND_MOVES[status]


def test_an_answer_about_a_refund_that_is_none_is_nothing() -> None:
    assert on_refund(late_state(), "r-other", RefundStatus.SUCCEEDED, RULES) == Decision(outcome=Outcome.STALE)


# -- our own refunds in evidence ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [RefundStatus.REQUESTED, RefundStatus.PROCESSING, RefundStatus.SUCCEEDED])
@pytest.mark.parametrize("amount", [1, 8888])
def test_a_refund_of_ours_that_evidence_shows_is_no_case(status: RefundStatus, amount: int) -> None:
    """Whether the channel's callback or its answer to our request comes first."""
    state = late_state(a_refund(status=status))
    decision = on_callback(state, ALIPAY, refunded(refunded_amount=amount), LATE, Source.CALLBACK)
    assert reasons_in(decision) == []
    assert decision.change is not None
    after = applied(state, decision.change)
    assert [payment.refunded_amount for payment in after.payments] == [amount]
    if not status.is_final:
        settled = answered(after, RefundStatus.SUCCEEDED).change
        assert settled is not None
        assert [payment.refunded_amount for payment in settled.payments] == [8888]


def test_a_refund_that_we_hold_to_have_failed_and_evidence_shows_is_a_case() -> None:
    state = late_state(a_refund(status=RefundStatus.FAILED, settled_at=NOW))
    decision = on_callback(state, ALIPAY, refunded(refunded_amount=8888), LATE, Source.CALLBACK)
    assert reasons_in(decision) == [CaseReason.REFUNDED_OUTSIDE]


# -- whatever is told, in whatever order -------------------------------------------------------------------------------

TELLINGS = st.lists(
    st.one_of(
        st.sampled_from([*RefundStatus, None]),
        st.integers(0, 8888).map(lambda amount: refunded(refunded_amount=amount) if amount else paid()),
        st.just("operator"),
    ),
    max_size=12,
)


@given(TELLINGS, st.sampled_from(LatePolicy), st.integers(0, 8888))
def test_never_more_goes_back_than_came_and_never_what_paid(
    tellings: list[RefundStatus | Evidence | str | None], policy: LatePolicy, given_back: int
) -> None:
    rules = Rules(late_policy=policy, backoff=Backoff(attempts_max=2))
    state = a_state(closed_order(), CLOSED_PAYMENT)
    first = refunded(refunded_amount=given_back) if given_back else paid()
    state = _after(state, on_callback(state, ALIPAY, first, rules, Source.CALLBACK))
    for told in tellings:
        refund_no = state.refunds[-1].refund_no if state.refunds else "r-none"
        match told:
            case "operator":
                decision = requested(state)
            case RefundStatus() | None:
                decision = on_refund(state, refund_no, told, rules)
            case str():
                raise AssertionError(told)
            case _:
                decision = on_callback(state, ALIPAY, told, rules, Source.CALLBACK)
        state = _after(state, decision)
        _check(state, policy)


def _after(state: OrderState, decision: Decision) -> OrderState:
    if decision.change is None:
        return state
    assert decision.change.order.version == state.order.version + 1
    return replace(applied(state, decision.change), now=state.now + timedelta(seconds=1))


def _check(state: OrderState, policy: LatePolicy) -> None:
    [payment] = state.payments
    live = [refund for refund in state.refunds if refund.status is not RefundStatus.FAILED]
    assert len(live) <= 1
    assert sum(refund.amount for refund in live) <= _amount(payment)
    assert payment.refunded_amount <= _amount(payment)
    assert len({refund.refund_no for refund in state.refunds}) == len(state.refunds)
    assert (state.order.status is OrderStatus.PAID) == (policy is LatePolicy.ACCEPT)
    if state.order.paid_by is not None:
        assert state.refunds == ()
    elif not any(refund.status is RefundStatus.SUCCEEDED for refund in live):
        assert (ALIPAY, CaseReason.PAID_LATE) in state.open_cases, "nobody looks after this money"


def _amount(payment: Payment) -> int:
    return payment.amount
