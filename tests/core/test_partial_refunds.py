"""Refunds that an operator requests: in part, several of one payment, also of the payment that paid its order."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from core.decision import Decision, Outcome, applied
from core.dispute import DisputeKind
from core.evidence import Evidence, Refunded, Source
from core.lifecycle import (
    RefundRequest,
    is_same_refund,
    known_refund,
    needs_approval,
    on_late_accepted,
    on_query,
    on_refund,
    on_refund_requested,
    outside_amount,
    refund_obstacle,
    refund_wait_s,
    refundable_amount,
)
from core.lifecycle.refunding import REFUNDS_MAX
from core.order import CaseReason, OrderState, OrderStatus, Origin, PaymentStatus, Refund, RefundReason, RefundStatus
from core.phase import Phase, phase_of
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
    paid_order,
    paid_payment,
    refunded,
)

NOTIFYING: dict[str, Any] = {"notify_url": "https://merchant.example/hook"}
NO_SUM = refunded(refunded_amount=None)


def paid_state(*refunds: Refund, **payment: Any) -> OrderState:
    """An order that is paid, its payment, and refunds of that."""
    return a_state(paid_order(**NOTIFYING), paid_payment(**payment), refunds=refunds)


def wish(amount: int | None = None, request_key: str = "", **more: Any) -> RefundRequest:
    return RefundRequest(**{"key": ALIPAY, "by": "anna", "amount": amount, "request_key": request_key} | more)


def after(state: OrderState, decision: Decision) -> OrderState:
    return state if decision.change is None else applied(state, decision.change)


def request(state: OrderState, amount: int | None = None, request_key: str = "", **more: Any) -> OrderState:
    """The state after a request, which must have led to a refund."""
    decision = on_refund_requested(state, wish(amount, request_key, **more))
    assert decision.outcome is Outcome.REFUND_REQUESTED
    return after(state, decision)


def settle(state: OrderState, nth: int = -1, status: RefundStatus = RefundStatus.SUCCEEDED) -> OrderState:
    return after(state, on_refund(state, state.refunds[nth].refund_no, status, RULES))


def see(state: OrderState, evidence: Evidence) -> tuple[OrderState, Decision]:
    decision = on_query(state, ALIPAY, evidence, RULES, Source.QUERY)
    return after(state, decision), decision


def sums(state: OrderState) -> tuple[int | None, int | None, int]:
    """Sums: what went back, what can still go back, and what went back without us."""
    [payment] = state.payments
    return payment.refunded_amount, refundable_amount(state, payment), outside_amount(state, payment)


# -- requesting --------------------------------------------------------------------------------------------------------


def test_a_part_of_the_money_that_paid_an_order_goes_back_and_the_order_stays_paid() -> None:
    state = paid_state()
    decision = on_refund_requested(state, wish(1250, "ticket-77", reason="one cup was broken"))
    assert decision.change is not None
    [refund] = decision.change.refunds
    assert refund == a_refund(
        amount=1250, reason=RefundReason.OPERATOR, request_key="ticket-77", note="one cup was broken"
    )
    assert (order_after(decision).status, order_after(decision).paid_by) == (OrderStatus.PAID, ALIPAY)
    assert (decision.change.event.note, decision.change.notification) == ("ralipay-000001 by anna", None)


def test_a_succeeded_part_counts_and_the_merchant_is_notified() -> None:
    state = request(paid_state(), 1250, "ticket-77")
    decision = on_refund(state, state.refunds[0].refund_no, RefundStatus.SUCCEEDED, RULES)
    assert decision.change is not None
    assert decision.change.notification is not None
    data = msgspec.json.decode(decision.change.notification.body)["data"]
    assert (decision.change.notification.type, data["status"], data["late"]) == ("order.refunded", "paid", False)
    assert (data["payment"]["refunded_amount"], data["payment"]["remaining_amount"]) == (1250, 7638)
    assert (data["refund"]["amount"], data["refund"]["reason"]) == (1250, "operator")
    assert sums(after(state, decision)) == (1250, 7638, 0)


def test_parts_are_refunds_with_numbers_of_their_own_and_never_more_than_the_payment() -> None:
    state = request(request(paid_state(), 5000, "one"), 3000, "two")
    assert [refund.refund_no for refund in state.refunds] == ["ralipay-000001", "r2_alipay-000001"]
    assert sums(state) == (0, 888, 0)
    assert on_refund_requested(state, wish(889, "three")) == Decision(outcome=Outcome.NOT_REFUNDABLE)
    state = request(state, None, "three")
    assert state.refunds[-1].amount == 888
    for nth in range(3):
        state = settle(state, nth)
    assert sums(state) == (8888, 0, 0)


def test_the_same_key_is_the_same_refund_and_another_amount_a_conflict() -> None:
    state = request(paid_state(), 1250, "ticket-77")
    assert on_refund_requested(state, wish(1250, "ticket-77")) == Decision(outcome=Outcome.NOTHING_NEW)
    assert on_refund_requested(state, wish(None, "ticket-77")) == Decision(outcome=Outcome.NOTHING_NEW)
    assert on_refund_requested(state, wish(1251, "ticket-77")) == Decision(outcome=Outcome.OTHER_TERMS)
    other = wish(1250, "ticket-77", key=WECHAT)
    assert on_refund_requested(state, other) == Decision(outcome=Outcome.OTHER_TERMS)
    known = known_refund(state, other)
    assert known is not None
    assert not is_same_refund(known, other)


def test_a_key_is_known_whatever_became_of_its_refund_and_of_the_order() -> None:
    state = settle(request(paid_state(), 1250, "ticket-77"), status=RefundStatus.FAILED)
    late = wish(1250, "ticket-77", expected_version=1)
    assert on_refund_requested(state, late) == Decision(outcome=Outcome.NOTHING_NEW)
    assert request(state, 1250, "ticket-78").refunds[-1].refund_no == "r2_alipay-000001"


def test_without_a_key_all_that_is_left_is_one_refund() -> None:
    state = request(request(paid_state(), 1250, "ticket-77"))
    assert [refund.amount for refund in state.refunds] == [1250, 7638]
    assert on_refund_requested(state, wish()) == Decision(outcome=Outcome.NOTHING_NEW)
    assert known_refund(state, wish()) == state.refunds[-1]
    assert known_refund(state, wish(1)) is None
    assert known_refund(paid_state(), wish()) is None
    assert known_refund(state, wish(key=WECHAT)) is None
    all_gone_outside = paid_state(refunded_amount=8888)
    assert known_refund(all_gone_outside, wish()) is None


def test_an_order_that_has_moved_on_is_looked_at_again() -> None:
    state = paid_state()
    now = state.order.version
    assert on_refund_requested(state, wish(1, "k", expected_version=now - 1)) == Decision(outcome=Outcome.MOVED)
    assert on_refund_requested(state, wish(1, "k", expected_version=now)).outcome is Outcome.REFUND_REQUESTED


@pytest.mark.parametrize(
    ("obstacle", "state", "amount"),
    [
        ("refund.no_payment", a_state(paid_order(), paid_payment(WECHAT)), None),
        ("refund.watched", paid_state(origin=Origin.WATCHED), None),
        ("refund.not_paid", a_state(paid_order(WECHAT), a_payment()), None),
        ("refund.not_paid", a_state(closed_order(), a_payment(status=PaymentStatus.CLOSED)), None),
        ("refund.order_open", a_state(an_order(), paid_payment()), None),
        ("refund.unconfirmed", paid_state(unconfirmed_since=NOW), None),
        ("refund.disputed", replace(paid_state(), disputes=(a_dispute(),)), None),
        ("refund.unknown_sum", paid_state(refunded_amount=None), None),
        ("refund.nothing_left", paid_state(refunded_amount=8888), None),
        ("refund.nothing_left", paid_state(a_refund()), 1),
        ("refund.too_much", paid_state(a_refund(amount=8000)), 889),
        ("refund.too_much", paid_state(), 8889),
        (
            "refund.too_many",
            paid_state(
                *(
                    a_refund(refund_no=f"r-{n}", amount=1, status=RefundStatus.FAILED, settled_at=NOW)
                    for n in range(REFUNDS_MAX)
                )
            ),
            1,
        ),
        (None, paid_state(a_refund(amount=8000)), 888),
        (None, replace(paid_state(), disputes=(a_dispute(kind=DisputeKind.INQUIRY),)), None),
        (None, a_state(closed_order(), paid_payment()), 1),
    ],
)
def test_money_that_may_go_back_is_there_and_ours(obstacle: str | None, state: OrderState, amount: int | None) -> None:
    assert refund_obstacle(state, ALIPAY, amount) == obstacle
    outcome = on_refund_requested(state, wish(amount, "k")).outcome
    assert outcome is (Outcome.REFUND_REQUESTED if obstacle is None else Outcome.NOT_REFUNDABLE)


# -- a second operator -------------------------------------------------------------------------------------------------


def test_above_the_limit_a_second_operator_has_to_agree() -> None:
    state = paid_state()
    assert on_refund_requested(state, wish(501, "k", alone_max=500)) == Decision(outcome=Outcome.NEEDS_APPROVAL)
    assert on_refund_requested(state, wish(None, "k", alone_max=8887)) == Decision(outcome=Outcome.NEEDS_APPROVAL)
    assert on_refund_requested(state, wish(500, "k", alone_max=500)).outcome is Outcome.REFUND_REQUESTED
    decision = on_refund_requested(state, wish(501, "k", alone_max=500, approved_by="bob"))
    assert decision.change is not None
    assert decision.change.event.note == "ralipay-000001 by anna, approved by bob"


def test_a_large_refund_cannot_be_split_into_small_ones() -> None:
    state = request(paid_state(), 400, "one", alone_max=500)
    assert on_refund_requested(state, wish(101, "two", alone_max=500)) == Decision(outcome=Outcome.NEEDS_APPROVAL)
    failed = settle(state, status=RefundStatus.FAILED)
    assert not needs_approval(failed, 500, 500)
    by_policy = paid_state(a_refund(amount=8000))
    assert not needs_approval(by_policy, 500, 500)
    assert not needs_approval(state, 8000, None)


# -- whose sum it is ---------------------------------------------------------------------------------------------------


def test_a_total_that_shows_our_parts_is_not_counted_twice() -> None:
    """A channel's callback may come before, between and after our own answers."""
    state = request(request(paid_state(), 1000, "one"), 2000, "two")
    state, seen = see(state, refunded(refunded_amount=1000))
    assert (sums(state), case_reasons(seen)) == ((1000, 5888, 0), [])
    state = settle(state, 0)
    assert sums(state) == (1000, 5888, 0)
    state, seen = see(state, refunded(refunded_amount=3000))
    assert (sums(state), case_reasons(seen)) == ((3000, 5888, 0), [])
    state = settle(state, 1)
    assert sums(state) == (3000, 5888, 0)
    assert see(state, refunded(refunded_amount=3000))[1].change is None


