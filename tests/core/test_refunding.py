"""Rules of refunds: each is requested once, and each response of the channel has its effect."""

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
    RefundRequest,
    Rules,
    on_callback,
    on_late_accepted,
    on_refund,
    on_refund_requested,
    refund_number,
)
from core.lifecycle.refunding import new_refund
from core.lifecycle.rules import MISMATCHES
from core.order import (
    OUT_TRADE_NO,
    REFUND_MOVES,
    CaseReason,
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
    a_dispute,
    a_payment,
    a_refund,
    a_state,
    an_order,
    case_reasons,
    closed_order,
    order_after,
    paid,
    paid_order,
    paid_payment,
    refunded,
)

LATE = Rules(late_policy=LatePolicy.REFUND)
DOUBLE = Rules(double_policy=DoublePolicy.REFUND)
BOTH = Rules(late_policy=LatePolicy.REFUND, double_policy=DoublePolicy.REFUND)
REFUND_NO = r"[0-9A-Za-z_\-|*@]{1,64}"
"""Format of WeChat Pay's `out_refund_no`, the strictest of all channels."""

SECOND = paid(WECHAT, channel_transaction_id="t-2")
CLOSED_PAYMENT = a_payment(status=PaymentStatus.CLOSED)


def decide_late_money(rules: Rules = LATE, evidence: Evidence | None = None, **changes: Any) -> Decision:
    """Decide on money for a closed order."""
    state = a_state(closed_order(), replace(CLOSED_PAYMENT, **changes))
    return on_callback(state, ALIPAY, evidence or paid(), rules, Source.CALLBACK)


def decide_double_payment(rules: Rules = DOUBLE, evidence: Evidence = SECOND, **changes: Any) -> Decision:
    """Decide on money of a second payment for an order that the first one has paid."""
    state = a_state(paid_order(), paid_payment(), a_payment(WECHAT, attempt_no=2, **changes))
    return on_callback(state, WECHAT, evidence, rules, Source.CALLBACK)


def refunds_in(decision: Decision) -> list[Refund]:
    return [] if decision.change is None else list(decision.change.refunds)


def notification_body(decision: Decision) -> dict[str, Any]:
    assert decision.change is not None
    assert decision.change.notification is not None
    body: dict[str, Any] = msgspec.json.decode(decision.change.notification.body)
    return body


def late_state(*refunds: Refund, **changes: Any) -> OrderState:
    """State of a closed order whose payment is paid, with its case."""
    cases = frozenset({(ALIPAY, CaseReason.PAID_LATE)}) | changes.pop("cases", frozenset())
    return a_state(closed_order(), paid_payment(**changes), cases=cases, refunds=refunds)


def decide_refund(
    state: OrderState, refund_state: RefundStatus | None, note: str = "", rules: Rules = RULES
) -> Decision:
    return on_refund(state, state.refunds[-1].refund_no, refund_state, rules, note=note)


# -- refunds by policy -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "status", "refunds"),
    [
        (LatePolicy.ACCEPT, OrderStatus.PAID, 0),
        (LatePolicy.FLAG, OrderStatus.CLOSED, 0),
        (LatePolicy.REFUND, OrderStatus.CLOSED, 1),
    ],
)
def test_the_policy_of_the_account_decides_on_late_money(policy: LatePolicy, status: OrderStatus, refunds: int) -> None:
    """Every policy makes the payment paid and opens a case. The policy for double payments has no effect."""
    for double in DoublePolicy:
        decision = decide_late_money(Rules(late_policy=policy, double_policy=double))
        assert decision.change is not None
        assert (decision.outcome, case_reasons(decision)) == (Outcome.PAID_LATE, [CaseReason.PAID_LATE])
        assert [payment.status for payment in decision.change.payments] == [PaymentStatus.PAID]
        assert (order_after(decision).status, len(refunds_in(decision))) == (status, refunds)


