"""However many look, the channel is asked once; and whoever must know what is true now is told what is true now."""

import asyncio
import time

import pytest

from core.errors import NotFound
from core.order import OrderStatus
from flows import refresh
from flows.refresh import refresh_order
from runtime.resources import Resources, open_resources
from storage.postgres import pending
from tests.flows.conftest import FlowHarness


async def test_a_refresh_asks_the_channel_and_pays(harness: FlowHarness) -> None:
    """Not only the database: a user who has paid and looks must not be told the old state."""
    state = await harness.placed()
    harness.pay(state.payments[0])
    assert (await refresh_order(harness.resources, state.order.order_no)).order.status is OrderStatus.PAID
    assert await harness.one("SELECT by FROM order_events WHERE kind = 'paid'") == "refresh"


async def test_a_thousand_refreshes_at_once_are_one_query(harness: FlowHarness) -> None:
    state = await harness.placed()
    answers = await asyncio.gather(*(refresh_order(harness.resources, state.order.order_no) for _ in range(1000)))
    assert {answer.order.version for answer in answers} == {state.order.version}
    assert harness.calls() == 1


async def test_refreshes_of_several_processes_at_once_are_one_query_a_process_at_most(harness: FlowHarness) -> None:
    """By the lease in Postgres. Who looked before another one's query ended and leased after it asks once more."""
    state = await harness.placed()
    async with open_resources(harness.resources.settings) as other, open_resources(harness.resources.settings) as third:
        processes: tuple[Resources, ...] = (harness.resources, other, third)
        await asyncio.gather(
            *(refresh_order(resources, state.order.order_no) for resources in processes for _ in range(5))
        )
    assert 1 <= harness.calls() <= len(processes)


async def test_within_the_cool_down_an_answer_is_shared(harness: FlowHarness) -> None:
    state = await harness.placed()
    for _ in range(3):
        await refresh_order(harness.resources, state.order.order_no)
    assert harness.calls() == 1


async def test_a_trailing_refresh_asks_again_within_the_cool_down(harness: FlowHarness) -> None:
    """The user comes back from paying: an answer from before that is worth nothing."""
    state = await harness.placed()
    await refresh_order(harness.resources, state.order.order_no)
    harness.pay(state.payments[0])
    assert (await refresh_order(harness.resources, state.order.order_no)).order.status is OrderStatus.PAYING
    assert (
        await refresh_order(harness.resources, state.order.order_no, trailing=True)
    ).order.status is OrderStatus.PAID


async def test_a_refresh_advances_no_attempt_and_gives_its_lease_back(harness: FlowHarness) -> None:
    state = await harness.placed()
    await refresh_order(harness.resources, state.order.order_no)
    row = await harness.row("main", state.payments[0].out_trade_no)
    assert row is not None
    assert (row.attempt, row.arm_no, row.is_leased) == (1, 1, False)


@pytest.mark.parametrize("fault", ["answered_5xx", "html_error", "timed_out"])
async def test_when_the_channel_does_not_tell_the_order_is_answered_as_it_is(harness: FlowHarness, fault: str) -> None:
    state = await harness.placed()
    harness.pay(state.payments[0])
    harness.call_fault(state.payments[0], fault)
    assert (await refresh_order(harness.resources, state.order.order_no)).order.status is OrderStatus.PAYING
    row = await harness.row("main", state.payments[0].out_trade_no)
    assert row is not None
    assert row.is_leased is False


async def test_a_refresh_waits_for_whoever_is_asking_and_shares_the_answer(harness: FlowHarness) -> None:
    state = await harness.placed()
    held = await pending.claim(harness.resources.db, state.payments[0].key, 20)
    assert held is not None
    waiting = asyncio.create_task(refresh_order(harness.resources, state.order.order_no))
    await asyncio.wait([waiting], timeout=0.2)
    assert not waiting.done()
    await pending.release(harness.resources.db, held)
    await waiting
    assert harness.calls() == 0


async def test_a_refresh_does_not_wait_for_ever(harness: FlowHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refresh, "WAIT_S", 0.2)
    state = await harness.placed()
    assert await pending.claim(harness.resources.db, state.payments[0].key, 20) is not None
    began = time.monotonic()
    assert (await refresh_order(harness.resources, state.order.order_no)).order.status is OrderStatus.PAYING
    assert time.monotonic() - began < 2.0


async def test_a_page_that_goes_away_takes_the_answer_from_nobody(harness: FlowHarness) -> None:
    state = await harness.placed()
    harness.pay(state.payments[0])
    gone, stays = (asyncio.create_task(refresh_order(harness.resources, state.order.order_no)) for _ in range(2))
    await asyncio.wait([gone], timeout=0.001)
    gone.cancel()
    assert (await stays).order.status is OrderStatus.PAID
    assert len(harness.resources.refreshing) == 0


async def test_a_paid_order_is_answered_without_asking(harness: FlowHarness) -> None:
    state = await harness.placed()
    harness.pay(state.payments[0])
    await refresh_order(harness.resources, state.order.order_no)
    before = harness.calls()
    await refresh_order(harness.resources, state.order.order_no, trailing=True)
    assert harness.calls() == before
    with pytest.raises(NotFound):
        await refresh_order(harness.resources, "F-nobody")
