from datetime import timedelta
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from core.backoff import Backoff
from core.checkout import NO_PAYER, CheckoutRules, Payer
from core.decision import Decision, Outcome
from core.lifecycle import (
    OrderTerms,
    PaymentTerms,
    Rules,
    on_create_refused,
    on_created,
    other_terms,
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
ALIPAY_TERMS = PaymentTerms(account="alipay", method="page", out_trade_no=ALIPAY.out_trade_no)
WATCHED = PaymentTerms(
    account="wechat",
    out_trade_no=WECHAT.out_trade_no,
    origin=Origin.WATCHED,
    channel_reference="prepay-1",
    payable_until=NOW + timedelta(hours=2),
)
CHECKOUT = Checkout(kind="redirect", value="https://pay.test/1")
MAX = NOW + timedelta(days=1)


def decide_place(
    payment: PaymentTerms | None, existing: OrderState | None = None, terms: OrderTerms = TERMS, rules: Rules = RULES
) -> Decision:
    return place(terms, payment, existing, rules, now=NOW, expires_at=EXPIRES_AT, page_token="token")


def state_after(decision: Decision) -> OrderState:
    """State after the commit of this decision."""
    assert decision.change is not None
    return OrderState(order=decision.change.order, now=NOW, payments=decision.change.new_payments)


# -- placing -----------------------------------------------------------------------------------------------------------


def test_placing_an_order_arms_its_query_and_deadline_in_the_same_change() -> None:
    """The first query, after a minute, and the deadline are armed before the channel is called."""
    decision = decide_place(ALIPAY_TERMS)
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


def test_a_new_payment_is_open_and_has_the_amount_of_the_order() -> None:
    change = decide_place(ALIPAY_TERMS).change
    assert change is not None
    [payment] = change.new_payments
    assert payment == a_payment(method="page", created_at=NOW)


def test_early_queries_of_the_account_come_first() -> None:
    change = decide_place(ALIPAY_TERMS, rules=Rules(backoff=Backoff(early_s=(5.0, 20.0)))).change
    assert change is not None
    assert (change.arm[1].attempt, change.arm[1].delay_s) == (-1, 5.0)


def test_without_a_payment_only_the_deadline_is_armed() -> None:
    change = decide_place(None).change
    assert change is not None
    assert change.order.status is OrderStatus.CREATED
    assert change.new_payments == ()
    assert [arm.key for arm in change.arm] == [DEADLINE]


def test_an_order_with_a_watched_payment_is_handed_off() -> None:
    change = decide_place(WATCHED).change
    assert change is not None
    assert change.order.handed_off_at == NOW
    [payment] = change.new_payments
    assert (payment.origin, payment.channel_reference) == (Origin.WATCHED, "prepay-1")
    assert payment.payable_until == NOW + timedelta(hours=2)


@pytest.mark.parametrize("payment", [None, ALIPAY_TERMS, WATCHED])
@pytest.mark.parametrize("order_changes", [{}, {"status": OrderStatus.CLOSED, "closed_at": NOW}, {"version": 9}])
def test_a_replay_is_the_same_order_in_any_status(payment: PaymentTerms | None, order_changes: dict[str, Any]) -> None:
    """The payment number differs, because every request creates a new one."""
    state = state_after(decide_place(payment))
    state = replace(state, order=replace(state.order, **order_changes))
    repeated = payment and (replace(payment, out_trade_no="another-1") if payment.origin is Origin.OURS else payment)
    assert decide_place(repeated, state) == Decision(outcome=Outcome.SAME)


def test_a_replay_without_a_payment_finds_the_order_that_got_one_later() -> None:
    state = replace(state_after(decide_place(None)), payments=(a_payment(method="page"),))
    assert decide_place(None, state).outcome is Outcome.SAME


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
def test_other_terms_under_the_same_number_are_refused(changes: dict[str, Any]) -> None:
    state = state_after(decide_place(ALIPAY_TERMS))
    decision = decide_place(ALIPAY_TERMS, state, replace(TERMS, **changes))
    assert decision == Decision(outcome=Outcome.OTHER_TERMS)
    assert other_terms(state, replace(TERMS, **changes), ALIPAY_TERMS) == tuple(changes)


@pytest.mark.parametrize(
    ("first", "other_payment", "name"),
    [
        (ALIPAY_TERMS, replace(ALIPAY_TERMS, account="wechat"), "account"),
        (ALIPAY_TERMS, replace(ALIPAY_TERMS, method="qr"), "method"),
        (ALIPAY_TERMS, replace(ALIPAY_TERMS, origin=Origin.WATCHED, out_trade_no=ALIPAY.out_trade_no), "watch"),
        (WATCHED, replace(WATCHED, out_trade_no="wechat-000009"), "watch.out_trade_no"),
        (None, ALIPAY_TERMS, "account"),
    ],
)
def test_another_first_payment_counts_as_other_terms(
    first: PaymentTerms | None, other_payment: PaymentTerms, name: str
) -> None:
    state = state_after(decide_place(first))
    assert decide_place(other_payment, state).outcome is Outcome.OTHER_TERMS
    assert other_terms(state, TERMS, other_payment) == (name,)


def test_the_terms_are_all_fields_that_the_merchant_sets() -> None:
    """A term that is stored and not compared would make two orders count as one."""
    assert set(OrderTerms.__struct_fields__) <= set(Order.__struct_fields__)
    ours = {"status", "version", "page_token", "created_at", "expires_at", "handed_off_at"}
    resolution_fields = {"paid_by", "paid_at", "closed_at"}
    resolution_fields |= {"unpaid_version"}
    erased = {"payer"}  # it is gone when the order ends, and as little a term as the payer of a payment
    assert set(Order.__struct_fields__) - set(OrderTerms.__struct_fields__) == ours | resolution_fields | erased


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
    change = start_payment(a_state(created), ALIPAY_TERMS, RULES).change
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
def test_a_resolved_or_expired_order_starts_no_payment(order: Order, outcome: Outcome) -> None:
    state = a_state(order, paid_payment(WECHAT))
    assert start_payment(state, ALIPAY_TERMS, RULES) == Decision(outcome=outcome)


def test_the_open_payment_of_the_same_account_and_method_is_reused() -> None:
    """It is used also while its query is unclear: the buyer continues with the same checkout."""
    state = a_state(an_order(), a_payment(method="page"))
    for unclear in ((), (ALIPAY,)):
        terms = replace(ALIPAY_TERMS, out_trade_no="alipay-000009")
        assert start_payment(state, terms, RULES, unclear=unclear) == Decision(outcome=Outcome.REUSED)


@pytest.mark.parametrize(
    "payment",
    [
        a_payment(method="qr"),
        a_payment(WECHAT, method="page"),
        a_payment(method="page", origin=Origin.WATCHED),
        a_payment(method="page", given_up_at=NOW),
        a_payment(method="page", status=PaymentStatus.CLOSED),
    ],
)
def test_a_different_payment_is_not_reused(payment: Payment) -> None:
    terms = replace(ALIPAY_TERMS, out_trade_no="alipay-000009")
    assert start_payment(a_state(an_order(), payment), terms, RULES).outcome is Outcome.STARTED


PAYER, STRANGER = Payer(openid="openid-a"), Payer(openid="openid-b")


@pytest.mark.parametrize(
    ("changes", "payer", "is_over"),
    [
        ({}, NO_PAYER, False),
        ({"checkout_ends_at": NOW + timedelta(seconds=1)}, NO_PAYER, False),
        ({"checkout_ends_at": NOW}, NO_PAYER, True),
        ({"refused_at": NOW}, NO_PAYER, True),
        ({"payer": PAYER}, PAYER, False),
        ({"payer": PAYER}, NO_PAYER, False),
        ({"payer": PAYER}, STRANGER, True),
        ({}, STRANGER, False),
    ],
    ids=["plain", "valid", "ended", "refused", "same payer", "payer not named", "another payer", "payer not known"],
)
def test_a_checkout_is_over_after_its_end_and_for_another_payer(
    changes: dict[str, Any], payer: Payer, is_over: bool
) -> None:
    """A new number has to wait until the old payment is definite, whatever has become of its checkout."""
    terms = replace(ALIPAY_TERMS, out_trade_no="alipay-000009", payer=payer)
    decision = start_payment(a_state(an_order(), a_payment(method="page", **changes)), terms, RULES)
    over, reused = Decision(outcome=Outcome.CHECKOUT_ENDED, close=(ALIPAY,)), Decision(outcome=Outcome.REUSED)
    assert decision == (over if is_over else reused)


def test_a_payment_without_a_usable_checkout_and_without_a_clear_result_is_unclear() -> None:
    state = a_state(an_order(), a_payment(method="page", checkout_ends_at=NOW))
    terms = replace(ALIPAY_TERMS, out_trade_no="alipay-000009")
    assert start_payment(state, terms, RULES, unclear=(ALIPAY,)) == Decision(outcome=Outcome.UNCLEAR)


def test_the_payer_is_kept_while_the_payment_is_open() -> None:
    change = decide_place(replace(ALIPAY_TERMS, payer=PAYER)).change
    assert change is not None
    [payment] = change.new_payments
    assert payment.payer == PAYER
    assert payment.moved_to(PaymentStatus.CLOSED).payer is None


def test_a_watched_payment_is_reused_only_under_its_own_number() -> None:
    state = a_state(an_order(), a_payment(WECHAT, origin=Origin.WATCHED))
    assert start_payment(state, WATCHED, RULES).outcome is Outcome.REUSED
    other = replace(WATCHED, out_trade_no="wechat-000009")
    assert start_payment(state, other, RULES).outcome is Outcome.STARTED


def test_no_payment_starts_while_an_earlier_one_is_unclear() -> None:
    state = a_state(an_order(), a_payment(WECHAT))
    assert start_payment(state, ALIPAY_TERMS, RULES, unclear=(WECHAT,)) == Decision(outcome=Outcome.UNCLEAR)


@pytest.mark.parametrize("is_live", [True, False])
def test_test_money_and_real_money_pay_no_order_together(is_live: bool) -> None:
    """Also while nothing is open any more: money of the first payment may still come late."""
    for status in (PaymentStatus.OPEN, PaymentStatus.CLOSED):
        state = a_state(an_order(), a_payment(WECHAT, status=status, live=is_live))
        other, same = replace(ALIPAY_TERMS, live=not is_live), replace(ALIPAY_TERMS, live=is_live)
        assert start_payment(state, other, RULES) == Decision(outcome=Outcome.OTHER_WORLD)
        assert start_payment(state, same, RULES).outcome is Outcome.STARTED


@pytest.mark.parametrize(("before", "new"), [(None, True), (False, None)])
def test_a_world_that_is_not_known_refuses_nothing(before: bool | None, new: bool | None) -> None:
    state = a_state(an_order(), a_payment(WECHAT, live=before))
    assert start_payment(state, replace(ALIPAY_TERMS, live=new), RULES).outcome is Outcome.STARTED


def test_a_payment_that_closed_after_an_unclear_query_blocks_nothing() -> None:
    """After a conflict the decision uses fresh state, and the query is older than that state."""
    state = a_state(an_order(), a_payment(WECHAT, status=PaymentStatus.CLOSED))
    assert start_payment(state, ALIPAY_TERMS, RULES, unclear=(WECHAT,)).outcome is Outcome.STARTED


# -- the response to the creation --------------------------------------------------------------------------------------


def created(state: OrderState, **result: Any) -> Decision:
    fields = {"checkout": CHECKOUT, "channel_reference": None, "payable_until": None} | result
    return on_created(state, ALIPAY, **fields)


def test_the_checkout_and_reference_of_a_creation_are_stored() -> None:
    until = NOW + timedelta(hours=2)
    state = a_state(an_order(handed_off_at=None), a_payment(refused_at=NOW))
    change = created(state, channel_reference="prepay-1", payable_until=until).change
    assert change is not None
    [payment] = change.payments
    assert (payment.checkout, payment.channel_reference, payment.payable_until) == (CHECKOUT, "prepay-1", until)
    assert payment.refused_at is None
    assert (change.order.handed_off_at, change.order.version) == (NOW, 4)


def test_fields_that_the_creation_does_not_return_stay_unchanged() -> None:
    decision = created(a_state(an_order(), a_payment(channel_reference="prepay-1")))
    assert decision.change is not None
    [payment] = decision.change.payments
    assert (payment.channel_reference, payment.payable_until) == ("prepay-1", EXPIRES_AT)
    assert payment.checkout_ends_at == EXPIRES_AT
    assert decision.change.order.handed_off_at == an_order().handed_off_at


def test_a_checkout_ends_at_the_latest_with_its_payment() -> None:
    for ends_at, expected in ((NOW + timedelta(minutes=5), NOW + timedelta(minutes=5)), (MAX, EXPIRES_AT)):
        change = created(a_state(an_order(), a_payment()), checkout_ends_at=ends_at).change
        assert change is not None
        assert change.payments[0].checkout_ends_at == expected


def test_a_fresh_checkout_takes_the_place_of_one_that_has_ended() -> None:
    old = a_payment(checkout=CHECKOUT, checkout_ends_at=NOW)
    fresh = Checkout(kind="redirect", value="https://pay.test/2")
    decision = created(a_state(an_order(), old), checkout=fresh, checkout_ends_at=NOW + timedelta(minutes=5))
    assert decision.outcome is Outcome.CHECKOUT_RENEWED
    assert decision.change is not None
    [payment] = decision.change.payments
    assert payment == replace(old, checkout=fresh, checkout_ends_at=NOW + timedelta(minutes=5))


def test_the_refusal_of_a_fresh_checkout_ends_no_payment() -> None:
    state = a_state(an_order(), a_payment(checkout=CHECKOUT, checkout_ends_at=NOW))
    assert on_create_refused(state, ALIPAY, "REFUSED") == Decision(outcome=Outcome.NOTHING_NEW)


@pytest.mark.parametrize(
    "payment", [a_payment(checkout=CHECKOUT), paid_payment(), a_payment(status=PaymentStatus.CLOSED)]
)
def test_a_late_creation_response_changes_nothing(payment: Payment) -> None:
    state = a_state(an_order(), payment)
    assert created(state) == Decision(outcome=Outcome.NOTHING_NEW)


def test_a_refused_creation_is_recorded_and_closes_nothing() -> None:
    decision = on_create_refused(a_state(an_order(), a_payment()), ALIPAY, "AMOUNT_TOO_SMALL")
    change = decision.change
    assert change is not None
    assert decision.outcome is Outcome.CREATE_REFUSED
    assert change.payments == (a_payment(refused_at=NOW),)
    assert (change.event.note, change.order.status) == ("AMOUNT_TOO_SMALL", OrderStatus.PAYING)


@pytest.mark.parametrize("payment", [a_payment(refused_at=NOW), paid_payment(), a_payment(status=PaymentStatus.CLOSED)])
def test_a_repeated_or_late_refusal_changes_nothing(payment: Payment) -> None:
    state = a_state(an_order(), payment)
    assert on_create_refused(state, ALIPAY, "REFUSED") == Decision(outcome=Outcome.NOTHING_NEW)


def test_a_creation_of_a_payment_of_another_order_changes_nothing() -> None:
    state = a_state(an_order(), a_payment(WECHAT))
    assert created(state) == Decision(outcome=Outcome.UNKNOWN_PAYMENT)
    assert on_create_refused(state, ALIPAY, "REFUSED") == Decision(outcome=Outcome.UNKNOWN_PAYMENT)


@pytest.mark.parametrize(
    ("method", "kept"),
    [("jsapi", Payer(openid="openid-a")), ("h5", Payer(client_ip="203.0.113.7")), ("native", NO_PAYER)],
)
def test_only_what_the_method_needs_of_the_payer_is_kept(method: str, kept: Payer) -> None:
    rules = CheckoutRules(payer_fields={"jsapi": "openid", "h5": "client_ip"})
    assert rules.payer_of(method, Payer(openid="openid-a", client_ip="203.0.113.7")) == kept


def test_decisions_are_made_of_frozen_data() -> None:
    change = decide_place(ALIPAY_TERMS).change
    assert change is not None
    for struct in (change, change.order, change.new_payments[0], change.arm[0], change.event):
        assert isinstance(struct, msgspec.Struct)
        assert struct.__struct_config__.frozen
