"""Money that went back before it was seen here, or of which nobody knows how much is left."""

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from core.decision import Decision, Outcome, applied
from core.evidence import Evidence, Refunded, Source
from core.lifecycle import (
    DoublePolicy,
    LatePolicy,
    RefundRequest,
    Rules,
    on_callback,
    on_deadline,
    on_late_accepted,
    on_query,
    on_refresh,
    on_refund,
    on_refund_requested,
    start_payment,
    with_notice,
    with_refund,
)
from core.lifecycle.rules import PaymentTerms
from core.order import (
    CaseReason,
    Order,
    OrderState,
    OrderStatus,
    Payment,
    PaymentStatus,
    PublicStatus,
    RefundStatus,
    public_status,
)
from tests.core.states import (
    ALIPAY,
    EXPIRES_AT,
    NOW,
    RULES,
    WECHAT,
    a_payment,
    a_refund,
    a_state,
    an_order,
    case_reasons,
    closed_order,
    missing,
    order_after,
    paid,
    paid_order,
    paid_payment,
    refunded,
)

WHOLE = refunded(refunded_amount=8888)
UNKNOWN = refunded(refunded_amount=None)
PARTIAL = refunded(refunded_amount=100)
CLOSED_PAYMENT = a_payment(status=PaymentStatus.CLOSED)
UNKNOWN_CASE = frozenset({(ALIPAY, CaseReason.REFUND_AMOUNT_UNKNOWN)})
POLICIES = [Rules(late_policy=late, double_policy=double) for late in LatePolicy for double in DoublePolicy]
NOTIFYING: dict[str, Any] = {"notify_url": "https://merchant.example/hook"}


def decide(state: OrderState, evidence: Evidence, rules: Rules = RULES) -> Decision:
    return on_query(state, ALIPAY, evidence, rules, Source.QUERY)


def payment_after(decision: Decision) -> Payment:
    assert decision.change is not None
    return decision.change.payments[0]


def notification(decision: Decision) -> tuple[str, dict[str, Any]]:
    assert decision.change is not None
    assert decision.change.notification is not None
    body = msgspec.json.decode(decision.change.notification.body)
    return decision.change.notification.type, body["data"]


def resolved_reasons(decision: Decision) -> list[CaseReason]:
    return [] if decision.change is None else [each.reason for each in decision.change.resolutions]


# -- money that is gone, or may be -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("evidence", "reason"),
    [(WHOLE, CaseReason.REFUNDED_OUTSIDE), (UNKNOWN, CaseReason.REFUND_AMOUNT_UNKNOWN)],
    ids=["whole", "unknown"],
)
@pytest.mark.parametrize(
    ("order", "payments"),
    [
        (an_order(**NOTIFYING), (a_payment(),)),
        (closed_order(**NOTIFYING), (CLOSED_PAYMENT,)),
        (closed_order(**NOTIFYING), (a_payment(),)),
        (paid_order(WECHAT, **NOTIFYING), (a_payment(), paid_payment(WECHAT, channel_transaction_id="t-2"))),
    ],
    ids=["open", "closed", "closed with an open payment", "paid by another one"],
)
@pytest.mark.parametrize("rules", POLICIES, ids=lambda rules: f"{rules.late_policy} {rules.double_policy}")
def test_money_that_went_back_is_recorded_and_pays_no_order(
    order: Order, payments: tuple[Payment, ...], evidence: Refunded, reason: CaseReason, rules: Rules
) -> None:
    decision = decide(a_state(order, *payments), evidence, rules)
    payment = payment_after(decision)
    assert (payment.status, payment.refunded_amount) == (PaymentStatus.PAID, evidence.refunded_amount)
    assert (order_after(decision).status, order_after(decision).paid_by) == (order.status, order.paid_by)
    assert (decision.outcome, case_reasons(decision)) == (Outcome.REFUND_SEEN, [reason])
    assert decision.change is not None
    assert (decision.change.refunds, decision.change.resolved) == ((), (ALIPAY,))
    type_, data = notification(decision)
    left = None if evidence.refunded_amount is None else 0
    assert (type_, data["late"]) == ("order.refunded", order.status is OrderStatus.CLOSED)
    assert (data["payment"]["refunded_amount"], data["payment"]["remaining_amount"]) == (evidence.refunded_amount, left)


