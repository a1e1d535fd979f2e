"""Money that nodrop did not know, attached to an order: inserted open, and moved by evidence alone."""

from datetime import timedelta

import pytest

from core.decision import Decision, Outcome, applied
from core.evidence import Source
from core.lifecycle import LatePolicy, PaymentTerms, Rules, on_attached, on_query
from core.order import CaseReason, OrderState, OrderStatus, Origin, PaymentKey, PaymentStatus
from tests.core.states import (
    RULES,
    a_payment,
    a_state,
    an_order,
    case_reasons,
    closed_order,
    order_after,
    paid,
    paid_order,
    paid_payment,
)

NEW = PaymentKey("wechat", "elsewhere-1")
TERMS = PaymentTerms(account="wechat", out_trade_no="elsewhere-1", origin=Origin.WATCHED, live=True)
FLAG = Rules(late_policy=LatePolicy.FLAG)
OPEN = a_state(an_order(), a_payment())
CREATED = a_state(an_order(status=OrderStatus.CREATED, handed_off_at=None))


def attach(state: OrderState, terms: PaymentTerms = TERMS, **more: int) -> Decision:
    return on_attached(state, terms, RULES, by_name="anna", **more)


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (CREATED, OrderStatus.PAYING),
        (OPEN, OrderStatus.PAYING),
        (a_state(closed_order()), OrderStatus.CLOSED),
        (a_state(paid_order(), paid_payment()), OrderStatus.PAID),
    ],
    ids=["created", "open", "closed", "paid"],
)
def test_an_unknown_payment_is_inserted_open_with_the_row_of_its_query(state: OrderState, status: OrderStatus) -> None:
    decision = attach(state)
    assert (decision.outcome, order_after(decision).status) == (Outcome.ATTACHED, status)
    assert decision.change is not None
    [payment] = decision.change.new_payments
    assert (payment.key, payment.status, payment.origin) == (NEW, PaymentStatus.OPEN, Origin.WATCHED)
    assert (payment.amount, payment.attempt_no, payment.live) == (8888, 1 + len(state.payments), True)
    assert payment.payable_until > state.now + timedelta(days=1000)
    assert [arm.key for arm in decision.change.arm] == [NEW]
    assert (decision.change.event.by, decision.change.event.note) == (Source.OPERATOR, "by anna")
    assert order_after(decision).handed_off_at is not None


def test_its_money_pays_an_open_order_and_is_late_or_double_elsewhere() -> None:
    evidence = paid(NEW, channel_transaction_id="t-9")
    outcomes = {}
    for state in (OPEN, a_state(closed_order()), a_state(paid_order(), paid_payment())):
        change = attach(state).change
        assert change is not None
        decision = on_query(applied(state, change), NEW, evidence, FLAG, Source.OPERATOR)
        outcomes[state.order.status] = (decision.outcome, case_reasons(decision))
    assert outcomes == {
        OrderStatus.PAYING: (Outcome.PAID, []),
        OrderStatus.CLOSED: (Outcome.PAID_LATE, [CaseReason.PAID_LATE]),
        OrderStatus.PAID: (Outcome.DOUBLE_PAYMENT, [CaseReason.DOUBLE_PAYMENT]),
    }


def test_the_same_payment_is_attached_once() -> None:
    change = attach(OPEN).change
    assert change is not None
    assert attach(applied(OPEN, change), expected_version=1) == Decision(outcome=Outcome.NOTHING_NEW)


def test_an_order_that_has_moved_on_is_looked_at_again() -> None:
    assert attach(OPEN, expected_version=OPEN.order.version - 1) == Decision(outcome=Outcome.MOVED)
    assert attach(OPEN, expected_version=OPEN.order.version).outcome is Outcome.ATTACHED


def test_an_order_that_has_begun_in_the_other_world_is_looked_at_again() -> None:
    assert attach(a_state(an_order(), a_payment(live=False))) == Decision(outcome=Outcome.MOVED)
    assert attach(a_state(an_order(), a_payment(live=True))).outcome is Outcome.ATTACHED
