"""What a run comes to: figures with their unit and their count, as JSON for programs and as lines for people."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from statistics import median, quantiles

import msgspec

from bench.machine import Machine

MS = 1000.0
_DIGITS = 4


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One number. `n` is how many things it was taken from; `repeats` are the single values whose median it is."""

    name: str
    value: float
    unit: str
    n: int
    repeats: tuple[float, ...] = ()


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One benchmark. `settings` are those in force, so that a reader sees that none of them is what was measured."""

    benchmark: str
    how: str
    settings: dict[str, str | int | float]
    seconds: float
    figures: tuple[Figure, ...]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run."""

    command: str
    began_at: datetime
    seconds: float
    machine: Machine
    results: tuple[Result, ...]


def figure(name: str, value: float, unit: str, n: int) -> Figure:
    """One value, to four significant digits: no run is more exact than that."""
    return Figure(name=name, value=_rounded(value), unit=unit, n=n)


def of_repeats(name: str, values: Sequence[float], unit: str, n: int) -> Figure:
    """The median of repeats of the same thing, each taken from `n`."""
    return Figure(name=name, value=_rounded(median(values)), unit=unit, n=n, repeats=tuple(map(_rounded, values)))


def latencies(name: str, seconds: Sequence[float]) -> tuple[Figure, ...]:
    """p50, p99 and the longest, in milliseconds."""
    if not seconds:
        return ()
    cuts = quantiles(seconds, n=100, method="inclusive") if len(seconds) > 1 else [seconds[0]] * 99
    shown = {"p50": cuts[49], "p99": cuts[98], "max": max(seconds)}
    return tuple(figure(f"{name}_{which}", value * MS, "ms", len(seconds)) for which, value in shown.items())


def lines(report: Report) -> list[str]:
    """The report for a person."""
    machine = report.machine
    out = [
        f"{report.command}    {report.seconds} s",
        f"commit {machine.commit or 'unknown'}, Python {machine.python}, {', '.join(machine.servers.values())}",
        f"{machine.cores} cores ({machine.cpu}), load {machine.load_before} before it began",
        f"a synced write takes {machine.synced_write_ms} ms on {machine.file_system or 'an unknown file system'}",
    ]
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
