"""A process whose clock is wrong: what it takes for fresh, signs and sends."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest

from core.errors import CallbackStale
from core.order import OrderStatus
from core.settings import Settings
from flows.notify import Notifier
from runtime.clock import Clock
from runtime.resources import Resources, open_resources
from simulator.kernel.simulation import Simulation
from storage.redis.nudges import Nudges
from tests.flows.conftest import FlowHarness
from worker.__main__ import _lanes
from worker.loops import upkeep_loops

TEN_MINUTES_S = 600.0
TWO_HOURS_S = 7200.0

Running = tuple[str, Simulation]


@asynccontextmanager
async def process_with(
    settings: Settings, harness: FlowHarness, running: Running, skew_s: float
) -> AsyncIterator[FlowHarness]:
    """Another process, whose clock is wrong by so many seconds and was not compared yet."""
    async with open_resources(settings, clock=Clock(wall=lambda: time.time() + skew_s)) as resources:
        yield FlowHarness(resources, running[1], running[0])


async def compare(resources: Resources) -> None:
    """Compare its clock, again where a busy machine was too slow for it."""
    while resources.clock.verdict.skew_s is None:
        resources.clock._compare_at = 0.0
        await resources.clock.keep(resources.db)


@pytest.mark.parametrize("skew_s", [TEN_MINUTES_S, -TEN_MINUTES_S])
async def test_a_node_ten_minutes_off_pays_by_callback_once_it_has_compared_its_clock(
    settings: Settings, harness: FlowHarness, running: Running, skew_s: float
) -> None:
    """Its queries are signed by the corrected time too: the channel refuses signatures of another time."""
    state = await harness.placed_order()
    harness.pay(state.payments[0])
    async with process_with(settings, harness, running, skew_s) as wrong:
        callback = harness.callback(state.payments[0], transaction=harness.transaction_of(state.payments[0]))
        with pytest.raises(CallbackStale):
            await wrong.receive("main", callback)
        await compare(wrong.resources)
        assert (await wrong.receive("main", callback)).status == 200
        assert (await harness.state(state)).order.status is OrderStatus.PAID
        assert wrong.resources.clock.verdict.state == "corrected"


async def test_a_callback_that_is_really_stale_is_refused_by_the_corrected_time(
    settings: Settings, harness: FlowHarness, running: Running
) -> None:
    state = await harness.placed_order()
    async with process_with(settings, harness, running, -TEN_MINUTES_S) as wrong:
        await compare(wrong.resources)
        with pytest.raises(CallbackStale):
            await wrong.receive("main", harness.callback(state.payments[0], age_s=TEN_MINUTES_S))


async def test_a_node_two_hours_off_stores_callbacks_and_leaves_the_work_to_others(
    settings: Settings, harness: FlowHarness, running: Running
) -> None:
    state = await harness.placed_order()
    harness.pay(state.payments[0])
    async with process_with(settings, harness, running, TWO_HOURS_S) as wrong:
        await compare(wrong.resources)
        queries = harness.call_count()
        callback = harness.callback(state.payments[0], transaction=harness.transaction_of(state.payments[0]))
        assert (await wrong.receive("main", callback)).status == 200
        assert harness.call_count() == queries
        assert await harness.fetch_value("SELECT count(*) FROM callbacks WHERE handled_at IS NULL") == 1
        assert await jobs_taken(wrong.resources) == 0
        assert await jobs_taken(harness.resources) == 1
    assert (await harness.state(state)).order.status is OrderStatus.PAID


async def test_no_lane_of_a_worker_claims_while_its_clock_is_far_off(harness: FlowHarness) -> None:
    resources = harness.resources
    async with Notifier(resources.settings, resources.clock) as notifier:
        lanes = _lanes(resources, notifier, Nudges(resources.redis), None)
        for is_far_off in (False, True):
            resources.clock.is_far_off = is_far_off
            assert {lane._may_claim() for lane in lanes} == {not is_far_off}


async def jobs_taken(resources: Resources) -> int:
    """Callbacks that the sweep of a worker has handled in one turn."""
    sql = "UPDATE callbacks SET due_at = now() - interval '1 day' WHERE handled_at IS NULL"
    await resources.db.execute(sql)
    async with Notifier(resources.settings, resources.clock) as notifier:
        for loop in upkeep_loops(resources, notifier, asyncio.Event()):
            if loop.name.startswith("sweep"):
                await loop.run_once()
    handled: int = await resources.db.fetchval("SELECT count(*) FROM callbacks WHERE handled_at IS NOT NULL")
    return handled


async def test_where_postgres_is_two_hours_off_genuine_callbacks_are_stored_all_the_same(
    settings: Settings, harness: FlowHarness, running: Running
) -> None:
    """Nobody can tell which of the two clocks is right: what is fresh by either is fresh."""
    state = await harness.placed_order()
    async with process_with(settings, harness, running, 0.0) as right:
        clock = right.resources.clock
        clock._postgres_base = time.time() - TWO_HOURS_S - clock._steady()
        clock._judge()
        assert clock.verdict.state == "far_off"
        assert (await right.receive("main", harness.callback(state.payments[0]))).status == 200


async def test_a_channel_that_contradicts_postgres_is_heard_in_its_responses(
    settings: Settings, harness: FlowHarness, running: Running
) -> None:
    async with process_with(settings, harness, running, 0.0) as right:
        clock = right.resources.clock
        clock._postgres_base = time.time() - TEN_MINUTES_S - clock._steady()
        clock._judge()
        assert judged(clock) == "corrected"
        ends_s = TEN_MINUTES_S + 600.0  # by Postgres's time, which is behind the channel's
        refused = (await right.place(expires_in_s=ends_s)).state.payments[0]
        assert refused.checkout is None, "signed by a time that the channel refuses; but its response was heard"
        assert judged(clock) == "contradicted"
        await right.placed_order(expires_in_s=ends_s)


def judged(clock: Clock) -> str:
    return clock.verdict.state


async def test_both_times_of_a_signed_response_are_witnesses(harness: FlowHarness) -> None:
    """The header may be a proxy's; the signed time is the channel's own."""
    await harness.placed_order()
    host = urlsplit(harness.url).netloc
    assert set(harness.resources.clock._channel_bases) == {host, f"{host} signed"}
