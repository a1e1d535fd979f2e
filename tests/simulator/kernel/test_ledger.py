"""The truth by itself: pure moves in time."""

from datetime import UTC, date, datetime, timedelta

import pytest

from simulator.kernel.ledger import Key, Ledger, Payment, PaymentStatus, Refund, RefundStatus, Refusal, Terms

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
EXPIRY = NOW + timedelta(minutes=15)
KEY = Key("m-1", "number-1")


def terms(number: str = "number-1", amount: int = 1000) -> Terms:
    return Terms(
        out_trade_no=number,
        amount=amount,
        currency="CNY",
        subject="Tea",
        expires_at=EXPIRY,
        callback_url="http://127.0.0.1:9/",
    )


def ledger_with(status: PaymentStatus) -> Ledger:
    """A ledger whose one payment came to this status by legal moves."""
    ledger = Ledger()
    ledger.create("m-1", terms(), NOW)
    if status.was_paid:
        ledger.pay(KEY, NOW)
    if status is PaymentStatus.REFUNDED:
        refund(ledger, "refund-0", 100)
    if status is PaymentStatus.CLOSED:
        ledger.close(KEY, NOW)
    return ledger


def refund(ledger: Ledger, number: str, amount: int, *, succeeds: bool = True) -> Refund | Refusal:
    requested = ledger.refund(KEY, number, amount, LATER)
    return (
        requested if isinstance(requested, Refusal) else ledger.settle_refund(requested.key, LATER, succeeds=succeeds)
    )


def status_of(answer: Payment | Refusal | None) -> PaymentStatus | Refusal | None:
    return answer.status if isinstance(answer, Payment) else answer


@pytest.mark.parametrize(
    ("before", "pay", "close", "settle_late"),
    [
        ("unpaid", "paid", "closed", Refusal.NOT_PAYABLE),
        ("paid", "paid", Refusal.ALREADY_PAID, Refusal.NOT_PAYABLE),
        ("refunded", "refunded", Refusal.ALREADY_PAID, Refusal.NOT_PAYABLE),
        ("closed", Refusal.NOT_PAYABLE, "closed", "paid"),
    ],
)
def test_every_move_from_every_status(before: str, pay: str, close: str, settle_late: str) -> None:
    status = PaymentStatus(before)
    assert status_of(ledger_with(status).pay(KEY, LATER)) == pay
    assert status_of(ledger_with(status).close(KEY, LATER)) == close
    assert status_of(ledger_with(status).settle_late(KEY, LATER)) == settle_late


def test_unpaid_payment_is_closed_from_its_expiry_on() -> None:
    ledger = ledger_with(PaymentStatus.UNPAID)
    assert status_of(ledger.find(KEY, EXPIRY - timedelta(microseconds=1))) is PaymentStatus.UNPAID
    assert status_of(ledger.find(KEY, EXPIRY)) is PaymentStatus.CLOSED
    assert ledger.pay(KEY, EXPIRY) is Refusal.NOT_PAYABLE


def test_paid_payment_does_not_expire() -> None:
    assert status_of(ledger_with(PaymentStatus.PAID).find(KEY, EXPIRY + timedelta(days=1))) is PaymentStatus.PAID


def test_paying_twice_is_one_transaction() -> None:
    ledger = ledger_with(PaymentStatus.UNPAID)
    assert ledger.pay(KEY, NOW) == ledger.pay(KEY, LATER)


def test_same_number_and_terms_is_the_same_payment() -> None:
    ledger = ledger_with(PaymentStatus.PAID)
    assert status_of(ledger.create("m-1", terms(), LATER)) is PaymentStatus.PAID
    assert ledger.create("m-1", terms(amount=1001), LATER) is Refusal.NUMBER_REUSED


def test_two_merchants_may_use_one_number() -> None:
    ledger = ledger_with(PaymentStatus.PAID)
    other = ledger.create("m-2", terms(amount=5), NOW)
    assert status_of(other) is PaymentStatus.UNPAID
    assert {total.merchant_id: total.paid for total in ledger.totals()} == {"m-1": 1000, "m-2": 0}


def test_full_ledger_refuses_and_forgets_nothing() -> None:
    ledger = Ledger(payments_max=1)
    ledger.create("m-1", terms(), NOW)
    assert ledger.create("m-1", terms("number-2"), NOW) is Refusal.FULL
    assert isinstance(ledger.create("m-1", terms(), NOW), Payment)


def test_refunds_add_up_to_the_amount_and_no_further() -> None:
    ledger = ledger_with(PaymentStatus.PAID)
    refund(ledger, "refund-1", 400)
    assert ledger.refund(KEY, "refund-2", 601, LATER) is Refusal.AMOUNT_EXCEEDED
    refund(ledger, "refund-2", 600)
    assert ledger.refund(KEY, "refund-3", 1, LATER) is Refusal.AMOUNT_EXCEEDED
    payment = ledger.find(KEY, LATER)
    assert payment is not None
    assert (payment.status, payment.refunded_amount) == (PaymentStatus.REFUNDED, 1000)


def test_refund_in_processing_reserves_its_amount_and_changes_nothing_yet() -> None:
    ledger = ledger_with(PaymentStatus.PAID)
    ledger.refund(KEY, "refund-1", 700, LATER)
    assert ledger.refund(KEY, "refund-2", 400, LATER) is Refusal.AMOUNT_EXCEEDED
    assert status_of(ledger.find(KEY, LATER)) is PaymentStatus.PAID


def test_failed_refund_gives_its_amount_free() -> None:
    ledger = ledger_with(PaymentStatus.PAID)
    failed = refund(ledger, "refund-1", 700, succeeds=False)
    assert isinstance(failed, Refund)
    assert failed.status is RefundStatus.FAILED
    assert isinstance(refund(ledger, "refund-2", 1000), Refund)


@pytest.mark.parametrize(("status", "refusal"), [("unpaid", Refusal.NOT_PAID), ("closed", Refusal.NOT_PAID)])
def test_refund_of_what_was_not_paid_is_refused(status: str, refusal: Refusal) -> None:
    assert refund(ledger_with(PaymentStatus(status)), "refund-1", 1) is refusal


def test_refund_number_with_other_terms_is_refused() -> None:
    ledger = ledger_with(PaymentStatus.PAID)
    refund(ledger, "refund-1", 400)
    assert isinstance(ledger.refund(KEY, "refund-1", 400, LATER), Refund)
    assert ledger.refund(KEY, "refund-1", 300, LATER) is Refusal.NUMBER_REUSED


def test_statement_holds_the_money_of_its_day_and_merchant() -> None:
    ledger = ledger_with(PaymentStatus.REFUNDED)
    ledger.create("m-2", terms(), NOW)
    ledger.pay(Key("m-2", "number-1"), NOW)
    rows = list(ledger.statement("m-1", date(2026, 11, 23)))
    assert [(row.type, row.amount, row.refund_no) for row in rows] == [
        ("payment", 1000, ""),
        ("refund", 100, "refund-0"),
    ]
    assert list(ledger.statement("m-1", date(2026, 11, 22))) == []
