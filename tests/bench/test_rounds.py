"""Rounds of a benchmark: medians with their spread, and one profile."""

from __future__ import annotations

from bench.report import Result, figure
from bench.rounds import in_rounds
from bench.sizes import ShowProgress, Sizes


async def test_each_figure_is_the_median_of_the_rounds() -> None:
    values = [3.0, 1.0, 2.0]
    profiles: list[str] = []

    async def measure(sizes: Sizes, show_progress: ShowProgress) -> Result:
        profiles.append(sizes.profile)
        show_progress("begun")
        made = (figure("per_s", values[len(profiles) - 1], "orders/s", 7),)
        return Result(benchmark="orders", how="how", settings={"clients": 64}, seconds=1.5, figures=made)

    progress: list[str] = []
    result = await in_rounds(measure)(Sizes(repeats=3, profile="folder"), progress.append)
    only = result.figures[0]
    assert (only.name, only.value, only.repeats, only.unit, only.n) == ("per_s", 2.0, (3.0, 1.0, 2.0), "orders/s", 7)
    assert (result.seconds, result.settings) == (4.5, {"clients": 64, "rounds": 3})
    assert profiles == ["folder", "", ""]
    assert progress == ["round 1 of 3: begun", "round 2 of 3: begun", "round 3 of 3: begun"]
