"""What a row of a statement comes to, as a table, and what a query makes of it."""

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
from core.order import CaseReason, Payment, PaymentStatus
from core.reconciliation import CASES, Finding, compare, judge
from storage.postgres.reconciliation.runs import LastReconciliation
from tests.core.states import a_payment, an_order

NOW = datetime(2026, 11, 23, 4, tzinfo=UTC)
OPEN = a_payment()
PAID = replace(OPEN, status=PaymentStatus.PAID, paid_at=NOW, channel_transaction_id="t-1")
CLOSED = replace(OPEN, status=PaymentStatus.CLOSED)
TOLD: dict[str, Any] = {"channel_account": OPEN.channel_account, "out_trade_no": OPEN.out_trade_no}
MONEY = TOLD | {"amount": OPEN.amount, "currency": OPEN.currency, "channel_transaction_id": "t-1"}


def row(**changes: Any) -> StatementRow:
    plain = StatementRow(
        line=2,
        kind="payment",
        out_trade_no=OPEN.out_trade_no,
        channel_transaction_id="t-1",
        amount=OPEN.amount,
        currency=OPEN.currency,
        at=NOW,
    )
    return replace(plain, **changes)


def findings(told: StatementRow, here: Payment, *, repeats: bool = False, refunded: int = 0) -> list[Finding]:
    return [finding for finding, _ in compare(told, here, repeats=repeats, refunded=refunded)]


