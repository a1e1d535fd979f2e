"""The chart of a report: bars as SVG, for docs/performance.md. No library draws it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

from bench.report import Figure, Report, Result

WIDTH, LABELS, VALUES = 820, 190, 150
BAR, GAP, TITLE, MARGIN = 18, 8, 34, 16
COLOURS = ("#2f6fab", "#79b0dc", "#e39b3d", "#b5483f")
PROCESSES = ("api", "worker", "postgres", "redis")

_STYLE = "text{font:13px sans-serif;fill:#222}.title{font-weight:bold}"


class Bar(NamedTuple):
    """A bar of one or more parts, with the text behind it."""

    label: str
    parts: tuple[float, ...]
    text: str


class Panel(NamedTuple):
    """Bars of one unit. `is_log`: the length grows by as much with every tenfold, from the smallest bar's tenth on."""

    title: str
    bars: tuple[Bar, ...]
    legend: tuple[str, ...] = ()
    is_log: bool = False


def draw(report: Report) -> str:
    """Return the chart of the benchmarks in the report that have one; the others are left out."""
    panels = [panel for result in report.results for panel in _panels(result) if panel.bars]
    machine = report.machine
    y, drawn = MARGIN, list[str]()
    for panel in panels:
        drawn += _draw_panel(panel, y)
        y += _height(panel)
    facts = f"{machine.cores} cores ({machine.cpu}), Python {machine.python}, commit {machine.commit}"
    drawn.append(_text(MARGIN, y + BAR, f"{report.began_at:%Y-%m-%d}, {facts}"))
    height = y + BAR + MARGIN
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}">'
    back = f'<style>{_STYLE}</style><rect width="{WIDTH}" height="{height}" fill="#fff"/>'
    return "\n".join((head, back, *drawn, "</svg>", ""))


def _panels(result: Result) -> list[Panel]:
    figures = {each.name: each for each in result.figures}
    match result.benchmark:
        case "usual":
            sides = {f"{name}_": name for name in ("nodrop", "usual")}
            return [
                _by_process(
                    f"CPU milliseconds an order, {result.settings['clients']} clients",
                    figures,
                    {key: (key, "") for key in sides},
                ),
                _plain("Orders a second until paid and notified", figures, "finished_per_s", prefix=True),
            ]
        case "orders":
            levels = [name.rpartition("_")[2] for name in figures if name.startswith("cpu_ours_")]
            shown = {f"{level} clients": ("", f"_{level}") for level in levels}
            return [_by_process("CPU milliseconds an order of nodrop, by clients", figures, shown)]
        case "queue":
            title = "No-op jobs a CPU second of the worker (each step is tenfold)"
            return [_plain(title, figures, "jobs_per_cpu_s", prefix=True, is_log=True)]
        case "growth":
            return [
                _plain("CPU milliseconds of Postgres an order, by kind of database and pending rows", figures, "order")
            ]
        case _:
            return []


def _by_process(title: str, figures: Mapping[str, Figure], shown: Mapping[str, tuple[str, str]]) -> Panel:
    """Bars of the processes' shares; `shown` is the label, and what stands before and behind a figure's name."""
    bars = []
    for label, (before, behind) in shown.items():
        parts = [figures.get(f"{before}cpu_{process}{behind}") for process in PROCESSES]
        total = figures.get(f"{before}cpu_ours{behind}")
        if total is not None:
            values = tuple(0.0 if part is None else part.value for part in parts)
            bars.append(Bar(label.strip("_"), values, _value(total)))
    return Panel(title, tuple(bars), PROCESSES)


def _plain(
    title: str, figures: Mapping[str, Figure], name: str, *, prefix: bool = False, is_log: bool = False
) -> Panel:
    """Bars of all figures whose name ends in `name`, with `prefix` and the longest first, or begins with it."""
    bars = []
    for key, each in figures.items():
        label = key.removesuffix(f"_{name}") if prefix else key.removeprefix(f"{name}_")
        if label not in (key, "ratio"):
            bars.append(Bar(label.replace("_", " "), (each.value,), _value(each)))
    ordered = sorted(bars, key=lambda bar: -bar.parts[0]) if prefix else sorted(bars)
    return Panel(title, tuple(ordered), is_log=is_log)


def _value(each: Figure) -> str:
    spread = f" ({min(each.repeats):g} to {max(each.repeats):g})" if len(each.repeats) > 1 else ""
    return f"{each.value:,.10g}{spread}"


def _height(panel: Panel) -> int:
    return TITLE + len(panel.bars) * (BAR + GAP) + (BAR + GAP if panel.legend else 0) + MARGIN


def _draw_panel(panel: Panel, y: int) -> list[str]:
    drawn = [_text(MARGIN, y + BAR, panel.title, "title")]
    y += TITLE
    scale = _scale([sum(bar.parts) for bar in panel.bars], is_log=panel.is_log)
    for bar in panel.bars:
        drawn += _draw_bar(bar, y, scale(sum(bar.parts)))
        y += BAR + GAP
    x = LABELS
    for colour, name in zip(COLOURS, panel.legend, strict=False):
        drawn.append(f'<rect x="{x}" y="{y + 3}" width="12" height="12" fill="{colour}"/>')
        drawn.append(_text(x + 18, y + 14, name))
        x += 110
    return drawn


class _Scale(NamedTuple):
    lowest: float
    highest: float
    is_log: bool

    def __call__(self, value: float) -> float:
        """Return the length of a bar in pixels."""
        room = WIDTH - LABELS - VALUES - 2 * MARGIN
        if value <= 0:
            return 0.0
        if not self.is_log:
            return room * value / self.highest
        return room * math.log10(value / self.lowest) / math.log10(self.highest / self.lowest)


def _scale(values: Sequence[float], *, is_log: bool) -> _Scale:
    positive = [value for value in values if value > 0] or [1.0]
    return _Scale(min(positive) / 10, max(positive), is_log)


def _draw_bar(bar: Bar, y: int, length: float) -> list[str]:
    drawn, x, total = [_text(MARGIN, y + 14, bar.label)], float(LABELS), sum(bar.parts) or 1.0
    for colour, part in zip(COLOURS, bar.parts, strict=False):
        width = length * part / total
        drawn.append(f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{BAR}" fill="{colour}"/>')
        x += width
    return [*drawn, _text(x + 6, y + 14, bar.text)]


def _text(x: float, y: int, text: str, kind: str = "") -> str:
    of_kind = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y}"{of_kind}>{escape(text)}</text>'