@pytest.mark.parametrize(("policy", "refunds"), [(DoublePolicy.FLAG, 0), (DoublePolicy.REFUND, 1)])
def test_the_policy_of_the_account_decides_on_double_payments(policy: DoublePolicy, refunds: int) -> None:
    for late in LatePolicy:
        decision = decide_double_payment(Rules(late_policy=late, double_policy=policy))
        assert (decision.outcome, case_reasons(decision)) == (Outcome.DOUBLE_PAYMENT, [CaseReason.DOUBLE_PAYMENT])
        assert (order_after(decision).status, order_after(decision).paid_by) == (OrderStatus.PAID, ALIPAY)
        assert len(refunds_in(decision)) == refunds


def test_a_refund_has_the_whole_amount_and_the_merchant_is_notified_at_once() -> None:
    decision = decide_late_money()
    assert refunds_in(decision) == [a_refund()]
    body = notification_body(decision)
    assert (body["type"], body["data"]["status"], body["data"]["late"]) == ("order.paid_late", "closed", True)
    assert body["data"]["refund"] == {
        "refund_no": "ralipay-000001",
        "amount": 8888,
        "currency": "CNY",
        "reason": "late",
        "status": "requested",
        "settled_at": None,
        "channel_refund_no": None,
    }
    second = decide_double_payment()
    assert refunds_in(second) == [a_refund(WECHAT, reason=RefundReason.DOUBLE)]
    assert (notification_body(second)["type"], notification_body(second)["data"]["refund"]["reason"]) == (
        "order.double_payment",
        "double",
    )


def test_only_the_remaining_amount_is_refunded() -> None:
    """A part was refunded at the channel itself, which opens another case."""
    decision = decide_late_money(evidence=refunded(refunded_amount=100))
    assert [refund.amount for refund in refunds_in(decision)] == [8788]
    assert case_reasons(decision) == [CaseReason.PAID_LATE, CaseReason.REFUNDED_OUTSIDE]
    assert refunds_in(decide_late_money(evidence=refunded(refunded_amount=8888))) == []


def test_a_watched_payment_is_never_refunded() -> None:
    assert refunds_in(decide_late_money(origin=Origin.WATCHED)) == []
    assert case_reasons(decide_late_money(origin=Origin.WATCHED)) == [CaseReason.PAID_LATE]
    assert refunds_in(decide_double_payment(origin=Origin.WATCHED)) == []


def test_late_money_that_a_dispute_has_taken_is_not_refunded_by_itself() -> None:
    """The buyer would get it twice."""
    state = a_state(closed_order(), paid_payment(), disputes=(a_dispute(),))
    assert new_refund(state, paid_payment(), RefundReason.LATE) is None
    assert new_refund(replace(state, disputes=()), paid_payment(), RefundReason.LATE) is not None


@pytest.mark.parametrize("reason", sorted(MISMATCHES))
def test_an_order_with_an_open_mismatch_has_no_automatic_refund(reason: CaseReason) -> None:
    state = a_state(closed_order(), CLOSED_PAYMENT, cases=frozenset({(ALIPAY, reason)}))
    decision = on_callback(state, ALIPAY, paid(), LATE, Source.CALLBACK)
    assert (refunds_in(decision), case_reasons(decision)) == ([], [CaseReason.PAID_LATE])


def test_money_that_pays_an_order_is_never_refunded() -> None:
    """The policies of the account refund only late money and double payments."""
    decision = on_callback(a_state(an_order(), a_payment()), ALIPAY, paid(), BOTH, Source.CALLBACK)
    assert (decision.outcome, refunds_in(decision)) == (Outcome.PAID, [])


def test_a_repeated_payment_report_requests_no_second_refund() -> None:
    state = a_state(closed_order(), CLOSED_PAYMENT)
    decision = decide_late_money()
    assert decision.change is not None
    repeated = on_callback(applied(state, decision.change), ALIPAY, paid(), LATE, Source.CALLBACK)
    assert (repeated.outcome, repeated.change) == (Outcome.NOTHING_NEW, None)


# -- the number --------------------------------------------------------------------------------------------------------


