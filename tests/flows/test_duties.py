"""Duties: done by one process for all, and tried again by whichever when a run fails."""

from collections.abc import Awaitable, Callable

import pytest
from structlog.testing import capture_logs

from core.errors import DatabaseUnavailable
from flows.duties import RETRY_S, Duty, do_if_due
from flows.rearm import rearm_if_flushed
from flows.take_over import STILL_BEATS, Beats, beat_once
from runtime.loop import NOT_DUE
from storage.postgres import duties, processes
from tests.flows.conftest import FlowHarness

DUE_IN_S = "SELECT extract(epoch FROM due_at - clock_timestamp())::float8 FROM duties"


class Work:
    """Runs, each with its result or its error."""

    def __init__(self, *results: object) -> None:
        self.results = list(results)

    async def __call__(self) -> object:
        result = self.results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result


@pytest.fixture
async def as_process(harness: FlowHarness) -> Callable[[str], Awaitable[Beats]]:
    """Go on as the process of this name, which has beaten."""

    async def begin(name: str) -> Beats:
        beats = Beats(name)
        await beat_once(harness.resources, beats)
        return beats

    return begin


Begin = Callable[[str], Awaitable[Beats]]


async def due_in_s(harness: FlowHarness) -> float:
    seconds: float = await harness.resources.db.fetchval(DUE_IN_S)
    return seconds


async def test_one_process_does_it_for_all(harness: FlowHarness, as_process: Begin) -> None:
    duty = Duty("work", 3600.0, Work(7))
    results = []
    for name in ("a", "b"):
        await as_process(name)
        results.append(await do_if_due(harness.resources, duty))
    assert results == [7, NOT_DUE]
    assert 3590 < await due_in_s(harness) <= 3600


async def test_more_work_is_due_at_once(harness: FlowHarness, as_process: Begin) -> None:
    duty = Duty("work", 3600.0, Work(True, False))
    await as_process("a")
    assert await do_if_due(harness.resources, duty) is True
    await as_process("b")
    assert await do_if_due(harness.resources, duty) is False
    assert await do_if_due(harness.resources, duty) is NOT_DUE


async def test_a_run_that_fails_is_tried_again_soon(harness: FlowHarness, as_process: Begin) -> None:
    await as_process("a")
    for name, error in (("known", DatabaseUnavailable("down")), ("bug", ValueError())):
        await harness.resources.db.execute("DELETE FROM duties")
        with pytest.raises(type(error)):
            await do_if_due(harness.resources, Duty(name, 3600.0, Work(error)))
        assert RETRY_S - 10 < await due_in_s(harness) <= RETRY_S


async def test_a_process_that_has_not_beaten_does_none(harness: FlowHarness) -> None:
    assert await do_if_due(harness.resources, Duty("work", 3600.0, Work())) is NOT_DUE


async def test_what_a_killed_process_left_is_begun_anew_when_it_has_stood_still(
    harness: FlowHarness, as_process: Begin
) -> None:
    await as_process("killed")
    assert await duties.claim(harness.resources.db, "work", interval_s=3600.0, lease_s=3600.0) is not None
    beats, duty = await as_process("alive"), Duty("work", 3600.0, Work(7))
    for _ in range(STILL_BEATS - 1):
        await beat_once(harness.resources, beats)
        assert await do_if_due(harness.resources, duty) is NOT_DUE
    await beat_once(harness.resources, beats)
    with capture_logs() as lines:
        assert await do_if_due(harness.resources, duty) == 7
    assert [(line["event"], line["name"]) for line in lines] == [("duty_taken_over", "work")]


async def test_one_worker_arms_again_after_a_flush(harness: FlowHarness, as_process: Begin) -> None:
    state = await harness.placed_order()
    await as_process("a")
    await harness.resources.redis.flushall()
    assert await duties.claim(harness.resources.db, "rearm", interval_s=0.0, lease_s=3600.0) is not None
    await as_process("b")
    assert await rearm_if_flushed(harness.resources) is NOT_DUE, "another one does it"
    await processes.forget(harness.resources.db, ["a"])
    assert await rearm_if_flushed(harness.resources) == 2, state
    assert await rearm_if_flushed(harness.resources) is NOT_DUE
