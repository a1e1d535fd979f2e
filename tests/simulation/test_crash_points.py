"""A process is killed at each step of an order's life, and no order is lost."""

import asyncio
from collections.abc import Callable
from inspect import iscoroutinefunction
from itertools import count
from typing import Any

import msgspec
import pytest

from tests.kill_steps import place_of
from tests.simulation import crash_points
from tests.simulation.channels import PORTS
from tests.simulation.conftest import run_world
from tests.simulation.crash_lives import After, Points
from tests.simulation.crash_report import Report
from tests.simulation.crash_steps import ROWS, STEPS, Course, reached, rows_of
from tests.simulation.in_world import in_world
from tests.simulation.postgres import Cluster

Play = Callable[..., list[dict[str, Any]]]

_numbers = count()


@pytest.fixture
def play(worlds: Cluster) -> Play:
    """Plays courses at the sandbox, in a process."""

    def play_courses(after: str, *courses: Course) -> list[dict[str, Any]]:
        options = ["--after", after, "--channel", "sandbox", "--steps", "--pairs", "0"]
        options += [option for course in courses for option in ("--course", course)]
        options += ["--database-url", worlds.new_database(f"lives_{next(_numbers)}")]
        played: list[dict[str, Any]] = msgspec.json.decode(
            run_world("tests.simulation.crash_points", "world", *options)
        )
        return played

    return play_courses


@pytest.mark.scenario
@pytest.mark.long
@pytest.mark.parametrize(
    ("after", "courses"),
    [("restarted", (Course.CALLBACK, Course.PARKED)), ("taken_over", (Course.QUERY, Course.STOPPED))],
)
def test_process_killed_at_each_step_loses_no_order(play: Play, after: str, courses: tuple[Course, ...]) -> None:
    played = play(after, *courses)
    assert [(each["found"], each["unsettled"]) for each in played] == [([], [])] * len(courses)
    assert Report(played, ["sandbox"], courses, [after]).not_reached() == []


def test_command_knows_every_channel_course_and_ending() -> None:
    assert set(crash_points.CHANNELS) == set(PORTS)
    assert tuple(Course) == crash_points.COURSES
    assert tuple(After) == crash_points.AFTER


def test_each_step_is_a_function_that_waits() -> None:
    for place in STEPS.values():
        owner, name = place_of(place)
        assert iscoroutinefunction(getattr(owner, name)), place


def test_points_are_counted_in_each_life_and_anew_after_a_crash() -> None:
    book = Points(1)

    async def live() -> list[bool]:
        def call(moment: str) -> bool:
            return book.applies(f"step api-0.1 commit #7 crash {moment}", 0.5)

        book.begin(["api commit #2 before", "api commit after"])
        return [call("before"), call("after"), call("before"), call("before"), call("after"), call("after")]

    async def main() -> list[bool]:
        return await asyncio.create_task(live())

    assert in_world(main) == [False, False, True, False, True, False]
    assert book.killed == ["api commit #2 before", "api commit after"]
    assert [list(seen) for seen in book.seen] == [
        ["api commit before", "api commit after", "api commit #2 before"],
        ["api commit before", "api commit after"],
        ["api commit after"],
    ]


def test_cell_without_a_death_is_not_reached() -> None:
    row = rows_of(Course.QUERY)[0]
    points = [row.pattern for row in rows_of(Course.QUERY)]
    played = {
        "channel": "sandbox", "course": "query", "after": "restarted", "points": points, "missed": [], "pairs": [],
        "pairs_known": 0, "unsettled": [], "found": [], "orders": 3,
    }  # fmt: skip
    assert reached(row, points) == [row.pattern]
    whole = Report([played], ["sandbox"], ["query"], ["restarted"])
    assert whole.not_reached() == []
    assert f"| {row.words} | 1 |" in whole.page("make crashes")
    points.remove(row.pattern)
    assert whole.not_reached() == [f"{row.words} · sandbox · restarted"]


def test_each_step_has_words_of_its_own() -> None:
    assert len({row.words for row in ROWS}) == len(ROWS)
