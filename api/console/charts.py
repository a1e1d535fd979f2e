"""Charts as SVG, drawn on the server: lines, stacked bars and histograms, each with its title, its axes, a description
and a table of the same figures for whoever cannot see it. Colours and fonts are the stylesheet's, by class.

Every text is escaped here; there is no style attribute, which the pages' policy refuses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import NamedTuple

from markupsafe import Markup

WIDTH, HEIGHT = 420, 200
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 10, 24
"""Room for the axes, in the units of the drawing; the stylesheet gives it the width of its column."""

TICKS_MAX = 5
LABELS_MAX = 4
SERIES_MAX = 8
"""Series that have a colour and a pattern of their own."""

_DASHES = ("", "6 3", "2 3", "8 3 2 3", "1 3", "10 4", "4 4", "12 3 3 3")

Show = Callable[[float], str]


class Series(NamedTuple):
    """One value for each place on the x axis."""

    name: str
    values: Sequence[float]


class Words(NamedTuple):
    """The texts around a chart in the reader's language. `table` opens the table, `place` heads its first column,
    `empty` stands in place of a drawing without a value.
    """

    table: str
    place: str
    empty: str


def whole(value: float) -> str:
    """`1,234`."""
    return f"{value:,.0f}"


def stacked(
    name: str,
    title: str,
    description: str,
    places: Sequence[str],
    series: Sequence[Series],
    words: Words,
    *,
    show: Show = whole,
) -> Markup:
    """Bars whose parts are the series, from below. `name` is unique on its page; a series of zeros is left out."""
    kept = _kept(series)
    top = _top(sum(values) for values in _columns(kept, places))
    axis = _Axis(len(places), top)
    drawn = [_bar(axis, place, number, kept, show) for number, place in enumerate(places)] if top else []
    return _figure(name, title, description, places, kept, words, axis, drawn, show)


def lines(
    name: str,
    title: str,
    description: str,
    places: Sequence[str],
    series: Sequence[Series],
    words: Words,
    *,
    show: Show = whole,
) -> Markup:
    """A line for each series, told apart by colour and by dashes."""
    kept = _kept(series)
    top = _top(value for each in kept for value in each.values)
    axis = _Axis(len(places), top)
    drawn = [_line(axis, number, each) for number, each in enumerate(kept)] if top else []
    drawn += [_hint(axis, place, number, kept, show) for number, place in enumerate(places)] if top else []
    return _figure(name, title, description, places, kept, words, axis, drawn, show, is_line=True)


def histogram(
    name: str, title: str, description: str, slots: Sequence[str], counts: Sequence[int], label: str, words: Words
) -> Markup:
    """Bars side by side, one for each slot of a duration."""
    return stacked(name, title, description, slots, [Series(label, counts)], words)


# -- the frame ---------------------------------------------------------------------------------------------------------


class _Axis:
    """Places from left to right, and values from 0 to `top` from below."""

    def __init__(self, places: int, top: float) -> None:
        self.places = max(1, places)
        self.top = top
        self.step = (WIDTH - LEFT - RIGHT) / self.places

    def x(self, number: float) -> float:
        """The left end of a place."""
        return LEFT + self.step * number

    def middle(self, number: int) -> float:
        return self.x(number + 0.5)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / (self.top or 1)


def _kept(series: Sequence[Series]) -> list[Series]:
    """Those that have a value; the last ones together as one, should there be more than there are colours."""
    kept = [each for each in series if any(each.values)]
    if len(kept) <= SERIES_MAX:
        return kept
    rest = [sum(values) for values in zip(*(each.values for each in kept[SERIES_MAX - 1 :]), strict=True)]
    return [*kept[: SERIES_MAX - 1], Series("\u2026", rest)]


def _columns(series: Sequence[Series], places: Sequence[str]) -> Iterable[list[float]]:
    return ([each.values[number] for each in series] for number in range(len(places)))


def _top(values: Iterable[float]) -> float:
    """The end of the axis: the next multiple of a round step. 0: there is no value."""
    highest = max(values, default=0.0)
    if highest <= 0:
        return 0.0
    step = _round_step(highest)
    return step * math.ceil(highest / step - 1e-9)


def _round_step(highest: float) -> float:
    """1, 2 or 5 times a power of ten, so that there are at most `TICKS_MAX` of them; 1 at least."""
    raw = max(1.0, highest / TICKS_MAX)
    power = 10.0 ** math.floor(math.log10(raw))
    return power * next(factor for factor in (1, 2, 5, 10) if raw <= factor * power * (1 + 1e-9))


def _figure(
    name: str,
    title: str,
    description: str,
    places: Sequence[str],
    series: Sequence[Series],
    words: Words,
    axis: _Axis,
    drawn: Sequence[str],
    show: Show,
    *,
    is_line: bool = False,
) -> Markup:
    if not drawn:
        body = f'<p class="chart-empty">{escape(words.empty)}</p>'
        head = f"<figcaption>{escape(title)}</figcaption>"
        return Markup(f'<figure class="chart">{head}{body}</figure>')  # noqa: S704 - escaped
    key = escape(f"chart-{name}")
    svg = (
        f'<svg role="img" aria-labelledby="{key}-title {key}-description" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'xmlns="http://www.w3.org/2000/svg"><title id="{key}-title">{escape(title)}</title>'
        f'<desc id="{key}-description">{escape(description)}</desc>{_grid(axis, places, show)}{"".join(drawn)}</svg>'
    )
    parts = (_legend(series, is_line=is_line), _table(title, places, series, words, show))
    return Markup(  # noqa: S704 - every text in it is escaped above and below
        f'<figure class="chart" id="{key}"><figcaption>{escape(title)}</figcaption>{svg}{"".join(parts)}</figure>'
    )


def _grid(axis: _Axis, places: Sequence[str], show: Show) -> str:
    step = _round_step(axis.top)
    ticks = [number * step for number in range(round(axis.top / step) + 1)]
    rows = [
        f'<line class="chart-grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{axis.y(tick):.1f}" y2="{axis.y(tick):.1f}"/>'
        f'<text class="chart-text" x="{LEFT - 6}" y="{axis.y(tick) + 4:.1f}" text-anchor="end">'
        f"{escape(show(tick))}</text>"
        for tick in ticks
    ]
    every = max(1, math.ceil(len(places) / LABELS_MAX))
    columns = [
        f'<text class="chart-text" x="{axis.middle(number):.1f}" y="{HEIGHT - 8}" text-anchor="middle">'
        f"{escape(place)}</text>"
        for number, place in enumerate(places)
        if number % every == every // 2 or every == 1
    ]
    return "".join((*rows, *columns))


def _hint_text(place: str, number: int, series: Sequence[Series], show: Show) -> str:
    values = ", ".join(f"{each.name} {show(each.values[number])}" for each in series if each.values[number])
    return escape(f"{place}: {values}" if values else place)


def _bar(axis: _Axis, place: str, number: int, series: Sequence[Series], show: Show) -> str:
    if not any(each.values[number] for each in series):
        return ""
    gap = min(2.0, axis.step * 0.15)
    parts, below = [f"<title>{_hint_text(place, number, series, show)}</title>"], 0.0
    for index, each in enumerate(series):
        if value := each.values[number]:
            y, bottom = axis.y(below + value), axis.y(below)
            parts.append(
                f'<rect class="chart-{index}" x="{axis.x(number) + gap:.1f}" y="{y:.1f}" '
                f'width="{axis.step - 2 * gap:.1f}" height="{bottom - y:.1f}"/>'
            )
            below += value
    return f"<g>{''.join(parts)}</g>"


def _line(axis: _Axis, index: int, series: Series) -> str:
    points = " ".join(f"{axis.middle(number):.1f},{axis.y(value):.1f}" for number, value in enumerate(series.values))
    dashes = f' stroke-dasharray="{_DASHES[index]}"' if _DASHES[index] else ""
    return f'<polyline class="chart-line chart-{index}" fill="none"{dashes} points="{points}"/>'


def _hint(axis: _Axis, place: str, number: int, series: Sequence[Series], show: Show) -> str:
    return (
        f'<rect class="chart-hint" fill="transparent" x="{axis.x(number):.1f}" y="{TOP}" width="{axis.step:.1f}" '
        f'height="{HEIGHT - TOP - BOTTOM}"><title>{_hint_text(place, number, series, show)}</title></rect>'
    )


def _legend(series: Sequence[Series], *, is_line: bool) -> str:
    if len(series) == 1:
        return ""
    shape = (
        '<line class="chart-line chart-{0}" x1="0" x2="16" y1="5" y2="5"{1}/>'
        if is_line
        else ('<rect class="chart-{0}" width="10" height="10"/>')
    )
    items = [
        f'<li><svg aria-hidden="true" width="16" height="10">'
        f"{shape.format(index, _dashes_of(index))}</svg> {escape(each.name)}</li>"
        for index, each in enumerate(series)
    ]
    return f'<ul class="chart-legend">{"".join(items)}</ul>'


def _dashes_of(index: int) -> str:
    return f' stroke-dasharray="{_DASHES[index]}"' if _DASHES[index] else ""


def _table(title: str, places: Sequence[str], series: Sequence[Series], words: Words, show: Show) -> str:
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in (words.place, *(each.name for each in series)))
    rows = "".join(
        f'<tr><th scope="row">{escape(place)}</th>'
        + "".join(f'<td class="number">{escape(show(each.values[number]))}</td>' for each in series)
        + "</tr>"
        for number, place in enumerate(places)
        if any(each.values[number] for each in series)
    )
    return (
        f'<details><summary>{escape(words.table)}</summary><div class="wide" tabindex="0" role="region" '
        f'aria-label="{escape(title)}"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></details>'
    )
