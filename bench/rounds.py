"""A benchmark several times over, each on stores of its own, as one result: medians and their spread."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from msgspec.structs import replace

from bench.report import Result, of_repeats
from bench.sizes import ShowProgress, Sizes

Measure = Callable[[Sizes, ShowProgress], Awaitable[Result]]


def in_rounds(measure: Measure) -> Measure:
    """The same benchmark in `repeats` rounds. A profile is written in the first one alone."""

    async def measure_rounds(sizes: Sizes, show_progress: ShowProgress) -> Result:
        results = []
        for number in range(1, sizes.repeats + 1):
            beginning = f"round {number} of {sizes.repeats}: "
            show_round = partial(_show, show_progress, beginning)
            results.append(await measure(sizes if number == 1 else replace(sizes, profile=""), show_round))
        return merged(results)

    return measure_rounds


def _show(show_progress: ShowProgress, beginning: str, text: str) -> None:
    show_progress(beginning + text)


def merged(results: Sequence[Result]) -> Result:
    """One result of several: the figures of the first, each the median of all."""
    values: defaultdict[str, list[float]] = defaultdict(list)
    for result in results:
        for each in result.figures:
            values[each.name].append(each.value)
    first = results[0]
    return replace(
        first,
        settings=first.settings | {"rounds": len(results)},
        seconds=round(sum(result.seconds for result in results), 1),
        figures=tuple(of_repeats(each.name, values[each.name], each.unit, each.n) for each in first.figures),
    )
