from datetime import timedelta
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from core.backoff import Backoff
from core.decision import Decision, Outcome
from core.lifecycle import (
    OrderTerms,
    PaymentTerms,
    Rules,
    on_create_refused,
    on_created,
    place,
    start_payment,
)
from core.order import (
    Checkout,
    Order,
    OrderState,
    OrderStatus,
    Origin,
    Payment,
    PaymentStatus,
    PendingKind,
)
from tests.core.states import (
    ALIPAY,
    DEADLINE,
    EXPIRES_AT,
    NOW,
    RULES,
    WECHAT,
    a_payment,
    a_state,
    an_order,
    closed_order,
    paid_order,
    paid_payment,
)

TERMS = OrderTerms(
    order_no="A-1",
    amount=8888,
    currency="CNY",
    subject="A pot of tea",
    notify_url="https://shop.test/hook",
    metadata={"cart": "7"},
)
BY_ALIPAY = PaymentTerms(account="alipay", method="page", out_trade_no=ALIPAY.out_trade_no)
WATCHED = PaymentTerms(
    account="wechat",
    out_trade_no=WECHAT.out_trade_no,
    origin=Origin.WATCHED,
    channel_reference="prepay-1",
    payable_until=NOW + timedelta(hours=2),
)
CHECKOUT = Checkout(kind="redirect", value="https://pay.test/1")


def placed(
    payment: PaymentTerms | None, existing: OrderState | None = None, terms: OrderTerms = TERMS, rules: Rules = RULES
) -> Decision:
    return place(terms, payment, existing, rules, now=NOW, expires_at=EXPIRES_AT, page_token="token")


def state_after(decision: Decision) -> OrderState:
    """What is read once it has been committed."""
    assert decision.change is not None
    return OrderState(order=decision.change.order, now=NOW, payments=decision.change.new_payments)


# -- placing -----------------------------------------------------------------------------------------------------------


def test_an_order_is_armed_in_the_statement_that_places_it() -> None:
    """Before the channel is called: the first query after a minute, and the deadline."""
    decision = placed(BY_ALIPAY)
    change = decision.change
    assert change is not None
    assert (decision.outcome, change.is_new, change.order.version) == (Outcome.PLACED, True, 1)
    assert change.order.status is OrderStatus.PAYING
    assert change.order.handed_off_at is None
    deadline, query = change.arm
    assert (deadline.key, deadline.kind, deadline.attempt) == (DEADLINE, PendingKind.DEADLINE, 1)
    assert (deadline.at, deadline.delay_s) == (EXPIRES_AT, None)
    assert (query.key, query.kind, query.attempt) == (ALIPAY, PendingKind.QUERY, 1)
    assert (query.at, query.delay_s) == (None, 60.0)


def test_a_new_payment_is_open_and_asks_for_what_the_order_asks_for() -> None:
    change = placed(BY_ALIPAY).change
    assert change is not None
    [payment] = change.new_payments
    assert payment == a_payment(method="page", created_at=NOW)


def test_early_queries_of_the_account_come_first() -> None:
    change = placed(BY_ALIPAY, rules=Rules(backoff=Backoff(early_s=(5.0, 20.0)))).change
    assert change is not None
    assert (change.arm[1].attempt, change.arm[1].delay_s) == (-1, 5.0)


def test_without_a_payment_only_the_deadline_is_armed() -> None:
    change = placed(None).change
    assert change is not None
    assert change.order.status is OrderStatus.CREATED
    assert change.new_payments == ()
    assert [arm.key for arm in change.arm] == [DEADLINE]


def test_a_watched_payment_was_handed_to_the_user_elsewhere() -> None:
    change = placed(WATCHED).change
    assert change is not None
    assert change.order.handed_off_at == NOW
    [payment] = change.new_payments
    assert (payment.origin, payment.channel_reference) == (Origin.WATCHED, "prepay-1")
    assert payment.payable_until == NOW + timedelta(hours=2)


@pytest.mark.parametrize("payment", [None, BY_ALIPAY, WATCHED])
@pytest.mark.parametrize("now_is", [{}, {"status": OrderStatus.CLOSED, "closed_at": NOW}, {"version": 9}])
def test_a_replay_is_the_same_order_whatever_became_of_it(payment: PaymentTerms | None, now_is: dict[str, Any]) -> None:
    """Also with a payment number made anew, as every request of ours brings one."""
    state = state_after(placed(payment))
    state = replace(state, order=replace(state.order, **now_is))
    again = payment and (replace(payment, out_trade_no="another-1") if payment.origin is Origin.OURS else payment)
    assert placed(again, state) == Decision(outcome=Outcome.SAME)