@pytest.mark.parametrize(
    ("told", "here", "found"),
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
def test_a_row_of_money_that_came(told: StatementRow, here: Payment, found: list[Finding]) -> None:
    assert findings(told, here) == found


@pytest.mark.parametrize("here", [OPEN, PAID, CLOSED])
def test_the_same_money_again_is_a_duplicate_and_nothing_else(here: Payment) -> None:
    assert findings(row(amount=1), here, repeats=True) == [Finding.DUPLICATE]


def test_other_money_under_the_same_number_is_no_duplicate() -> None:
    assert findings(row(channel_transaction_id="t-2"), PAID, repeats=True) == [Finding.TRANSACTION]


@pytest.mark.parametrize(
    ("given_back_here", "given_back_there", "found"),
    [(0, 100, [Finding.REFUND]), (100, 100, []), (200, 100, []), (100, 101, [Finding.REFUND])],
)
def test_a_row_of_money_that_went_back(given_back_here: int, given_back_there: int, found: list[Finding]) -> None:
    """Of several days' refunds a statement tells only that day's: less there than here is no difference."""
    here = replace(PAID, refunded_amount=given_back_here)
    assert findings(row(kind="refund", refund_no="r-1", amount=100), here, refunded=given_back_there) == found


def test_a_refund_in_another_currency_and_one_that_comes_twice() -> None:
    assert findings(row(kind="refund", currency="USD"), PAID, refunded=1) == [Finding.CURRENCY]
    assert findings(row(kind="refund", refund_no="r-1"), PAID, repeats=True, refunded=1) == [Finding.DUPLICATE]


@given(st.integers(0, 10**14), st.sampled_from(["CNY", "USD"]), st.sampled_from([OPEN, PAID, CLOSED]), st.booleans())
def test_an_unpaid_payment_is_asked_about_whatever_else_differs(
    amount: int, currency: str, here: Payment, repeats: bool
) -> None:
    found = findings(row(amount=amount, currency=currency), here, repeats=repeats)
    is_asked = Finding.PAID_THERE_ONLY in found
    assert is_asked == (here.status is not PaymentStatus.PAID and not repeats)
    agrees = (amount, currency, here.status) == (PAID.amount, PAID.currency, PaymentStatus.PAID) and not repeats
    assert (found == []) == agrees


def decision(outcome: Outcome = Outcome.PAID, *reasons: CaseReason) -> Decision:
    """What the door did, with these cases."""
    cases = tuple(Case(reason=reason, key=OPEN.key, detail="") for reason in reasons)
    change = Change(order=an_order(), event=Event(kind=outcome, by=Source.RECONCILIATION), cases=cases)
    return Decision(outcome=outcome, change=change)


NOTHING = Decision(outcome=Outcome.NOTHING_NEW)
SEEN_OUTSIDE = decision(Outcome.REFUND_SEEN, CaseReason.REFUNDED_OUTSIDE)


@pytest.mark.parametrize(
    ("evidence", "done", "finding", "door_cases"),
    [
        (Paid(**MONEY), decision(), Finding.REPAIRED, 0),
        (Paid(**MONEY), NOTHING, Finding.REPAIRED, 0),
        (Paid(**MONEY), decision(Outcome.PAID_LATE, CaseReason.PAID_LATE), Finding.REPAIRED, 1),
        (Paid(**MONEY), decision(Outcome.DOUBLE_PAYMENT, CaseReason.DOUBLE_PAYMENT), Finding.REPAIRED, 1),
        (Paid(**MONEY), decision(Outcome.MISMATCH, CaseReason.AMOUNT_MISMATCH), Finding.PAID_THERE_ONLY, 0),
        (Paid(**MONEY), Decision(outcome=Outcome.NUMBER_REUSED), Finding.PAID_THERE_ONLY, 0),
        (
            Refunded(**MONEY, refunded_amount=5),
            decision(Outcome.PAID, CaseReason.REFUNDED_OUTSIDE),
            Finding.REPAIRED,
            1,
        ),
        (Unpaid(**TOLD), NOTHING, Finding.STATUS, 0),
        (Approved(**TOLD), NOTHING, Finding.STATUS, 0),
        (Closed(**TOLD), NOTHING, Finding.STATUS, 0),
        (Missing(**TOLD), NOTHING, Finding.STATUS, 0),
        (Unclear(**TOLD, reason="timed_out"), NOTHING, Finding.UNCONFIRMED, 0),
    ],
)
def test_what_a_query_makes_of_money_that_is_there_only(
    evidence: Evidence, done: Decision, finding: Finding, door_cases: int
) -> None:
    judged = judge(Finding.PAID_THERE_ONLY, "open here", evidence, done, refunded=0)
    assert (judged.finding, judged.door_cases) == (finding, door_cases)
    assert judged.has_case == (finding is Finding.PAID_THERE_ONLY), "the door has made its own"


@pytest.mark.parametrize(
    ("evidence", "done", "finding", "has_case"),
    [
        (Refunded(**MONEY, refunded_amount=100), SEEN_OUTSIDE, Finding.REFUND, True),
        (Refunded(**MONEY, refunded_amount=100), decision(Outcome.REFUND_SEEN), Finding.REPAIRED, False),
        (Refunded(**MONEY, refunded_amount=99), SEEN_OUTSIDE, Finding.REFUND, False),
        (Paid(**MONEY), NOTHING, Finding.REFUND, False),
        (Missing(**TOLD), NOTHING, Finding.REFUND, False),
        (Unclear(**TOLD, reason="timed_out"), NOTHING, Finding.UNCONFIRMED, False),
    ],
)
def test_what_a_query_makes_of_a_refund_that_is_there_only(
    evidence: Evidence, done: Decision, finding: Finding, has_case: bool
) -> None:
    judged = judge(Finding.REFUND, "100 given back there, 0 here", evidence, done, refunded=100)
    assert (judged.finding, judged.has_case) == (finding, has_case)


def test_only_money_that_moved_there_alone_is_confirmed_by_a_query() -> None:
    assert {finding for finding in Finding if finding.is_queried} == {Finding.PAID_THERE_ONLY, Finding.REFUND}


def test_every_difference_is_somebodys_question() -> None:
    """Our own case, or the door's."""
    differences = {finding for finding in Finding if finding.is_difference}
    assert differences - set(CASES) == {Finding.PAID_THERE_ONLY}
    assert not set(CASES) - differences
    assert len(set(CASES.values())) == len(CASES)


def test_metrics_tell_how_each_account_stands() -> None:
    try:
        store_metrics.show_reconciled(
            [LastReconciliation(account="main", age_s=90.0, counts={"rows": 9, "amount": 2, "agrees": 7})]
        )
        shown = metrics.exposition().decode()
    finally:
        store_metrics.show_reconciled([])
    assert 'nodrop_reconciled_age_seconds{account="main"} 90.0' in shown
    assert 'nodrop_reconciliation_differences{account="main",kind="amount"} 2.0' in shown
    assert 'nodrop_reconciliation_differences{account="main",kind="status"} 0.0' in shown
    assert 'kind="agrees"' not in shown
