"""Short forms of the disturbances: seconds of each, some dozen orders, and the same check from outside.

The short forms of `redis` and `clock` are scenarios: `tests/scenarios/test_redis_down.py`, `test_redis_flushed.py` and
`test_wrong_clock.py`.
"""

from functools import partial
from pathlib import Path

import pytest

from cli.progress import Progress
from tests.chaos import disk, kill, postgres, release, storm, streams
from tests.chaos.conftest import EXPIRES_S, SHORT, Shared
from tests.chaos.run import Outcome, run

pytestmark = [pytest.mark.scenario, pytest.mark.long]


async def test_killed_processes_lose_no_order(shared: Shared) -> None:
    outcome = await shared.disturb(kill.DISTURBANCE, 5.0)
    assert outcome.broken == ()
    assert figure(outcome, "kills") >= 2
    assert_was_under_load(outcome)


async def test_a_postgres_that_restarts_freezes_and_cuts_loses_no_order(shared: Shared) -> None:
    outcome = await shared.disturb(postgres.DISTURBANCE, 3.0)
    assert outcome.broken == ()
    assert figure(outcome, "faults") >= 4
    assert_was_under_load(outcome)


async def test_a_storm_of_callbacks_and_a_backlog_lose_no_order(shared: Shared) -> None:
    outcome = await shared.disturb(storm.DISTURBANCE, 2.0)
    assert outcome.broken == ()
    assert figure(outcome, "at once: 503 with Retry-After", n=True) == 200
    assert_was_under_load(outcome)


async def test_streams_that_are_cut_show_paid(shared: Shared) -> None:
    outcome = await shared.disturb(streams.DISTURBANCE, 4.0)
    assert outcome.broken == ()
    assert figure(outcome, "streams opened again") > 0
    assert_was_under_load(outcome)


async def test_two_releases_side_by_side_lose_no_order(shared: Shared) -> None:
    if reason := release.missing():
        pytest.skip(reason)
    outcome = await shared.disturb(release.DISTURBANCE._replace(disturb=release.side_by_side), 8.0)
    assert outcome.broken == ()
    assert len(outcome.done) == 4
    assert_was_under_load(outcome)


@pytest.mark.usefixtures("_cheap_starts")
async def test_a_full_disk_refuses_callbacks_and_loses_none(tmp_path: Path) -> None:
    if reason := disk.missing():
        pytest.skip(reason)
    disturbance = disk.DISTURBANCE._replace(open_stack=partial(disk.open_small_stack, env=SHORT))
    with Progress() as progress:
        outcome = await run(disturbance, seconds=6.0, seed=1, progress=progress, expires_s=EXPIRES_S)
    assert outcome.broken == ()
    assert figure(outcome, "503 while full") > 0
    assert_was_under_load(outcome)


def figure(outcome: Outcome, name: str, *, n: bool = False) -> float:
    [figure] = [each for each in outcome.figures if each.name == name]
    return figure.n if n else figure.value


def assert_was_under_load(outcome: Outcome) -> None:
    report = outcome.report
    assert report is not None
    assert outcome.shoppers - outcome.not_placed >= 5
    assert report.paid_at_channel >= 5
