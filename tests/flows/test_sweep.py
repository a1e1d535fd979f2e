"""The sweep's turn of one kind, and that every kind of row has a loop of its own."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest
from structlog.testing import capture_logs

from core.decision import Outcome
from core.order import OrderStatus
from core.settings import Settings
from flows.notify import Notifier
from flows.sweep import CONCURRENCY, Kind, sweep_again, sweep_once
from tests.flows.conftest import FlowHarness
from worker.loops import upkeep_loops

PROMPT = Settings(sweep_interval_s=0.01)
"""Looks again soon, so that no test waits."""


class Table:
    """Overdue rows of one kind, handed out in order as claims ask for them."""

    def __init__(self, rows: Sequence[int], work: Callable[[int], Awaitable[object]]) -> None:
        self.rows = list(rows)
        self.limits: list[int] = []
        self.leased = 0
        self.most_leased = 0
        self._run = work

    @property
    def kind(self) -> Kind:
        return Kind("rows", self._claim, self._work)

    async def _claim(self, limit: int) -> Sequence[int]:
        self.limits.append(limit)
        claimed, self.rows = self.rows[:limit], self.rows[limit:]
        self.leased += len(claimed)
        self.most_leased = max(self.most_leased, self.leased)
        return claimed

    async def _work(self, row: int) -> object:
        try:
            return await self._run(row)
        finally:
            self.leased -= 1


@pytest.mark.parametrize(
    ("results", "is_postponed"),
    [
        ([Outcome.NOT_YET, Outcome.PAID], True),
        (["busy", "200"], True),
        ([Outcome.PAID, Outcome.UNCLEAR], False),
        (["200", "500"], False),
        ([], False),
    ],
)
async def test_rows_that_were_postponed_are_looked_at_again_before_the_interval(
    results: list[object], is_postponed: bool
) -> None:
    """Their channel may be free in a tenth of a second, and Redis may be down."""

    async def work(row: int) -> object:
        return results[row]

    table = Table(range(len(results)), work)
    assert await sweep_again(PROMPT, table.kind, asyncio.Event()) is is_postponed


async def test_a_bug_in_one_row_leaves_the_others_to_the_sweep() -> None:
    done = []

    async def work(row: int) -> None:
        if row == 1:
            raise ZeroDivisionError
        done.append(row)

    with capture_logs() as logs:
        assert await sweep_once(PROMPT, Table(range(3), work).kind, asyncio.Event()) == 3
    assert done == [0, 2]
    assert "sweep_row_broke" in [line["event"] for line in logs]


async def test_a_backlog_is_swept_in_one_turn() -> None:
    done = []

    async def work(row: int) -> None:
        done.append(row)

    backlog = 5 * CONCURRENCY + 1
    assert await sweep_once(PROMPT, Table(range(backlog), work).kind, asyncio.Event()) == backlog
    assert sorted(done) == list(range(backlog))


async def test_a_row_is_leased_only_when_its_work_begins() -> None:
    table = Table(range(4 * CONCURRENCY), lambda _: asyncio.sleep(0))
    await sweep_once(PROMPT, table.kind, asyncio.Event())
    assert table.most_leased <= CONCURRENCY
    assert max(table.limits) == CONCURRENCY


async def test_a_batch_limits_one_claim() -> None:
    table = Table(range(10), lambda _: asyncio.sleep(0))
    await sweep_once(Settings(sweep_batch=4), table.kind, asyncio.Event())
    assert max(table.limits) == 4


async def test_rows_that_hang_leave_the_other_slots_to_rows_that_are_due_later() -> None:
    later_done = asyncio.Event()

    async def work(row: int) -> None:
        if row < CONCURRENCY - 1:
            await later_done.wait()  # ends only when a row of a later claim is done
        elif row > CONCURRENCY:
            later_done.set()

    table = Table(range(CONCURRENCY + 2), work)
    async with asyncio.timeout(60):
        assert await sweep_once(PROMPT, table.kind, asyncio.Event()) == CONCURRENCY + 2


async def test_what_a_row_makes_due_is_swept_at_once_while_another_hangs() -> None:
    last_done = asyncio.Event()

    async def work(row: int) -> None:
        if row == 0:
            await last_done.wait()
        elif row < 5:
            table.rows.append(row + 1)
        else:
            last_done.set()

    table = Table([0, 1], work)
    patient = Settings(sweep_interval_s=3600.0, lease_s=3600.0)
    async with asyncio.timeout(60):
        assert await sweep_once(patient, table.kind, asyncio.Event()) == 6


async def test_a_row_does_not_outlast_its_lease() -> None:
    async def work(_: int) -> None:
        await asyncio.Event().wait()

    settings = Settings(sweep_interval_s=0.01, lease_s=0.05)
    async with asyncio.timeout(60):
        assert await sweep_once(settings, Table([1], work).kind, asyncio.Event()) == 1


async def test_a_worker_that_stops_claims_nothing_more_and_lets_its_rows_end() -> None:
    stop, done = asyncio.Event(), []

    async def work(row: int) -> None:
        stop.set()
        await asyncio.sleep(0)
        done.append(row)

    table = Table(range(3 * CONCURRENCY), work)
    assert await sweep_once(PROMPT, table.kind, stop) == CONCURRENCY
    assert len(done) == CONCURRENCY
    assert await sweep_once(PROMPT, table.kind, stop) == 0


async def test_a_cancelled_turn_cancels_its_rows() -> None:
    begun, ended = asyncio.Event(), []

    async def work(row: int) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(row)

    turn = asyncio.create_task(sweep_once(PROMPT, Table([1, 2], work).kind, asyncio.Event()))
    await begun.wait()
    turn.cancel()
    await asyncio.wait({turn})
    assert turn.cancelled()
    assert sorted(ended) == [1, 2]


async def test_every_kind_of_row_has_a_loop_of_its_own(harness: FlowHarness) -> None:
    async with Notifier(harness.resources.settings) as notifier:
        names = {loop.name for loop in upkeep_loops(harness.resources, notifier, asyncio.Event())}
    assert names >= {"sweep_callbacks", "sweep_pending", "sweep_notifications", "sweep_refunds"}


async def test_the_sweep_closes_an_order_whose_deadline_was_lost(harness: FlowHarness) -> None:
    state = await harness.pass_deadline(await harness.placed_order())
    sql = "UPDATE pending SET due_at = now() - interval '1 h' WHERE out_trade_no = $1"
    assert await harness.resources.db.execute(sql, state.order.order_no) == 1

    assert await harness.sweep("pending") == 1

    assert (await harness.state(state)).order.status is OrderStatus.CLOSED