@pytest.mark.parametrize("evidence", [WHOLE, UNKNOWN], ids=["whole", "unknown"])
def test_an_order_whose_money_went_back_can_be_paid_until_its_deadline(evidence: Refunded) -> None:
    state = a_state(an_order(), a_payment())
    change = decide(state, evidence).change
    assert change is not None
    after = applied(state, change)
    another = PaymentTerms(account=WECHAT.channel_account, out_trade_no=WECHAT.out_trade_no)
    assert start_payment(after, another, RULES).outcome is Outcome.STARTED
    assert start_payment(after, replace(another, account=ALIPAY.channel_account), RULES).outcome is Outcome.STARTED
    paid_again = on_callback(
        a_state(after.order, *after.payments, a_payment(WECHAT, attempt_no=2)),
        WECHAT,
        paid(WECHAT, channel_transaction_id="t-2"),
        RULES,
        Source.CALLBACK,
    )
    assert (paid_again.outcome, order_after(paid_again).paid_by) == (Outcome.PAID, WECHAT)
    over = on_deadline(replace(after, now=EXPIRES_AT), RULES)
    assert over.outcome is Outcome.CLOSED
    assert public_status(order_after(over), after.payments) is not PublicStatus.PAID


def test_a_partial_refund_pays_the_order_and_says_what_is_left() -> None:
    decision = decide(a_state(an_order(**NOTIFYING), a_payment()), PARTIAL)
    type_, data = notification(decision)
    assert (decision.outcome, type_) == (Outcome.PAID, "order.paid")
    assert (data["payment"]["refunded_amount"], data["payment"]["remaining_amount"]) == (100, 8788)
    assert decision.change is not None
    [case] = decision.change.cases
    assert (case.reason, case.detail) == (
        CaseReason.REFUNDED_OUTSIDE,
        "1.00 of 88.88 CNY refunded at the channel, 87.88 left",
    )


# -- a sum that is known later -----------------------------------------------------------------------------------------


def unknown_state(order: Order, *others: Payment) -> OrderState:
    return a_state(order, paid_payment(refunded_amount=None), *others, cases=UNKNOWN_CASE)


@pytest.mark.parametrize(
    ("evidence", "amount"),
    [
        (PARTIAL, 100),
        (replace(UNKNOWN, refunds={"c-1": 30}), 30),
        (replace(UNKNOWN, refunds={"c-1": 30, "c-2": 5}), 35),
    ],
)
def test_a_sum_known_later_to_be_partial_pays_the_order(evidence: Refunded, amount: int) -> None:
    decision = decide(unknown_state(an_order(**NOTIFYING)), evidence)
    assert (decision.outcome, payment_after(decision).refunded_amount) == (Outcome.PAID, amount)
    assert notification(decision)[0] == "order.paid"
    assert case_reasons(decision) == [CaseReason.REFUNDED_OUTSIDE]
    assert resolved_reasons(decision) == [CaseReason.REFUND_AMOUNT_UNKNOWN]


def test_a_sum_known_later_to_be_partial_is_late_money_for_a_closed_order() -> None:
    decision = decide(unknown_state(closed_order()), PARTIAL, Rules(late_policy=LatePolicy.REFUND))
    assert decision.outcome is Outcome.PAID_LATE
    assert case_reasons(decision) == [CaseReason.PAID_LATE, CaseReason.REFUNDED_OUTSIDE]
    assert decision.change is not None
    assert [refund.amount for refund in decision.change.refunds] == [8788]