def test_what_went_back_at_the_channel_before_stays_beside_our_part() -> None:
    state, seen = see(paid_state(), refunded(refunded_amount=200))
    assert case_reasons(seen) == [CaseReason.REFUNDED_OUTSIDE]
    state = request(state, 300, "one")
    assert sums(state) == (200, 8388, 200)
    state = settle(state)
    assert sums(state) == (500, 8388, 200)
    assert see(state, refunded(refunded_amount=500))[1].change is None
    state, seen = see(state, refunded(refunded_amount=600))
    assert (sums(state), case_reasons(seen)) == ((600, 8288, 300), [])
    [case] = [key for key in state.open_cases if key[1] is CaseReason.REFUNDED_OUTSIDE]
    assert case == (ALIPAY, CaseReason.REFUNDED_OUTSIDE)


def test_a_resolved_case_about_the_console_is_opened_again_only_by_more() -> None:
    state, _ = see(paid_state(), refunded(refunded_amount=200))
    state = replace(request(state, 300, "one"), open_cases=frozenset())
    state, seen = see(state, refunded(refunded_amount=500))
    assert case_reasons(seen) == []
    state, seen = see(settle(state), refunded(refunded_amount=501))
    assert case_reasons(seen) == [CaseReason.REFUNDED_OUTSIDE]
    assert seen.change is not None
    assert seen.change.cases[0].detail == "2.01 of 88.88 CNY refunded at the channel, 83.87 left"


