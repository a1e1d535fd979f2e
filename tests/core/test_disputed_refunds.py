"""Money that a dispute has taken is the dispute's: it is never counted as refunded, and a won dispute gives it back.

Also at a channel (PayPal) whose answers show both alike.
"""

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from core.decision import applied
from core.dispute import Dispute, DisputeKind, DisputeState, is_withheld, taken_amount
from core.evidence import Disputed, Paid, Refunded, Source
from core.lifecycle import on_dispute, on_query, shows_other_money
from core.order import CaseReason, OrderState, OrderStatus, PublicStatus, RefundStatus, public_status
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
    disputed,
    paid,
    paid_order,
    paid_payment,
    refunded,
)

LATER = NOW + timedelta(hours=1)
REVERSAL, WON, LOST = DisputeKind.REVERSAL, DisputeState.WON, DisputeState.LOST
NOTIFYING: dict[str, Any] = {"notify_url": "https://merchant.example/hook"}
DISPUTED_CASE = frozenset({(ALIPAY, CaseReason.DISPUTED)})
A_REVERSAL = a_dispute(dispute_id="REV-1", kind=REVERSAL, state=LOST)
GONE = refunded(refunded_amount=8888, refunds={"REV-1": 8888}, shows_disputes=True)
UNLISTED = refunded(refunded_amount=None, shows_disputes=True)
THERE = paid(shows_disputes=True)
OUTSIDE_CASE = frozenset({(ALIPAY, CaseReason.REFUNDED_OUTSIDE)})


def run(state: OrderState, *steps: Disputed | Paid | Refunded) -> tuple[OrderState, list[str]]:
    """The state after messages about disputes and answers to queries, and the notifications that were sent."""
    sent = []
    for step in steps:
        if isinstance(step, Disputed):
            decision = on_dispute(state, ALIPAY, step, Source.CALLBACK)
        else:
            decision = on_query(state, ALIPAY, step, RULES, Source.QUERY)
        if decision.change is not None:
            state = applied(state, decision.change)
            sent += [] if decision.change.notification is None else [decision.change.notification.type]
    return state, sent


