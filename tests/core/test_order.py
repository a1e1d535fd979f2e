import itertools
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, TypeVar

import pytest

from core.errors import IllegalMove
from core.order import (
    ACCOUNT_NAME,
    ORDER_MOVES,
    ORDER_NO,
    OUT_TRADE_NO,
    PAYMENT_MOVES,
    REFUND_MOVES,
    Order,
    OrderStatus,
    Payment,
    PaymentStatus,
    PublicStatus,
    RefundStatus,
    deadline_key,
    public_status,
)
from tests.core.states import (
    ALIPAY,
    NOW,
    WECHAT,
    a_payment,
    a_refund,
    a_state,
    an_order,
    closed_order,
    paid_order,
    paid_payment,
)

# -- the legal moves ---------------------------------------------------------------------------------------------------


Status = TypeVar("Status", OrderStatus, PaymentStatus)


def moves(table: Mapping[Status, frozenset[Status]]) -> set[str]:
    return {f"{before} → {after}" for before, afters in table.items() for after in afters}


def test_legal_moves_of_an_order() -> None:
    assert moves(ORDER_MOVES) == {
        "created → paying",
        "created → paid",
        "created → closed",
        "paying → paid",
        "paying → closed",
        "closed → paid",
    }


def test_legal_moves_of_a_payment() -> None:
    assert moves(PAYMENT_MOVES) == {"open → paid", "open → closed", "closed → paid"}


def test_every_status_is_in_its_table_and_paid_wins() -> None:
    """Every other status can move to paid, and paid moves nowhere."""
    assert set(ORDER_MOVES) == set(OrderStatus)
    assert set(PAYMENT_MOVES) == set(PaymentStatus)
    assert [status for status in OrderStatus if OrderStatus.PAID not in ORDER_MOVES[status]] == [OrderStatus.PAID]
    assert [status for status in PaymentStatus if PaymentStatus.PAID not in PAYMENT_MOVES[status]] == [
        PaymentStatus.PAID
    ]
    assert not ORDER_MOVES[OrderStatus.PAID]
    assert not PAYMENT_MOVES[PaymentStatus.PAID]


# -- the public status -------------------------------------------------------------------------------------------------

NOT_HANDED_OFF: dict[str, Any] = {"handed_off_at": None}


@pytest.mark.parametrize(
    ("order", "payments", "public"),
    [
        (an_order(status=OrderStatus.CREATED, **NOT_HANDED_OFF), (), PublicStatus.CREATED),
        (an_order(**NOT_HANDED_OFF), (a_payment(),), PublicStatus.CREATED),
        (an_order(), (a_payment(),), PublicStatus.PROCESSING),
        (an_order(), (a_payment(status=PaymentStatus.CLOSED),), PublicStatus.PROCESSING),
        (an_order(expires_at=NOW - timedelta(days=1)), (a_payment(),), PublicStatus.PROCESSING),
        (paid_order(), (paid_payment(),), PublicStatus.PAID),
        (paid_order(), (paid_payment(), a_payment(WECHAT)), PublicStatus.PAID),
        (paid_order(**NOT_HANDED_OFF), (paid_payment(),), PublicStatus.PAID),
        (closed_order(), (), PublicStatus.CLOSED),
        (closed_order(), (a_payment(status=PaymentStatus.CLOSED),), PublicStatus.CLOSED),
        (closed_order(), (paid_payment(),), PublicStatus.REVIEW),
        (closed_order(), (a_payment(WECHAT, status=PaymentStatus.CLOSED), paid_payment()), PublicStatus.REVIEW),
        (closed_order(), (paid_payment(refunded_amount=8887),), PublicStatus.REVIEW),
        (closed_order(), (paid_payment(refunded_amount=8888),), PublicStatus.REFUNDED),
        (closed_order(), (paid_payment(refunded_amount=8888), paid_payment(WECHAT)), PublicStatus.REVIEW),
        (paid_order(), (paid_payment(refunded_amount=8888),), PublicStatus.PAID),
        (closed_order(), (paid_payment(refunded_amount=None),), PublicStatus.REVIEW),
        (an_order(), (paid_payment(refunded_amount=8888),), PublicStatus.REFUNDED),
        (an_order(), (paid_payment(refunded_amount=8888), a_payment(WECHAT)), PublicStatus.PROCESSING),
        (an_order(), (paid_payment(refunded_amount=None),), PublicStatus.PROCESSING),
    ],
)
def test_public_status_of_an_order(order: Order, payments: tuple[Payment, ...], public: PublicStatus) -> None:
    assert public_status(order, payments) is public


