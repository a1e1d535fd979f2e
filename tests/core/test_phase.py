"""The phase of an order on its page: never that it waits for somebody who may have paid."""

from datetime import timedelta

import pytest

from core.order import (
    CaseReason,
    OrderState,
    OrderStatus,
    PaymentKey,
    PaymentStatus,
    PublicStatus,
    RefundStatus,
    public_status,
)
from core.phase import Phase, phase_of, returned_money
from tests.core.states import (
    ALIPAY,
    EXPIRES_AT,
    NOW,
    WECHAT,
    Cases,
    a_dispute,
    a_payment,
    a_refund,
    a_state,
    an_order,
    closed_order,
    paid_order,
    paid_payment,
)

NEW = an_order(status=OrderStatus.CREATED, handed_off_at=None)
CHOICE = an_order(status=OrderStatus.CREATED, handed_off_at=None, accounts=("alipay",))
MISMATCH: Cases = frozenset({(ALIPAY, CaseReason.AMOUNT_MISMATCH)})
EXHAUSTED: Cases = frozenset({(ALIPAY, CaseReason.ATTEMPTS_EXHAUSTED)})
SETTLED = NOW + timedelta(minutes=5)
GONE = a_refund(status=RefundStatus.SUCCEEDED, settled_at=SETTLED)

STATES = {
    "nothing to pay with": (a_state(NEW), Phase.CREATED),
    "a choice": (a_state(CHOICE), Phase.WAITING),
    "a payment without a checkout": (a_state(NEW, a_payment()), Phase.WAITING),
    "a choice, too late": (a_state(CHOICE, now=EXPIRES_AT), Phase.CREATED),
    "handed off": (a_state(an_order(accounts=("alipay",)), a_payment()), Phase.PROCESSING),
    "back, and verified unpaid": (
        a_state(an_order(accounts=("alipay",), unpaid_version=3), a_payment()),
        Phase.WAITING,
    ),
    "verified unpaid before something changed": (
        a_state(an_order(accounts=("alipay",), unpaid_version=2), a_payment()),
        Phase.PROCESSING,
    ),
    "no answer for a day": (a_state(an_order(), a_payment(), cases=EXHAUSTED), Phase.PROCESSING),
    "another amount came": (a_state(an_order(), a_payment(), cases=MISMATCH), Phase.REVIEW),
    "another amount came before the hand-off": (a_state(CHOICE, a_payment(), cases=MISMATCH), Phase.REVIEW),
    "paid": (a_state(paid_order(), paid_payment()), Phase.PAID),
    "paid, with an old case": (a_state(paid_order(), paid_payment(), cases=MISMATCH), Phase.PAID),
    "paid twice": (
        a_state(paid_order(), paid_payment(), paid_payment(WECHAT), refunds=(a_refund(WECHAT),)),
        Phase.PAID,
    ),
    "disputed": (a_state(paid_order(), paid_payment(), disputes=(a_dispute(),)), Phase.DISPUTED),
    "closed": (a_state(closed_order(), a_payment(status=PaymentStatus.CLOSED)), Phase.CLOSED),
    "closed, and another amount came": (
        a_state(closed_order(), a_payment(status=PaymentStatus.CLOSED), cases=MISMATCH),
        Phase.REVIEW,
    ),
    "late, for a person": (a_state(closed_order(), paid_payment()), Phase.REVIEW),
    "late, going back": (a_state(closed_order(), paid_payment(), refunds=(a_refund(),)), Phase.GOING_BACK),
    "late, it cannot go back": (
        a_state(closed_order(), paid_payment(), refunds=(a_refund(status=RefundStatus.FAILED),)),
        Phase.REVIEW,
    ),
    "late twice, one goes back": (
        a_state(closed_order(), paid_payment(), paid_payment(WECHAT), refunds=(a_refund(),)),
        Phase.REVIEW,
    ),
    "late, back": (a_state(closed_order(), paid_payment(refunded_amount=8888), refunds=(GONE,)), Phase.REFUNDED),
    "late, back, and another link is open": (
        a_state(closed_order(), paid_payment(refunded_amount=8888), a_payment(WECHAT), refunds=(GONE,)),
        Phase.REVIEW,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("state", "phase"), STATES.values(), ids=STATES)
def test_phase_of_an_order(state: OrderState, phase: Phase) -> None:
    assert phase_of(state) is phase


@pytest.mark.parametrize("state", [state for state, _ in STATES.values()], ids=STATES)
def test_a_phase_never_contradicts_what_is_definite(state: OrderState) -> None:
    status = public_status(state.order, state.payments, state.disputes)
    if status.is_definite and not (status is PublicStatus.CLOSED and phase_of(state) is Phase.REVIEW):
        assert phase_of(state).value == status.value
    if state.order.handed_off_at is not None and not state.order.is_known_unpaid:
        assert phase_of(state) not in (Phase.WAITING, Phase.CREATED)


def test_every_status_has_a_phase() -> None:
    assert set(PublicStatus) <= set(Phase)


@pytest.mark.parametrize(
    ("key", "refunds", "expected"),
    [
        (None, (a_refund(),), (8888, None, False)),
        (None, (GONE,), (8888, SETTLED, False)),
        (None, (GONE, a_refund(WECHAT, amount=12)), (8900, None, False)),
        (None, (a_refund(status=RefundStatus.FAILED),), None),
        (ALIPAY, (a_refund(WECHAT),), (8888, None, True)),
        (ALIPAY, (a_refund(ALIPAY),), None),  # the shop gives the money of a paid order back: not money too much
        (None, (), None),
    ],
)
def test_money_that_goes_back(
    key: PaymentKey | None, refunds: tuple[object, ...], expected: tuple[int, object, bool] | None
) -> None:
    order = closed_order() if key is None else paid_order(key)
    money = returned_money(a_state(order, paid_payment(), paid_payment(WECHAT), refunds=refunds))  # type: ignore[arg-type]
    assert (None if money is None else (money.amount, money.settled_at, money.is_second)) == expected
    assert money is None or (money.since, money.currency) == (NOW, "CNY")
