"""Rules of a capture after the buyer's approval: never for an order that is paid, closed, expired or in doubt."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from core.checkout import CheckoutRules
from core.decision import Decision, Outcome
from core.evidence import APPROVAL_HINT, Approved, Evidence, Lapsed, Source, hint_of
from core.lifecycle import (
    Approval,
    PaymentTerms,
    is_definitely_unpaid,
    is_free_of_money,
    is_new_approval,
    is_verified_unpaid,
    on_callback,
    on_capture_refused,
    on_query,
    plan_callback,
    start_payment,
)
from core.lifecycle.rules import MISMATCHES
from core.order import CaseReason, Checkout, OrderState, OrderStatus, Origin, Payment, PaymentKey, PaymentStatus
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
    closed_order,
    missing,
    paid_order,
    paid_payment,
    unclear,
    unpaid,
)

SCHEDULED = a_row(ALIPAY).arm_no


def approved(**changes: Any) -> Approved:
    defaults = {"channel_account": "alipay", "out_trade_no": "alipay-000001", "amount": 8888, "currency": "CNY"}
    return Approved(**(defaults | changes))  # type: ignore[arg-type]


def decide_query(state: OrderState, evidence: Approved | None = None, arm_no: int | None = None) -> Decision:
    return on_query(state, ALIPAY, evidence or approved(), RULES, Source.QUERY, arm_no=arm_no)


def test_a_capture_at_the_last_attempt_leaves_the_payment_scheduled() -> None:
    """The capture may have no answer: without its row nobody would ask what became of it."""
    payment = a_payment(payable_until=NOW - timedelta(hours=1))
    state = replace(a_state(an_order(), payment), pending=(a_row(ALIPAY, attempt=16),))
    decision = decide_query(state, arm_no=SCHEDULED)
    assert (decision.outcome, decision.capture) == (Outcome.CAPTURE_REQUESTED, (ALIPAY,))
    assert [(arm.key, arm.attempt, arm.delay_s) for arm in decision.rearm] == [(ALIPAY, 17, 86_400.0)]
    assert decision.change is not None
    assert [case.reason for case in decision.change.cases] == [CaseReason.ATTEMPTS_EXHAUSTED]


def test_an_approved_payment_is_captured_after_its_event_is_committed() -> None:
    """The event uses a version, so a payment or close that commits first wins."""
    decision = decide_query(a_state(an_order(), a_payment()))
    assert (decision.outcome, decision.capture) == (Outcome.CAPTURE_REQUESTED, (ALIPAY,))
    assert decision.change is not None
    assert decision.change.event.kind is Outcome.CAPTURE_REQUESTED
    assert decision.change.order == an_order(version=4)
    assert decision.change.payments == (a_payment(capture_requested_at=NOW),)
    assert (decision.change.resolved, decision.change.notification) == ((), None)


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
        a_state(an_order(), a_payment(), paid_payment(WECHAT, attempt_no=2, refunded_amount=None)),
        a_state(an_order(), a_payment(), paid_payment(WECHAT, attempt_no=2)),
    ],
    ids=[
        "paid by another",
        "closed",
        "expired",
        "long expired",
        "watched",
        "payment closed",
        "paid",
        "other money refunded in part or whole",
        "other money disputed",
    ],
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


# -- a refused capture -------------------------------------------------------------------------------------------------

CAPTURED = a_payment(capture_requested_at=NOW)
REFUSED = a_payment(capture_requested_at=NOW, capture_refused_at=NOW)
GIVEN_UP = a_payment(capture_requested_at=NOW, capture_refused_at=NOW, given_up_at=NOW)
LATER = NOW + timedelta(minutes=1)
ANOTHER = PaymentTerms(account="wechat", out_trade_no=WECHAT.out_trade_no)


def refuse(state: OrderState, captured: Payment = CAPTURED) -> Decision:
    return on_capture_refused(state, captured, "INSTRUMENT_DECLINED", Source.QUERY)


def test_a_definite_refusal_ends_the_approval_and_nothing_else() -> None:
    decision = refuse(a_state(an_order(), CAPTURED))
    assert decision.outcome is Outcome.CAPTURE_REFUSED
    assert decision.change is not None
    assert decision.change.payments == (REFUSED,)
    assert (decision.change.order, decision.change.event.note) == (an_order(version=4), "INSTRUMENT_DECLINED")


@pytest.mark.parametrize(
    ("payment", "outcome"),
    [
        (REFUSED, Outcome.NOTHING_NEW),
        (a_payment(capture_requested_at=LATER), Outcome.NOTHING_NEW),
        (paid_payment(capture_requested_at=NOW), Outcome.NOTHING_NEW),
        (a_payment(WECHAT), Outcome.UNKNOWN_PAYMENT),
    ],
    ids=["refused already", "requested again", "paid", "of another order"],
)
def test_a_refusal_that_is_out_of_date_changes_nothing(payment: Payment, outcome: Outcome) -> None:
    assert refuse(a_state(an_order(), payment)) == Decision(outcome=outcome)


@pytest.mark.parametrize(
    ("payment", "is_new", "is_captured"),
    [(REFUSED, False, False), (REFUSED, True, True), (GIVEN_UP, True, False), (CAPTURED, False, True)],
)
def test_a_refused_capture_is_tried_again_only_after_a_new_approval(
    payment: Payment, is_new: bool, is_captured: bool
) -> None:
    """A payment that is given up is never captured, whatever the buyer does."""
    state = a_state(an_order(), payment, now=LATER)
    decision = on_query(state, ALIPAY, approved(), RULES, Source.QUERY, approval=Approval(is_new=is_new))
    assert bool(decision.capture) is is_captured
    if is_captured:
        assert decision.change is not None
        [captured] = decision.change.payments
        assert (captured.capture_requested_at, captured.capture_refused_at) == (LATER, None)


@pytest.mark.parametrize(
    ("payment", "evidence", "is_new"),
    [
        (REFUSED, approved(at=LATER), True),
        (REFUSED, unclear(at=LATER, reason=APPROVAL_HINT), True),
        (REFUSED, approved(at=NOW), True),
        (REFUSED, approved(at=NOW - timedelta(seconds=1)), False),
        (REFUSED, approved(), False),
        (REFUSED, unclear(at=LATER), False),
        (REFUSED, unpaid(at=LATER), False),
        (CAPTURED, approved(at=LATER), False),
    ],
    ids=["new", "hint", "same second", "resend", "without a time", "other hint", "declined event", "not refused"],
)
def test_only_a_message_about_a_later_approval_is_a_new_one(payment: Payment, evidence: Evidence, is_new: bool) -> None:
    assert is_new_approval(payment, evidence) is is_new


@pytest.mark.parametrize(
    ("payment", "is_unpaid", "is_free"),
    [
        (a_payment(), False, True),
        (CAPTURED, False, False),
        (REFUSED, True, True),
        (GIVEN_UP, True, True),
        (a_payment(origin=Origin.WATCHED), False, False),
    ],
    ids=["approved", "requested", "refused", "given up", "watched"],
)
def test_an_approval_is_unpaid_only_while_nothing_can_capture_it(
    payment: Payment, is_unpaid: bool, is_free: bool
) -> None:
    """`is_free`: another payment may be captured beside it, which claims the order's version."""
    assert is_verified_unpaid(payment, approved()) is is_unpaid
    assert is_free_of_money(payment, approved()) is is_free
    assert not is_verified_unpaid(payment, approved(amount=1))
    assert not is_free_of_money(payment, approved(amount=1))


