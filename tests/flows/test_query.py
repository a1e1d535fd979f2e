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
from tests.flows.conftest import Desk, Row


async def row_of(desk: Desk, state: OrderState, index: int = 0) -> Row:
    payment = state.payments[index]
    row = await desk.row(payment.channel_account, payment.out_trade_no)
    assert row is not None
    return row


async def query(desk: Desk, state: OrderState, index: int = 0) -> Outcome:
    """The job that is armed now."""
    row = await row_of(desk, state, index)
    return await query_scheduled(desk.resources, state.payments[index].key, row.arm_no)


async def test_a_paid_payment_pays_the_order_and_leaves_nothing_pending(desk: Desk) -> None:
    state = await desk.placed()
    desk.pay(state.payments[0])
    assert await query(desk, state) is Outcome.PAID
    paid = await desk.state(state)
    assert (paid.order.status, paid.order.paid_by) == (OrderStatus.PAID, state.payments[0].key)
    assert paid.payments[0].channel_transaction_id == desk.transaction_of(state.payments[0])
    assert await desk.one("SELECT count(*) FROM pending") == 0
    assert (await desk.resources.queue.depth(Lane.QUERIES)).queued == 0


async def test_unpaid_is_asked_again_after_n_squared_minutes(desk: Desk) -> None:
    state = await desk.placed()
    gaps = []
    for _ in range(4):
        assert await query(desk, state) is Outcome.STILL_OPEN
        row = await row_of(desk, state)
        gaps.append((row.attempt, round(row.due_in_s / 60)))
    assert gaps == [(2, 4), (3, 9), (4, 16), (5, 25)]


@pytest.mark.parametrize("fault", ["answered_5xx", "html_error", "cut", "truncated", "timed_out"])
async def test_an_unclear_answer_is_never_a_failure_and_is_asked_again(desk: Desk, fault: str) -> None:
    """A network error that ends in *failed* is the oldest way to lose an order."""
    state = await desk.placed()
    desk.pay(state.payments[0])
    desk.call_fault(state.payments[0], fault)
    before = await row_of(desk, state)
    assert await query(desk, state) is Outcome.UNCLEAR
    row = await row_of(desk, state)
    assert (row.attempt, row.arm_no, row.is_leased) == (before.attempt + 1, before.arm_no + 1, False)
    assert 235 < row.due_in_s <= 240
    assert (await desk.state(state)).order.status is OrderStatus.PAYING

    desk.call_fault(state.payments[0], "none")
    assert await query(desk, state) is Outcome.PAID


async def test_each_scheduling_arms_a_job_of_its_own(desk: Desk) -> None:
    """A fixed job id would vanish while the old job is there."""
    state = await desk.placed()
    await query(desk, state)
    row, key = await row_of(desk, state), state.payments[0].key
    names = await desk.resources.redis.zrange("arq:queue:{queries-0}", 0, -1)
    assert f"{{queries-0}}q:{key.channel_account}:{key.out_trade_no}:{row.arm_no}".encode() in names


async def test_a_job_of_an_older_scheduling_does_nothing(desk: Desk) -> None:
    state = await desk.placed()
    stale = (await row_of(desk, state)).arm_no
    await query(desk, state)
    before, calls = await row_of(desk, state), desk.calls()
    assert await query_scheduled(desk.resources, state.payments[0].key, stale) is Outcome.STALE
    after = await row_of(desk, state)
    assert (after.attempt, after.arm_no, desk.calls()) == (before.attempt, before.arm_no, calls)
    assert await query_scheduled(desk.resources, PaymentKey("main", "nobody-1"), 1) is Outcome.STALE


async def test_while_somebody_is_asking_nobody_else_asks(desk: Desk) -> None:
    state = await desk.placed()
    assert await pending.claim(desk.resources.db, state.payments[0].key, 20) is not None
    assert await query(desk, state) is Outcome.STALE
    assert desk.calls() == 0


async def test_an_open_breaker_postpones_the_query_and_uses_no_attempt(desk: Desk) -> None:
    state = await desk.placed()
    for _ in range(UNANSWERED_MAX):
        await desk.resources.admission.report("main", answered=False)
    before = await row_of(desk, state)
    assert await query(desk, state) is Outcome.NOT_YET
    row = await row_of(desk, state)
    assert (row.attempt, row.arm_no, row.is_leased) == (before.attempt, before.arm_no + 1, False)
    assert 0 < row.due_in_s <= 60
    assert desk.calls() == 0


async def test_a_used_up_rate_postpones_the_query_and_uses_no_attempt(desk: Desk) -> None:
    """One call a second, and the first is made."""
    await desk.add_account("slow", rate_per_s=1)
    state = (await desk.place("slow")).state
    outcomes = [await query(desk, state) for _ in range(2)]
    assert Outcome.NOT_YET in outcomes
    row = await row_of(desk, state)
    assert row.attempt == 1 + outcomes.count(Outcome.STILL_OPEN) + outcomes.count(Outcome.UNCLEAR)


