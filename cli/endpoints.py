"""`nodrop endpoints`: the addresses that notifications are for, with what waits for each; pausing and resuming one."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click

from cli.acts import ask_reason, by_option, dry_run_option, reason_option, show_preview
from cli.audit import this_act
from cli.environment import with_database, with_resources
from cli.notification_text import endpoint_lines
from cli.output import json_option, print_json
from core.act_names import ActName
from storage.postgres.orders import find_now

if TYPE_CHECKING:
    from flows.endpoints import ServedEndpoint
    from storage.postgres.database import Database


@click.group(epilog="Example: nodrop endpoints list")
def endpoints() -> None:
    """Addresses that notifications are for; pause one, and resume it."""


@endpoints.command("list", epilog="Example: nodrop endpoints list --json")
@json_option
def list_(*, as_json: bool) -> None:
    """List endpoints with what waits for each.

    An endpoint is a notify_url without its query. Those with the oldest undelivered notification come first; one that
    was sent nothing in a day, and for which nothing waits, is not there.
    """
    from flows.endpoints import list_served

    async def read(db: Database) -> tuple[list[ServedEndpoint], datetime]:
        now = await find_now(db)
        return await list_served(db, now), now

    rows, now = with_database(read)
    if as_json:
        from api.v1.deliveries import view_endpoint

        print_json([view_endpoint(row) for row in rows])
        return
    for row in rows:
        for line in endpoint_lines(row, now):
            click.echo(line)
    if not rows:
        click.echo("nothing was sent in a day, nothing is paused, and all is delivered")


@endpoints.command(epilog="Example: nodrop endpoints show https://shop.example/hook")
@click.argument("endpoint", metavar="URL")
@json_option
def show(endpoint: str, *, as_json: bool) -> None:
    """Show one endpoint: its pause, what waits for it, and its deliveries of a day."""
    from core.deliveries import endpoint_of
    from flows.endpoints import find_served

    async def read(db: Database) -> tuple[ServedEndpoint, datetime]:
        now = await find_now(db)
        return await find_served(db, endpoint_of(endpoint), now), now

    row, now = with_database(read)
    if as_json:
        from api.v1.deliveries import view_endpoint

        print_json(view_endpoint(row))
        return
    for line in endpoint_lines(row, now):
        click.echo(line)


@endpoints.command(epilog='Example: nodrop endpoints pause https://shop.example/hook --reason "they move house"')
@click.argument("endpoint", metavar="URL")
@by_option
@reason_option
@dry_run_option
@json_option
def pause(endpoint: str, *, by: str, reason: str, dry_run: bool, as_json: bool) -> None:
    """Send nothing to an endpoint until it is resumed.

    Its notifications wait, use no attempt and are not given up, whatever is restarted meanwhile. What is under way
    ends.
    """
    from flows.endpoints import pause_endpoint, preview_pausing

    if dry_run:
        show_preview(with_resources(lambda resources: preview_pausing(resources, endpoint)), as_json=as_json)
        return
    why = ask_reason(reason)
    act = this_act(ActName.ENDPOINT_PAUSE, endpoint, by=by, reason=why)
    with_resources(lambda resources: pause_endpoint(resources, endpoint, by=by, reason=why), act=act)
    _end({"paused": endpoint}, "paused; `nodrop endpoints resume` ends it", as_json=as_json)


@endpoints.command(epilog='Example: nodrop endpoints resume https://shop.example/hook --reason "they are back"')
@click.argument("endpoint", metavar="URL")
@by_option
@reason_option
@dry_run_option
@json_option
def resume(endpoint: str, *, by: str, reason: str, dry_run: bool, as_json: bool) -> None:
    """Send to a paused endpoint again.

    What waits for it is sent one after another, NOTIFY_RESEND_PER_S, the oldest first. A worker has to run.
    """
    from flows.endpoints import preview_resuming, resume_endpoint

    if dry_run:
        show_preview(with_resources(lambda resources: preview_resuming(resources, endpoint)), as_json=as_json)
        return
    act = this_act(ActName.ENDPOINT_RESUME, endpoint, by=by, reason=ask_reason(reason))
    with_resources(lambda resources: resume_endpoint(resources, endpoint), act=act)
    _end({"resumed": endpoint}, "resumed; a worker sends what has waited", as_json=as_json)


def _end(document: dict[str, str], sentence: str, *, as_json: bool) -> None:
    if as_json:
        print_json(document)
    else:
        click.echo(sentence)