@given(st.from_regex(OUT_TRADE_NO, fullmatch=True), st.integers(1, 99))
def test_a_refund_number_is_valid_for_every_channel_and_deterministic(number: str, nth: int) -> None:
    assert re.fullmatch(REFUND_NO, refund_number(number, nth), re.ASCII)
    assert refund_number(number, nth) == refund_number(number, nth)


@given(st.sets(st.from_regex(r"[0-9a-f]{28}", fullmatch=True), min_size=2, max_size=4), st.integers(1, 9))
def test_refunds_of_different_payments_or_attempts_have_different_numbers(numbers: set[str], nth: int) -> None:
    assert len({refund_number(number, n) for number in numbers for n in (nth, nth + 1)}) == 2 * len(numbers)
    longer = [number * 2 + "x" * 8 for number in numbers]
    assert len({refund_number(number) for number in longer}) == len(longer)


# -- refunds by an operator --------------------------------------------------------------------------------------------


def decide_request(state: OrderState, key: PaymentKey = ALIPAY) -> Decision:
    return on_refund_requested(state, RefundRequest(key=key, by="anna"))


def test_an_operator_refunds_flagged_money_once() -> None:
    state = late_state()
    decision = decide_request(state)
    assert refunds_in(decision) == [a_refund(reason=RefundReason.OPERATOR)]
    assert decision.change is not None
    assert (decision.change.event.by, decision.change.event.note) == (Source.OPERATOR, "ralipay-000001 by anna")
    assert order_after(decision).version == state.order.version + 1
    repeated = decide_request(applied(state, decision.change))
    assert (repeated.outcome, repeated.change) == (Outcome.NOTHING_NEW, None)


def test_an_operator_refunds_a_double_payment() -> None:
    state = a_state(paid_order(), paid_payment(), paid_payment(WECHAT, attempt_no=2, channel_transaction_id="t-2"))
    assert [refund.key for refund in refunds_in(decide_request(state, WECHAT))] == [WECHAT]


@pytest.mark.parametrize(
    "state",
    [
        a_state(an_order(), a_payment()),
        a_state(closed_order(), CLOSED_PAYMENT),
        a_state(an_order(), paid_payment(refunded_amount=100)),
        a_state(paid_order(), paid_payment(unconfirmed_since=NOW)),
        a_state(closed_order(), paid_payment(origin=Origin.WATCHED)),
        a_state(closed_order(), paid_payment(refunded_amount=8888)),
        a_state(closed_order(), paid_payment(WECHAT)),
    ],
    ids=["open", "closed", "of an open order", "unconfirmed", "watched", "refunded", "of another number"],
)
def test_an_operator_cannot_refund_other_payments(state: OrderState) -> None:
    assert decide_request(state) == Decision(outcome=Outcome.NOT_REFUNDABLE)


def test_a_refund_after_a_failed_one_has_another_number() -> None:
    """The channel has the first refund and reported that it failed."""
    failed = a_refund(status=RefundStatus.FAILED, settled_at=NOW)
    assert [refund.refund_no for refund in refunds_in(decide_request(late_state(failed)))] == ["r2_alipay-000001"]


@pytest.mark.parametrize("status", [RefundStatus.REQUESTED, RefundStatus.PROCESSING, RefundStatus.SUCCEEDED])
def test_money_with_a_live_refund_cannot_be_accepted(status: RefundStatus) -> None:
    """Otherwise the order would be paid with money that goes back to the buyer."""
    state = late_state(a_refund(status=status))
    assert on_late_accepted(state, "anna") == Decision(outcome=Outcome.NOT_ACCEPTABLE)
    other = paid_payment(WECHAT, attempt_no=2, channel_transaction_id="t-2")
    accepted = on_late_accepted(replace(state, payments=(*state.payments, other)), "anna")
    assert order_after(accepted).paid_by == WECHAT
    assert CaseReason.DOUBLE_PAYMENT not in case_reasons(accepted)