async def test_unanswered_queries_open_the_breaker_and_an_answer_closes_it(desk: Desk) -> None:
    """A refusal and a missing payment are answers: a channel that says no is not down."""
    state = await desk.placed()
    for _ in range(UNANSWERED_MAX):
        desk.far_side.faults.profile = FaultProfile(html_error=1.0)
        assert await query(desk, state) is Outcome.UNCLEAR
    desk.far_side.faults.profile = FaultProfile()
    assert await query(desk, state) is Outcome.STILL_OPEN


async def test_after_the_last_attempt_a_case_opens_and_the_query_goes_on_daily(desk: Desk) -> None:
    """Giving up is not evidence: the row stays, and money is found on the day after."""
    state = await desk.placed()
    await desk.resources.db.execute("UPDATE pending SET attempt = 16 WHERE kind = 'query'")
    assert await query(desk, state) is Outcome.EXHAUSTED
    row = await row_of(desk, state)
    assert (row.attempt, round(row.due_in_s / 3600)) == (17, 24)
    assert await desk.cases(state.order.order_no) == ["attempts_exhausted"]
    assert (await desk.state(state)).order.status is OrderStatus.PAYING
    await query(desk, state)
    assert await desk.cases(state.order.order_no) == ["attempts_exhausted"]
    desk.pay(state.payments[0])
    assert await query(desk, state) is Outcome.PAID


@pytest.mark.parametrize(
    ("fault", "reason"), [("wrong_amount_in_query", "amount_mismatch"), ("other_order", "number_mismatch")]
)
async def test_an_answer_with_another_amount_or_number_never_pays_and_opens_one_case(
    desk: Desk, fault: str, reason: str
) -> None:
    """Checked on the callback and not on the query: seen elsewhere."""
    state = await desk.placed()
    desk.pay(state.payments[0])
    desk.call_fault(state.payments[0], fault)
    for _ in range(2):
        assert await query(desk, state) is Outcome.MISMATCH
    assert await desk.cases(state.order.order_no) == [reason]
    assert (await desk.state(state)).order.status is OrderStatus.PAYING
    desk.call_fault(state.payments[0], "none")
    assert await query(desk, state) is Outcome.PAID


async def test_a_refunded_payment_was_paid_and_somebody_looks(desk: Desk) -> None:
    state = await desk.placed()
    desk.pay(state.payments[0])
    key = desk.key_of(state.payments[0])
    desk.far_side.refund(desk.far_side.accounts[key.merchant_id], key.number, "R-000001", 100, desk.far_side.now())
    assert await query(desk, state) is Outcome.PAID
    assert (await desk.state(state)).payments[0].refunded_amount == 100
    assert await desk.cases(state.order.order_no) == ["refunded_outside"]


async def test_payments_beside_the_one_that_paid_are_closed_at_their_channels(desk: Desk) -> None:
    """Two checkouts are open; the user pays one, and must not be able to pay the other."""
    await desk.add_account("other")
    state = await desk.placed()
    state = (await start_payment(desk.resources, state.order.order_no, PaymentRequest(account="other"))).state
    desk.pay(state.payments[1])
    assert await query(desk, state, 1) is Outcome.PAID
    sibling = await row_of(desk, state, 0)
    assert sibling.due_in_s <= 0
    await query(desk, state, 0)
    assert desk.status_at_channel(state.payments[0]) == "closed"
    done = await desk.state(state)
    assert [row.status for row in done.payments] == [PaymentStatus.CLOSED, PaymentStatus.PAID]
    assert await desk.one("SELECT count(*) FROM pending") == 0


async def test_money_on_both_payments_is_a_case_and_the_order_is_paid_once(desk: Desk) -> None:
    await desk.add_account("other")
    state = await desk.placed(notify_url="https://merchant.example/hook")
    state = (await start_payment(desk.resources, state.order.order_no, PaymentRequest(account="other"))).state
    for payment in state.payments:
        desk.pay(payment)
    assert await query(desk, state, 0) is Outcome.PAID
    assert await query(desk, state, 1) is Outcome.DOUBLE_PAYMENT
    done = await desk.state(state)
    assert done.order.paid_by == state.payments[0].key
    assert await desk.cases(state.order.order_no) == ["double_payment"]
    sql = "SELECT string_agg(type || ':' || (superseded_at IS NULL), ' ' ORDER BY version) FROM notifications"
    assert await desk.one(sql) == "order.paid:true order.double_payment:true"


async def test_what_a_flush_of_redis_forgets_is_armed_again_from_postgres(desk: Desk) -> None:
    state = await desk.placed()
    assert await query(desk, state) is Outcome.STILL_OPEN
    await desk.resources.redis.flushall()
    assert await rearm_after_flush(desk.resources) >= 2
    assert (await desk.resources.queue.depth(Lane.QUERIES)).queued == 2


async def test_the_source_of_a_sweep_is_written_down(desk: Desk, resources: Resources) -> None:
    state = await desk.placed()
    desk.pay(state.payments[0])
    row = await row_of(desk, state)
    await query_scheduled(resources, state.payments[0].key, row.arm_no, by=Source.SWEEP)
    assert await desk.one("SELECT by FROM order_events WHERE kind = 'paid'") == "sweep"
