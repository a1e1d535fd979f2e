"""Refreshes at the same time share one query; a trailing refresh gets a result from after its request."""

import asyncio
from typing import Any

import pytest

from core.errors import NotFound
from core.evidence import Source
from core.order import OrderStatus
from flows import refresh
from flows.refresh import note_return, refresh_order
from runtime.resources import Resources, open_resources
from simulator.kernel.faults import FaultProfile
from storage.postgres import pending
from storage.postgres.pending import Leased
from tests.flows.conftest import FlowHarness


async def test_a_refresh_queries_the_channel_and_pays_the_order(harness: FlowHarness) -> None:
    """Reading only the database would show the old state to a buyer who has paid."""
    state = await harness.placed_order()
    harness.pay(state.payments[0])
    assert (await refresh_order(harness.resources, state.order.order_no)).order.status is OrderStatus.PAID
    assert await harness.fetch_value("SELECT by FROM order_events WHERE kind = 'paid'") == "refresh"


async def test_a_thousand_simultaneous_refreshes_make_one_query(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    refreshes = (refresh_order(harness.resources, state.order.order_no) for _ in range(1000))
    # One failure is the failure of all: all are awaited, and it is shown once.
    results = await asyncio.gather(*refreshes, return_exceptions=True)
    versions = {result if isinstance(result, BaseException) else result.order.version for result in results}
    assert versions == {state.order.version}
    assert harness.call_count() == 1


async def test_simultaneous_refreshes_make_at_most_one_query_per_process(harness: FlowHarness) -> None:
    """The lease in Postgres limits them. A process that leases after the query of another has ended queries again."""
    state = await harness.placed_order()
    async with (
        open_resources(harness.resources.settings) as second,
        open_resources(harness.resources.settings) as third,
    ):
        processes: tuple[Resources, ...] = (harness.resources, second, third)
        await asyncio.gather(
            *(refresh_order(resources, state.order.order_no) for resources in processes for _ in range(5))
        )
    assert 1 <= harness.call_count() <= len(processes)


async def test_refreshes_within_the_cool_down_share_one_query(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    for _ in range(3):
        await refresh_order(harness.resources, state.order.order_no)
    assert harness.call_count() == 1


async def test_a_trailing_refresh_queries_again_within_the_cool_down(harness: FlowHarness) -> None:
    """The buyer comes back after paying: a result from before that is out of date."""
    state = await harness.placed_order()
    await refresh_order(harness.resources, state.order.order_no)
    harness.pay(state.payments[0])
    assert (await refresh_order(harness.resources, state.order.order_no)).order.status is OrderStatus.PAYING
    assert (
        await refresh_order(harness.resources, state.order.order_no, trailing=True)
    ).order.status is OrderStatus.PAID


async def test_a_refresh_keeps_the_attempt_and_releases_its_lease(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    await refresh_order(harness.resources, state.order.order_no)
    row = await harness.pending_row("main", state.payments[0].out_trade_no)
    assert row is not None
    assert (row.attempt, row.arm_no, row.is_leased) == (1, 1, False)


@pytest.mark.parametrize("fault", ["answered_5xx", "html_error", "timed_out"])
async def test_a_refresh_with_an_unclear_result_returns_the_order_unchanged(harness: FlowHarness, fault: str) -> None:
    state = await harness.placed_order()
    harness.pay(state.payments[0])
    harness.call_fault(state.payments[0], fault)
    with harness.short_timeouts():
        assert (await refresh_order(harness.resources, state.order.order_no)).order.status is OrderStatus.PAYING
    row = await harness.pending_row("main", state.payments[0].out_trade_no)
    assert row is not None
    assert row.is_leased is False


async def test_a_refresh_waits_for_the_lease_and_makes_no_second_query(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    leased = await pending.claim(harness.resources.db, state.payments[0].key, 20)
    assert leased is not None
    refresh_task = asyncio.create_task(refresh_order(harness.resources, state.order.order_no))
    await asyncio.wait([refresh_task], timeout=0.2)
    assert not refresh_task.done()
    await pending.release(harness.resources.db, leased)
    await refresh_task
    assert harness.call_count() == 0


async def test_a_return_from_the_channel_takes_no_answer_of_a_query_that_ran_before(harness: FlowHarness) -> None:
    """The query under way may have read *unpaid* a moment before the money came."""
    state = await harness.placed_order()
    leased = await pending.claim(harness.resources.db, state.payments[0].key, 20)
    assert leased is not None
    harness.pay(state.payments[0])
    returning = asyncio.create_task(refresh_order(harness.resources, state.order.order_no, trailing=True))
    await asyncio.wait([returning], timeout=0.2)
    assert not returning.done()
    await pending.release(harness.resources.db, leased)
    assert (await returning).order.status is OrderStatus.PAID
    assert harness.call_count() == 1


async def test_an_unpaid_return_is_known_until_something_happens(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    assert not state.order.is_known_unpaid
    after = await refresh_order(harness.resources, state.order.order_no, trailing=True)
    assert after.order.is_known_unpaid
    await note_return(harness.resources, after)
    assert not (await harness.state(state)).order.is_known_unpaid


async def test_a_return_that_no_channel_answers_is_not_called_unpaid(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    harness.simulation.faults.profile = FaultProfile(down=True)
    after = await refresh_order(harness.resources, state.order.order_no, trailing=True)
    assert not after.order.is_known_unpaid


@pytest.mark.parametrize("by", [Source.OPERATOR, Source.API])
async def test_only_the_buyers_own_return_is_noted(harness: FlowHarness, by: Source) -> None:
    state = await harness.placed_order()
    after = await refresh_order(harness.resources, state.order.order_no, trailing=True, by=by)
    assert not after.order.is_known_unpaid
    assert not (await refresh_order(harness.resources, state.order.order_no)).order.is_known_unpaid


async def test_a_process_that_leases_after_the_query_of_another_does_not_query_again(
    harness: FlowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both saw that nobody had queried. The lease is refused to the second, which takes the first one's answer."""
    state = await harness.placed_order()
    claim = pending.claim
    async with open_resources(harness.resources.settings) as other:

        async def claim_late(*args: Any, **more: Any) -> Leased | None:
            monkeypatch.setattr(pending, "claim", claim)
            await refresh_order(other, state.order.order_no)
            return await claim(*args, **more)

        monkeypatch.setattr(pending, "claim", claim_late)
        await refresh_order(harness.resources, state.order.order_no)
    assert pending.claim is claim
    assert harness.call_count() == 1


async def test_a_refresh_stops_waiting_after_its_time_limit(
    harness: FlowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refresh, "WAIT_S", 0.2)
    state = await harness.placed_order()
    assert await pending.claim(harness.resources.db, state.payments[0].key, 600) is not None
    async with asyncio.timeout(60):
        assert (await refresh_order(harness.resources, state.order.order_no)).order.status is OrderStatus.PAYING


async def test_a_cancelled_refresh_does_not_cancel_the_others(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    harness.pay(state.payments[0])
    cancelled_refresh, other_refresh = (
        asyncio.create_task(refresh_order(harness.resources, state.order.order_no)) for _ in range(2)
    )
    await asyncio.wait([cancelled_refresh], timeout=0.001)
    cancelled_refresh.cancel()
    assert (await other_refresh).order.status is OrderStatus.PAID
    assert len(harness.resources.refreshing) == 0


async def test_a_refresh_of_a_paid_order_makes_no_query(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    harness.pay(state.payments[0])
    await refresh_order(harness.resources, state.order.order_no)
    before = harness.call_count()
    await refresh_order(harness.resources, state.order.order_no, trailing=True)
    assert harness.call_count() == before
    with pytest.raises(NotFound):
        await refresh_order(harness.resources, "F-unknown")
