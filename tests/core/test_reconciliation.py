"""Result of comparing a statement row with a payment, and of the query that follows, as tables."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from api import store_metrics
from api.http import metrics
from channels.base import StatementRow
from core.decision import Case, Change, Decision, Event, Outcome
from core.evidence import Approved, Closed, Evidence, Missing, Paid, Refunded, Source, Unclear, Unpaid
from core.money import decimal_text
from core.order import CaseReason, Payment, PaymentStatus
from core.reconciliation import CASES, Finding, compare, judge, judge_malformed, judge_unknown, refunds_made_outside
from storage.postgres.reconciliation.runs import LastReconciliation
from tests.core.states import a_payment, an_order

NOW = datetime(2026, 11, 23, 4, tzinfo=UTC)
OPEN = a_payment()
PAID = replace(OPEN, status=PaymentStatus.PAID, paid_at=NOW, channel_transaction_id="t-1")
CLOSED = replace(OPEN, status=PaymentStatus.CLOSED)
KEY_FIELDS: dict[str, Any] = {"channel_account": OPEN.channel_account, "out_trade_no": OPEN.out_trade_no}
PAID_FIELDS = KEY_FIELDS | {"amount": OPEN.amount, "currency": OPEN.currency, "channel_transaction_id": "t-1"}


def row(**changes: Any) -> StatementRow:
    default = StatementRow(
        line=2,
        kind="payment",
        out_trade_no=OPEN.out_trade_no,
        channel_transaction_id="t-1",
        amount=OPEN.amount,
        currency=OPEN.currency,
        at=NOW,
    )
    return replace(default, **changes)


def findings(
    statement_row: StatementRow, payment: Payment, *, repeats: bool = False, refunded: int = 0
) -> list[Finding]:
    return [finding for finding, _ in compare(statement_row, payment, repeats=repeats, refunded=refunded)]


@pytest.mark.parametrize(
    ("statement_row", "payment", "found"),
    [
        (row(), PAID, []),
        (row(channel_transaction_id=""), PAID, []),
        (row(), OPEN, [Finding.PAID_THERE_ONLY]),
        (row(), CLOSED, [Finding.PAID_THERE_ONLY]),
        (row(amount=1), PAID, [Finding.AMOUNT]),
        (row(currency="USD"), PAID, [Finding.CURRENCY]),
        (row(currency="USD", amount=1), PAID, [Finding.CURRENCY]),
        (row(amount=1), OPEN, [Finding.PAID_THERE_ONLY, Finding.AMOUNT]),
        (row(currency="USD"), CLOSED, [Finding.PAID_THERE_ONLY, Finding.CURRENCY]),
        (row(channel_transaction_id="t-2"), PAID, [Finding.TRANSACTION]),
        (row(channel_transaction_id="t-2", amount=1), PAID, [Finding.TRANSACTION]),
    ],
)
def test_findings_of_a_payment_row(statement_row: StatementRow, payment: Payment, found: list[Finding]) -> None:
    assert findings(statement_row, payment) == found


@pytest.mark.parametrize("payment", [OPEN, PAID, CLOSED])
def test_a_repeated_row_is_only_a_duplicate(payment: Payment) -> None:
    assert findings(row(amount=1), payment, repeats=True) == [Finding.DUPLICATE]


def test_another_transaction_under_the_same_number_is_no_duplicate() -> None:
    assert findings(row(channel_transaction_id="t-2"), PAID, repeats=True) == [Finding.TRANSACTION]


@pytest.mark.parametrize(
    ("given_back_here", "given_back_there", "found"),
    [(0, 100, [Finding.REFUND]), (100, 100, []), (200, 100, []), (100, 101, [Finding.REFUND])],
)
def test_findings_of_a_refund_row(given_back_here: int, given_back_there: int, found: list[Finding]) -> None:
    """A statement contains only the refunds of its day, so a smaller sum there is no difference."""
    payment = replace(PAID, refunded_amount=given_back_here)
    assert findings(row(kind="refund", refund_no="r-1", amount=100), payment, refunded=given_back_there) == found


def test_a_refund_row_of_a_payment_with_an_unknown_refunded_sum_is_queried() -> None:
    payment = replace(PAID, refunded_amount=None)
    assert findings(row(kind="refund", refund_no="r-1", amount=1), payment, refunded=1) == [Finding.REFUND]


def test_findings_of_a_refund_in_another_currency_and_of_a_repeated_one() -> None:
    assert findings(row(kind="refund", currency="USD"), PAID, refunded=1) == [Finding.CURRENCY]
    assert findings(row(kind="refund", refund_no="r-1"), PAID, repeats=True, refunded=1) == [Finding.DUPLICATE]


def test_a_row_with_several_ids_is_of_the_transaction_that_any_of_them_names() -> None:
    """A charge without its PaymentIntent, or the other way round."""
    assert findings(row(channel_transaction_id="ch-1", ids=("t-1",)), PAID) == []
    assert findings(row(channel_transaction_id="ch-1", ids=("t-2",)), PAID) == [Finding.TRANSACTION]


@pytest.mark.parametrize(
    ("kind", "orders", "exclusive", "found"),
    [
        ("payment", (), False, Finding.UNKNOWN),
        ("payment", ("A-1", "A-2"), False, Finding.CANDIDATES),
        ("payment", (), True, Finding.UNCLAIMED),
        ("payment", ("A-1", "A-2"), True, Finding.UNCLAIMED),
        ("refund", ("A-1", "A-2"), True, Finding.UNKNOWN),
    ],
)
def test_finding_of_an_unknown_row(kind: str, orders: tuple[str, ...], exclusive: bool, found: Finding) -> None:
    finding, detail = judge_unknown(row(kind=kind), orders, exclusive=exclusive)
    assert finding is found
    assert ("A-1, A-2" in detail) == bool(orders)
    assert f"{decimal_text(OPEN.amount, OPEN.currency)} {OPEN.currency}" in detail


@pytest.mark.parametrize(
    ("ids", "is_known", "exclusive", "found"),
    [
        ((), False, False, Finding.MALFORMED),
        (("ORD #1001", "t-9"), False, False, Finding.UNKNOWN),
        (("ORD #1001", "t-9"), True, False, Finding.MALFORMED),
        (("ORD #1001", "t-9"), False, True, Finding.MALFORMED),
        (("0190a7c3d1f2a1b2c3d4e5f60718", "t-9"), False, False, Finding.MALFORMED),
    ],
)
def test_a_malformed_row_of_another_system_is_unknown(
    ids: tuple[str, ...], is_known: bool, exclusive: bool, found: Finding
) -> None:
    """A number of our form may be an order's that was restored from an older back-up."""
    assert judge_malformed(ids, is_known=is_known, exclusive=exclusive) is found


