import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from itertools import pairwise

import pytest
from structlog.testing import capture_logs

from core.errors import DatabaseUnavailable
from runtime.loop import NOT_DUE, first_wait_s, run_periodically

HOUR_S = 3600.0


class Work:
    """One result or error for each run; the loop is stopped with the last one."""

    def __init__(self, *results: object) -> None:
        self.stop = asyncio.Event()
        self._results = list(results)

    async def __call__(self) -> object:
        result = self._results.pop(0)
        if not self._results:
            self.stop.set()
        if isinstance(result, Exception):
            raise result
        return result


async def events_of(work: Work, *, interval_s: float = 0.0) -> list[str]:
    async with asyncio.timeout(60):
        with capture_logs() as lines:
            await run_periodically("work", interval_s, work, work.stop)
    return [line["event"] for line in lines]


async def test_more_work_is_done_at_once() -> None:
    assert await events_of(Work(True, True, True), interval_s=HOUR_S) == []


async def test_a_count_is_not_taken_for_more_work() -> None:
    work = Work(1, 1)
    task = asyncio.create_task(run_periodically("work", HOUR_S, work, work.stop))
    await passes(lambda: len(work._results) == 1)
    assert not task.done()
    work.stop.set()
    await task
    assert len(work._results) == 1


async def passes(condition: Callable[[], bool]) -> None:
    """Let the other tasks run until they wait."""
    for _ in range(10):
        await asyncio.sleep(0)
    assert condition()


async def test_a_store_that_is_down_is_logged_once_and_once_when_it_is_back() -> None:
    down = DatabaseUnavailable("down")
    assert await events_of(Work(down, down, down, 0, 0)) == ["loop_failing", "loop_works_again"]


async def test_a_bug_is_logged_at_every_run_and_does_not_end_the_loop() -> None:
    assert await events_of(Work(ValueError(), ValueError(), 0)) == ["loop_broke", "loop_broke", "loop_works_again"]


async def test_a_run_that_found_nothing_due_does_not_say_that_the_loop_works_again() -> None:
    down = DatabaseUnavailable("down")
    assert await events_of(Work(down, NOT_DUE, down, NOT_DUE, 0)) == ["loop_failing", "loop_works_again"]


async def test_loops_that_begin_together_do_not_go_on_together() -> None:
    names = (
        "beat",
        "clock",
        "keep_current",
        "tallies",
        "rearm",
        "drain",
        "retention",
        "roll_up",
        "reconcile",
        "alerts",
    )
    waits = sorted(first_wait_s(name, 5.0) for name in names)
    assert all(0 < wait < 5.0 for wait in waits)
    assert sum(later - earlier > 0.1 for earlier, later in pairwise(waits)) >= len(names) // 2


async def test_the_first_wait_is_a_part_of_the_interval_and_later_ones_are_all_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []

    async def wait_for(awaitable: Awaitable[object], timeout: float) -> None:  # noqa: ASYNC109 - as asyncio's own
        assert isinstance(awaitable, Coroutine)
        awaitable.close()
        waits.append(timeout)

    monkeypatch.setattr(asyncio, "wait_for", wait_for)
    await events_of(Work(0, 0, 0), interval_s=HOUR_S)
    assert waits == [first_wait_s("work", HOUR_S), HOUR_S, HOUR_S]
