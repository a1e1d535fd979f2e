"""`nodrop migrate`: the release step of every deploy, safe when several run at once."""

from __future__ import annotations

import asyncio

import click

from cli.environment import current_settings
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
        _print("missing", names, "nothing is missing", as_json=as_json)
        raise SystemExit(1 if names else 0)
    _print("applied", asyncio.run(apply_missing(url, tls)), "nothing to do", as_json=as_json)


def address() -> tuple[str, str]:
    """The address to migrate, and its TLS.

    Raises:
        ConfigurationError: names the variable and what to set.
    """
    settings = current_settings()
    if settings.direct_database_url:
        read_address(settings.direct_database_url, settings.database_tls, variable="DIRECT_DATABASE_URL")
        return settings.direct_database_url, settings.database_tls
    require(settings, "database_url")
    return settings.database_url, settings.database_tls


def _print(state: str, names: list[str], nothing: str, *, as_json: bool) -> None:
    if as_json:
        print_json({state: names})
        return
    for name in names:
        click.echo(f"{state} {name}")
    if not names:
        click.echo(nothing)
