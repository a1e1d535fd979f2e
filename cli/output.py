"""Output of commands: tables for people, JSON for programs, and one line on standard error when it cannot go on.

Texts of merchants and channels may hold anything, so whatever could steer a terminal is replaced before it is printed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from shutil import get_terminal_size
from typing import IO, Any, TypeVar
from unicodedata import east_asian_width

import click

WIDE = ("W", "F")
"""Characters that take two columns: Chinese, mostly."""

READABLE = 20
"""A column is folded to no fewer characters; a table that does not fit even so is printed row by row."""

GAP = 2
"""Columns between two columns."""

_F = TypeVar("_F", bound=Callable[..., Any])


class Stop(click.ClickException):
    """The command cannot go on: exit code 1."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"nodrop: {self.message}", file=file, err=file is None)


class Wrong(Stop):
    """The arguments or the configuration are wrong: exit code 2, as click's own for usage."""

    exit_code = 2


def has_colours() -> bool:
    """Whether colours are shown: for what prints in another way than `click.echo`."""
    context = click.get_current_context(silent=True)
    return sys.stdout.isatty() and (context is None or context.color is not False)


def json_option(command: _F) -> _F:
    """The same option, by the same name, for every command that prints data."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(command)


def color_option(command: _F) -> _F:
    """The same option for every command that prints colours. Without it they are there on a terminal, unless NO_COLOR
    is set.
    """

    def switch(ctx: click.Context, _param: click.Parameter, is_off: bool) -> None:  # noqa: FBT001 - click's signature
        if is_off:
            ctx.color = False

    option = click.option("--no-color", is_flag=True, expose_value=False, callback=switch, help="Print no colours.")
    return option(command)


def warn(message: str) -> None:
    """Something to know that does not stop the command; on standard error, so that the output stays what it is."""
    click.echo(f"nodrop: {printable(message)}", err=True)


def print_json(value: object) -> None:
    """One document, indented."""
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str) -> None:
    """A table that fits the terminal; elsewhere aligned columns without a frame. Without rows, `empty`."""
    if not rows:
        click.echo(empty)
        return
    texts = [[cell(value) for value in row] for row in rows]
    widths = [max(_width(text) for text in column) for column in zip(columns, *texts, strict=True)]
    if not sys.stdout.isatty():
        for line in ([name.upper() for name in columns], *texts):
            click.echo((" " * GAP).join(map(_padded, line, widths)).rstrip())
    elif sum(min(width, READABLE) + GAP for width in widths) <= get_terminal_size().columns:
        _print_rich(columns, texts, widths)
    else:
        _print_rows(columns, texts)


def cell(value: object) -> str:
    """One value as a person reads it: instants in UTC to the second, nothing as a dash."""
    match value:
        case None | "":
            return "-"
        case bool():
            return "yes" if value else "no"
        case datetime():
            return instant(value)
    return printable(str(value))


def instant(at: datetime) -> str:
    """`2026-11-23 04:33:33Z`: UTC, to the second."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def instant_ms(at: datetime) -> str:
    """`2026-11-23 04:33:33.123Z`: UTC, to the millisecond."""
    utc = at.astimezone(UTC)
    return f"{utc:%Y-%m-%d %H:%M:%S}.{utc.microsecond // 1000:03}Z"


def print_folded(before: str, text: str, colour: str | None = None) -> None:
    """`before` and a text on one line; on a terminal that is too narrow the text goes on below itself, or below the
    beginning if there is no room beside it.
    """
    lines = [printable(text)]
    indent = _width(before)
    if sys.stdout.isatty():
        columns = get_terminal_size().columns
        indent = indent if columns - indent >= 2 * READABLE else 2 * GAP
        lines = folded(printable(text), columns - _width(before), columns - indent)
    first, *others = lines
    click.echo(f"{printable(before)}{click.style(first, fg=colour)}".rstrip())
    for line in others:
        click.echo(" " * indent + click.style(line, fg=colour))


def folded(text: str, first: int, others: int) -> list[str]:
    """The text in lines of at most so many columns, between words; a word that is longer has a line of its own."""
    lines, line, room = list[str](), "", first
    for word in text.split(" "):
        longer = f"{line} {word}" if line else word
        if line and _width(longer) > room:
            lines.append(line)
            line, room = word, others
        else:
            line = longer
    return [*lines, line]


def span(seconds: float) -> str:
    """`in 4 min`, `40 s ago`: how far something is from now."""
    size = abs(seconds)
    text = next(
        (f"{size / unit_s:.0f} {unit}" for unit, unit_s, over_s in _UNITS if size >= over_s),
        f"{size:.0f} s",
    )
    return f"in {text}" if seconds >= 0 else f"{text} ago"


_UNITS = (("days", 86_400.0, 2 * 86_400.0), ("h", 3_600.0, 7_200.0), ("min", 60.0, 120.0))


def printable(text: str) -> str:
    """The text on one line: control and formatting characters, which could forge lines or colours, are replaced."""
    return "".join(mark if mark.isprintable() else " " if mark in "\n\t" else "\ufffd" for mark in text)


def _width(text: str) -> int:
    return sum(2 if east_asian_width(mark) in WIDE else 1 for mark in text)


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _width(text))


def _print_rows(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print the columns one below the other, on a terminal that is too narrow for a table."""
    width = max(map(_width, columns))
    for row in rows:
        for name, text in zip(columns, row, strict=True):
            if text != cell(None):
                click.echo(f"{_padded(name, width)}  {text}")
        click.echo()


def _print_rich(columns: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[int]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name, width in zip(columns, widths, strict=True):
        table.add_column(name, overflow="fold", min_width=min(width, READABLE))
    for row in rows:
        table.add_row(*(Text(text) for text in row))  # not markup: `[red]` in a subject is a subject
    Console(no_color=not has_colours()).print(table)
