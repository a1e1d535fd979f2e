"""Proof of who acts on the command line: an operator's password, and the code where one is set up.

It is wanted where nodrop has to know that two persons act. Without operators there is nothing to prove.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cli.acts import check_by
from cli.environment import with_database, with_resources
from cli.output import Stop

if TYPE_CHECKING:
    from collections.abc import Callable

    from core.acts import Preview
    from runtime.resources import Resources
    from storage.postgres.database import Database
    from storage.postgres.operators import OperatorRow

    _F = TypeVar("_F", bound=Callable[..., Any])

LINE_CHARACTERS_MAX = 1000
AT_THE_COMMAND = "(command)"
"""The address of these tries, for the limits of signing in."""


def password_option(command: _F) -> _F:
    """The password of `--by` from a program; on a terminal it is asked for."""
    text = "Read the operator's password from standard input, and on a second line the code, if there is one."
    return click.option("--password-stdin", is_flag=True, help=text)(command)


def waits_for_another(preview: Preview) -> bool:
    """Whether the act would wait for a second operator."""
    return any(line.key == "refund.waits" for line in preview.lines)


def prove(by: str, *, from_stdin: bool) -> None:
    """Have the operator `by` prove who that is. Nothing is proved while there is no operator.

    Raises:
        Wrong: there is no such operator.
        Stop: the password or the code is wrong.
        InvalidRequest: it is a one-time password.
        TooManyRequests: too many were tried.
    """
    row = with_database(lambda db: _find(db, by))
    if row is None:
        return
    password, code = _read(row, from_stdin=from_stdin)

    async def check(resources: Resources) -> bool:
        from flows.sign_in import Attempt, prove_person
        from runtime.passwords import Passwords

        passwords = Passwords()
        try:
            attempt = Attempt(name=by, password=password, code=code, address=AT_THE_COMMAND, device="")
            return await prove_person(resources, passwords, attempt)
        finally:
            passwords.close()

    if not with_resources(check, log_level="error"):  # that it is wrong is said once, in words
        raise Stop("the password or the code is wrong")


async def _find(db: Database, by: str) -> OperatorRow | None:
    """The operator of this name; None: there is no operator who is enabled."""
    from storage.postgres.operators import list_operators

    await check_by(db, by)
    return next((row for row in await list_operators(db) if row.name == by and row.disabled_at is None), None)


def _read(row: OperatorRow, *, from_stdin: bool) -> tuple[str, str]:
    if from_stdin:
        password, code = (sys.stdin.readline(LINE_CHARACTERS_MAX).rstrip("\r\n") for _ in range(2))
        return password, code
    if not sys.stdin.isatty():
        raise click.UsageError(f"--password-stdin: above the limit {row.name} has to prove who that is")
    password = click.prompt(f"password of {row.name}", hide_input=True, err=True)
    return password, click.prompt("code", err=True) if row.has_totp else ""
