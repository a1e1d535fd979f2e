"""Closed payments are asked again on schedule and by every refresh; nothing is created, closed or captured for them."""

import asyncio

import pytest

from core.decision import Outcome
from core.evidence import Source
from core.order import OrderState, OrderStatus, PaymentStatus
from flows.close import request_close
from flows.refresh import refresh_order
from flows.undelivered import ask_undelivered
from runtime.resources import Resources, open_resources
from tests.flows.conftest import FlowHarness


async def closed_order(harness: FlowHarness) -> OrderState:
    state = await harness.placed_order()
    await request_close(harness.resources, state.order.order_no)
    closed = await harness.state(state)
    assert closed.payments[0].status is PaymentStatus.CLOSED
    return closed


def money_arrives(harness: FlowHarness, state: OrderState) -> None:
    """After the close, with every callback lost."""
    harness.simulation.ledger.settle_late(harness.key_of(state.payments[0]), harness.simulation.now())


async def last_question_was_asked(harness: FlowHarness) -> None:
    await harness.resources.db.execute("DELETE FROM pending")


async def test_the_scheduled_question_finds_money_after_the_close(harness: FlowHarness) -> None:
    state = await closed_order(harness)
    money_arrives(harness, state)
    assert await harness.run_query_job(state) is Outcome.PAID_LATE
    assert (await harness.state(state)).order.status is OrderStatus.PAID
    assert await harness.fetch_value("SELECT count(*) FROM pending") == 0


async def test_questions_follow_after_the_last_moment_for_money_and_a_day_later(harness: FlowHarness) -> None:
    """The order of ten minutes was closed at once: 300 s after the close, 300 s after its end, a day later."""
    state = await closed_order(harness)
    for ended_ago_s, due_in_s in ((0, 300), (299, 1), (301, 86_399)):
        sql = "UPDATE payments SET payable_until = now() - make_interval(secs => $1)"
        await harness.resources.db.execute(sql, ended_ago_s)
        assert await harness.run_query_job(state) is Outcome.NOTHING_NEW
        row = await harness.pending_row("main", state.payments[0].out_trade_no)
        assert row is not None
        assert due_in_s - 5 < row.due_in_s <= due_in_s
    await harness.resources.db.execute("UPDATE payments SET payable_until = now() - interval '1 day 301 s'")
    assert await harness.run_query_job(state) is Outcome.NOTHING_NEW
    assert await harness.fetch_value("SELECT count(*) FROM pending") == 0


@pytest.mark.parametrize("was_last", [False, True])
async def test_a_refresh_finds_money_after_the_close(harness: FlowHarness, was_last: bool) -> None:
    state = await closed_order(harness)
    money_arrives(harness, state)
    if was_last:
        await last_question_was_asked(harness)
    after = await refresh_order(harness.resources, state.order.order_no, trailing=True)
    assert after.order.status is OrderStatus.PAID
    assert await harness.fetch_value("SELECT by FROM order_events WHERE kind = 'paid_late'") == Source.REFRESH
    assert await harness.fetch_value("SELECT count(*) FROM pending") == 0


async def test_refreshes_of_a_closed_order_make_at_most_one_query_per_process(harness: FlowHarness) -> None:
    """Also after the last question, when there is no row whose lease lets one process ask at a time."""
    state = await closed_order(harness)
    await last_question_was_asked(harness)
    before = harness.call_count()
    async with open_resources(harness.resources.settings) as second:
        processes: tuple[Resources, ...] = (harness.resources, second)
        await asyncio.gather(
            *(refresh_order(resources, state.order.order_no) for resources in processes for _ in range(20))
        )
        await refresh_order(second, state.order.order_no)
    assert 1 <= harness.call_count() - before <= len(processes)


async def test_a_closed_payment_without_a_reference_is_not_created_again(harness: FlowHarness) -> None:
    """At a channel that is queried by its own id a payment is created once more to find that. Not when it is closed."""
    state = await closed_order(harness)
    account = await harness.resources.accounts.get("main")
    creations = harness.call_count("create")
    account.channel.queries_by_reference = True
    try:
        assert await harness.run_query_job(state) is Outcome.NOTHING_NEW
    finally:
        account.channel.queries_by_reference = False
    assert harness.call_count("create") == creations


async def test_a_payment_that_the_channel_refused_to_create_is_not_asked_again(harness: FlowHarness) -> None:
    state = await closed_order(harness)
    await last_question_was_asked(harness)
    await harness.resources.db.execute("UPDATE payments SET refused_at = now()")
    before = harness.call_count()
    await refresh_order(harness.resources, state.order.order_no, trailing=True)
    assert harness.call_count() == before
    assert await ask_undelivered(harness.resources) == 0