def test_a_replay_without_a_payment_finds_the_order_that_got_one_later() -> None:
    state = replace(state_after(placed(None)), payments=(a_payment(method="page"),))
    assert placed(None, state).outcome is Outcome.SAME


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": 8889},
        {"currency": "USD"},
        {"subject": "Two pots of tea"},
        {"notify_url": None},
        {"notify_url": "https://shop.test/other"},
        {"return_url": "https://shop.test/done"},
        {"metadata": {}},
        {"metadata": {"cart": "8"}},
    ],
)
def test_other_terms_under_the_same_number_are_another_order(changes: dict[str, Any]) -> None:
    state = state_after(placed(BY_ALIPAY))
    decision = placed(BY_ALIPAY, state, replace(TERMS, **changes))
    assert decision == Decision(outcome=Outcome.OTHER_TERMS)


@pytest.mark.parametrize(
    ("first", "wanted"),
    [
        (BY_ALIPAY, replace(BY_ALIPAY, account="wechat")),
        (BY_ALIPAY, replace(BY_ALIPAY, method="qr")),
        (BY_ALIPAY, replace(BY_ALIPAY, origin=Origin.WATCHED)),
        (WATCHED, replace(WATCHED, out_trade_no="wechat-000009")),
        (None, BY_ALIPAY),
    ],
)
def test_another_first_payment_is_other_terms(first: PaymentTerms | None, wanted: PaymentTerms) -> None:
    assert placed(wanted, state_after(placed(first))).outcome is Outcome.OTHER_TERMS


def test_the_terms_are_all_that_the_merchant_asks_for() -> None:
    """A term that is kept but not compared would let two orders pass for one."""
    assert set(OrderTerms.__struct_fields__) <= set(Order.__struct_fields__)
    ours = {"status", "version", "page_token", "created_at", "expires_at", "handed_off_at"}
    told = {"paid_by", "paid_at", "closed_at"}
    assert set(Order.__struct_fields__) - set(OrderTerms.__struct_fields__) == ours | told


# -- another attempt to pay --------------------------------------------------------------------------------------------


def test_another_attempt_is_armed_before_the_channel_is_called() -> None:
    by_wechat = PaymentTerms(account="wechat", out_trade_no=WECHAT.out_trade_no)
    decision = start_payment(a_state(an_order(), a_payment(status=PaymentStatus.CLOSED)), by_wechat, RULES)
    change = decision.change
    assert change is not None
    assert (decision.outcome, change.order) == (Outcome.STARTED, an_order(version=4))
    [payment] = change.new_payments
    assert (payment.key, payment.attempt_no, payment.status) == (WECHAT, 2, PaymentStatus.OPEN)
    [arm] = change.arm
    assert (arm.key, arm.attempt, arm.delay_s) == (WECHAT, 1, 60.0)


def test_the_first_attempt_makes_an_order_paying() -> None:
    created = an_order(status=OrderStatus.CREATED, handed_off_at=None)
    change = start_payment(a_state(created), BY_ALIPAY, RULES).change
    assert change is not None
    assert (change.order.status, change.order.handed_off_at) == (OrderStatus.PAYING, None)


@pytest.mark.parametrize(
    ("order", "outcome"),
    [
        (paid_order(WECHAT), Outcome.ALREADY_PAID),
        (closed_order(), Outcome.ALREADY_CLOSED),
        (an_order(expires_at=NOW), Outcome.ALREADY_CLOSED),
        (an_order(expires_at=NOW - timedelta(days=1)), Outcome.ALREADY_CLOSED),
    ],
)
def test_what_is_over_takes_no_other_payment(order: Order, outcome: Outcome) -> None:
    state = a_state(order, paid_payment(WECHAT))
    assert start_payment(state, BY_ALIPAY, RULES) == Decision(outcome=outcome)


def test_the_open_payment_of_the_same_account_and_method_is_used_again() -> None:
    """Also while the channel does not tell about it: the user goes on with what he has."""
    state = a_state(an_order(), a_payment(method="page"))
    for unclear in ((), (ALIPAY,)):
        terms = replace(BY_ALIPAY, out_trade_no="alipay-000009")
        assert start_payment(state, terms, RULES, unclear=unclear) == Decision(outcome=Outcome.REUSED)


@pytest.mark.parametrize(
    "payment",
    [
        a_payment(method="qr"),
        a_payment(WECHAT, method="page"),
        a_payment(method="page", origin=Origin.WATCHED),
        a_payment(method="page", refused_at=NOW),
        a_payment(method="page", status=PaymentStatus.CLOSED),
    ],
)
def test_another_payment_is_not_used_again(payment: Payment) -> None:
    terms = replace(BY_ALIPAY, out_trade_no="alipay-000009")
    assert start_payment(a_state(an_order(), payment), terms, RULES).outcome is Outcome.STARTED