def test_money_whose_refund_failed_can_be_accepted() -> None:
    failed = a_refund(status=RefundStatus.FAILED, settled_at=NOW)
    assert order_after(on_late_accepted(late_state(failed), "anna")).paid_by == ALIPAY


# -- responses of the channel ------------------------------------------------------------------------------------------


def test_a_succeeded_refund_resolves_the_case_and_notifies_the_merchant() -> None:
    decision = decide_refund(late_state(a_refund(status=RefundStatus.PROCESSING)), RefundStatus.SUCCEEDED)
    assert decision.outcome is Outcome.REFUNDED
    assert decision.change is not None
    [refund], [payment] = decision.change.refunds, decision.change.payments
    assert (refund.status, refund.settled_at) == (RefundStatus.SUCCEEDED, NOW)
    assert (payment.status, payment.refunded_amount) == (PaymentStatus.PAID, 8888)
    assert [(answer.reason, answer.resolution) for answer in decision.change.resolutions] == [
        (CaseReason.PAID_LATE, "refunded")
    ]
    body = notification_body(decision)
    assert (body["type"], body["data"]["status"], body["data"]["late"]) == ("order.refunded", "closed", True)
    assert (body["data"]["refund"]["status"], body["data"]["payment"]["refunded_amount"]) == ("succeeded", 8888)
    assert order_after(decision) == replace(closed_order(), version=closed_order().version + 1)


def test_a_refund_of_a_double_payment_leaves_the_order_paid() -> None:
    """The second payment is refunded; the first one paid the order, which stays paid."""
    payments = (paid_payment(), paid_payment(WECHAT, attempt_no=2, channel_transaction_id="t-2"))
    cases = frozenset({(WECHAT, CaseReason.DOUBLE_PAYMENT)})
    state = a_state(paid_order(), *payments, cases=cases, refunds=(a_refund(WECHAT, reason=RefundReason.DOUBLE),))
    decision = decide_refund(state, RefundStatus.SUCCEEDED)
    assert decision.change is not None
    after = applied(state, decision.change)
    assert (after.order.status, after.order.paid_by) == (OrderStatus.PAID, ALIPAY)
    assert after.open_cases == frozenset()
    assert (notification_body(decision)["data"]["status"], notification_body(decision)["data"]["late"]) == (
        "paid",
        False,
    )


def test_a_refund_made_at_the_channel_leaves_the_order_paid() -> None:
    state = a_state(paid_order(), paid_payment())
    for evidence in (refunded(refunded_amount=1), refunded(refunded_amount=8888)):
        decision = on_callback(state, ALIPAY, evidence, BOTH, Source.CALLBACK)
        assert (order_after(decision).status, refunds_in(decision)) == (OrderStatus.PAID, [])
        assert case_reasons(decision) == [CaseReason.REFUNDED_OUTSIDE]


def test_a_failed_refund_opens_a_case_beside_the_open_one() -> None:
    state = late_state(a_refund())
    decision = decide_refund(state, RefundStatus.FAILED, "refused: AMOUNT_EXCEEDED")
    assert (decision.outcome, case_reasons(decision)) == (Outcome.REFUND_FAILED, [CaseReason.REFUND_FAILED])
    assert decision.change is not None
    assert decision.change.notification is None
    assert "AMOUNT_EXCEEDED" in decision.change.cases[0].detail
    after = applied(state, decision.change)
    assert after.open_cases == {(ALIPAY, CaseReason.PAID_LATE), (ALIPAY, CaseReason.REFUND_FAILED)}
    assert after.payments == state.payments
    assert [(row.status, row.settled_at, row.last_error) for row in after.refunds] == [
        (RefundStatus.FAILED, NOW, "refused: AMOUNT_EXCEEDED")
    ]