def test_no_page_calls_an_order_unpaid_or_failed() -> None:
    """No status has such a name. "created" and "closed" are shown only while no payment can be in progress."""
    assert set(PublicStatus) == {"created", "processing", "paid", "closed", "review", "refunded", "disputed"}
    orders = [an_order(status=status) for status in (OrderStatus.CREATED, OrderStatus.PAYING)]
    for order, payment in itertools.product(orders, map(with_status, PaymentStatus)):
        assert public_status(order, (payment,)) is PublicStatus.PROCESSING
    assert public_status(closed_order(), (with_status(PaymentStatus.PAID),)) is PublicStatus.REVIEW


def with_status(status: PaymentStatus) -> Payment:
    return paid_payment() if status is PaymentStatus.PAID else a_payment(status=status)


def test_what_only_the_channel_can_change_is_definite_for_a_page() -> None:
    assert {status for status in PublicStatus if status.is_definite} == {
        PublicStatus.PAID,
        PublicStatus.CLOSED,
        PublicStatus.REFUNDED,
        PublicStatus.DISPUTED,
    }


# -- names and numbers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["A", "0", "A-1", "2026_03.01-0001", "a" * 64])
def test_valid_order_numbers_are_accepted(text: str) -> None:
    assert ORDER_NO.fullmatch(text)


@pytest.mark.parametrize("text", ["", "-1", "_a", ".a", "a" * 65, "a b", "a\n", "a/b", "a:b", "１", "订单", "a\0", "é"])
def test_invalid_order_numbers_are_refused(text: str) -> None:
    assert not ORDER_NO.fullmatch(text)


@pytest.mark.parametrize("text", ["123456", "A-1_b|c*", "a" * 64])
def test_valid_payment_numbers_are_accepted(text: str) -> None:
    assert OUT_TRADE_NO.fullmatch(text)


@pytest.mark.parametrize("text", ["12345", "a" * 65, "12345６", "12345\n", "12345:", "12345 "])
def test_invalid_payment_numbers_are_refused(text: str) -> None:
    assert not OUT_TRADE_NO.fullmatch(text)


@pytest.mark.parametrize("text", ["", "A", "1a", "-a", "a_b", "a:b", "a\n", "a" * 41, "支付"])
def test_invalid_account_names_are_refused(text: str) -> None:
    """The empty name is reserved for deadlines."""
    assert ACCOUNT_NAME.fullmatch("wechat-cn-2")
    assert not ACCOUNT_NAME.fullmatch(text)


def test_a_deadline_key_has_no_account() -> None:
    assert deadline_key("A-1").channel_account == ""


# -- a state -----------------------------------------------------------------------------------------------------------


def test_a_state_finds_payments_by_account_and_number() -> None:
    """The same number at another account is another payment."""
    state = a_state(an_order(), a_payment(), a_payment(WECHAT, attempt_no=2))
    assert state.payment(ALIPAY) is state.payments[0]
    assert state.payment(WECHAT) is state.payments[1]
    assert state.payment(ALIPAY._replace(channel_account="wechat")) is None
    assert state.pending_of(deadline_key("A-1")) is not None
    assert state.pending_of(ALIPAY._replace(out_trade_no="other")) is None


def test_open_payments_are_neither_paid_nor_closed() -> None:
    state = a_state(paid_order(), paid_payment(), a_payment(WECHAT), a_payment(status=PaymentStatus.CLOSED))
    assert [payment.key for payment in state.open_payments()] == [WECHAT]


@pytest.mark.parametrize("before", OrderStatus)
@pytest.mark.parametrize("after", OrderStatus)
def test_an_order_makes_only_legal_moves(before: OrderStatus, after: OrderStatus) -> None:
    order = an_order(status=before)
    if after == before or after in ORDER_MOVES[before]:
        moved = order.next_version(status=after)
        assert (moved.status, moved.version) == (after, order.version + 1)
    else:
        with pytest.raises(IllegalMove):
            order.next_version(status=after)


@pytest.mark.parametrize("before", PaymentStatus)
@pytest.mark.parametrize("after", PaymentStatus)
def test_a_payment_makes_only_legal_moves(before: PaymentStatus, after: PaymentStatus) -> None:
    payment = a_payment(status=before)
    if after == before or after in PAYMENT_MOVES[before]:
        assert payment.moved_to(after).status is after
    else:
        with pytest.raises(IllegalMove):
            payment.moved_to(after)


@pytest.mark.parametrize("before", RefundStatus)
@pytest.mark.parametrize("after", RefundStatus)
def test_a_refund_makes_only_legal_moves(before: RefundStatus, after: RefundStatus) -> None:
    refund = a_refund(status=before)
    if after == before or after in REFUND_MOVES[before]:
        assert refund.moved_to(after).status is after
    else:
        with pytest.raises(IllegalMove):
            refund.moved_to(after)
