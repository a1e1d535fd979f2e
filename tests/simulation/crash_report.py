"""Tables of the crash points: which steps were reached at which channel, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tests.servers import ROOT
from tests.simulation.crash_steps import ROWS, Row, reached
from tests.simulation.runner import commit_of

Played = dict[str, Any]
"""A `tests.simulation.crash_lives.Matrix` as JSON."""


def line(played: Played) -> str:
    """Return one line about the lives of a world, and one for each violation."""
    names = f"{played['channel']:<10} {played['course']:<13} {played['after']:<11}"
    sums = f"{len(played['points']):>4} points {len(played['missed']):>3} missed"
    sums += f" {len(played['pairs']):>5} of {played['pairs_known']:>5} pairs {count_broken(played):>3} violations"
    wrong = [f"  {found['invariant']} {found['order_no']}: {found['sentence']}" for found in played["found"]]
    return "\n".join([names + sums, *wrong, *(f"  not settled: {each}" for each in played["unsettled"])])


def count_broken(played: Played) -> int:
    return len(played["found"]) + len(played["unsettled"])


class Report:
    """The worlds of one command."""

    def __init__(
        self, played: Sequence[Played], channels: Sequence[str], courses: Sequence[str], afters: Sequence[str]
    ) -> None:
        self._played = played
        self._channels = channels
        self._courses = courses
        self._afters = afters
        self._rows = [row for row in ROWS if row.course in courses]

    def count_broken(self) -> int:
        return sum(map(count_broken, self._played))

    def not_reached(self) -> list[str]:
        """Return the cells in which no process died."""
        return [
            f"{row.words} · {channel} · {after}"
            for row in self._rows
            for channel in self._channels
            for after in self._afters
            if not self._deaths(row, channel, after)
        ]

    def text(self) -> str:
        """Return the sums, and the cells that were not reached."""
        missing = self.not_reached()
        return "\n".join([self._sums(), *(f"not reached: {each}" for each in missing)])

    def page(self, command: str) -> str:
        """Return a page of the documentation."""
        return "\n".join(
            [
                "# Crash points",
                "",
                _INTRODUCTION,
                "",
                f"Written by `{command}` at commit {commit_of(ROOT)}. {self._sums()}",
                "",
                "## Steps",
                "",
                f"Worlds in which a process died at the step; each channel has {' and '.join(self._afters)}.",
                "",
                *self._steps(),
                "",
                "## Courses",
                "",
                *self._sums_of_courses(),
                "",
            ]
        )

    def _sums(self) -> str:
        lives = sum(each["orders"] for each in self._played)
        points = sum(len(each["points"]) for each in self._played)
        pairs = sum(len(each["pairs"]) for each in self._played)
        cells = len(self._rows) * len(self._channels) * len(self._afters)
        done = cells - len(self.not_reached())
        return (
            f"{lives} lives in {len(self._played)} worlds, {points} points, {pairs} pairs of points; "
            f"{done} of {cells} cells reached; {self.count_broken()} violations."
        )

    def _steps(self) -> Iterator[str]:
        yield f"| Step | {' | '.join(self._channels)} |"
        yield "|---|" + "---|" * len(self._channels)
        for row in self._rows:
            cells = (sum(self._deaths(row, channel, after) > 0 for after in self._afters) for channel in self._channels)
            yield f"| {row.words} | {' | '.join(map(str, cells))} |"

    def _sums_of_courses(self) -> Iterator[str]:
        yield "| Course | Lives | Points | Pairs | Violations |"
        yield "|---|---|---|---|---|"
        for course in self._courses:
            worlds = [each for each in self._played if each["course"] == course]
            sums = (
                sum(each["orders"] for each in worlds),
                sum(len(each["points"]) for each in worlds),
                sum(len(each["pairs"]) for each in worlds),
                sum(map(count_broken, worlds)),
            )
            yield f"| {course} | {' | '.join(map(str, sums))} |"

    def _deaths(self, row: Row, channel: str, after: str) -> int:
        """Return the number of points of this cell at which a process died."""
        return sum(
            len(reached(row, each["points"]))
            for each in self._played
            if (each["channel"], each["course"], each["after"]) == (channel, row.course, after)
        )


_INTRODUCTION = """\
In a [simulated world](simulation.md) order after order lives the same life, and in each life a process is killed at
another step: a function where it is used. Either the process is started again two seconds later, or another one takes
over. With `--calls` the points before and after each call of Postgres and Redis are among them. In the end the
channels' ledgers, the merchant's effects and nodrop's rows are compared (I1–I10 of
[architecture.md](architecture.md#invariants)). Orders live half an hour; those of the course *closed* five minutes.

Real processes are killed by SIGKILL at the same steps, for the sandbox: `tests/scenarios/test_crash_between_steps.py`,
`tests/scenarios/test_late_money_refunded.py`, `tests/scenarios/test_reconciliation_alone.py`, and in the middle of
migrations `tests/cli/test_migrations.py`."""
