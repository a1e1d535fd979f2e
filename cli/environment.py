"""The environment of a command: its settings, and the resources that it opens for as long as it runs.

Also the one place where foreign faults that an operator can mend become a line that says how.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

import click

from cli.output import Stop, Wrong
from core.errors import ConfigurationError, DatabaseRefused, DatabaseUnavailable, NodropError

if TYPE_CHECKING:  # imported when they are needed: half of the commands never connect to anything
    from core.settings import Settings
    from runtime.resources import Resources
    from storage.postgres.audit import Act
    from storage.postgres.database import Database

_T = TypeVar("_T")

# https://www.postgresql.org/docs/current/errcodes-appendix.html
_SQLSTATES = {
    "42P01": "a table is missing in the database: run `nodrop migrate`",
    "42703": "a column is missing in the database: run `nodrop migrate`",
    "42501": "Postgres does not let the user do this: run `nodrop migrate` with the owner in DIRECT_DATABASE_URL",
    "55P03": "a table was locked for too long by another statement: try again",
}


def current_settings(*required: str) -> Settings:
    """The settings of this environment, as every process reads them. Those in `required` are set.

    Raises:
        ConfigurationError: names the variable and what to set.
    """
    from core.settings import read_settings, require

    settings = read_settings(os.environ)
    require(settings, *required)
    return settings


def with_database(work: Callable[[Database], Awaitable[_T]], *, act: Act | None = None) -> _T:
    """The result of `work` on the database: for commands that need no channel and no Redis. `act` is what the command
    is about to do, which is written first, once it is clear that whoever `--by` names may act; None: it only reads.
    """
    from storage.postgres.database import Database

    settings = current_settings("database_url")

    async def run() -> _T:
        db = Database.from_settings(settings)
        await db.open()
        try:
            await _write(db, act)
            return await work(db)
        finally:
            await db.close()

    log_to_stderr()
    return asyncio.run(run())


def with_resources(
    work: Callable[[Resources], Awaitable[_T]], *, act: Act | None = None, log_level: str = "warning"
) -> _T:
    """The result of `work` with the resources of a worker: for commands that call a channel or arm a job. `act` as in
    `with_database`; `log_level` as in `log_to_stderr`.
    """
    from runtime.resources import open_resources

    settings = current_settings()

    async def run() -> _T:
        async with open_resources(settings) as resources:
            with suppress(DatabaseUnavailable):  # which the work says itself
                await resources.clock.keep(resources.db)
            await _write(resources.db, act)
            return await work(resources)

    log_to_stderr(log_level)
    return asyncio.run(run())


async def _write(db: Database, act: Act | None) -> None:
    """Write the act down. Of a command that has `--by`, the name is checked before."""
    if act is not None:
        from cli.acts import check_by
        from storage.postgres.audit import write_act

        context = click.get_current_context(silent=True)
        if context is not None and "by" in context.params:
            await check_by(db, act.by)
        await write_act(db, act)


def log_to_stderr(level: str = "warning") -> None:
    """Send log lines from `level` on to standard error: standard output belongs to the command."""
    from runtime.logs import configure_logs

    configure_logs(level, sys.stderr.buffer)


def stop_for(error: Exception) -> Stop | None:
    """The line about an expected fault; None for a bug, which keeps its trace."""
    for fault in (error, error.__cause__):
        # asyncpg's errors have it; so this need not import asyncpg
        sqlstate = getattr(fault, "sqlstate", None)
        if sqlstate in _SQLSTATES:
            return Wrong(_SQLSTATES[sqlstate])
    if isinstance(error, ConfigurationError | DatabaseRefused):
        return Wrong(str(error))
    return Stop(str(error)) if isinstance(error, NodropError) else None
