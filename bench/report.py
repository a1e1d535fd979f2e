"""Report of a run: figures with unit and count, as JSON and as lines for people."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from statistics import median, quantiles

import msgspec

from bench.machine import Machine

MS = 1000.0
_DIGITS = 4


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A figure. `n` is the number of measured things; `repeats` are the values whose median it is."""

    name: str
    value: float
    unit: str
    n: int
    repeats: tuple[float, ...] = ()


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a benchmark. `settings` are those in force: a reader sees that none of them limited it. `missed`: what
    was promised and not kept.
    """

    benchmark: str
    how: str
    settings: dict[str, str | int | float]
    seconds: float
    figures: tuple[Figure, ...]
    missed: tuple[str, ...] = ()


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Report of a run. `loop_ms`: `machine.loop_ms` before each benchmark and after the last."""

    command: str
    began_at: datetime
    seconds: float
    machine: Machine
    loop_ms: tuple[float, ...]
    results: tuple[Result, ...]


def figure(name: str, value: float, unit: str, n: int) -> Figure:
    """Return a figure with four significant digits, which is the precision of a run."""
    return Figure(name=name, value=_rounded(value), unit=unit, n=n)


def of_repeats(name: str, values: Sequence[float], unit: str, n: int) -> Figure:
    """Return the median of repeats, each of `n` things."""
    return Figure(name=name, value=_rounded(median(values)), unit=unit, n=n, repeats=tuple(map(_rounded, values)))


def of_percentile(name: str, seconds: Sequence[float]) -> Figure:
    """Return the 95th percentile, in milliseconds."""
    cut = quantiles(seconds, n=20, method="inclusive")[18] if len(seconds) > 1 else seconds[0]
    return figure(f"{name}_p95", cut * 1000, "ms", len(seconds))


def latencies(name: str, seconds: Sequence[float]) -> tuple[Figure, ...]:
    """Return p50, p99 and the maximum, in milliseconds."""
    if not seconds:
        return ()
    cuts = quantiles(seconds, n=100, method="inclusive") if len(seconds) > 1 else [seconds[0]] * 99
    shown = {"p50": cuts[49], "p99": cuts[98], "max": max(seconds)}
    return tuple(figure(f"{name}_{which}", value * MS, "ms", len(seconds)) for which, value in shown.items())


def lines(report: Report) -> list[str]:
    """Return the report as lines for people."""
    machine = report.machine
    out = [
        f"{report.command}    {report.seconds} s",
        f"commit {machine.commit or 'unknown'}, Python {machine.python}, {', '.join(machine.servers.values())}",
        f"{machine.cores} cores ({machine.cpu}), load {machine.load_before} before it began",
        f"a synced write takes {machine.synced_write_ms} ms on {machine.file_system or 'an unknown file system'}",
    ]
    out.append(f"a fixed loop took {min(report.loop_ms)} … {max(report.loop_ms)} CPU ms, between the benchmarks")
    for result in report.results:
        out += ["", f"{result.benchmark}  ({result.seconds} s)  {result.how}", *_table(result.figures)]
    return out


def _table(figures: Sequence[Figure]) -> list[str]:
    rows = [(each.name, f"{each.value:,.10g}", each.unit, f"n={each.n}", _spread(each)) for each in figures]
    widths = [max(len(row[column]) for row in rows) for column in range(4)] if rows else []
    return [
        f"  {name:<{widths[0]}}  {value:>{widths[1]}} {unit:<{widths[2]}}  {n:<{widths[3]}}  {spread}".rstrip()
        for name, value, unit, n, spread in rows
    ]


def _spread(each: Figure) -> str:
    return f"from {min(each.repeats):g} to {max(each.repeats):g}" if len(each.repeats) > 1 else ""


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
