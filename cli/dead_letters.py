"""`nodrop dead-letters`: notifications that the merchant's order service never received, and sending them again."""

from __future__ import annotations

import click

from cli.acts import by_option, dry_run_option, reason_option
from cli.environment import with_database
from cli.notifications import resend_many, resend_one
from cli.output import json_option, print_json, print_table, warn
from storage.postgres.notifications import list_dead_letters

LIMIT_MAX = 1000


@click.group("dead-letters", epilog="Example: nodrop dead-letters resend --all")
def dead_letters() -> None:
    """Notifications that the merchant never received."""


@dead_letters.command("list", epilog="Example: nodrop dead-letters list --limit 200")
@click.option("--limit", type=click.IntRange(1, LIMIT_MAX), default=100, show_default=True, help="How many at most.")
@json_option
def list_(*, limit: int, as_json: bool) -> None:
    """List notifications that were given up, newest first."""
    rows = with_database(lambda db: list_dead_letters(db, limit + 1))
    shown = rows[:limit]
    if as_json:
        print_json(shown)
    else:
        columns = ("id", "order", "type", "given up", "attempts", "last answer", "url")
        table = [(row.id, row.order_no, row.type, row.dead_at, row.attempt, row.last_status, row.url) for row in shown]
        print_table(columns, table, empty="no dead letters")
    if len(rows) > limit:
        warn(f"there are more than these {limit}: --limit shows up to {LIMIT_MAX}")


@dead_letters.command(epilog='Example: nodrop dead-letters resend --all --reason "their server is back"')
@click.argument("notification_id", metavar="[ID]", required=False)
@click.option("--all", "is_all", is_flag=True, help="All of them.")
@click.option("--yes", is_flag=True, help="Do not ask before many are sent.")
@by_option
@reason_option
@dry_run_option
@json_option
def resend(
    notification_id: str | None, *, is_all: bool, yes: bool, by: str, reason: str, dry_run: bool, as_json: bool
) -> None:
    """Send one again, or all, as `nodrop notifications resend` does.

    It is another name of that: --all is its --dead. With the id and the body that it always had,
    and all attempts before it. A worker has to run, for it is the worker
    that sends; many are sent one after another.
    """
    if (notification_id is None) is not is_all:
        raise click.UsageError("name one notification by its ID, or all of them by --all")
    if notification_id is not None:
        resend_one(notification_id, by=by, reason=reason, dry_run=dry_run, as_json=as_json)
    else:
        resend_many(True, None, None, by=by, reason=reason, yes=yes, dry_run=dry_run, as_json=as_json)