@given(st.integers(0, 10**14), st.sampled_from(["CNY", "USD"]), st.sampled_from([OPEN, PAID, CLOSED]), st.booleans())
def test_an_unpaid_payment_is_queried_whatever_else_differs(
    amount: int, currency: str, payment: Payment, repeats: bool
) -> None:
    found = findings(row(amount=amount, currency=currency), payment, repeats=repeats)
    is_asked = Finding.PAID_THERE_ONLY in found
    assert is_asked == (payment.status is not PaymentStatus.PAID and not repeats)
    agrees = (amount, currency, payment.status) == (PAID.amount, PAID.currency, PaymentStatus.PAID) and not repeats
    assert (found == []) == agrees


def decision(outcome: Outcome = Outcome.PAID, *reasons: CaseReason) -> Decision:
    """Decision of the door with this outcome and these cases."""
    cases = tuple(Case(reason=reason, key=OPEN.key, detail="") for reason in reasons)
    change = Change(order=an_order(), event=Event(kind=outcome, by=Source.RECONCILIATION), cases=cases)
    return Decision(outcome=outcome, change=change)


NOTHING_NEW = Decision(outcome=Outcome.NOTHING_NEW)
REFUND_SEEN_OUTSIDE = decision(Outcome.REFUND_SEEN, CaseReason.REFUNDED_OUTSIDE)


@pytest.mark.parametrize(
    ("evidence", "done", "finding", "door_cases"),
    [
        (Paid(**PAID_FIELDS), decision(), Finding.REPAIRED, 0),
        (Paid(**PAID_FIELDS), NOTHING_NEW, Finding.REPAIRED, 0),
        (Paid(**PAID_FIELDS), decision(Outcome.PAID_LATE, CaseReason.PAID_LATE), Finding.REPAIRED, 1),
        (Paid(**PAID_FIELDS), decision(Outcome.DOUBLE_PAYMENT, CaseReason.DOUBLE_PAYMENT), Finding.REPAIRED, 1),
        (Paid(**PAID_FIELDS), decision(Outcome.MISMATCH, CaseReason.AMOUNT_MISMATCH), Finding.PAID_THERE_ONLY, 0),
        (Paid(**PAID_FIELDS), Decision(outcome=Outcome.NUMBER_REUSED), Finding.PAID_THERE_ONLY, 0),
        (
            Refunded(**PAID_FIELDS, refunded_amount=5),
            decision(Outcome.PAID, CaseReason.REFUNDED_OUTSIDE),
            Finding.REPAIRED,
            1,
        ),
        (Unpaid(**KEY_FIELDS), NOTHING_NEW, Finding.STATUS, 0),
        (Approved(**KEY_FIELDS), NOTHING_NEW, Finding.STATUS, 0),
        (Closed(**KEY_FIELDS), NOTHING_NEW, Finding.STATUS, 0),
        (Missing(**KEY_FIELDS), NOTHING_NEW, Finding.STATUS, 0),
        (Unclear(**KEY_FIELDS, reason="timed_out"), NOTHING_NEW, Finding.UNCONFIRMED, 0),
    ],
)
def test_result_of_a_query_after_a_row_paid_only_at_the_channel(
    evidence: Evidence, done: Decision, finding: Finding, door_cases: int
) -> None:
    judged = judge(Finding.PAID_THERE_ONLY, "open here", evidence, done, PAID, refunded=0)
    assert (judged.finding, judged.door_cases) == (finding, door_cases)
    assert judged.has_case == (finding is Finding.PAID_THERE_ONLY), "the door opens its own case"