def test_a_total_that_our_failed_part_does_not_explain_is_a_case() -> None:
    state = request(paid_state(), 300, "one")
    state, seen = see(state, refunded(refunded_amount=300))
    assert case_reasons(seen) == []
    failed = on_refund(state, state.refunds[0].refund_no, RefundStatus.FAILED, RULES)
    assert case_reasons(failed) == [CaseReason.REFUND_FAILED, CaseReason.REFUNDED_OUTSIDE]
    assert sums(after(state, failed)) == (300, 8588, 300)


def test_a_console_refund_beside_ours_is_seen_with_the_next_total() -> None:
    state = request(paid_state(), 300, "one")
    state, seen = see(state, refunded(refunded_amount=200))
    assert case_reasons(seen) == []
    state = settle(state)
    assert sums(state) == (300, 8588, 0)
    state, seen = see(state, refunded(refunded_amount=500))
    assert (sums(state), case_reasons(seen)) == ((500, 8388, 200), [CaseReason.REFUNDED_OUTSIDE])


def test_a_single_that_is_told_by_its_number_was_nobodys_until_then() -> None:
    state, _ = see(paid_state(), refunded(refunded_amount=200))
    state = settle(request(state, 300, "one"))
    assert state.payments[0].channel_refunds == {"": 200}
    state, _ = see(state, replace(NO_SUM, refunds={"console-1": 150}))
    assert (sums(state), state.payments[0].channel_refunds) == ((500, 8388, 200), {"console-1": 150, "": 50})
    state, _ = see(state, replace(NO_SUM, refunds={"console-1": 150, "console-2": 100}))
    assert (sums(state), state.payments[0].channel_refunds) == (
        (550, 8338, 250),
        {"console-1": 150, "console-2": 100},
    )


