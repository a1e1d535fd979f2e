"""Rules of a callback, as tables: whether it is committed, whether the channel is queried, and when it is handled."""

from typing import Any

import pytest

from core.decision import Decision, Handled, Outcome
from core.evidence import Approved, Closed, Evidence, Missing, Paid, Refunded, Source, Unclear, Unpaid
from core.lifecycle import (
    CallbackPlan,
    CallbackResult,
    callback_result,
    is_verified_unpaid,
    on_query,
    plan_callback,
    with_end,
)
from core.order import PaymentKey, PaymentStatus
from tests.core.states import ALIPAY, RULES, a_payment, a_state, an_order, paid_payment

_KEY: dict[str, Any] = {"channel_account": "alipay", "out_trade_no": "alipay-000001"}
_MONEY: dict[str, Any] = {"amount": 8888, "currency": "CNY", "channel_transaction_id": "t-1"}

PAID = Paid(**_KEY, **_MONEY)
REFUNDED = Refunded(**_KEY, **_MONEY, refunded_amount=100)
UNPAID = Unpaid(**_KEY)
UNDER_WAY = Unpaid(**_KEY, under_way=True)
APPROVED = Approved(**_KEY)
CLOSED = Closed(**_KEY)
MISSING = Missing(**_KEY)
UNCLEAR = Unclear(**_KEY, reason="timed_out")
OTHER_AMOUNT = Paid(**_KEY, **_MONEY | {"amount": 1})

COMMIT = CallbackPlan(commits=True, queries=False, differs=False)
QUERY = CallbackPlan(commits=False, queries=True, differs=False)
BOTH = CallbackPlan(commits=True, queries=True, differs=True)


@pytest.mark.parametrize(
    ("status", "evidence", "trusts", "plan"),
    [
        (PaymentStatus.OPEN, PAID, False, QUERY),
        (PaymentStatus.OPEN, PAID, True, COMMIT),
        (PaymentStatus.CLOSED, PAID, False, QUERY),
        (PaymentStatus.PAID, PAID, False, COMMIT),
        (PaymentStatus.PAID, REFUNDED, False, COMMIT),
        (PaymentStatus.OPEN, CLOSED, False, QUERY),
        (PaymentStatus.OPEN, UNCLEAR, False, QUERY),
        (PaymentStatus.OPEN, UNCLEAR, True, QUERY),
        (PaymentStatus.PAID, UNCLEAR, True, QUERY),
        (PaymentStatus.OPEN, OTHER_AMOUNT, False, BOTH),
        (PaymentStatus.OPEN, OTHER_AMOUNT, True, BOTH),
        (PaymentStatus.PAID, OTHER_AMOUNT, False, BOTH),
    ],
)
def test_steps_of_a_callback(status: PaymentStatus, evidence: Evidence, trusts: bool, plan: CallbackPlan) -> None:
    assert plan_callback(a_payment(status=status), evidence, trusts_callback=trusts) == plan