@pytest.mark.parametrize(
    ("evidence", "after", "done", "finding", "has_case"),
    [
        (Refunded(**PAID_FIELDS, refunded_amount=100), 100, REFUND_SEEN_OUTSIDE, Finding.REFUND, True),
        (Refunded(**PAID_FIELDS, refunded_amount=100), 100, decision(Outcome.REFUND_SEEN), Finding.REPAIRED, False),
        (Refunded(**PAID_FIELDS, refunded_amount=99), 99, REFUND_SEEN_OUTSIDE, Finding.REFUND, False),
        (Refunded(**PAID_FIELDS, refunded_amount=None), 100, decision(Outcome.PAID), Finding.REPAIRED, False),
        (Refunded(**PAID_FIELDS, refunded_amount=None), None, NOTHING_NEW, Finding.REFUND, False),
        (Paid(**PAID_FIELDS), 0, NOTHING_NEW, Finding.REFUND, False),
        (Missing(**KEY_FIELDS), 0, NOTHING_NEW, Finding.REFUND, False),
        (Unclear(**KEY_FIELDS, reason="timed_out"), 0, NOTHING_NEW, Finding.UNCONFIRMED, False),
    ],
)
def test_result_of_a_query_after_an_unknown_refund(
    evidence: Evidence, after: int | None, done: Decision, finding: Finding, has_case: bool
) -> None:
    payment = replace(PAID, refunded_amount=after)
    judged = judge(Finding.REFUND, "1.00 given back there, 0.00 here", evidence, done, payment, refunded=100)
    assert (judged.finding, judged.has_case) == (finding, has_case)


def test_only_unknown_payments_and_refunds_are_queried() -> None:
    assert {finding for finding in Finding if finding.is_queried} == {Finding.PAID_THERE_ONLY, Finding.REFUND}


def test_a_run_lists_differences_and_rows_with_candidates() -> None:
    listed = {finding for finding in Finding if finding.is_listed}
    assert listed == {finding for finding in Finding if finding.is_difference} | {Finding.CANDIDATES}


def test_every_difference_opens_a_case() -> None:
    """The case is opened by reconciliation or by the door."""
    differences = {finding for finding in Finding if finding.is_difference}
    assert differences - set(CASES) == {Finding.PAID_THERE_ONLY}
    assert not set(CASES) - differences
    assert len(set(CASES.values())) == len(CASES)


def test_metrics_show_the_reconciliation_of_each_account() -> None:
    try:
        store_metrics.show_reconciled(
            [LastReconciliation(account="main", age_s=90.0, counts={"rows": 9, "amount": 2, "agrees": 7})]
        )
        exposition = metrics.exposition().decode()
    finally:
        store_metrics.show_reconciled([])
    assert 'nodrop_reconciled_age_seconds{account="main"} 90.0' in exposition
    assert 'nodrop_reconciliation_differences{account="main",kind="amount"} 2.0' in exposition
    assert 'nodrop_reconciliation_differences{account="main",kind="status"} 0.0' in exposition
    assert 'kind="agrees"' not in exposition


@pytest.mark.parametrize(
    ("rows", "own", "taken", "outside"),
    [
        ({}, set(), 0, set()),
        ({1: ("r-1", 100)}, {"r-1"}, 0, set()),
        ({1: ("r-1", 100), 2: ("", 100), 3: ("x", 50)}, {"r-1"}, 0, {2, 3}),
        ({1: ("", 100)}, {"r-1"}, 100, set()),
        ({1: ("", 100), 2: ("", 100)}, set(), 150, {2}),
        ({1: ("", 100)}, set(), 99, {1}),
    ],
)
def test_refunds_made_outside_are_those_of_no_number_of_ours_and_no_dispute(
    rows: dict[int, tuple[str, int]], own: set[str], taken: int, outside: set[int]
) -> None:
    assert refunds_made_outside(rows, own, taken=taken) == outside
