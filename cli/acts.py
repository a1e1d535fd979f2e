"""Acts of the command line: who acts and why, the preview before an act, and the options that all of them share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cli.audit import machine_user
from cli.output import Stop, Wrong, print_json, printable

if TYPE_CHECKING:
    from core.acts import Preview
    from storage.postgres.database import Database

_F = TypeVar("_F", bound=Callable[..., Any])


def dry_run_option(command: _F) -> _F:
    """The same option for every act."""
    return click.option("--dry-run", is_flag=True, help="Say what it would do, and do nothing.")(command)


def by_option(command: _F) -> _F:
    """The person who acts; `with_database` and `with_resources` check the name before they write the act down."""

    def name(_ctx: click.Context, _param: click.Parameter, typed: str | None) -> str:
        if typed is not None and not typed.strip():
            raise click.UsageError("--by says who acts: it may not be empty")
        return (typed or machine_user()).strip()

    text = "Who acts: an operator's name, once there is one; without it NODROP_BY, or the user of this machine."
    return click.option("--by", envvar="NODROP_BY", callback=name, help=text)(command)


def reason_option(command: _F) -> _F:
    """The reason of an act, for those who read it later. `ask_reason` wants it."""
    return click.option("--reason", default="", help="Why; it is kept with the act, and no channel sees it.")(command)


def ask_reason(given: str) -> str:
    """The reason that was given; on a terminal it is asked for.

    Raises:
        UsageError: there is none, and nobody to ask.
        InvalidRequest: it is not the form of one.
    """
    from core.acts import check_reason

    if not given.strip():
        if not sys.stdin.isatty():
            raise click.UsageError("--reason says why: it is kept for others (not needed with --dry-run)")
        given = click.prompt("reason", err=True)
    return check_reason(given)


async def check_by(db: Database, by: str) -> None:
    """Check that an operator of this name may act, if there are operators.

    Raises:
        Wrong: there is none, or the role only reads.
    """
    from difflib import get_close_matches

    from core.operators import Role
    from storage.postgres.operators import list_operators

    enabled = {row.name: row for row in await list_operators(db) if row.disabled_at is None}
    if not enabled:
        return
    acting = [name for name, row in enabled.items() if row.role.may(Role.OPERATOR)]
    if by in acting:
        return
    if by in enabled:
        raise Wrong(f"--by: {by} is a viewer, who does not act")
    close = get_close_matches(by, acting, 1)
    raise Wrong(
        f"--by: there is no operator {by} who is enabled"
        + (f"; did you mean {close[0]}?" if close else f"; name one of them: {', '.join(acting) or 'nobody may act'}")
    )


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
    from core.act_view import view_preview

    return {"preview": view_preview(preview)}
