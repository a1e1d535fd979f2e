"""`nodrop migrate`: the release step of every deploy, safe when several run at once."""

from __future__ import annotations

import asyncio

import click

from cli.environment import current_settings
from cli.output import json_option, print_json, warn
from core.settings import require
from storage.postgres.address import read_address
from storage.postgres.migrate import is_another_role, missing_migrations
from storage.postgres.migrate import migrate as apply_missing


@click.command(epilog="Example: nodrop migrate --check")
@click.option("--check", is_flag=True, help="Change nothing; exit code 1 when something is missing.")
@json_option
def migrate(*, check: bool, as_json: bool) -> None:
    """Bring the database up to date.

    Uses DIRECT_DATABASE_URL where it is set, else DATABASE_URL: migrations take locks, so they must not go through a
    pooler. Applying twice, or from several machines at once, is applying once. If the two name different roles, that
    of DATABASE_URL is granted what the processes need.
    """
    url, tls = address()
    if check:
        names = asyncio.run(missing_migrations(url, tls))
        _print("missing", names, "nothing is missing", as_json=as_json)
        raise SystemExit(1 if names else 0)
    _print("applied", asyncio.run(_apply(url, tls, application_role())), "nothing to do", as_json=as_json)


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


def application_role() -> str | None:
    """The user of DATABASE_URL, where DIRECT_DATABASE_URL names another one."""
    settings = current_settings()
    if not settings.direct_database_url or not settings.database_url:
        return None
    users = {
        read_address(url, settings.database_tls, variable=variable).user
        for url, variable in (
            (settings.database_url, "DATABASE_URL"),
            (settings.direct_database_url, "DIRECT_DATABASE_URL"),
        )
    }
    return None if len(users) == 1 else read_address(settings.database_url, settings.database_tls).user


async def _apply(url: str, tls: str, role: str | None) -> list[str]:
    if role is not None and not await is_another_role(url, tls, role):
        warn(f"{role} of DATABASE_URL is no role of this Postgres, so nothing is granted to it")
        role = None
    return await apply_missing(url, tls, application=role)


def _print(state: str, names: list[str], nothing: str, *, as_json: bool) -> None:
    if as_json:
        print_json({state: names})
        return
    for name in names:
        click.echo(f"{state} {name}")
    if not names:
        click.echo(nothing)
