"""The scheduled query: only it advances the attempt, and only evidence changes a payment."""

from typing import Any

import pytest

from core.admission import UNANSWERED_MAX, CallKind
from core.decision import Outcome
from core.evidence import Source
from core.jobs import Lane
from core.order import OrderState, OrderStatus, PaymentKey, PaymentStatus, deadline_key
from flows.close import close_scheduled
from flows.place import PaymentRequest, start_payment
from flows.query import query_scheduled
from flows.rearm import rearm_after_flush
from runtime.resources import Resources
from simulator.kernel.faults import FaultProfile
from storage.postgres import pending
from storage.redis.admission.names import state_key
from tests.flows.conftest import AMOUNT, FlowHarness, PendingRow


async def query_row(harness: FlowHarness, state: OrderState, index: int = 0) -> PendingRow:
    payment = state.payments[index]
    row = await harness.pending_row(payment.channel_account, payment.out_trade_no)
    assert row is not None
    return row


async def test_a_paid_payment_pays_the_order_and_leaves_nothing_pending(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    harness.pay(state.payments[0])
    assert await harness.run_query_job(state) is Outcome.PAID
    paid = await harness.state(state)
    assert (paid.order.status, paid.order.paid_by) == (OrderStatus.PAID, state.payments[0].key)
    assert paid.payments[0].channel_transaction_id == harness.transaction_of(state.payments[0])
    assert await harness.fetch_value("SELECT count(*) FROM pending") == 0
    assert (await harness.resources.queue.depth(Lane.QUERIES)).queued == 0


async def test_an_unpaid_payment_is_queried_again_after_n_squared_minutes(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    gaps = []
    for _ in range(4):
        assert await harness.run_query_job(state) is Outcome.STILL_OPEN
        row = await query_row(harness, state)
        gaps.append((row.attempt, round(row.due_in_s / 60)))
    assert gaps == [(2, 4), (3, 9), (4, 16), (5, 25)]


@pytest.mark.parametrize("fault", ["answered_5xx", "html_error", "cut", "truncated", "timed_out"])
async def test_an_unclear_response_is_not_a_failure_and_is_queried_again(harness: FlowHarness, fault: str) -> None:
    """Treating a network error as *failed* loses orders."""
    state = await harness.placed_order()
    harness.pay(state.payments[0])
    harness.call_fault(state.payments[0], fault)
    before = await query_row(harness, state)
    with harness.short_timeouts():
        assert await harness.run_query_job(state) is Outcome.UNCLEAR
    row = await query_row(harness, state)
    assert (row.attempt, row.arm_no, row.is_leased) == (before.attempt + 1, before.arm_no + 1, False)
    assert 235 < row.due_in_s <= 240
    assert (await harness.state(state)).order.status is OrderStatus.PAYING

    harness.call_fault(state.payments[0], "none")
    assert await harness.run_query_job(state) is Outcome.PAID


async def test_each_attempt_arms_a_new_job(harness: FlowHarness) -> None:
    """The queue drops a job whose id it still holds, so each id contains the arm number."""
    state = await harness.placed_order()
    await harness.run_query_job(state)
    row, key = await query_row(harness, state), state.payments[0].key
    names = await harness.resources.redis.zrange("arq:queue:{queries-0}", 0, -1)
    assert f"{{queries-0}}q:{key.channel_account}:{key.out_trade_no}:{row.arm_no}".encode() in names


async def test_a_job_with_an_old_arm_number_does_nothing(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    stale = (await query_row(harness, state)).arm_no
    await harness.run_query_job(state)
    before, calls = await query_row(harness, state), harness.call_count()
    assert await query_scheduled(harness.resources, state.payments[0].key, stale) is Outcome.STALE
    after = await query_row(harness, state)
    assert (after.attempt, after.arm_no, harness.call_count()) == (before.attempt, before.arm_no, calls)
    assert await query_scheduled(harness.resources, PaymentKey("main", "unknown-1"), 1) is Outcome.STALE


async def test_a_leased_payment_is_not_queried_twice(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    assert await pending.claim(harness.resources.db, state.payments[0].key, 20) is not None
    assert await harness.run_query_job(state) is Outcome.STALE
    assert harness.call_count() == 0


async def test_an_open_breaker_postpones_the_query_without_an_attempt(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    for _ in range(UNANSWERED_MAX):
        await harness.resources.admission.report("main", CallKind.QUERY, answered=False)
    before = await query_row(harness, state)
    assert await harness.run_query_job(state) is Outcome.NOT_YET
    row = await query_row(harness, state)
    assert (row.attempt, row.arm_no, row.is_leased) == (before.attempt, before.arm_no + 1, False)
    assert 0 < row.due_in_s <= 60
    assert harness.call_count() == 0


async def test_a_used_up_rate_postpones_the_query_without_an_attempt(harness: FlowHarness) -> None:
    """The rate is one call a second, and the first call uses it."""
    await harness.add_account("slow", rate_per_s=1)
    state = (await harness.place("slow")).state
    outcomes = [await harness.run_query_job(state) for _ in range(2)]
    assert Outcome.NOT_YET in outcomes
    row = await query_row(harness, state)
    assert row.attempt == 1 + outcomes.count(Outcome.STILL_OPEN) + outcomes.count(Outcome.UNCLEAR)


async def test_unanswered_queries_open_the_breaker_and_a_response_closes_it(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    harness.simulation.faults.profile = FaultProfile(answered_5xx=1.0)
    for _ in range(UNANSWERED_MAX):
        assert await harness.run_query_job(state) is Outcome.UNCLEAR
    harness.simulation.faults.profile = FaultProfile()
    assert await harness.run_query_job(state) is Outcome.NOT_YET
    assert harness.call_count() == UNANSWERED_MAX

    redis: Any = harness.resources.redis
    assert await harness.resources.admission.open_breakers(["main"]) == [("main", CallKind.QUERY)]
    ends_ms = int(await redis.hget(state_key("main"), "until:query"))
    await redis.hset(state_key("main"), "until:query", ends_ms - 60_000)  # its time is over: the next query is a probe
    assert await harness.run_query_job(state) is Outcome.STILL_OPEN
    assert await harness.resources.admission.open_breakers(["main"]) == []


async def test_unreadable_responses_do_not_open_the_breaker(harness: FlowHarness) -> None:
    """A channel that responds is not down."""
    state = await harness.placed_order()
    harness.simulation.faults.profile = FaultProfile(html_error=1.0)
    for _ in range(UNANSWERED_MAX + 1):
        assert await harness.run_query_job(state) is Outcome.UNCLEAR
    assert harness.call_count() == UNANSWERED_MAX + 1


async def test_a_case_opens_after_the_last_attempt_and_queries_continue_daily(harness: FlowHarness) -> None:
    """Used-up attempts are not evidence: the row stays, and money is found a day later."""
    await harness.add_account("fast", rate_per_s=10_000)  # of which these queries have a fifth, one after another
    state = await harness.placed_order("fast")
    harness.simulation.faults.profile = FaultProfile(html_error=1.0)
    await harness.resources.db.execute("UPDATE pending SET attempt = 16 WHERE kind = 'query'")
    assert await harness.run_query_job(state) is Outcome.EXHAUSTED
    row = await query_row(harness, state)
    assert (row.attempt, round(row.due_in_s / 3600)) == (17, 24)
    assert await harness.cases(state.order.order_no) == ["attempts_exhausted"]
    assert (await harness.state(state)).order.status is OrderStatus.PAYING
    await harness.run_query_job(state)
    assert await harness.cases(state.order.order_no) == ["attempts_exhausted"]
    harness.simulation.faults.profile = FaultProfile()
    harness.pay(state.payments[0])
    assert await harness.run_query_job(state) is Outcome.PAID


@pytest.mark.parametrize(("age_days", "gap_minutes"), [(1, 256), (8, 720)])
async def test_a_payment_that_is_merely_unpaid_is_queried_on_without_a_case(
    harness: FlowHarness, age_days: int, gap_minutes: int
) -> None:
    state = await harness.placed_order()
    await harness.resources.db.execute("UPDATE pending SET attempt = 16 WHERE kind = 'query'")
    sql = "UPDATE payments SET created_at = created_at - make_interval(days => $1)"
    await harness.resources.db.execute(sql, age_days)
    assert await harness.run_query_job(state) is Outcome.STILL_OPEN
    row = await query_row(harness, state)
    assert (row.attempt, round(row.due_in_s / 60)) == (17, gap_minutes)
    assert await harness.cases(state.order.order_no) == []


async def test_queries_after_the_last_attempt_have_a_fifth_of_the_rate(harness: FlowHarness) -> None:
    """Many payments may be unpaid for long: their queries leave the rate to the others."""
    await harness.add_account("slow", rate_per_s=1)
    state = await harness.placed_order("slow")
    await harness.resources.db.execute("UPDATE pending SET attempt = 20 WHERE kind = 'query'")
    outcomes = [await harness.run_query_job(state) for _ in range(3)]
    assert outcomes.count(Outcome.NOT_YET) >= 2
    assert (await query_row(harness, state)).due_in_s > 1.1


@pytest.mark.parametrize(
    ("fault", "reason"), [("wrong_amount_in_query", "amount_mismatch"), ("other_order", "number_mismatch")]
)
async def test_a_response_with_a_wrong_amount_or_number_opens_one_case_and_never_pays(
    harness: FlowHarness, fault: str, reason: str
) -> None:
    """The query compares amount and number as the callback does."""
    state = await harness.placed_order()
    harness.pay(state.payments[0])
    harness.call_fault(state.payments[0], fault)
    for _ in range(2):
        assert await harness.run_query_job(state) is Outcome.MISMATCH
    assert await harness.cases(state.order.order_no) == [reason]
    assert (await harness.state(state)).order.status is OrderStatus.PAYING
    harness.call_fault(state.payments[0], "none")
    assert await harness.run_query_job(state) is Outcome.PAID


async def test_a_payment_refunded_in_part_pays_the_order_and_opens_a_case(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    harness.pay(state.payments[0])
    key = harness.key_of(state.payments[0])
    harness.simulation.refund(
        harness.simulation.accounts[key.merchant_id], key.number, "R-000001", 100, harness.simulation.now()
    )
    assert await harness.run_query_job(state) is Outcome.PAID
    assert (await harness.state(state)).payments[0].refunded_amount == 100
    assert await harness.cases(state.order.order_no) == ["refunded_outside"]


async def test_a_payment_that_was_refunded_before_the_query_pays_nothing(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    harness.pay(state.payments[0])
    harness.simulation.refund_in_console(harness.key_of(state.payments[0]))
    assert await harness.run_query_job(state) is Outcome.REFUND_SEEN
    after = await harness.state(state)
    assert (after.order.status, after.payments[0].status) == (OrderStatus.PAYING, PaymentStatus.PAID)
    assert after.payments[0].refunded_amount == AMOUNT
    assert await harness.cases(state.order.order_no) == ["refunded_outside"]
    assert await harness.pending_row("main", state.payments[0].out_trade_no) is None
    assert await harness.pending_row("", state.order.order_no) is not None, "it can still be paid until its deadline"


async def test_other_payments_of_a_paid_order_are_closed_at_the_channel(harness: FlowHarness) -> None:
    """Two checkouts are open. When the buyer has paid one, the other must not take money."""
    await harness.add_account("other")
    state = await harness.placed_order()
    state = (await start_payment(harness.resources, state.order.order_no, PaymentRequest(account="other"))).state
    harness.pay(state.payments[1])
    assert await harness.run_query_job(state, 1) is Outcome.PAID
    sibling = await query_row(harness, state, 0)
    assert sibling.due_in_s <= 0
    await harness.run_query_job(state, 0)
    assert harness.status_at_channel(state.payments[0]) == "closed"
    done = await harness.state(state)
    assert [row.status for row in done.payments] == [PaymentStatus.CLOSED, PaymentStatus.PAID]
    assert [row.key for row in done.pending] == [done.payments[0].key]
    assert 295 < (await query_row(harness, state, 0)).due_in_s <= 300


async def test_a_left_payment_that_the_channel_did_not_know_is_closed_once_it_does(harness: FlowHarness) -> None:
    """Its creation reached the channel after the close; without a second close the buyer could pay twice."""
    await harness.add_account("other")
    state = await harness.placed_order()
    state = (await start_payment(harness.resources, state.order.order_no, PaymentRequest(account="other"))).state
    harness.pay(state.payments[1])
    assert await harness.run_query_job(state, 1) is Outcome.PAID
    harness.simulation.faults.profile = FaultProfile(not_found_first=1.0, not_found_first_s=3600.0)
    assert await harness.run_query_job(state, 0) is Outcome.STILL_OPEN
    assert (await harness.state(state)).payments[0].close_attempted_at is not None
    assert harness.status_at_channel(state.payments[0]) == "unpaid"

    harness.simulation.faults.profile = FaultProfile()
    await harness.run_query_job(state, 0)

    assert harness.status_at_channel(state.payments[0]) == "closed"
    assert (await harness.state(state)).payments[0].status is PaymentStatus.CLOSED


async def test_a_double_payment_opens_a_case_and_pays_the_order_once(harness: FlowHarness) -> None:
    await harness.add_account("other")
    state = await harness.placed_order(notify_url="https://merchant.example/hook")
    state = (await start_payment(harness.resources, state.order.order_no, PaymentRequest(account="other"))).state
    for payment in state.payments:
        harness.pay(payment)
    assert await harness.run_query_job(state, 0) is Outcome.PAID
    assert await harness.run_query_job(state, 1) is Outcome.DOUBLE_PAYMENT
    done = await harness.state(state)
    assert done.order.paid_by == state.payments[0].key
    assert await harness.cases(state.order.order_no) == ["double_payment"]
    sql = "SELECT string_agg(type || ':' || (superseded_at IS NULL), ' ' ORDER BY version) FROM notifications"
    assert await harness.fetch_value(sql) == "order.paid:true order.double_payment:true"


async def test_jobs_lost_by_a_redis_flush_are_armed_again_from_postgres(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    assert await harness.run_query_job(state) is Outcome.STILL_OPEN
    await harness.resources.redis.flushall()
    assert await rearm_after_flush(harness.resources) >= 2
    assert (await harness.resources.queue.depth(Lane.QUERIES)).queued == 2


async def test_a_job_that_comes_early_queries_nothing_and_uses_no_attempt(harness: FlowHarness) -> None:
    """Somebody who can write to Redis runs it as often as he likes: sixteen attempts were used up in 15 seconds."""
    state = await harness.placed_order()
    before = await query_row(harness, state)
    for _ in range(20):
        assert await query_scheduled(harness.resources, state.payments[0].key, before.arm_no) is Outcome.STALE
        assert await close_scheduled(harness.resources, state.order.order_no, 1) is Outcome.STALE
    after = await query_row(harness, state)
    assert (after.attempt, after.arm_no, after.is_leased) == (before.attempt, before.arm_no, False)
    assert (harness.call_count(), await harness.cases(state.order.order_no)) == (0, [])


async def test_a_query_of_the_sweep_is_recorded_as_sweep(harness: FlowHarness, resources: Resources) -> None:
    state = await harness.placed_order()
    harness.pay(state.payments[0])
    row = await query_row(harness, state)
    await harness.make_due()
    await query_scheduled(resources, state.payments[0].key, row.arm_no, by=Source.SWEEP)
    assert await harness.fetch_value("SELECT by FROM order_events WHERE kind = 'paid'") == "sweep"


async def test_a_query_job_for_a_deadline_moves_nothing(harness: FlowHarness) -> None:
    """A forged job runs at most one of our own functions, and none of them may put off the close of an order."""
    state = await harness.placed_order()
    await harness.make_due()
    before = await harness.pending_row("", state.order.order_no)
    assert await query_scheduled(harness.resources, deadline_key(state.order.order_no), 1) is Outcome.STALE
    after = await harness.pending_row("", state.order.order_no)
    assert before is not None
    assert after is not None
    assert (after.attempt, after.arm_no, after.is_leased) == (before.attempt, before.arm_no, False)
