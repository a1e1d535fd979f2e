"""The page after a return from the channel, and what ends that."""

import pytest

from core import paying
from core.decision import Decision, Outcome
from core.evidence import Approved, Evidence
from core.lifecycle import OrderTerms, PaymentTerms, is_unpaid_return, on_return, on_unpaid_return, place, start_payment
from core.lifecycle.returning import VERSIONS_MAX
from core.order import Checkout, Order, OrderState
from tests.core.states import (
    ALIPAY,
    NOW,
    RULES,
    WECHAT,
    a_payment,
    a_state,
    an_order,
    closed,
    closed_order,
    missing,
    order_after,
    paid,
    paid_order,
    unclear,
    unpaid,
)

LINK = Checkout(kind="redirect", value="https://pay.test/1")


def back_unpaid() -> OrderState:
    """The order after a return whose queries said *unpaid*."""
    state = a_state(an_order(), a_payment(checkout=LINK))
    return a_state(order_after(on_unpaid_return(state, state.order.version)), *state.payments)


@pytest.mark.parametrize(
    ("evidence", "is_unpaid"),
    [
        (unpaid(), True),
        (missing(), True),
        (closed(), True),
        (unpaid(under_way=True), False),
        (unpaid(amount=1), False),
        (unclear(), False),
        (paid(), False),
        (Approved(channel_account="alipay", out_trade_no=ALIPAY.out_trade_no), False),
    ],
)
def test_only_nothing_at_all_is_an_unpaid_return(evidence: Evidence, is_unpaid: bool) -> None:
    assert is_unpaid_return(a_payment(), evidence) is is_unpaid


def test_the_page_waits_before_anybody_was_sent_to_pay_and_after_an_unpaid_return() -> None:
    assert paying.is_waiting(a_state(an_order(handed_off_at=None)))
    assert not paying.is_waiting(a_state(an_order(), a_payment(checkout=LINK)))
    assert paying.is_waiting(back_unpaid())


@pytest.mark.parametrize("version", [2, 4])
def test_a_change_since_the_queries_began_is_no_unpaid_return(version: int) -> None:
    decision = on_unpaid_return(a_state(an_order(version=3)), version)
    assert (decision.outcome, decision.change) == (Outcome.NOTHING_NEW, None)


@pytest.mark.parametrize("order", [closed_order(), paid_order(), an_order(version=VERSIONS_MAX)])
def test_an_order_that_is_over_or_has_changed_too_often_notes_no_return(order: Order) -> None:
    decision = on_unpaid_return(a_state(order), order.version)
    assert (decision.outcome, decision.change) == (Outcome.NOTHING_NEW, None)


def _replayed(state: OrderState, payment: PaymentTerms | None) -> Decision:
    order = state.order
    terms = OrderTerms(**{name: getattr(order, name) for name in OrderTerms.__struct_fields__})
    return place(terms, payment, state, RULES, now=NOW, expires_at=order.expires_at, page_token="token")


SAME = PaymentTerms(account="alipay", out_trade_no="alipay-000009")
OTHER = PaymentTerms(account="wechat", out_trade_no=WECHAT.out_trade_no)


@pytest.mark.parametrize(
    ("decision", "outcome"),
    [
        (on_return(back_unpaid()), Outcome.RETURNED),
        (start_payment(back_unpaid(), SAME, RULES), Outcome.REUSED),
        (start_payment(back_unpaid(), OTHER, RULES), Outcome.STARTED),
        (start_payment(back_unpaid(), OTHER, RULES, unclear=(a_payment().key,)), Outcome.UNCLEAR),
        (_replayed(back_unpaid(), SAME), Outcome.SAME),
    ],
)
def test_whoever_goes_to_pay_or_comes_back_again_may_have_paid(decision: Decision, outcome: Outcome) -> None:
    assert decision.outcome is outcome
    assert not paying.is_waiting(a_state(order_after(decision), a_payment(checkout=LINK)))


def test_nothing_is_written_when_the_page_did_not_wait() -> None:
    state = a_state(an_order(), a_payment(checkout=LINK, attempt_no=1))
    assert on_return(state) == Decision(outcome=Outcome.NOTHING_NEW)
    assert start_payment(state, SAME, RULES) == Decision(outcome=Outcome.REUSED)
    assert _replayed(state, SAME) == Decision(outcome=Outcome.SAME)


def test_a_replay_without_a_payment_hands_nothing_out() -> None:
    assert _replayed(back_unpaid(), None) == Decision(outcome=Outcome.SAME)