def test_a_sum_known_later_to_be_partial_is_a_double_payment_of_a_paid_order() -> None:
    state = unknown_state(paid_order(WECHAT), paid_payment(WECHAT, channel_transaction_id="t-2"))
    decision = decide(state, PARTIAL)
    assert decision.outcome is Outcome.DOUBLE_PAYMENT
    assert resolved_reasons(decision) == [CaseReason.REFUND_AMOUNT_UNKNOWN]


def test_a_sum_known_later_to_be_all_of_it_pays_nothing() -> None:
    decision = decide(unknown_state(an_order(**NOTIFYING)), WHOLE)
    assert (decision.outcome, order_after(decision).status) == (Outcome.REFUND_SEEN, OrderStatus.PAYING)
    assert (case_reasons(decision), resolved_reasons(decision)) == (
        [CaseReason.REFUNDED_OUTSIDE],
        [CaseReason.REFUND_AMOUNT_UNKNOWN],
    )
    assert notification(decision)[0] == "order.refunded"


@pytest.mark.parametrize("evidence", [paid(), UNKNOWN], ids=["an old paid", "the same again"])
@pytest.mark.parametrize("amount", [None, 8888])
def test_what_tells_no_sum_pays_nothing_and_takes_nothing_back(evidence: Evidence, amount: int | None) -> None:
    state = a_state(an_order(), paid_payment(refunded_amount=amount), cases=UNKNOWN_CASE)
    assert decide(state, evidence).change is None


def test_a_sum_becomes_known_of_the_payment_that_paid_the_order() -> None:
    """It was paid before the refund, so it stays paid, and nobody is notified of the merchant's own refund."""
    state = a_state(paid_order(**NOTIFYING), paid_payment())
    seen = decide(state, UNKNOWN)
    assert (order_after(seen).status, payment_after(seen).refunded_amount) == (OrderStatus.PAID, None)
    assert case_reasons(seen) == [CaseReason.REFUND_AMOUNT_UNKNOWN]
    assert seen.change is not None
    later = decide(applied(state, seen.change), PARTIAL)
    assert (later.outcome, payment_after(later).refunded_amount) == (Outcome.REFUND_SEEN, 100)
    assert later.change is not None
    assert (seen.change.notification, later.change.notification) == (None, None)


def test_single_refunds_are_added_up_once_each() -> None:
    state = a_state(paid_order(), paid_payment(refunded_amount=30, channel_refunds={"c-1": 30}))
    decision = decide(state, replace(UNKNOWN, refunds={"c-1": 30, "c-2": 8}))
    assert (payment_after(decision).refunded_amount, payment_after(decision).channel_refunds) == (
        38,
        {"c-1": 30, "c-2": 8},
    )
    assert decide(state, replace(UNKNOWN, refunds={"c-1": 30})).change is None


def test_a_refresh_asks_again_how_much_is_left() -> None:
    """PayPal shows the refund in its list later than in the state of the capture."""
    decision = on_refresh(unknown_state(an_order()), RULES)
    assert (decision.query, [arm.key for arm in decision.rearm]) == ((ALIPAY,), [ALIPAY])
    assert on_refresh(a_state(an_order(), paid_payment(refunded_amount=8888)), RULES).query == ()


# -- refunds of ours ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [RefundStatus.REQUESTED, RefundStatus.PROCESSING])
def test_a_refund_of_ours_explains_an_unknown_sum(status: RefundStatus) -> None:
    refund = a_refund(status=status)
    state = a_state(closed_order(), paid_payment(), refunds=(refund,))
    assert decide(state, UNKNOWN).change is None
    assert decide(state, replace(UNKNOWN, refunds={refund.refund_no: 8888})).change is None


def test_a_refund_of_ours_and_one_outside_are_one_sum() -> None:
    ours = a_refund(status=RefundStatus.SUCCEEDED, amount=8000, settled_at=NOW)
    state = a_state(closed_order(), paid_payment(refunded_amount=8000), refunds=(ours,))
    decision = decide(state, replace(UNKNOWN, refunds={"c-1": 888}))
    assert payment_after(decision).refunded_amount == 8888