OPENED, CLAIM_WON = disputed(), disputed(state=WON, changed_at=LATER)
REVERSED_LATE = disputed(dispute_id="REV-1", dispute_kind=REVERSAL, state=LOST)
WAYS = {
    "the reversal is heard first": (OPENED, REVERSED_LATE, GONE, CLAIM_WON, THERE),
    "a query sees it first": (GONE, OPENED, REVERSED_LATE, GONE, CLAIM_WON, THERE),
    "the reversal stays in the list": (GONE, REVERSED_LATE, OPENED, CLAIM_WON, GONE),
    "nothing tells of the reversal": (GONE, OPENED, GONE, CLAIM_WON, THERE),
    "the reversal is heard after the win": (GONE, OPENED, CLAIM_WON, REVERSED_LATE, THERE),
    "the list never has it": (UNLISTED, OPENED, UNLISTED, CLAIM_WON, THERE),
    "the list has it not yet": (OPENED, UNLISTED, CLAIM_WON, THERE),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_won_dispute_gives_back_what_it_had_taken(way: str) -> None:
    """Of an order that is paid: nothing counts as refunded at the end, and no case is left."""
    order = an_order(status=OrderStatus.PAID, paid_by=ALIPAY, paid_at=NOW, **NOTIFYING)
    after, sent = run(a_state(order, paid_payment()), *WAYS[way])
    payment = after.payments[0]
    assert (payment.refunded_amount, payment.channel_refunds, after.open_cases) == (0, {}, frozenset())
    assert not is_withheld(after.disputes, ALIPAY)
    assert "order.refunded" not in sent
    assert "order.dispute_ended" in sent


@pytest.mark.parametrize("way", WAYS)
def test_an_order_is_paid_once_its_dispute_is_won(way: str) -> None:
    """It came before the money was seen. The order stayed unpaid for ever, with a case `refunded_outside`."""
    after, sent = run(a_state(an_order(**NOTIFYING), a_payment()), *WAYS[way], THERE)
    assert (after.order.status, after.order.paid_by) == (OrderStatus.PAID, ALIPAY)
    assert (after.payments[0].refunded_amount, after.open_cases) == (0, frozenset())
    assert sent[-1] == "order.paid"


@pytest.mark.parametrize("answer", [GONE, UNLISTED])
def test_money_that_a_dispute_takes_is_never_counted_as_refunded(answer: Refunded) -> None:
    state = a_state(paid_order(), paid_payment(), disputes=(a_dispute(), A_REVERSAL), cases=DISPUTED_CASE)
    after, _ = run(state, answer)
    assert (after.payments[0].refunded_amount, after.open_cases) == (0, DISPUTED_CASE)
    assert public_status(after.order, after.payments, after.disputes) is PublicStatus.DISPUTED


def test_a_lost_dispute_keeps_the_money_and_refunds_nothing() -> None:
    state = a_state(paid_order(), paid_payment(), disputes=(a_dispute(), A_REVERSAL), cases=DISPUTED_CASE)
    after, _ = run(state, disputed(state=LOST, changed_at=LATER), GONE)
    assert (after.payments[0].refunded_amount, after.open_cases) == (0, DISPUTED_CASE)
    assert is_withheld(after.disputes, ALIPAY)


def test_a_refund_that_was_counted_before_the_dispute_stays_counted() -> None:
    part = {"console-1": 100}
    state = a_state(paid_order(), paid_payment(refunded_amount=100, channel_refunds=part), cases=OUTSIDE_CASE)
    both = refunded(refunded_amount=8888, refunds=part | {"REV-1": 8788}, shows_disputes=True)
    only = refunded(refunded_amount=100, refunds=part, shows_disputes=True)
    after, _ = run(state, OPENED, both, REVERSED_LATE, both, CLAIM_WON, only)
    assert (after.payments[0].refunded_amount, after.payments[0].channel_refunds) == (100, part)
    assert after.open_cases == OUTSIDE_CASE


def test_a_refund_beside_an_open_dispute_counts_once_the_dispute_is_over() -> None:
    """Until then nothing tells it from what the dispute has taken."""
    console = refunded(refunded_amount=100, refunds={"console-1": 100}, shows_disputes=True)
    state = a_state(paid_order(), paid_payment(), disputes=(a_dispute(),), cases=DISPUTED_CASE)
    during, _ = run(state, console)
    assert during.payments[0].refunded_amount == 0
    after, _ = run(during, CLAIM_WON, console)
    assert (after.payments[0].refunded_amount, after.open_cases) == (100, OUTSIDE_CASE)


def test_a_refund_of_ours_counts_beside_a_dispute() -> None:
    ours = a_refund(status=RefundStatus.SUCCEEDED)
    payments = (paid_payment(refunded_amount=8888), paid_payment(WECHAT, attempt_no=2))
    state = a_state(paid_order(WECHAT), *payments, refunds=(ours,), disputes=(a_dispute(),), cases=DISPUTED_CASE)
    listed = refunded(refunded_amount=8888, refunds={ours.refund_no: 8888}, shows_disputes=True)
    after, _ = run(state, listed)
    assert after.payments[0].refunded_amount == 8888


@pytest.mark.parametrize("evidence", [paid(), refunded(refunded_amount=30)], ids=["paid", "refunded"])
def test_where_disputes_are_not_shown_as_refunds_no_sum_becomes_smaller(evidence: Paid | Refunded) -> None:
    """Stripe: `amount_refunded` has no dispute in it. An old message arrives late."""
    state = a_state(paid_order(), paid_payment(refunded_amount=30), disputes=(a_dispute(state=WON),))
    after, _ = run(state, evidence)
    assert after.payments[0].refunded_amount == 30


def test_a_payment_with_refunds_is_queried_about_any_dispute() -> None:
    """Some of what counts as refunded may be the dispute's."""
    assert shows_other_money(paid_payment(refunded_amount=None), disputed())
    assert shows_other_money(paid_payment(refunded_amount=100), disputed())


def test_the_notice_of_a_reversal_that_was_counted_says_that_nothing_is_refunded() -> None:
    gone = paid_payment(refunded_amount=8888, channel_refunds={"REV-1": 8888})
    order = an_order(status=OrderStatus.PAID, paid_by=ALIPAY, paid_at=NOW, **NOTIFYING)
    decision = on_dispute(a_state(order, gone), ALIPAY, REVERSED_LATE, Source.CALLBACK)
    assert decision.change is not None
    assert decision.change.notification is not None
    body = msgspec.json.decode(decision.change.notification.body)
    assert (body["type"], body["data"]["payment"]["refunded_amount"]) == ("order.disputed", 0)


def test_that_less_was_refunded_than_was_counted_is_no_news_of_a_refund() -> None:
    part = paid_payment(refunded_amount=100, channel_refunds={"REV-1": 100})
    order = an_order(status=OrderStatus.PAID, paid_by=WECHAT, paid_at=NOW, **NOTIFYING)
    payments = (part, paid_payment(WECHAT, attempt_no=2))
    state = a_state(order, *payments, disputes=(replace(A_REVERSAL, amount=100),), cases=DISPUTED_CASE)
    answer = refunded(refunded_amount=100, refunds={"REV-1": 100}, shows_disputes=True)
    after, sent = run(state, answer)
    assert (after.payments[0].refunded_amount, sent) == (0, [])


@pytest.mark.parametrize(
    ("disputes", "taken"),
    [
        ((), 0),
        ((a_dispute(amount=100),), 100),
        ((a_dispute(amount=100), a_dispute(dispute_id="REV-1", kind=REVERSAL, amount=100)), 100),
        ((a_dispute(kind=REVERSAL, amount=30), a_dispute(dispute_id="REV-2", kind=REVERSAL, amount=100)), 130),
        ((a_dispute(amount=None), a_dispute(WECHAT, amount=100), a_dispute(kind=DisputeKind.INQUIRY)), 0),
    ],
    ids=["none", "a claim", "a claim and its reversal", "two reversals", "unknown, another payment's, an inquiry"],
)
def test_what_disputes_have_taken_of_a_payment(disputes: tuple[Dispute, ...], taken: int) -> None:
    assert taken_amount(disputes, ALIPAY) == taken