# -- other payments of the order ---------------------------------------------------------------------------------------

BESIDE = a_payment(WECHAT, attempt_no=2)


def test_other_open_payments_are_asked_before_a_capture() -> None:
    decision = decide_query(a_state(an_order(), a_payment(), BESIDE))
    assert (decision.outcome, decision.query, decision.capture) == (Outcome.STILL_OPEN, (WECHAT,), ())
    assert decision.change is None


def test_a_scheduled_query_that_asks_others_first_is_scheduled_again() -> None:
    decision = decide_query(a_state(an_order(), a_payment(), BESIDE), arm_no=SCHEDULED)
    assert (decision.query, len(decision.rearm)) == ((WECHAT,), 1)


@pytest.mark.parametrize(
    ("beside", "asked_at", "is_captured"),
    [
        (BESIDE, None, True),
        (a_payment(WECHAT, attempt_no=2, capture_requested_at=NOW), NOW, True),
        (a_payment(WECHAT, attempt_no=2, capture_requested_at=NOW), None, False),
        (a_payment(PaymentKey("wechat", "wechat-000003"), attempt_no=3), None, False),
    ],
    ids=["unpaid", "unpaid after a capture", "captured meanwhile", "started meanwhile"],
)
def test_a_capture_depends_on_what_its_siblings_were_when_they_were_asked(
    beside: Payment, asked_at: datetime | None, is_captured: bool
) -> None:
    approval = Approval(queried={WECHAT: asked_at})
    state = a_state(an_order(), a_payment(), beside)
    decision = on_query(state, ALIPAY, approved(), RULES, Source.QUERY, approval=approval)
    assert bool(decision.capture) is is_captured
    assert decision.query == (() if is_captured else (beside.key,))


