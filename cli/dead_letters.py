"""`nodrop dead-letters`: notifications that the merchant's order service never received, and sending them again."""

from __future__ import annotations

import click

from cli.audit import this_act
from cli.environment import with_database, with_resources
from cli.output import Stop, json_option, print_json, print_table, warn
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


@dead_letters.command(epilog="Example: nodrop dead-letters resend --all")
@click.argument("notification_id", metavar="[ID]", required=False)
@click.option("--all", "is_all", is_flag=True, help="All of them.")
@json_option
def resend(notification_id: str | None, *, is_all: bool, as_json: bool) -> None:
    """Send one again, or all.

    With the id and the body that it always had, and all attempts before it. A worker has to run, for it is the worker
    that sends.
    """
    if (notification_id is None) is not is_all:
        raise click.UsageError("name one notification by its ID, or all of them by --all")
    from flows.resend import resend_dead_letters

    act = this_act(notification_id or "all")
    sent = with_resources(lambda resources: resend_dead_letters(resources, notification_id), act=act)
    if notification_id is not None and not sent:
        raise Stop(f"there is no dead letter {notification_id}; `nodrop dead-letters list` shows them")
    if as_json:
        print_json({"resent": sent})
        return
    click.echo(f"{len(sent)} due at once; a worker sends them" if sent else "no dead letters, nothing to do")