def test_a_refund_seen_outside_that_has_its_sum_from_ours_is_not_unknown() -> None:
    ours = a_refund(status=RefundStatus.SUCCEEDED, settled_at=NOW)
    state = a_state(closed_order(), paid_payment(refunded_amount=8888), refunds=(ours,))
    assert decide(state, UNKNOWN).change is None


def test_a_refund_of_ours_that_failed_explains_nothing() -> None:
    failed = a_refund(status=RefundStatus.FAILED, settled_at=NOW)
    decision = decide(a_state(closed_order(**NOTIFYING), paid_payment(), refunds=(failed,)), UNKNOWN)
    assert case_reasons(decision) == [CaseReason.REFUND_AMOUNT_UNKNOWN]
    assert notification(decision)[0] == "order.refunded"


def test_a_refund_of_ours_that_failed_here_and_succeeded_there_counts() -> None:
    failed = a_refund(status=RefundStatus.FAILED, settled_at=NOW)
    state = a_state(closed_order(), paid_payment(), refunds=(failed,))
    decision = decide(state, replace(UNKNOWN, refunds={failed.refund_no: 8888}))
    assert payment_after(decision).refunded_amount == 8888


def test_a_refund_of_ours_that_succeeds_while_the_sum_is_unknown_is_the_sum() -> None:
    processing = a_refund(status=RefundStatus.PROCESSING)
    state = a_state(closed_order(), paid_payment(refunded_amount=None), refunds=(processing,))
    decision = on_refund(state, processing.refund_no, RefundStatus.SUCCEEDED, RULES)
    assert payment_after(decision).refunded_amount == 8888


@pytest.mark.parametrize("amount", [8888, None])
def test_money_that_is_not_known_to_be_there_is_neither_accepted_nor_refunded(amount: int | None) -> None:
    state = a_state(closed_order(), paid_payment(refunded_amount=amount))
    assert on_late_accepted(state, "anna") == Decision(outcome=Outcome.NOT_ACCEPTABLE)
    request = RefundRequest(key=ALIPAY, by="anna")
    assert on_refund_requested(state, request) == Decision(outcome=Outcome.NOT_REFUNDABLE)


def test_flagged_late_money_that_is_refunded_outside_is_told_to_the_merchant() -> None:
    decision = decide(a_state(closed_order(**NOTIFYING), paid_payment()), WHOLE)
    assert (notification(decision)[0], case_reasons(decision)) == ("order.refunded", [CaseReason.REFUNDED_OUTSIDE])
    assert order_after(decision).status is OrderStatus.CLOSED


# -- a query's answer and what a message adds to it --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "notice", "amount"),
    [
        (paid(), PARTIAL, 100),
        (paid(), WHOLE, 8888),
        (PARTIAL, WHOLE, 8888),
    ],
)
def test_a_refund_notice_adds_its_total_to_the_answer(answer: Evidence, notice: Refunded, amount: int) -> None:
    assert with_notice(answer, notice) == refunded(refunded_amount=amount)


@pytest.mark.parametrize(
    ("answer", "notice"),
    [
        (paid(), UNKNOWN),
        (WHOLE, PARTIAL),
        (UNKNOWN, UNKNOWN),
        (missing(), WHOLE),
        (missing(), UNKNOWN),
        (paid(), refunded(channel_transaction_id="t-9")),
        (paid(), refunded(amount=8887)),
        (paid(), refunded(channel_account="other:1")),
        (paid(), refunded(WECHAT)),
    ],
)
def test_what_tells_nothing_more_of_the_same_money_adds_nothing(answer: Evidence, notice: Refunded) -> None:
    assert with_notice(answer, notice) == answer


def test_a_single_refund_is_added_where_the_answer_has_no_total() -> None:
    assert with_refund(paid(), "c-1", 30) == replace(UNKNOWN, refunds={"c-1": 30})
    assert with_refund(UNKNOWN, "c-1", 30) == replace(UNKNOWN, refunds={"c-1": 30})
    assert with_refund(PARTIAL, "c-1", 30) == PARTIAL
