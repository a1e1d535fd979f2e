"""`nodrop operators`: who may use the console. The console's page of operators calls the same flows."""

from __future__ import annotations

import sys

import click

from cli.acts import dry_run_option, reason_option, show_preview
from cli.audit import this_act
from cli.environment import with_database
from cli.output import Stop, json_option, print_json, print_table, warn
from core.act_names import ActName
from core.operators import Role

PASSWORD_BYTES_MAX = 1000

_role = click.Choice([role.value for role in Role])


@click.group(epilog="Example: nodrop operators add alice --role admin")
def operators() -> None:
    """People who may use the console at /ops."""


@operators.command(epilog="Example: nodrop operators add alice --role admin")
@click.argument("name")
@click.option(
    "--role", type=_role, required=True, help="viewer reads; operator also acts; admin also acts on operators."
)
@click.option("--password-stdin", is_flag=True, help="Read the one-time password from standard input.")
@reason_option
@dry_run_option
@json_option
def add(name: str, *, role: str, password_stdin: bool, reason: str, dry_run: bool, as_json: bool) -> None:
    """Add an operator, and print a one-time password.

    It is shown this once and has to be changed at the first sign-in. NAME is small letters, digits, dots, hyphens and
    underscores; the audit keeps it, so an operator is disabled and never deleted.
    """
    from flows.operators import add_operator, preview_adding
    from runtime.passwords import Passwords

    if dry_run:
        show_preview(with_database(lambda db: preview_adding(db, name, Role(role))), as_json=as_json)
        return
    given = _read_password() if password_stdin else None
    password = with_database(
        lambda db: add_operator(db, Passwords(), name, Role(role), given),
        act=this_act(ActName.OPERATOR_ADD, name, role=role, reason=reason),
    )
    _print(name, password, as_json=as_json, is_given=password_stdin)


@operators.command(epilog="Example: nodrop operators reset alice")
@click.argument("name")
@click.option("--password-stdin", is_flag=True, help="Read the one-time password from standard input.")
@reason_option
@dry_run_option
@json_option
def reset(name: str, *, password_stdin: bool, reason: str, dry_run: bool, as_json: bool) -> None:
    """Give an operator a new one-time password, and take codes and sessions away.

    For whoever has lost the password or the app with the codes. A disabled operator is enabled.
    """
    from flows.operators import preview_reset, reset_operator
    from runtime.passwords import Passwords

    if dry_run:
        show_preview(with_database(lambda db: preview_reset(db, name)), as_json=as_json)
        return
    given = _read_password() if password_stdin else None
    act = this_act(ActName.OPERATOR_RESET, name, reason=reason)
    password = with_database(lambda db: reset_operator(db, Passwords(), name, given), act=act)
    _print(name, password, as_json=as_json, is_given=password_stdin)


@operators.command("list", epilog="Example: nodrop operators list --json")
@json_option
def list_(*, as_json: bool) -> None:
    """List operators, also disabled ones."""
    from storage.postgres.operators import list_operators

    rows = with_database(list_operators)
    if as_json:
        print_json(rows)
        return
    columns = ("name", "role", "codes", "sessions", "last sign-in", "created", "disabled")
    table = [
        (
            row.name,
            row.role.value,
            "on" if row.has_totp else "off",
            row.sessions,
            row.signed_in_at,
            row.created_at,
            row.disabled_at,
        )
        for row in rows
    ]
    print_table(columns, table, empty="no operators; `nodrop operators add` adds one")


@operators.command(epilog="Example: nodrop operators disable alice")
@click.argument("name")
@reason_option
@dry_run_option
def disable(name: str, *, reason: str, dry_run: bool) -> None:
    """Let nobody sign in by a name any more.

    All of its sessions end, also those with an open page, and its API keys open nothing ten seconds later.
    """
    from flows.operators import preview_disabling
    from storage.postgres.operators import disable_operator

    if dry_run:
        show_preview(with_database(lambda db: preview_disabling(db, name)), as_json=False)
        return
    act = this_act(ActName.OPERATOR_DISABLE, name, reason=reason)
    _check(name, is_there=with_database(lambda db: disable_operator(db, name), act=act))
    click.echo(f"disabled {name}; every session has ended")


@operators.command(epilog="Example: nodrop operators enable alice")
@click.argument("name")
@reason_option
@dry_run_option
def enable(name: str, *, reason: str, dry_run: bool) -> None:
    """Let a disabled operator sign in again, by the password of before."""
    from flows.operators import preview_enabling
    from storage.postgres.operators import enable_operator

    if dry_run:
        show_preview(with_database(lambda db: preview_enabling(db, name)), as_json=False)
        return
    act = this_act(ActName.OPERATOR_ENABLE, name, reason=reason)
    _check(name, is_there=with_database(lambda db: enable_operator(db, name), act=act))
    click.echo(f"enabled {name}")


@operators.command(epilog="Example: nodrop operators role alice viewer")
@click.argument("name")
@click.argument("role", type=_role)
@reason_option
@dry_run_option
def role(name: str, role: str, *, reason: str, dry_run: bool) -> None:
    """Change the role of an operator, and end all sessions."""
    from flows.operators import preview_role
    from storage.postgres.operators import set_role

    if dry_run:
        show_preview(with_database(lambda db: preview_role(db, name, Role(role))), as_json=False)
        return
    act = this_act(ActName.OPERATOR_ROLE, name, role=role, reason=reason)
    _check(name, is_there=with_database(lambda db: set_role(db, name, Role(role)), act=act))
    click.echo(f"{name} is {role} now; every session has ended")


def _read_password() -> str:
    """The first line of standard input."""
    return sys.stdin.readline(PASSWORD_BYTES_MAX).rstrip("\r\n")


def _print(name: str, password: str, *, as_json: bool, is_given: bool) -> None:
    """The password alone on standard output, unless it came from there."""
    if as_json:
        print_json({"name": name} | ({} if is_given else {"password": password}))
        return
    if not is_given:
        click.echo(password)
    warn(f"{name} signs in with this password once, at /ops/signin, and changes it there")


def _check(name: str, *, is_there: bool) -> None:
    if not is_there:
        raise Stop(f"there is no operator {name}; `nodrop operators list` shows them")