# -- giving up ---------------------------------------------------------------------------------------------------------


def test_starting_another_payment_gives_up_the_refused_one_in_the_same_change() -> None:
    """The change has the version that a capture would claim."""
    decision = start_payment(a_state(an_order(), REFUSED), ANOTHER, RULES, queried={ALIPAY: NOW})
    assert decision.outcome is Outcome.STARTED
    assert decision.change is not None
    assert decision.change.payments == (GIVEN_UP,)
    assert (decision.change.order.version, decision.change.event.note) == (4, "gives up alipay-000001")


def test_a_payment_whose_capture_was_not_refused_is_not_given_up() -> None:
    """Its buyer may still approve it; the other payments are asked before it is captured."""
    decision = start_payment(a_state(an_order(), a_payment()), ANOTHER, RULES, queried={ALIPAY: None})
    assert decision.change is not None
    assert (decision.change.payments, decision.change.event.note) == ((), "")


def test_no_payment_starts_beside_a_capture_that_came_after_the_query() -> None:
    decision = start_payment(a_state(an_order(), CAPTURED), ANOTHER, RULES, queried={ALIPAY: None})
    assert decision == Decision(outcome=Outcome.UNCLEAR)


def test_the_same_checkout_stays_in_use_after_a_refused_capture() -> None:
    """The remedy is another instrument on the same payment."""
    terms = PaymentTerms(account="alipay", out_trade_no="alipay-000009")
    assert start_payment(a_state(an_order(), REFUSED), terms, RULES).outcome is Outcome.REUSED


def test_a_payment_that_needs_a_capture_is_replaced_by_giving_it_up() -> None:
    terms = PaymentTerms(account="alipay", out_trade_no="alipay-000009")
    rules = replace(RULES, checkouts=CheckoutRules(needs_capture=True))
    ended = a_payment(checkout_ends_at=NOW)
    decision = start_payment(a_state(an_order(), ended), terms, rules, queried={ALIPAY: None})
    assert decision.outcome is Outcome.STARTED
    assert decision.change is not None
    assert decision.change.payments == (replace(ended, given_up_at=NOW),)


@pytest.mark.parametrize(
    ("payment", "after", "is_over"),
    [
        (a_payment(given_up_at=NOW), timedelta(), True),
        (GIVEN_UP, timedelta(), True),
        (a_payment(given_up_at=NOW, capture_requested_at=NOW), MARGIN - timedelta(seconds=1), False),
        (a_payment(given_up_at=NOW, capture_requested_at=NOW), MARGIN, True),
        (REFUSED, MARGIN, False),
    ],
    ids=["never captured", "refused", "capture just requested", "capture long ago", "not given up"],
)
def test_a_payment_that_is_given_up_is_over_once_no_capture_can_be_under_way(
    payment: Payment, after: timedelta, is_over: bool
) -> None:
    for evidence in (approved(), unpaid(), missing()):
        assert is_definitely_unpaid(payment, evidence, RULES, NOW + after) is is_over
    assert not is_definitely_unpaid(payment, unpaid(under_way=True), RULES, NOW + after)


# -- an approval that the channel has ended ----------------------------------------------------------------------------

LAPSED = Lapsed(channel_account="alipay", out_trade_no="alipay-000001", at=NOW)
A_LINK = Checkout(kind="redirect", value="https://paypal.example/approve")
APPROVED_ONCE = a_payment(
    capture_requested_at=NOW - timedelta(hours=1), checkout=A_LINK, checkout_ends_at=NOW + timedelta(hours=1)
)
NEVER_APPROVED = replace(APPROVED_ONCE, capture_requested_at=None)
BY_CAPTURE = replace(RULES, checkouts=CheckoutRules(needs_capture=True, exists_once_created=True))


def ask_lapsed(payment: Payment, answer: Evidence) -> Decision:
    """The query that the channel's message leads to."""
    state = a_state(an_order(), payment)
    return on_query(state, ALIPAY, answer, RULES, Source.CALLBACK, approval=Approval(lapsed=LAPSED))


