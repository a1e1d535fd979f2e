"""Effects of evidence, as tables: only evidence changes a payment, and paid wins."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from core.checkout import CheckoutRules
from core.decision import Decision, Outcome
from core.evidence import Approved, Evidence, Source
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
from core.order import (
    PAYABLE_MAX,
    CaseReason,
    Checkout,
    Order,
    OrderState,
    OrderStatus,
    Origin,
    Payment,
    PaymentStatus,
)
from tests.core.states import (
    ALIPAY,
    DEADLINE,
    EVIDENCE_KINDS,
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

FLAG = Rules(late_policy=LatePolicy.FLAG)
AFTER_MARGIN = EXPIRES_AT + MARGIN
"""The channel can no longer take money for a payment, and the margin to report it has passed."""

SCHEDULED = a_row(ALIPAY).arm_no

MakeEvidence = Callable[..., Evidence]


def decide_callback(state: OrderState, evidence: Evidence, rules: Rules = RULES) -> Decision:
    """Decide on the evidence of a callback."""
    return on_callback(state, ALIPAY, evidence, rules, Source.CALLBACK)


def decide_query(state: OrderState, evidence: Evidence, rules: Rules = RULES, arm_no: int | None = None) -> Decision:
    """Decide on the evidence of a query; it is a scheduled one if it has an arm number."""
    return on_query(state, ALIPAY, evidence, rules, Source.QUERY, arm_no=arm_no)


def payment_after(decision: Decision) -> Payment:
    assert decision.change is not None
    [payment] = decision.change.payments
    return payment


def notification_type(decision: Decision) -> str | None:
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


@pytest.mark.parametrize(("differences", "reason"), DIFFERENCES)
@pytest.mark.parametrize("kind", EVIDENCE_KINDS)
@pytest.mark.parametrize("by", [decide_callback, decide_query])
def test_every_kind_of_evidence_is_compared_with_the_payment(
    kind: MakeEvidence, differences: dict[str, Any], reason: CaseReason, by: Callable[..., Decision]
) -> None:
    """On callback and query a difference opens a case and changes neither order nor payment."""
    evidence = kind(**differences)
    assert mismatch(a_payment(), evidence) is not None
    decision = by(a_state(an_order(), a_payment(), now=AFTER_MARGIN), evidence)
    assert (decision.outcome, case_reasons(decision)) == (Outcome.MISMATCH, [reason])
    assert decision.change is not None
    assert (decision.change.payments, decision.change.resolved) == ((), ())
    assert (order_after(decision).status, notification_type(decision)) == (OrderStatus.PAYING, None)


@pytest.mark.parametrize("kind", EVIDENCE_KINDS)
def test_evidence_of_the_same_payment_is_no_mismatch(kind: MakeEvidence) -> None:
    assert mismatch(a_payment(), kind()) is None
    assert mismatch(a_payment(), kind(amount=8888, currency="CNY")) is None


@pytest.mark.parametrize("payment", [paid_payment(), a_payment(status=PaymentStatus.CLOSED)])
def test_a_mismatch_of_a_resolved_payment_opens_a_case(payment: Payment) -> None:
    for order in (paid_order(), closed_order()):
        decision = decide_callback(a_state(order, payment), paid(amount=1))
        assert (order_after(decision).status, case_reasons(decision)) == (order.status, [CaseReason.AMOUNT_MISMATCH])


@pytest.mark.parametrize(("differences", "reason"), DIFFERENCES)
def test_a_repeated_mismatch_opens_no_second_case(differences: dict[str, Any], reason: CaseReason) -> None:
    state = a_state(an_order(), a_payment(), cases=frozenset({(ALIPAY, reason)}))
    decision = decide_callback(state, paid(**differences))
    assert (decision.outcome, decision.change) == (Outcome.MISMATCH, None)
    assert decision.observation is not None
    assert reason in decision.observation.note


def test_a_scheduled_query_with_a_mismatch_is_scheduled_again() -> None:
    decision = decide_query(a_state(an_order(), a_payment()), paid(amount=1), arm_no=SCHEDULED)
    assert decision.outcome is Outcome.MISMATCH
    assert [arm.attempt for arm in decision.rearm] == [3]


# -- payments that are definitely unpaid -------------------------------------------------------------------------------

JUST_BEFORE = AFTER_MARGIN - timedelta(microseconds=1)
CLOSE_ATTEMPTED: dict[str, Any] = {"close_attempted_at": NOW}
REFUSED: dict[str, Any] = {"refused_at": NOW}
WATCHED: dict[str, Any] = {"origin": Origin.WATCHED}
ENDLESS: dict[str, Any] = WATCHED | {"created_at": NOW, "payable_until": NOW + PAYABLE_MAX}


@pytest.mark.parametrize(
    ("evidence", "payment", "now", "definite"),
    [
        (closed(), a_payment(), NOW, True),
        # The channel does not know the payment, perhaps not yet.
        (missing(), a_payment(), NOW, False),
        (missing(), a_payment(), AFTER_MARGIN, False),
        (missing(), a_payment(**CLOSE_ATTEMPTED), NOW, False),
        (missing(), a_payment(**CLOSE_ATTEMPTED), EXPIRES_AT, False),
        (missing(), a_payment(**CLOSE_ATTEMPTED), JUST_BEFORE, False),
        (missing(), a_payment(**CLOSE_ATTEMPTED), AFTER_MARGIN, True),
        (missing(), a_payment(**REFUSED), NOW, True),
        (missing(), a_payment(**WATCHED), JUST_BEFORE, False),
        (missing(), a_payment(**WATCHED), AFTER_MARGIN, True),
        # Without a known end only the channel ends a watched payment: by *closed*, or once it no longer knows it.
        (closed(), a_payment(**ENDLESS), NOW, True),
        (missing(), a_payment(**ENDLESS), AFTER_MARGIN, False),
        (missing(), a_payment(**ENDLESS), NOW + timedelta(days=1), True),
        (unpaid(), a_payment(**ENDLESS), NOW + timedelta(days=3000), False),
        # The channel's own end counts, earlier or later than what the merchant said.
        (unpaid(payable_until=EXPIRES_AT), a_payment(**ENDLESS), JUST_BEFORE, False),
        (unpaid(payable_until=EXPIRES_AT), a_payment(**ENDLESS), AFTER_MARGIN, True),
        (unpaid(payable_until=AFTER_MARGIN), a_payment(**WATCHED), AFTER_MARGIN, False),
        (unpaid(payable_until=NOW), a_payment(**CLOSE_ATTEMPTED), JUST_BEFORE, False),
        # It knows the payment and has no money yet. An earlier refusal to create it proves nothing then.
        (unpaid(), a_payment(), NOW, False),
        (unpaid(), a_payment(), AFTER_MARGIN, False),
        (unpaid(), a_payment(**CLOSE_ATTEMPTED), NOW, False),
        (unpaid(), a_payment(**CLOSE_ATTEMPTED), JUST_BEFORE, False),
        (unpaid(), a_payment(**CLOSE_ATTEMPTED), AFTER_MARGIN, True),
        (unpaid(), a_payment(**REFUSED), NOW, False),
        (unpaid(), a_payment(**REFUSED), AFTER_MARGIN, False),
        (unpaid(), a_payment(**WATCHED), JUST_BEFORE, False),
        (unpaid(), a_payment(**WATCHED), AFTER_MARGIN, True),
        # Unclear is never unpaid, and money that is being settled may arrive at any time.
        *(
            (evidence, a_payment(**CLOSE_ATTEMPTED, **REFUSED), AFTER_MARGIN + timedelta(days=400), False)
            for evidence in (unclear(), paid(), refunded(), unpaid(under_way=True))
        ),
        (unpaid(under_way=True), a_payment(**WATCHED), AFTER_MARGIN + timedelta(days=400), False),
    ],
)
def test_when_a_payment_is_definitely_unpaid(
    evidence: Evidence, payment: Payment, now: datetime, definite: bool
) -> None:
    assert is_definitely_unpaid(payment, evidence, RULES, now) is definite


@pytest.mark.parametrize(
    ("exists_once_created", "changes", "after", "definite"),
    [
        (True, {}, MARGIN, True),
        (True, {}, MARGIN - timedelta(seconds=1), False),
        (False, {}, MARGIN, False),
        (True, {"checkout": None}, MARGIN, False),
        (True, {"checkout_ends_at": None}, MARGIN, False),
    ],
    ids=["gone", "too early", "made by the first look", "creation not confirmed", "end not known"],
)
def test_missing_after_the_checkouts_end_is_definite_where_creation_makes_the_payment(
    exists_once_created: bool, changes: dict[str, Any], after: timedelta, definite: bool
) -> None:
    """At Alipay a code that nobody has scanned is missing, and can be paid. Unpaid is never definite by that end."""
    rules = replace(RULES, checkouts=CheckoutRules(exists_once_created=exists_once_created))
    fields: dict[str, Any] = {"checkout": Checkout(kind="qr", value="code"), "checkout_ends_at": NOW}
    payment = replace(a_payment(payable_until=NOW + timedelta(days=1), **fields), **changes)
    assert is_definitely_unpaid(payment, missing(), rules, NOW + after) is definite
    assert not is_definitely_unpaid(payment, unpaid(), rules, NOW + after)


@pytest.mark.parametrize("year", [1, 9999])
def test_a_watched_payment_may_be_payable_until_any_date(year: int) -> None:
    payment = a_payment(**WATCHED, payable_until=datetime(year, 12, 31, 23, 59, tzinfo=UTC))
    assert is_definitely_unpaid(payment, unpaid(), RULES, NOW) is (year == 1)


@pytest.mark.parametrize("evidence", WITHOUT_MONEY)
def test_a_definitely_unpaid_payment_closes_and_its_order_stays_open(evidence: Evidence) -> None:
    """The buyer may still pay with another payment, so the order stays open until its deadline."""
    decision = decide_query(
        a_state(an_order(), a_payment(**CLOSE_ATTEMPTED), now=AFTER_MARGIN), evidence, arm_no=SCHEDULED
    )
    assert decision.outcome is Outcome.PAYMENT_CLOSED
    assert payment_after(decision).status is PaymentStatus.CLOSED
    assert order_after(decision) == an_order(version=4)
    assert decision.change is not None
    assert decision.change.resolved == ()
    assert [arm.delay_s for arm in decision.rearm] == [RULES.payable_margin_s]
    assert notification_type(decision) is None


def test_the_end_that_the_channel_names_is_kept_with_the_closed_payment() -> None:
    state = a_state(an_order(), a_payment(**ENDLESS), now=AFTER_MARGIN)
    decision = decide_query(state, unpaid(payable_until=EXPIRES_AT), arm_no=SCHEDULED)
    assert payment_after(decision).payable_until == EXPIRES_AT


def test_a_payment_whose_money_is_being_settled_is_queried_after_its_deadline() -> None:
    """A bank transfer takes days. If the payment were closed meanwhile, its money would be late."""
    state = a_state(an_order(), a_payment(**CLOSE_ATTEMPTED), now=AFTER_MARGIN + timedelta(days=5))
    decision = decide_query(state, unpaid(under_way=True), arm_no=SCHEDULED)
    assert decision.outcome is Outcome.STILL_OPEN
    assert decision.change is None
    assert len(decision.rearm) == 1
    assert decide_query(state, unpaid(), arm_no=SCHEDULED).outcome is Outcome.PAYMENT_CLOSED


@pytest.mark.parametrize("evidence", [unpaid(), missing()])
def test_an_unpaid_or_missing_callback_closes_nothing(evidence: Evidence) -> None:
    """A callback may be a day old and out of date; only the result of a query is current."""
    decision = decide_callback(a_state(an_order(), a_payment(**CLOSE_ATTEMPTED, **REFUSED), now=AFTER_MARGIN), evidence)
    assert (decision.outcome, decision.change) == (Outcome.STILL_OPEN, None)
    assert decision.observation is not None


def test_a_closed_callback_closes_the_payment() -> None:
    assert decide_callback(a_state(an_order(), a_payment()), closed()).outcome is Outcome.PAYMENT_CLOSED


@pytest.mark.parametrize("evidence", WITHOUT_MONEY)
@pytest.mark.parametrize("payment", [paid_payment(), a_payment(status=PaymentStatus.CLOSED)])
@pytest.mark.parametrize("order", [paid_order(), closed_order()])
def test_only_money_changes_a_resolved_payment(evidence: Evidence, payment: Payment, order: Order) -> None:
    for decision in (
        decide_callback(a_state(order, payment, now=AFTER_MARGIN), evidence),
        decide_query(a_state(order, payment), evidence),
    ):
        assert (decision.outcome, decision.change) == (Outcome.NOTHING_NEW, None)


# -- money -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", WITH_MONEY)
@pytest.mark.parametrize("by", [decide_callback, decide_query])
@pytest.mark.parametrize("payment_status", [PaymentStatus.OPEN, PaymentStatus.CLOSED])
@pytest.mark.parametrize("order_status", [OrderStatus.CREATED, OrderStatus.PAYING])
def test_money_for_an_open_order_pays_it(
    kind: MakeEvidence, by: Callable[..., Decision], payment_status: PaymentStatus, order_status: OrderStatus
) -> None:
    """Paid wins, also when the payment is closed."""
    at = NOW - timedelta(seconds=20)
    state = a_state(an_order(status=order_status), a_payment(status=payment_status))
    decision = by(state, kind(at=at))
    order, payment = order_after(decision), payment_after(decision)
    assert decision.outcome is Outcome.PAID
    assert (order.status, order.paid_by, order.paid_at, order.version) == (OrderStatus.PAID, ALIPAY, at, 4)
    assert (payment.status, payment.channel_transaction_id, payment.paid_at) == (PaymentStatus.PAID, "t-1", at)
    assert notification_type(decision) == "order.paid"


def test_a_paid_order_has_no_pending_row_for_itself_and_its_payment() -> None:
    decision = decide_callback(a_state(an_order(), a_payment(), a_payment(WECHAT, attempt_no=2)), paid())
    assert decision.change is not None
    assert set(decision.change.resolved) == {ALIPAY, DEADLINE}


def test_without_a_time_from_the_channel_the_order_is_paid_now() -> None:
    decision = decide_callback(a_state(an_order(handed_off_at=None), a_payment()), paid())
    assert order_after(decision).paid_at == order_after(decision).handed_off_at == NOW


def test_other_payments_of_a_paid_order_are_due_at_once() -> None:
    """Their queries close them at the channel and continue until they are definite."""
    decision = decide_callback(a_state(an_order(), a_payment(), a_payment(WECHAT, attempt_no=2)), paid())
    [arm] = decision.rearm
    assert (arm.key, arm.delay_s, arm.attempt, arm.expected_arm_no) == (WECHAT, 0.0, 2, 7)


@pytest.mark.parametrize("evidence", [unpaid(), missing()])
@pytest.mark.parametrize("arm_no", [None, SCHEDULED])
def test_an_open_payment_of_a_paid_order_is_closed_at_its_channel(evidence: Evidence, arm_no: int | None) -> None:
    state = a_state(paid_order(WECHAT), a_payment(), paid_payment(WECHAT, attempt_no=2))
    decision = decide_query(state, evidence, arm_no=arm_no)
    assert (decision.outcome, decision.close) == (Outcome.STILL_OPEN, (ALIPAY,))
    assert bool(decision.rearm) is (arm_no is not None)


@pytest.mark.parametrize(
    ("order", "payment", "evidence"),
    [
        (an_order(), a_payment(), unpaid()),  # the buyer may still pay with it
        (paid_order(WECHAT), a_payment(**CLOSE_ATTEMPTED), missing()),  # closed already, and the channel has nothing
        (paid_order(WECHAT), a_payment(**CLOSE_ATTEMPTED), unpaid(under_way=True)),  # cannot be stopped any more
        (paid_order(WECHAT), a_payment(**WATCHED), unpaid()),  # not ours to close
        (paid_order(WECHAT), a_payment(), unclear()),  # may have the money
        (paid_order(WECHAT), a_payment(), paid()),
        (paid_order(WECHAT), a_payment(), unpaid(amount=1)),
    ],
)
def test_other_payments_are_not_closed_at_the_channel(order: Order, payment: Payment, evidence: Evidence) -> None:
    state = a_state(order, payment, paid_payment(WECHAT, attempt_no=2, channel_transaction_id="t-2"))
    assert decide_query(state, evidence, arm_no=SCHEDULED).close == ()


@pytest.mark.parametrize(
    "evidence", [unpaid(), Approved(channel_account=ALIPAY.channel_account, out_trade_no=ALIPAY.out_trade_no)]
)
@pytest.mark.parametrize("arm_no", [None, SCHEDULED])
def test_a_payment_that_the_close_did_not_end_is_closed_by_the_next_scheduled_query(
    evidence: Evidence, arm_no: int | None
) -> None:
    """The channel did not know it yet when it was asked to close it. Other queries do not repeat the close."""
    state = a_state(paid_order(WECHAT), a_payment(**CLOSE_ATTEMPTED), paid_payment(WECHAT, attempt_no=2))
    decision = decide_query(state, evidence, arm_no=arm_no)
    assert decision.close == (() if arm_no is None else (ALIPAY,))


@pytest.mark.parametrize("kind", WITH_MONEY)
def test_money_for_a_closed_order_pays_it_and_opens_a_case(kind: MakeEvidence) -> None:
    decision = decide_callback(a_state(closed_order(), a_payment(status=PaymentStatus.CLOSED)), kind())
    order = order_after(decision)
    assert decision.outcome is Outcome.PAID_LATE
    assert (order.status, order.paid_by, order.closed_at) == (OrderStatus.PAID, ALIPAY, NOW)
    assert CaseReason.PAID_LATE in case_reasons(decision)
    assert notification_type(decision) == "order.paid"
    assert decision.change is not None
    assert decision.change.notification is not None
    assert b'"late":true' in decision.change.notification.body


@pytest.mark.parametrize("kind", WITH_MONEY)
def test_flagged_late_money_leaves_the_order_closed_and_notifies_the_merchant(kind: MakeEvidence) -> None:
    decision = decide_callback(a_state(closed_order(), a_payment(status=PaymentStatus.CLOSED)), kind(), FLAG)
    assert (decision.outcome, order_after(decision).status) == (Outcome.PAID_LATE, OrderStatus.CLOSED)
    assert payment_after(decision).status is PaymentStatus.PAID
    assert CaseReason.PAID_LATE in case_reasons(decision)
    assert notification_type(decision) == "order.paid_late"


@pytest.mark.parametrize("payment_status", [PaymentStatus.OPEN, PaymentStatus.CLOSED])
@pytest.mark.parametrize("rules", [RULES, FLAG])
def test_a_double_payment_opens_a_case_and_does_not_pay_the_order_again(
    payment_status: PaymentStatus, rules: Rules
) -> None:
    second = paid_payment(WECHAT, attempt_no=2, channel_transaction_id="t-2")
    state = a_state(paid_order(WECHAT), a_payment(status=payment_status), second)
    decision = decide_callback(state, paid(), rules)
    order = order_after(decision)
    assert decision.outcome is Outcome.DOUBLE_PAYMENT
    assert (order.paid_by, order.version) == (WECHAT, 4)
    assert payment_after(decision).status is PaymentStatus.PAID
    assert case_reasons(decision) == [CaseReason.DOUBLE_PAYMENT]
    assert notification_type(decision) == "order.double_payment"
    assert decision.change is not None
    assert decision.change.resolved == (ALIPAY,)


@pytest.mark.parametrize("order", [paid_order(), closed_order()])
def test_a_repeated_payment_report_changes_nothing(order: Order) -> None:
    decision = decide_callback(a_state(order, paid_payment()), paid())
    assert (decision.outcome, decision.change) == (Outcome.NOTHING_NEW, None)
    assert decision.observation is not None
    assert decision.observation.kind == "paid_seen"


@pytest.mark.parametrize("kind", WITH_MONEY)
def test_a_second_transaction_under_the_same_number_opens_a_case(kind: MakeEvidence) -> None:
    decision = decide_callback(a_state(paid_order(), paid_payment()), kind(channel_transaction_id="t-9"))
    assert (decision.outcome, case_reasons(decision)) == (Outcome.NUMBER_REUSED, [CaseReason.NUMBER_REUSED])
    assert decision.change is not None
    assert decision.change.payments == ()


def test_a_refund_seen_at_the_channel_leaves_the_order_paid() -> None:
    decision = decide_callback(a_state(paid_order(), paid_payment()), refunded(refunded_amount=8888))
    payment = payment_after(decision)
    assert (payment.status, payment.refunded_amount) == (PaymentStatus.PAID, 8888)
    assert order_after(decision).status is OrderStatus.PAID
    assert case_reasons(decision) == [CaseReason.REFUNDED_OUTSIDE]
    assert notification_type(decision) is None


@pytest.mark.parametrize("amount", [0, 50, 100])
def test_a_known_refund_changes_nothing(amount: int) -> None:
    state = a_state(paid_order(), paid_payment(refunded_amount=100))
    assert decide_callback(state, refunded(refunded_amount=amount)).change is None


def test_a_further_refund_is_recorded_without_a_second_case() -> None:
    cases = frozenset({(ALIPAY, CaseReason.REFUNDED_OUTSIDE)})
    state = a_state(paid_order(), paid_payment(refunded_amount=100), cases=cases)
    decision = decide_callback(state, refunded(refunded_amount=300))
    assert (payment_after(decision).refunded_amount, case_reasons(decision)) == (300, [])


@pytest.mark.parametrize("kind", WITH_MONEY)
@pytest.mark.parametrize("arm_no", [None, SCHEDULED])
def test_a_transaction_claimed_by_another_payment_opens_a_case(kind: MakeEvidence, arm_no: int | None) -> None:
    state = a_state(an_order(), a_payment())
    decision = on_query(state, ALIPAY, kind(), RULES, Source.QUERY, arm_no=arm_no, claimed=True)
    assert (decision.outcome, case_reasons(decision)) == (Outcome.MISMATCH, [CaseReason.TRANSACTION_CLAIMED_TWICE])
    assert order_after(decision).status is OrderStatus.PAYING
    assert decision.change is not None
    assert decision.change.payments == ()


@pytest.mark.parametrize("payment", [a_payment(status=PaymentStatus.CLOSED), a_payment()])
def test_an_operator_cannot_accept_unconfirmed_money(payment: Payment) -> None:
    assert on_late_accepted(a_state(closed_order(), payment), "anna") == Decision(outcome=Outcome.NOT_ACCEPTABLE)


def test_late_money_that_an_operator_accepts_pays_the_order() -> None:
    ended = a_payment(WECHAT, attempt_no=2, status=PaymentStatus.CLOSED)
    decision = on_late_accepted(a_state(closed_order(), ended, paid_payment()), "anna")
    order = order_after(decision)
    assert (decision.outcome, order.status, order.paid_by) == (Outcome.PAID_LATE, OrderStatus.PAID, ALIPAY)
    assert (case_reasons(decision), notification_type(decision)) == ([], "order.paid")
    assert decision.change is not None
    assert (decision.change.event.by, decision.change.event.note) == (Source.OPERATOR, "by anna")


def test_accepting_one_of_two_late_payments_makes_the_other_a_double_payment() -> None:
    second = paid_payment(WECHAT, attempt_no=2, channel_transaction_id="t-2")
    decision = on_late_accepted(a_state(closed_order(), paid_payment(), second), "anna")
    assert decision.change is not None
    [case] = decision.change.cases
    assert (case.reason, case.key) == (CaseReason.DOUBLE_PAYMENT, WECHAT)


def test_a_paid_order_is_not_accepted_again() -> None:
    decision = on_late_accepted(a_state(paid_order(), paid_payment()), "anna")
    assert decision == Decision(outcome=Outcome.ALREADY_PAID)


# -- unclear results----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "state",
    [
        a_state(an_order(), a_payment(), now=AFTER_MARGIN + timedelta(days=30)),
        a_state(paid_order(), paid_payment()),
        a_state(closed_order(), a_payment(status=PaymentStatus.CLOSED)),
    ],
)
def test_unclear_evidence_changes_nothing(state: OrderState) -> None:
    """Time-outs, 5xx, missing responses and unsigned errors are recorded and change only the time of the next query."""
    for decision in (decide_callback(state, unclear()), decide_query(state, unclear())):
        assert (decision.outcome, decision.change, decision.rearm) == (Outcome.UNCLEAR, None, ())
        assert decision.observation is not None
        assert (decision.observation.kind, decision.observation.note) == ("unclear_seen", "timeout")


@pytest.mark.parametrize("evidence", [unpaid(), missing(), unclear()])
def test_a_scheduled_query_without_a_result_is_due_again_after_n_squared_minutes(evidence: Evidence) -> None:
    decision = decide_query(a_state(an_order(), a_payment()), evidence, arm_no=SCHEDULED)
    [arm] = decision.rearm
    assert (arm.key, arm.attempt, arm.delay_s, arm.expected_arm_no) == (ALIPAY, 3, 540.0, SCHEDULED)
    assert decision.change is None


@pytest.mark.parametrize("evidence", [unpaid(), missing(), unclear(), paid(amount=1)])
@pytest.mark.parametrize("arm_no", [None, 6, 8])
def test_only_the_scheduled_query_advances_the_attempt(evidence: Evidence, arm_no: int | None) -> None:
    """The query of a refresh or callback has no arm number, and an old job has another one."""
    assert decide_query(a_state(an_order(), a_payment()), evidence, arm_no=arm_no).rearm == ()


PAYABLE = (unpaid(), missing(), unpaid(under_way=True), unpaid(payable_until=EXPIRES_AT))


@pytest.mark.parametrize("attempt", [16, 17, 100])
@pytest.mark.parametrize(
    ("age", "gap"), [(timedelta(days=1), 256), (timedelta(days=7), 720), (timedelta(days=99), 720)]
)
@pytest.mark.parametrize("evidence", PAYABLE)
def test_a_payment_that_is_merely_unpaid_is_asked_on_without_a_case(
    evidence: Evidence, age: timedelta, gap: int, attempt: int
) -> None:
    """Every 256 minutes, and every 12 hours after a week: found within hours, and nobody has anything to decide."""
    payment = a_payment(created_at=NOW - age, payable_until=NOW + timedelta(days=1))
    decision = decide_query(at_attempt(attempt, payment), evidence, arm_no=SCHEDULED)
    [arm] = decision.rearm
    assert (arm.attempt, arm.delay_s) == (attempt + 1, gap * 60.0)
    assert (decision.outcome, decision.change) == (Outcome.STILL_OPEN, None)


@pytest.mark.parametrize(("age", "gap", "cases"), [(29, 720, []), (30, 1440, [CaseReason.ATTEMPTS_EXHAUSTED])])
def test_a_watched_payment_without_an_end_becomes_a_case_after_thirty_days(
    age: int, gap: int, cases: list[CaseReason]
) -> None:
    """A PaymentIntent takes money until it is cancelled: it is not closed, and asked once a day."""
    began_at = NOW - timedelta(days=age)
    payment = a_payment(**WATCHED, created_at=began_at, payable_until=began_at + PAYABLE_MAX)
    decision = decide_query(at_attempt(70, payment), unpaid(), arm_no=SCHEDULED)
    assert (decision.rearm[0].delay_s, case_reasons(decision)) == (gap * 60.0, cases)


def test_a_payment_that_is_over_and_cannot_be_closed_becomes_a_case() -> None:
    state = replace(at_attempt(16, a_payment()), now=AFTER_MARGIN)
    decision = decide_query(state, unpaid(), arm_no=SCHEDULED)
    assert (decision.rearm[0].delay_s, case_reasons(decision)) == (86_400.0, [CaseReason.ATTEMPTS_EXHAUSTED])


@pytest.mark.parametrize("attempt", [16, 17, 100])
def test_used_up_attempts_open_a_case_and_close_nothing(attempt: int) -> None:
    """Used-up attempts are not evidence: the row stays and is due once a day."""
    state, evidence = at_attempt(attempt), unclear()
    decision = decide_query(state, evidence, arm_no=SCHEDULED)
    [arm] = decision.rearm
    assert (arm.attempt, arm.delay_s) == (attempt + 1, 86_400.0)
    assert (decision.outcome, case_reasons(decision)) == (Outcome.EXHAUSTED, [CaseReason.ATTEMPTS_EXHAUSTED])
    assert decision.change is not None
    assert decision.change.order == an_order(version=4)
    assert (decision.change.payments, decision.change.resolved) == ((), ())


def test_the_fifteenth_attempt_opens_no_case() -> None:
    decision = decide_query(at_attempt(15), unclear(), arm_no=SCHEDULED)
    assert (decision.change, decision.rearm[0].attempt) == (None, 16)


def test_used_up_attempts_open_only_one_case() -> None:
    state = replace(at_attempt(20), open_cases=frozenset({(ALIPAY, CaseReason.ATTEMPTS_EXHAUSTED)}))
    decision = decide_query(state, unclear(), arm_no=SCHEDULED)
    assert (decision.outcome, decision.change) == (Outcome.UNCLEAR, None)
    assert decision.rearm[0].attempt == 21


def test_a_mismatch_at_the_last_attempt_opens_both_cases() -> None:
    decision = decide_query(at_attempt(16), paid(amount=1), arm_no=SCHEDULED)
    assert case_reasons(decision) == [CaseReason.AMOUNT_MISMATCH, CaseReason.ATTEMPTS_EXHAUSTED]
    assert decision.outcome is Outcome.MISMATCH
    assert [(arm.key, arm.attempt, arm.delay_s) for arm in decision.rearm] == [(ALIPAY, 17, 86_400.0)]


@pytest.mark.parametrize("kind", WITH_MONEY)
def test_money_after_the_last_attempt_pays_the_order(kind: MakeEvidence) -> None:
    decision = decide_query(at_attempt(40), kind(), arm_no=SCHEDULED)
    assert (decision.outcome, decision.rearm) == (Outcome.PAID, ())


def at_attempt(attempt: int, payment: Payment | None = None) -> OrderState:
    row = a_row(ALIPAY, attempt=attempt)
    return OrderState(order=an_order(), now=NOW, payments=(payment or a_payment(),), pending=(row,))


# -- unknown payments, refreshes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", EVIDENCE_KINDS)
def test_evidence_of_a_payment_of_another_order_changes_nothing(kind: MakeEvidence) -> None:
    state = a_state(an_order(), a_payment())
    decision = on_query(state, WECHAT, kind(WECHAT), RULES, Source.QUERY, arm_no=SCHEDULED)
    assert decision == Decision(outcome=Outcome.UNKNOWN_PAYMENT)


def test_a_refresh_queries_open_payments() -> None:
    state = a_state(an_order(), a_payment(), paid_payment(WECHAT, attempt_no=2))
    assert on_refresh(state, RULES) == Decision(outcome=Outcome.STILL_OPEN, query=(ALIPAY,))


@pytest.mark.parametrize("order", [paid_order(), closed_order(), an_order(status=OrderStatus.CREATED)])
def test_a_refresh_of_a_definite_order_makes_no_query(order: Order) -> None:
    assert on_refresh(a_state(order, paid_payment()), RULES) == Decision(outcome=Outcome.NOTHING_NEW)