def test_where_no_total_is_told_our_parts_are_the_sum() -> None:
    """WeChat Pay says that something went back, and tells single refunds by their number."""
    state = request(paid_state(), 300, "one")
    assert see(state, NO_SUM)[1].change is None
    state = settle(state)
    assert sums(state) == (300, 8588, 0)
    assert see(state, NO_SUM)[1].change is None
    state, seen = see(state, replace(NO_SUM, refunds={"console-1": 100}))
    assert (sums(state), case_reasons(seen)) == ((400, 8488, 100), [CaseReason.REFUNDED_OUTSIDE])


def test_a_list_that_shows_our_part_and_anothers_counts_each_once() -> None:
    """PayPal tells the total and every refund."""
    state = request(paid_state(), 300, "one")
    ours = state.refunds[0].refund_no
    both: Refunded = refunded(refunded_amount=400, refunds={ours: 300, "console-1": 100})
    state, seen = see(state, both)
    assert (sums(state), case_reasons(seen)) == ((400, 8488, 100), [CaseReason.REFUNDED_OUTSIDE])
    assert sums(settle(state)) == (400, 8488, 100)


def test_refunds_of_one_payment_are_requested_some_time_apart_where_the_channel_wants_that() -> None:
    refunds = [
        a_refund(refund_no=number, amount=1, requested_at=NOW - timedelta(seconds=ago))
        for number, ago in (("r2_n", 0), ("r_n", 0), ("r10_n", 0), ("r0_n", 200))
    ]
    state = paid_state(*refunds)
    waits = {refund.refund_no: refund_wait_s(state, refund.refund_no, 60.0) for refund in refunds}
    assert waits == {"r0_n": 0.0, "r_n": 0.0, "r2_n": 60.0, "r10_n": 120.0}
    assert refund_wait_s(state, "r-unknown", 60.0) == 0.0


# -- cases and late money ----------------------------------------------------------------------------------------------


def late_state(*refunds: Refund, reasons: tuple[CaseReason, ...] = (CaseReason.PAID_LATE,)) -> OrderState:
    cases = frozenset((ALIPAY, reason) for reason in reasons)
    return a_state(closed_order(**NOTIFYING), paid_payment(), refunds=refunds, cases=cases)


def test_the_case_of_late_money_stays_until_all_of_it_is_back() -> None:
    state = settle(request(late_state(), 1000, "one"))
    assert state.open_cases == {(ALIPAY, CaseReason.PAID_LATE)}
    assert phase_of(state) is Phase.REVIEW
    state = request(state)
    assert phase_of(state) is Phase.GOING_BACK
    state = settle(state)
    assert (state.open_cases, phase_of(state)) == (frozenset(), Phase.REFUNDED)


@pytest.mark.parametrize(("failed", "then", "is_settled"), [(1000, 1000, True), (1000, 1001, True), (1000, 999, False)])
def test_a_failed_part_is_made_good_by_a_later_one_that_is_no_smaller(failed: int, then: int, is_settled: bool) -> None:
    state = settle(request(paid_state(), failed, "one"), status=RefundStatus.FAILED)
    assert state.open_cases == {(ALIPAY, CaseReason.REFUND_FAILED)}
    state = settle(request(state, then, "two"))
    assert (state.open_cases == frozenset()) is is_settled


def test_a_part_without_an_answer_is_settled_once_nothing_is_on_its_way() -> None:
    exhausted = (CaseReason.ATTEMPTS_EXHAUSTED,)
    state = request(request(late_state(reasons=exhausted), 1000, "one"), 2000, "two")
    state = settle(state, 0)
    assert state.open_cases == {(ALIPAY, CaseReason.ATTEMPTS_EXHAUSTED)}
    assert settle(state, 1).open_cases == frozenset()


def test_late_money_of_which_a_part_went_back_can_still_be_accepted() -> None:
    state = settle(request(late_state(), 1000, "one"))
    accepted = on_late_accepted(state, "anna")
    assert (order_after(accepted).status, order_after(accepted).paid_by) == (OrderStatus.PAID, ALIPAY)
    assert on_late_accepted(request(state), "anna") == Decision(outcome=Outcome.NOT_ACCEPTABLE)
    assert on_late_accepted(state, "anna", expected_version=1) == Decision(outcome=Outcome.MOVED)
