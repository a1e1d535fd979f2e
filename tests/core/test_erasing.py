"""Personal texts of an order are erased once nothing about it is open."""

from datetime import timedelta

import pytest
from msgspec.structs import replace

from core.checkout import Payer
from core.decision import Decision, Outcome
from core.dispute import DisputeState
from core.evidence import Source
from core.lifecycle import on_erase, on_left_payer, open_work
from core.order import CaseReason, Checkout, Order, OrderState, OrderStatus, PaymentStatus, RefundStatus
from tests.core.states import (
    ALIPAY,
    DEADLINE,
    NOW,
    WECHAT,
    a_dispute,
    a_payment,
    a_refund,
    a_row,
    a_state,
    an_order,
    paid_payment,
)

PAID = an_order(
    status=OrderStatus.PAID,
    paid_by=ALIPAY,
    paid_at=NOW,
    metadata={"customer": "Ana"},
    return_url="https://shop.test/thanks?customer=ana",
)
CHECKOUT = Checkout(kind="redirect", value="https://pay.test/ana")
LATER = a_payment(WECHAT, status=PaymentStatus.CLOSED, payer=Payer(openid="o-ana"))
STATE = a_state(PAID, paid_payment(checkout=CHECKOUT), LATER)


def test_texts_go_and_amounts_numbers_and_times_stay() -> None:
    decision = on_erase(STATE, "kim")
    assert decision.outcome is Outcome.ERASED
    change = decision.change
    assert change is not None
    assert change.order == replace(PAID, subject="", metadata={}, return_url=None, version=PAID.version + 1)
    assert change.payments == (paid_payment(), replace(LATER, payer=None))
    assert (change.event.kind, change.event.by, change.event.note) == (Outcome.ERASED, Source.OPERATOR, "by kim")
    assert change.notification is None


def test_an_erased_order_does_not_change_again() -> None:
    state = a_state(replace(PAID, subject="", metadata={}, return_url=None), paid_payment())
    assert on_erase(state, "kim") == Decision(outcome=Outcome.NOTHING_NEW)


def test_a_payer_that_a_process_of_the_release_before_has_left_goes_too() -> None:
    order = replace(PAID, subject="", metadata={}, return_url=None, payer=Payer(openid="o-ana"))
    change = on_erase(a_state(order, paid_payment()), "kim").change
    assert change is not None
    assert change.order.payer is None


def test_the_row_of_a_deadline_alone_holds_nothing_up() -> None:
    assert list(open_work(replace(STATE, pending=(a_row(DEADLINE),)))) == []


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        (a_state(an_order(), paid_payment()), "the order is paying"),
        (a_state(PAID, paid_payment(), a_payment(WECHAT)), "payment wechat-000002 is open"),
        (replace(STATE, pending=(a_row(WECHAT, due_at=NOW + timedelta(hours=9)),)), "payment wechat-000002 is still"),
        (replace(STATE, refunds=(a_refund(WECHAT),)), "refund rwechat-000002 is requested"),
        (replace(STATE, disputes=(a_dispute(),)), "dispute d-1 is open"),
        (replace(STATE, open_cases=frozenset({(ALIPAY, CaseReason.DISPUTED)})), "a case disputed is open"),
    ],
)
def test_what_is_open_is_named_and_refuses_it(state: OrderState, sentence: str) -> None:
    [found] = open_work(state)
    assert found.startswith(sentence)
    assert on_erase(state, "kim") == Decision(outcome=Outcome.NOT_ERASABLE)


def test_an_open_payment_with_its_row_is_named_once() -> None:
    state = replace(a_state(an_order(), a_payment()), pending=(a_row(ALIPAY),))
    assert len(list(open_work(state))) == 2, "the order and its payment"


def test_what_is_over_refuses_nothing() -> None:
    refund = a_refund(WECHAT, status=RefundStatus.SUCCEEDED, settled_at=NOW)
    state = replace(STATE, refunds=(refund,), disputes=(a_dispute(state=DisputeState.WON),))
    assert list(open_work(state)) == []


@pytest.mark.parametrize("order", [PAID, an_order(status=OrderStatus.CLOSED, closed_at=NOW)], ids=["paid", "closed"])
def test_a_payer_that_an_ended_order_still_has_is_left(order: Order) -> None:
    decision = on_left_payer(a_state(replace(order, payer=Payer(openid="o-ana")), paid_payment()))
    change = decision.change
    assert change is not None
    assert change.order == replace(order, version=order.version + 1)
    assert (decision.outcome, change.event.by, change.notification) == (Outcome.ERASED, Source.SWEEP, None)


@pytest.mark.parametrize("order", [PAID, an_order(payer=Payer(openid="o-ana"))], ids=["without", "open"])
def test_an_ended_order_without_one_and_an_open_order_do_not_change(order: Order) -> None:
    assert on_left_payer(a_state(order)) == Decision(outcome=Outcome.NOTHING_NEW)