def test_the_message_that_an_approval_has_ended_is_kept_and_queried() -> None:
    plan = plan_callback(APPROVED_ONCE, LAPSED, trusts_callback=False)
    assert (plan.commits, plan.queries, plan.differs) == (True, True, False)
    decision = on_callback(a_state(an_order(), APPROVED_ONCE), ALIPAY, LAPSED, RULES, Source.CALLBACK)
    assert decision.change is None, "it may not be wholly signed"
    assert decision.observation is not None
    assert decision.observation.kind == "lapsed_seen"
    assert decision.observation.note == f"the channel ended the approval at {NOW.isoformat()}"


def test_a_message_without_a_time_is_kept_too() -> None:
    lapsed = replace(LAPSED, at=None)
    decision = on_callback(a_state(an_order(), APPROVED_ONCE), ALIPAY, lapsed, RULES, Source.CALLBACK)
    assert decision.observation is not None
    assert (decision.observation.kind, decision.observation.note) == ("lapsed_seen", "")
    approval = Approval(lapsed=lapsed)
    state = a_state(an_order(), APPROVED_ONCE)
    ended = on_query(state, ALIPAY, missing(), RULES, Source.CALLBACK, approval=approval)
    assert ended.change is not None
    assert ended.change.event.note == "the channel ended it; its answer to the query: missing"


@pytest.mark.parametrize(
    ("payment", "answer", "is_over"),
    [
        (APPROVED_ONCE, unpaid(), True),
        (APPROVED_ONCE, missing(), True),
        (NEVER_APPROVED, missing(), True),
        (NEVER_APPROVED, unpaid(), False),
        (APPROVED_ONCE, unpaid(under_way=True), False),
        (replace(NEVER_APPROVED, checkout=None), missing(), False),
        (APPROVED_ONCE, unclear(), False),
        (replace(APPROVED_ONCE, capture_refused_at=NOW, checkout_ends_at=NOW), missing(), False),
    ],
    ids=[
        "it calls it unpaid, and called it approved before",
        "it does not know it any more",
        "it does not know what it had made",
        "nobody has approved it yet",
        "money is under way",
        "it may not have been made yet",
        "no answer",
        "known already",
    ],
)
def test_an_approval_ends_only_as_a_query_bears_out(payment: Payment, answer: Evidence, is_over: bool) -> None:
    decision = ask_lapsed(payment, answer)
    assert (decision.outcome is Outcome.APPROVAL_ENDED, decision.change is not None) == (is_over, is_over)
    if decision.change is not None:
        [ended] = decision.change.payments
        assert (ended.capture_refused_at, ended.checkout_ends_at, ended.status) == (NOW, NOW, PaymentStatus.OPEN)
        assert decision.change.event.evidence == LAPSED


def test_an_approval_that_the_channel_still_shows_is_captured() -> None:
    """The buyer has approved anew, or the message was made for the checksum of a genuine one."""
    assert ask_lapsed(APPROVED_ONCE, approved()).capture == (ALIPAY,)


def test_a_payment_that_was_started_meanwhile_may_be_paid() -> None:
    """Between the queries and the decision: nobody has asked about it."""
    state = a_state(an_order(), a_payment(), a_payment(WECHAT, attempt_no=2))
    another = PaymentTerms(account="stripe", out_trade_no="stripe-000003")
    assert start_payment(state, another, RULES, queried={ALIPAY: None}).outcome is Outcome.UNCLEAR
    assert start_payment(state, another, RULES, queried={ALIPAY: None, WECHAT: None}).outcome is Outcome.STARTED


def test_the_start_after_an_ended_approval_asks_for_a_new_one() -> None:
    decision = ask_lapsed(replace(APPROVED_ONCE, checkout_ends_at=None), missing())
    assert decision.change is not None
    state = a_state(an_order(), *decision.change.payments)
    again = PaymentTerms(account="alipay", out_trade_no="alipay-000002")
    started = start_payment(state, again, BY_CAPTURE)
    assert started.outcome is Outcome.STARTED
    assert started.change is not None
    assert [row.given_up_at for row in started.change.payments] == [NOW]


def test_the_end_of_an_approval_of_a_paid_payment_changes_nothing() -> None:
    plan = plan_callback(paid_payment(), LAPSED, trusts_callback=False)
    assert (plan.commits, plan.queries) == (True, False)
    decision = on_callback(a_state(paid_order(), paid_payment()), ALIPAY, LAPSED, RULES, Source.CALLBACK)
    assert decision.change is None


def test_a_hint_keeps_that_an_approval_has_ended() -> None:
    hint = hint_of(replace(LAPSED, ids=("order-1",), amount=1), "main")
    assert hint == Lapsed(
        channel_account="main", out_trade_no="alipay-000001", ids=("alipay-000001", "order-1"), at=NOW
    )
