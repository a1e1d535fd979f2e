"""The scheduled query: it alone advances the attempt, and nothing but evidence moves a payment."""

import pytest

from core.admission import UNANSWERED_MAX
from core.decision import Outcome
from core.evidence import Source
from core.jobs import Lane
from core.order import OrderState, OrderStatus, PaymentKey, PaymentStatus
from flows.place import PaymentRequest, start_payment
from flows.query import query_scheduled
from flows.rearm import rearm_after_flush
from runtime.resources import Resources
from simulator.kernel.faults import FaultProfile
from storage.postgres import pending
from tests.flows.conftest import FlowHarness, Row


async def row_of(harness: FlowHarness, state: OrderState, index: int = 0) -> Row:
    payment = state.payments[index]
    row = await harness.row(payment.channel_account, payment.out_trade_no)
    assert row is not None
    return row


async def query(harness: FlowHarness, state: OrderState, index: int = 0) -> Outcome:
    """The job that is armed now."""
    row = await row_of(harness, state, index)
    return await query_scheduled(harness.resources, state.payments[index].key, row.arm_no)


async def test_a_paid_payment_pays_the_order_and_leaves_nothing_pending(harness: FlowHarness) -> None:
    state = await harness.placed()
    harness.pay(state.payments[0])
    assert await query(harness, state) is Outcome.PAID
    paid = await harness.state(state)
    assert (paid.order.status, paid.order.paid_by) == (OrderStatus.PAID, state.payments[0].key)
    assert paid.payments[0].channel_transaction_id == harness.transaction_of(state.payments[0])
    assert await harness.one("SELECT count(*) FROM pending") == 0
    assert (await harness.resources.queue.depth(Lane.QUERIES)).queued == 0


async def test_unpaid_is_asked_again_after_n_squared_minutes(harness: FlowHarness) -> None:
    state = await harness.placed()
    gaps = []
    for _ in range(4):
        assert await query(harness, state) is Outcome.STILL_OPEN
        row = await row_of(harness, state)
        gaps.append((row.attempt, round(row.due_in_s / 60)))
    assert gaps == [(2, 4), (3, 9), (4, 16), (5, 25)]


@pytest.mark.parametrize("fault", ["answered_5xx", "html_error", "cut", "truncated", "timed_out"])
async def test_an_unclear_answer_is_never_a_failure_and_is_asked_again(harness: FlowHarness, fault: str) -> None:
    """A network error that ends in *failed* is the oldest way to lose an order."""
    state = await harness.placed()
    harness.pay(state.payments[0])
    harness.call_fault(state.payments[0], fault)
    before = await row_of(harness, state)
    assert await query(harness, state) is Outcome.UNCLEAR
    row = await row_of(harness, state)
    assert (row.attempt, row.arm_no, row.is_leased) == (before.attempt + 1, before.arm_no + 1, False)
    assert 235 < row.due_in_s <= 240
    assert (await harness.state(state)).order.status is OrderStatus.PAYING

    harness.call_fault(state.payments[0], "none")
    assert await query(harness, state) is Outcome.PAID


async def test_each_scheduling_arms_a_job_of_its_own(harness: FlowHarness) -> None:
    """A fixed job id would vanish while the old job is there."""
    state = await harness.placed()
    await query(harness, state)
    row, key = await row_of(harness, state), state.payments[0].key
    names = await harness.resources.redis.zrange("arq:queue:{queries-0}", 0, -1)
    assert f"{{queries-0}}q:{key.channel_account}:{key.out_trade_no}:{row.arm_no}".encode() in names


async def test_a_job_of_an_older_scheduling_does_nothing(harness: FlowHarness) -> None:
    state = await harness.placed()
    stale = (await row_of(harness, state)).arm_no
    await query(harness, state)
    before, calls = await row_of(harness, state), harness.calls()
    assert await query_scheduled(harness.resources, state.payments[0].key, stale) is Outcome.STALE
    after = await row_of(harness, state)
    assert (after.attempt, after.arm_no, harness.calls()) == (before.attempt, before.arm_no, calls)
    assert await query_scheduled(harness.resources, PaymentKey("main", "nobody-1"), 1) is Outcome.STALE


async def test_while_somebody_is_asking_nobody_else_asks(harness: FlowHarness) -> None:
    state = await harness.placed()
    assert await pending.claim(harness.resources.db, state.payments[0].key, 20) is not None
    assert await query(harness, state) is Outcome.STALE
    assert harness.calls() == 0


async def test_an_open_breaker_postpones_the_query_and_uses_no_attempt(harness: FlowHarness) -> None:
    state = await harness.placed()
    for _ in range(UNANSWERED_MAX):
        await harness.resources.admission.report("main", answered=False)
    before = await row_of(harness, state)
    assert await query(harness, state) is Outcome.NOT_YET
    row = await row_of(harness, state)
    assert (row.attempt, row.arm_no, row.is_leased) == (before.attempt, before.arm_no + 1, False)
    assert 0 < row.due_in_s <= 60
    assert harness.calls() == 0


async def test_a_used_up_rate_postpones_the_query_and_uses_no_attempt(harness: FlowHarness) -> None:
    """One call a second, and the first is made."""
    await harness.add_account("slow", rate_per_s=1)
    state = (await harness.place("slow")).state
    outcomes = [await query(harness, state) for _ in range(2)]
    assert Outcome.NOT_YET in outcomes
    row = await row_of(harness, state)
    assert row.attempt == 1 + outcomes.count(Outcome.STILL_OPEN) + outcomes.count(Outcome.UNCLEAR)