def test_a_watched_payment_is_used_again_under_its_own_number_alone() -> None:
    state = a_state(an_order(), a_payment(WECHAT, origin=Origin.WATCHED))
    assert start_payment(state, WATCHED, RULES).outcome is Outcome.REUSED
    other = replace(WATCHED, out_trade_no="wechat-000009")
    assert start_payment(state, other, RULES).outcome is Outcome.STARTED


def test_nobody_is_asked_to_pay_again_while_an_earlier_payment_is_unclear() -> None:
    state = a_state(an_order(), a_payment(WECHAT))
    assert start_payment(state, BY_ALIPAY, RULES, unclear=(WECHAT,)) == Decision(outcome=Outcome.UNCLEAR)


def test_what_was_unclear_and_has_ended_since_keeps_nobody_from_paying() -> None:
    """The decision is made on fresh state after a conflict, the question to the channel is older."""
    state = a_state(an_order(), a_payment(WECHAT, status=PaymentStatus.CLOSED))
    assert start_payment(state, BY_ALIPAY, RULES, unclear=(WECHAT,)).outcome is Outcome.STARTED


# -- what the channel said to the creation -----------------------------------------------------------------------------


def created(state: OrderState, **said: Any) -> Decision:
    given = {"checkout": CHECKOUT, "channel_reference": None, "payable_until": None} | said
    return on_created(state, ALIPAY, **given)


def test_what_the_user_needs_to_pay_is_kept() -> None:
    until = NOW + timedelta(hours=2)
    state = a_state(an_order(handed_off_at=None), a_payment(refused_at=NOW))
    change = created(state, channel_reference="prepay-1", payable_until=until).change
    assert change is not None
    [payment] = change.payments
    assert (payment.checkout, payment.channel_reference, payment.payable_until) == (CHECKOUT, "prepay-1", until)
    assert payment.refused_at is None
    assert (change.order.handed_off_at, change.order.version) == (NOW, 4)


def test_what_the_channel_does_not_say_stays_as_it_was() -> None:
    decision = created(a_state(an_order(), a_payment(channel_reference="prepay-1")))
    assert decision.change is not None
    [payment] = decision.change.payments
    assert (payment.channel_reference, payment.payable_until) == ("prepay-1", EXPIRES_AT)
    assert decision.change.order.handed_off_at == an_order().handed_off_at


@pytest.mark.parametrize(
    "payment", [a_payment(checkout=CHECKOUT), paid_payment(), a_payment(status=PaymentStatus.CLOSED)]
)
def test_a_creation_that_comes_too_late_changes_nothing(payment: Payment) -> None:
    state = a_state(an_order(), payment)
    assert created(state) == Decision(outcome=Outcome.NOTHING_NEW)


def test_a_refused_creation_is_recorded_and_ends_nothing() -> None:
    decision = on_create_refused(a_state(an_order(), a_payment()), ALIPAY, "AMOUNT_TOO_SMALL")
    change = decision.change
    assert change is not None
    assert decision.outcome is Outcome.CREATE_REFUSED
    assert change.payments == (a_payment(refused_at=NOW),)
    assert (change.event.note, change.order.status) == ("AMOUNT_TOO_SMALL", OrderStatus.PAYING)


@pytest.mark.parametrize("payment", [a_payment(refused_at=NOW), paid_payment(), a_payment(status=PaymentStatus.CLOSED)])
def test_a_refusal_told_again_or_too_late_changes_nothing(payment: Payment) -> None:
    state = a_state(an_order(), payment)
    assert on_create_refused(state, ALIPAY, "REFUSED") == Decision(outcome=Outcome.NOTHING_NEW)


def test_a_creation_of_a_payment_that_is_not_this_orders_changes_nothing() -> None:
    state = a_state(an_order(), a_payment(WECHAT))
    assert created(state) == Decision(outcome=Outcome.UNKNOWN_PAYMENT)
    assert on_create_refused(state, ALIPAY, "REFUSED") == Decision(outcome=Outcome.UNKNOWN_PAYMENT)


def test_decisions_are_made_of_frozen_data() -> None:
    change = placed(BY_ALIPAY).change
    assert change is not None
    for struct in (change, change.order, change.new_payments[0], change.arm[0], change.event):
        assert isinstance(struct, msgspec.Struct)
        assert struct.__struct_config__.frozen
