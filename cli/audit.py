"""`nodrop audit`: what people did, and the row that every command writes before it changes something."""

from __future__ import annotations

import getpass
import os
from typing import TYPE_CHECKING

import click

from cli.environment import with_database
from cli.output import json_option, print_json, print_table, warn

if TYPE_CHECKING:
    from core.act_names import ActName
    from storage.postgres.audit import Act

LIMIT_MAX = 1000


@click.command(epilog="Example: nodrop audit --about 2026-1123-0001")
@click.option("--about", "subject", help="About this order, account, key, host or case.")
@click.option("--by", help="Of this operator, user or key.")
@click.option("--act", "action", help="Of this kind, like order.refund; also under its names of earlier releases.")
@click.option("--limit", type=click.IntRange(1, LIMIT_MAX), default=50, show_default=True, help="How many at most.")
@json_option
def audit(*, subject: str | None, by: str | None, action: str | None, limit: int, as_json: bool) -> None:
    """List what people did, newest first.

    A row is written before the act, so what then failed is listed too. With two roles of Postgres the processes and
    commands cannot change rows; docs/operations.md shows how.
    """
    from storage.postgres.audit import Filters, find_acts

    filters = Filters(subject=subject, by=by, action=action)
    rows = with_database(lambda db: find_acts(db, filters, limit=limit + 1))
    shown = rows[:limit]
    if as_json:
        print_json(shown)
    else:
        columns = ("id", "at", "by", "via", "what", "about", "detail")
        table = [(row.id, row.at, row.by, row.via, row.action, row.subject, _detail(row.detail)) for row in shown]
        print_table(columns, table, empty="nothing was done yet")
    if len(rows) > limit:
        warn(f"there are more than these {limit}: --limit shows up to {LIMIT_MAX}")


def this_act(action: ActName, subject: str = "", *, by: str | None = None, **detail: object) -> Act:
    """The act of the command that runs now, with the details that are there. `by` None: the user of this machine."""
    from storage.postgres.audit import Act, Via

    given = {name: value for name, value in detail.items() if value not in (None, "")}
    return Act(by=by or machine_user(), via=Via.COMMAND, action=action, subject=subject, detail=given)


def machine_user() -> str:
    """The name of whoever is at the machine, as far as it knows."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return f"user {os.getuid()}"


def _detail(detail: object) -> str:
    return ", ".join(f"{name}={value}" for name, value in detail.items()) if isinstance(detail, dict) else ""