async def test_unanswered_queries_open_the_breaker_and_an_answer_closes_it(harness: FlowHarness) -> None:
    """A refusal and a missing payment are answers: a channel that says no is not down."""
    state = await harness.placed()
    for _ in range(UNANSWERED_MAX):
        harness.far_side.faults.profile = FaultProfile(html_error=1.0)
        assert await query(harness, state) is Outcome.UNCLEAR
    harness.far_side.faults.profile = FaultProfile()
    assert await query(harness, state) is Outcome.STILL_OPEN


async def test_after_the_last_attempt_a_case_opens_and_the_query_goes_on_daily(harness: FlowHarness) -> None:
    """Giving up is not evidence: the row stays, and money is found on the day after."""
    state = await harness.placed()
    await harness.resources.db.execute("UPDATE pending SET attempt = 16 WHERE kind = 'query'")
    assert await query(harness, state) is Outcome.EXHAUSTED
    row = await row_of(harness, state)
    assert (row.attempt, round(row.due_in_s / 3600)) == (17, 24)
    assert await harness.cases(state.order.order_no) == ["attempts_exhausted"]
    assert (await harness.state(state)).order.status is OrderStatus.PAYING
    await query(harness, state)
    assert await harness.cases(state.order.order_no) == ["attempts_exhausted"]
    harness.pay(state.payments[0])
    assert await query(harness, state) is Outcome.PAID


@pytest.mark.parametrize(
    ("fault", "reason"), [("wrong_amount_in_query", "amount_mismatch"), ("other_order", "number_mismatch")]
)
async def test_an_answer_with_another_amount_or_number_never_pays_and_opens_one_case(
    harness: FlowHarness, fault: str, reason: str
) -> None:
    """Checked on the callback and not on the query: seen elsewhere."""
    state = await harness.placed()
    harness.pay(state.payments[0])
    harness.call_fault(state.payments[0], fault)
    for _ in range(2):
        assert await query(harness, state) is Outcome.MISMATCH
    assert await harness.cases(state.order.order_no) == [reason]
    assert (await harness.state(state)).order.status is OrderStatus.PAYING
    harness.call_fault(state.payments[0], "none")
    assert await query(harness, state) is Outcome.PAID


async def test_a_refunded_payment_was_paid_and_somebody_looks(harness: FlowHarness) -> None:
    state = await harness.placed()
    harness.pay(state.payments[0])
    key = harness.key_of(state.payments[0])
    harness.far_side.refund(
        harness.far_side.accounts[key.merchant_id], key.number, "R-000001", 100, harness.far_side.now()
    )
    assert await query(harness, state) is Outcome.PAID
    assert (await harness.state(state)).payments[0].refunded_amount == 100
    assert await harness.cases(state.order.order_no) == ["refunded_outside"]


async def test_payments_beside_the_one_that_paid_are_closed_at_their_channels(harness: FlowHarness) -> None:
    """Two checkouts are open; the user pays one, and must not be able to pay the other."""
    await harness.add_account("other")
    state = await harness.placed()
    state = (await start_payment(harness.resources, state.order.order_no, PaymentRequest(account="other"))).state
    harness.pay(state.payments[1])
    assert await query(harness, state, 1) is Outcome.PAID
    sibling = await row_of(harness, state, 0)
    assert sibling.due_in_s <= 0
    await query(harness, state, 0)
    assert harness.status_at_channel(state.payments[0]) == "closed"
    done = await harness.state(state)
    assert [row.status for row in done.payments] == [PaymentStatus.CLOSED, PaymentStatus.PAID]
    assert await harness.one("SELECT count(*) FROM pending") == 0


async def test_money_on_both_payments_is_a_case_and_the_order_is_paid_once(harness: FlowHarness) -> None:
    await harness.add_account("other")
    state = await harness.placed(notify_url="https://merchant.example/hook")
    state = (await start_payment(harness.resources, state.order.order_no, PaymentRequest(account="other"))).state
    for payment in state.payments:
        harness.pay(payment)
    assert await query(harness, state, 0) is Outcome.PAID
    assert await query(harness, state, 1) is Outcome.DOUBLE_PAYMENT
    done = await harness.state(state)
    assert done.order.paid_by == state.payments[0].key
    assert await harness.cases(state.order.order_no) == ["double_payment"]
    sql = "SELECT string_agg(type || ':' || (superseded_at IS NULL), ' ' ORDER BY version) FROM notifications"
    assert await harness.one(sql) == "order.paid:true order.double_payment:true"


async def test_what_a_flush_of_redis_forgets_is_armed_again_from_postgres(harness: FlowHarness) -> None:
    state = await harness.placed()
    assert await query(harness, state) is Outcome.STILL_OPEN
    await harness.resources.redis.flushall()
    assert await rearm_after_flush(harness.resources) >= 2
    assert (await harness.resources.queue.depth(Lane.QUERIES)).queued == 2


async def test_the_source_of_a_sweep_is_written_down(harness: FlowHarness, resources: Resources) -> None:
    state = await harness.placed()
    harness.pay(state.payments[0])
    row = await row_of(harness, state)
    await query_scheduled(resources, state.payments[0].key, row.arm_no, by=Source.SWEEP)
    assert await harness.one("SELECT by FROM order_events WHERE kind = 'paid'") == "sweep"