@pytest.mark.parametrize(
    ("plan", "callback", "query_result", "outcome", "result", "is_done"),
    [
        (QUERY, PAID, PAID, Outcome.PAID, Outcome.PAID, True),
        (QUERY, PAID, REFUNDED, Outcome.PAID, Outcome.PAID, True),
        (QUERY, PAID, PAID, Outcome.NOTHING_NEW, Outcome.NOTHING_NEW, True),
        (QUERY, UNPAID, UNPAID, Outcome.STILL_OPEN, Outcome.STILL_OPEN, True),
        (QUERY, CLOSED, CLOSED, Outcome.PAYMENT_CLOSED, Outcome.PAYMENT_CLOSED, True),
        (QUERY, UNCLEAR, UNPAID, Outcome.STILL_OPEN, Outcome.STILL_OPEN, True),
        # the query gives no result
        (QUERY, PAID, UNCLEAR, Outcome.UNCLEAR, Outcome.UNCLEAR, False),
        (QUERY, UNPAID, UNCLEAR, Outcome.UNCLEAR, Outcome.UNCLEAR, False),
        (BOTH, OTHER_AMOUNT, UNCLEAR, Outcome.UNCLEAR, Outcome.MISMATCH, False),
        # a genuine *paid* that the channel contradicts
        (QUERY, PAID, UNPAID, Outcome.STILL_OPEN, Outcome.UNCLEAR, False),
        (QUERY, PAID, MISSING, Outcome.STILL_OPEN, Outcome.UNCLEAR, False),
        (QUERY, PAID, APPROVED, Outcome.CAPTURE_REQUESTED, Outcome.UNCLEAR, False),
        (QUERY, PAID, CLOSED, Outcome.PAYMENT_CLOSED, Outcome.UNCLEAR, False),
        (QUERY, REFUNDED, CLOSED, Outcome.PAYMENT_CLOSED, Outcome.UNCLEAR, False),
        # a mismatch opens a case; the query decides the rest
        (BOTH, OTHER_AMOUNT, PAID, Outcome.PAID, Outcome.MISMATCH, True),
        (BOTH, OTHER_AMOUNT, UNPAID, Outcome.STILL_OPEN, Outcome.MISMATCH, True),
    ],
)
def test_result_of_a_callback_after_its_query(
    plan: CallbackPlan, callback: Evidence, query_result: Evidence, outcome: Outcome, result: Outcome, is_done: bool
) -> None:
    assert callback_result(plan, callback, query_result, outcome) == CallbackResult(outcome=result, is_done=is_done)


@pytest.mark.parametrize(
    ("evidence", "is_unpaid"),
    [
        (UNPAID, True),
        (MISSING, True),
        (CLOSED, True),
        (UNDER_WAY, False),
        (APPROVED, False),
        (UNCLEAR, False),
        (PAID, False),
        (REFUNDED, False),
        (Unpaid(**_KEY, amount=1), False),
        (Missing(**_KEY | {"out_trade_no": "other-000001"}), False),
    ],
)
def test_only_verified_evidence_without_money_allows_another_payment(evidence: Evidence, is_unpaid: bool) -> None:
    assert is_verified_unpaid(a_payment(), evidence) is is_unpaid


def test_an_approval_after_our_capture_is_unpaid_and_not_captured_again() -> None:
    state = a_state(an_order(), a_payment())
    decision = on_query(state, ALIPAY, APPROVED, RULES, Source.QUERY, after_capture=True)
    assert (decision.outcome, decision.capture, decision.change) == (Outcome.STILL_OPEN, (), None)
    assert decision.observation is not None
    assert decision.observation.kind == "unpaid_seen"


def test_an_approval_after_our_capture_is_compared_with_the_payment() -> None:
    evidence = Approved(**_KEY, amount=1)
    decision = on_query(a_state(an_order(), a_payment()), ALIPAY, evidence, RULES, Source.QUERY, after_capture=True)
    assert decision.outcome is Outcome.MISMATCH


def test_money_after_our_capture_pays_the_order() -> None:
    state = a_state(an_order(), a_payment())
    assert on_query(state, ALIPAY, PAID, RULES, Source.QUERY, after_capture=True).outcome is Outcome.PAID


def test_a_mismatch_of_a_paid_payment_is_queried_although_callbacks_are_trusted() -> None:
    plan = plan_callback(paid_payment(), OTHER_AMOUNT, trusts_callback=True)
    assert (plan.queries, plan.differs) == (True, True)


@pytest.mark.parametrize(
    ("decision", "answer", "handled"),
    [
        (Decision(outcome=Outcome.PAID), PAID, Handled(id="c-1", outcome=Outcome.PAID)),
        (Decision(outcome=Outcome.UNCLEAR), UNCLEAR, None),
        (Decision(outcome=Outcome.STILL_OPEN), UNPAID, None),
        (Decision(outcome=Outcome.CAPTURE_REQUESTED, capture=(PaymentKey("alipay", "alipay-000001"),)), PAID, None),
    ],
)
def test_a_decision_ends_the_callback_whose_work_it_is(
    decision: Decision, answer: Evidence, handled: Handled | None
) -> None:
    """A genuine *paid* that is not confirmed is not done; a capture has a result of its own."""
    assert with_end(decision, QUERY, PAID, answer, callback_id="c-1").handled == handled