def test_a_succeeded_refund_resolves_the_case_of_an_earlier_failure() -> None:
    first = a_refund(status=RefundStatus.FAILED, settled_at=NOW)
    second = a_refund(refund_no="r2_alipay-000001")
    state = late_state(first, second, cases=frozenset({(ALIPAY, CaseReason.REFUND_FAILED)}))
    decision = decide_refund(state, RefundStatus.SUCCEEDED)
    assert decision.change is not None
    assert applied(state, decision.change).open_cases == frozenset()


def test_processing_is_recorded_once_and_then_only_observed() -> None:
    state = late_state(a_refund())
    first = decide_refund(state, RefundStatus.PROCESSING)
    assert [refund.status for refund in refunds_in(first)] == [RefundStatus.PROCESSING]
    assert first.change is not None
    repeated = decide_refund(applied(state, first.change), RefundStatus.PROCESSING)
    assert (repeated.change, repeated.observation is not None) == (None, True)


@pytest.mark.parametrize("status", [RefundStatus.REQUESTED, RefundStatus.PROCESSING])
def test_an_unknown_refund_state_is_unclear(status: RefundStatus) -> None:
    decision = decide_refund(late_state(a_refund(status=status)), None, "timeout")
    assert (decision.outcome, decision.change) == (Outcome.UNCLEAR, None)
    assert decision.observation is not None
    assert decision.observation.note == "ralipay-000001: timeout"


@pytest.mark.parametrize("refund_state", [None, RefundStatus.PROCESSING])
def test_used_up_attempts_open_one_case(refund_state: RefundStatus | None) -> None:
    rules = Rules(backoff=Backoff(attempts_max=3))
    for attempt, cases in ((1, []), (2, []), (3, [CaseReason.ATTEMPTS_EXHAUSTED])):
        state = late_state(a_refund(status=RefundStatus.PROCESSING, attempt=attempt))
        assert case_reasons(decide_refund(state, refund_state, "timeout", rules)) == cases
    exhausted_before = late_state(
        a_refund(status=RefundStatus.PROCESSING, attempt=9), cases=frozenset({(ALIPAY, CaseReason.ATTEMPTS_EXHAUSTED)})
    )
    assert decide_refund(exhausted_before, refund_state, "timeout", rules).change is None


def test_a_last_attempt_that_finds_processing_opens_the_case() -> None:
    state = late_state(a_refund(attempt=3))
    decision = decide_refund(state, RefundStatus.PROCESSING, rules=Rules(backoff=Backoff(attempts_max=3)))
    assert [refund.status for refund in refunds_in(decision)] == [RefundStatus.PROCESSING]
    assert case_reasons(decision) == [CaseReason.ATTEMPTS_EXHAUSTED]


@pytest.mark.parametrize("status", [status for status in RefundStatus if status.is_final])
@pytest.mark.parametrize("refund_state", [*RefundStatus, None])
def test_a_definite_refund_does_not_change(status: RefundStatus, refund_state: RefundStatus | None) -> None:
    assert decide_refund(late_state(a_refund(status=status)), refund_state) == Decision(outcome=Outcome.NOTHING_NEW)


@pytest.mark.parametrize("status", RefundStatus)
@pytest.mark.parametrize("refund_state", [*RefundStatus, None])
def test_every_move_of_a_refund_is_legal(status: RefundStatus, refund_state: RefundStatus | None) -> None:
    for refund in refunds_in(decide_refund(late_state(a_refund(status=status)), refund_state)):
        assert refund.status in REFUND_MOVES[status]


def test_the_state_of_an_unknown_refund_is_stale() -> None:
    assert on_refund(late_state(), "r-other", RefundStatus.SUCCEEDED, RULES) == Decision(outcome=Outcome.STALE)


# -- our own refunds in evidence ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [RefundStatus.REQUESTED, RefundStatus.PROCESSING, RefundStatus.SUCCEEDED])
@pytest.mark.parametrize("amount", [1, 8888])
def test_evidence_of_our_own_refund_opens_no_case(status: RefundStatus, amount: int) -> None:
    """The callback of the channel may arrive before or after its response to our request."""
    state = late_state(a_refund(status=status))
    decision = on_callback(state, ALIPAY, refunded(refunded_amount=amount), LATE, Source.CALLBACK)
    assert case_reasons(decision) == []
    assert decision.change is not None
    after = applied(state, decision.change)
    assert [payment.refunded_amount for payment in after.payments] == [amount]
    if not status.is_final:
        settled = decide_refund(after, RefundStatus.SUCCEEDED).change
        assert settled is not None
        assert [payment.refunded_amount for payment in settled.payments] == [8888]


