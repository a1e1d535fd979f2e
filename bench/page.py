"""The tables of a report as Markdown, written into a page between two comments: docs/performance.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bench.report import Figure, Report, Result

BEGIN, END = "<!-- figures: written by --page -->", "<!-- end of figures -->"

_PROCESSES = ("ours", "api", "worker", "postgres", "redis", "simulator", "client")
_USUAL = ("finished_per_s", *(f"cpu_{name}" for name in _PROCESSES), "commits", "wal", "place_p50", "callback_p50")
_ORDERS = (
    *("orders_per_s", "cpu_ours", "cpu_api", "cpu_worker", "cpu_postgres", "cpu_redis"),
    *("statements", "writing_transactions", "redis_commands", "redis_round_trips", "paid_when_acknowledged"),
    *("place_p50", "callback_p50", "order_p50", "order_p99"),
)
_GROWTH = tuple(
    f"{name}_{kind}"
    for name in ("order", "visits", "claim", "idle_sweep", "busy_sweep")
    for kind in ("analysed", "never", "grown")
)


class NoPlace(Exception):
    """The page has no place for tables: the two comments do not stand in it."""


def write(page: Path, report: Report) -> None:
    """Replace what stands between the two comments by the tables of this report.

    Raises:
        NoPlace: the page lacks the comments.
    """
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise NoPlace(f"{page}: there is no {BEGIN} and {END}")
    page.write_text("".join((before, BEGIN, "\n", *(f"{line}\n" for line in tables(report)), END, after)))


def tables(report: Report) -> list[str]:
    """Return a paragraph about the run, and a table for each benchmark that has one."""
    machine = report.machine
    servers = ", ".join(version.partition(" sha=")[0] for version in machine.servers.values())
    facts = (
        f"`{report.command}`, {report.seconds:.0f} s, commit {machine.commit}, on {report.began_at:%Y-%m-%d}. "
        f"{machine.cores} cores ({machine.cpu}), load {machine.load_before} before it began, Python {machine.python}, "
        f"{servers}, a synced write {machine.synced_write_ms} ms, a fixed loop {min(report.loop_ms)} … "
        f"{max(report.loop_ms)} CPU ms."
    )
    lines = [facts]
    for result in report.results:
        table = _table(result)
        if table:
            lines += ["", f"### `{result.benchmark}`", "", *table]
    return lines


def _table(result: Result) -> list[str]:
    figures = {each.name: each for each in result.figures}
    match result.benchmark:
        case "usual":
            return _matrix(figures, _USUAL, [(side, f"{side}_", "") for side in ("nodrop", "usual", "ratio")])
        case "orders":
            levels = [name.rpartition("_")[2] for name in figures if name.startswith("cpu_ours_")]
            return _matrix(figures, _ORDERS, [(level, "", f"_{level}") for level in ("lone", *levels, "open")])
        case "growth":
            sizes = sorted({name.rpartition("_")[2] for name in figures if name.startswith("order_")}, key=int)
            columns = [(f"{int(size):,}", "", f"_{size}") for size in sizes]
            return _matrix(figures, _GROWTH, [*columns, ("last by first, in turns", "growth_", "")])
        case _:
            return [] if not figures else _list(result.figures)


def _matrix(figures: Mapping[str, Figure], rows: Iterable[str], columns: Sequence[tuple[str, str, str]]) -> list[str]:
    """Rows by columns; a column is its title, and what stands before and behind the row's name in a figure's."""
    lines = ["| | Unit | " + " | ".join(title for title, _, _ in columns) + " |", "|---" * (len(columns) + 2) + "|"]
    for row in rows:
        cells = [figures.get(f"{before}{row}{behind}") for _, before, behind in columns]
        units = [cell.unit for cell in cells if cell is not None]
        if units:
            shown = ["" if cell is None else _value(cell) for cell in cells]
            lines.append(f"| `{row}` | {units[0]} | " + " | ".join(shown) + " |")
    return lines


def _list(figures: Iterable[Figure]) -> list[str]:
    rows = [f"| `{each.name}` | {each.unit} | {_value(each)} | {each.n:,} |" for each in figures]
    return ["| | Unit | Value | n |", "|---|---|---|---|", *rows]


def _value(each: Figure) -> str:
    spread = f" ({min(each.repeats):g} … {max(each.repeats):g})" if len(each.repeats) > 1 else ""
    return f"{each.value:,.10g}{spread}"
