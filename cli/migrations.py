"""`nodrop migrate`: the release step of every deploy, safe when several run at once."""

from __future__ import annotations

import asyncio

import click

from cli.environment import settings
from cli.output import json_option, print_json
from core.settings import require
from storage.postgres.database import read_address
from storage.postgres.migrate import migrate as apply_missing
from storage.postgres.migrate import missing_migrations


@click.command(epilog="Example: nodrop migrate --check")
@click.option("--check", is_flag=True, help="Change nothing; exit code 1 when something is missing.")
@json_option
def migrate(*, check: bool, as_json: bool) -> None:
    """Bring the database up to date.

    Uses DIRECT_DATABASE_URL where it is set, else DATABASE_URL: migrations take locks, so they must not go through a
    pooler. Applying twice, or from several machines at once, is applying once.
    """
    url, tls = address()
    if check:
        names = asyncio.run(missing_migrations(url, tls))
        _tell("missing", names, "nothing is missing", as_json=as_json)
        raise SystemExit(1 if names else 0)
    _tell("applied", asyncio.run(apply_missing(url, tls)), "nothing to do", as_json=as_json)


def address() -> tuple[str, str]:
    """Where to migrate, and its TLS.

    Raises:
        ConfigurationError: names the variable and what to set.
    """
    given = settings()
    if given.direct_database_url:
        read_address(given.direct_database_url, given.database_tls, variable="DIRECT_DATABASE_URL")
        return given.direct_database_url, given.database_tls
    require(given, "database_url")
    return given.database_url, given.database_tls


def _tell(what: str, names: list[str], nothing: str, *, as_json: bool) -> None:
    if as_json:
        print_json({what: names})
        return
    for name in names:
        click.echo(f"{what} {name}")
    if not names:
        click.echo(nothing)