def test_evidence_of_our_failed_refund_opens_a_case() -> None:
    state = late_state(a_refund(status=RefundStatus.FAILED, settled_at=NOW))
    decision = on_callback(state, ALIPAY, refunded(refunded_amount=8888), LATE, Source.CALLBACK)
    assert case_reasons(decision) == [CaseReason.REFUNDED_OUTSIDE]


# -- any inputs in any order -------------------------------------------------------------------------------------------

INPUTS = st.lists(
    st.one_of(
        st.sampled_from([*RefundStatus, None]),
        st.integers(0, 8888).map(lambda amount: refunded(refunded_amount=amount) if amount else paid()),
        st.sampled_from(["all", "3000"]),
    ),
    max_size=12,
)


@given(INPUTS, st.sampled_from(LatePolicy), st.integers(0, 8888))
def test_refunds_never_exceed_the_payment_and_only_operators_touch_the_paying_one(
    inputs: list[RefundStatus | Evidence | str | None], policy: LatePolicy, refunded_amount: int
) -> None:
    rules = Rules(late_policy=policy, backoff=Backoff(attempts_max=2))
    state = a_state(closed_order(), CLOSED_PAYMENT)
    first = refunded(refunded_amount=refunded_amount) if refunded_amount else paid()
    state = _after(state, on_callback(state, ALIPAY, first, rules, Source.CALLBACK))
    for refund_state in inputs:
        refund_no = state.refunds[-1].refund_no if state.refunds else "r-none"
        match refund_state:
            case "all":
                decision = decide_request(state)
            case "3000":
                request = RefundRequest(key=ALIPAY, by="anna", amount=3000, request_key=f"k-{len(state.refunds)}")
                decision = on_refund_requested(state, request)
            case RefundStatus() | None:
                decision = on_refund(state, refund_no, refund_state, rules)
            case str():
                raise AssertionError(refund_state)
            case _:
                decision = on_callback(state, ALIPAY, refund_state, rules, Source.CALLBACK)
        state = _after(state, decision)
        _check(state, pays=policy is LatePolicy.ACCEPT and refunded_amount < CLOSED_PAYMENT.amount)


def _after(state: OrderState, decision: Decision) -> OrderState:
    if decision.change is None:
        return state
    assert decision.change.order.version == state.order.version + 1
    return replace(applied(state, decision.change), now=state.now + timedelta(seconds=1))


def _check(state: OrderState, *, pays: bool) -> None:
    [payment] = state.payments
    live = [refund for refund in state.refunds if refund.status is not RefundStatus.FAILED]
    assert sum(refund.amount for refund in live) <= payment.amount
    assert payment.refunded_amount is not None
    assert payment.refunded_amount <= payment.amount
    assert len({refund.refund_no for refund in state.refunds}) == len(state.refunds)
    assert (state.order.status is OrderStatus.PAID) is pays, "money that went back pays nothing"
    if state.order.paid_by is not None:
        assert {refund.reason for refund in state.refunds} <= {RefundReason.OPERATOR}
    elif not any(refund.status is RefundStatus.SUCCEEDED for refund in live):
        reasons = {reason for key, reason in state.open_cases if key == ALIPAY}
        # While a refund of ours is under way, a refund seen is that one.
        expected = CaseReason.PAID_LATE if live or _remaining(payment) else CaseReason.REFUNDED_OUTSIDE
        assert expected in reasons, "this money has neither a refund nor a case"


def _remaining(payment: Payment) -> int:
    assert payment.refunded_amount is not None
    return payment.amount - payment.refunded_amount
