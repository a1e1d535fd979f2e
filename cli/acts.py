"""Acts of the command line: the preview before one, and the options that all of them share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cli.output import Stop, print_json, printable

if TYPE_CHECKING:
    from core.acts import Preview

_F = TypeVar("_F", bound=Callable[..., Any])


def dry_run_option(command: _F) -> _F:
    """The same option for every act."""
    return click.option("--dry-run", is_flag=True, help="Say what it would do, and do nothing.")(command)


def reason_option(*, required: bool) -> Callable[[_F], _F]:
    """The reason of an act, for those who read it later."""
    text = "Why; it is kept with the act, and no channel sees it."
    if required:
        return click.option("--reason", required=True, help=text)
    return click.option("--reason", default="", help=text)


def show_preview(preview: Preview, *, as_json: bool) -> None:
    """Print what an act would do. Exit code 1 if it is not possible."""
    if as_json:
        print_json(document(preview))
    else:
        print_preview(preview)
    if preview.refusal is not None:
        if as_json:
            raise click.exceptions.Exit(1)
        raise Stop(preview.refusal.text)


def print_preview(preview: Preview, *, err: bool = False) -> None:
    """Print its sentences; warnings are marked."""
    for line in preview.lines:
        click.echo(printable(line.text), err=err)
    for line in preview.warnings:
        click.echo(f"note: {printable(line.text)}", err=err)


def confirm_preview(preview: Preview, question: str) -> None:
    """Show what would be done, and ask. Ends the command if it is not possible, or not wanted."""
    if preview.refusal is not None:
        raise Stop(preview.refusal.text)
    print_preview(preview, err=True)
    sys.stderr.flush()
    click.confirm(question, abort=True, err=True)


def document(preview: Preview) -> dict[str, object]:
    """A preview as JSON, as the API shows it."""
    from api.v1.acts import view_preview

    return {"preview": view_preview(preview)}
