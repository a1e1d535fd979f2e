"""`nodrop notifications`: messages to the merchant's order service with their attempts, and sending them again."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import click

from cli.acts import ask_reason, by_option, confirm_preview, dry_run_option, reason_option, show_preview
from cli.audit import this_act
from cli.environment import with_database, with_resources
from cli.notification_text import attempt_lines, facts, notification_lines
from cli.output import Stop, json_option, print_json, printable, warn
from cli.spans import Since
from core.act_names import ActName
from storage.postgres.deliveries import (
    Choice,
    Listed,
    NotificationRow,
    find_body,
    find_notification,
    list_notifications,
    notifications_of_order,
)
from storage.postgres.orders import find_now

if TYPE_CHECKING:
    from api.v1.deliveries import NotificationView
    from core.acts import Preview
    from runtime.resources import Resources
    from storage.postgres.database import Database

LIMIT_MAX = 1000


@click.group(epilog="Example: nodrop notifications list --status dead")
def notifications() -> None:
    """Messages to the merchant's order service, with every attempt."""


@notifications.command("list", epilog="Example: nodrop notifications list --endpoint https://shop.example/hook")
@click.option("--status", type=click.Choice([listed.value for listed in Listed]), help="Undelivered by default.")
@click.option("--order", "order_no", help="All of this order.")
@click.option("--endpoint", help="For this URL; its query does not matter.")
@click.option("--since", type=Since(), help="Made since then: 30m, 2h, 7d, or an instant in ISO 8601.")
@click.option("--limit", type=click.IntRange(1, LIMIT_MAX), default=20, show_default=True, help="How many at most.")
@json_option
def list_(
    *,
    status: str | None,
    order_no: str | None,
    endpoint: str | None,
    since: timedelta | datetime | None,
    limit: int,
    as_json: bool,
) -> None:
    """List notifications: the next one due first, or the newest.

    Each with where it stands, what its last attempt came to, and when the next one is due.
    """
    if order_no is not None and (status, endpoint, since) != (None, None, None):
        raise click.UsageError("--order shows all of an order: no other choice goes with it")
    listed = Listed(status or Listed.UNDELIVERED)

    async def read(db: Database) -> tuple[list[NotificationRow], bool, datetime]:
        now = await find_now(db)
        if order_no is not None:
            return await notifications_of_order(db, order_no), False, now
        rows, more = await _read(db, _choice(listed, endpoint, since, now), limit)
        return rows, more, now

    rows, is_more, now = with_database(read)
    if as_json:
        print_json([_view(row) for row in rows])
    else:
        for row in rows:
            for line in notification_lines(row, now):
                click.echo(line)
        if not rows:
            click.echo("no such notifications")
    if is_more:
        warn(f"there are more than these {limit}: --limit shows up to {LIMIT_MAX}")


@notifications.command(epilog="Example: nodrop notifications show msg_0f1e2d3c4b5a69788796a5b4c3d2e1f0")
@click.argument("notification_id", metavar="ID")
@json_option
def show(notification_id: str, *, as_json: bool) -> None:
    """Show a notification with every attempt and its text."""

    async def read(db: Database) -> tuple[NotificationRow | None, bytes, datetime]:
        return await find_notification(db, notification_id), await find_body(db, notification_id), await find_now(db)

    row, body, now = with_database(read)
    if row is None:
        raise Stop(f"there is no notification {notification_id}; `nodrop notifications list` shows them")
    if as_json:
        print_json(_view(row, body))
        return
    for name, value in facts(row, now):
        click.echo(f"{name:<14}{value}")
    click.echo("attempts:" if row.attempts else "attempts: none")
    for attempt in row.attempts:
        for line in attempt_lines(attempt):
            click.echo(line)
    click.echo("text:" if body else "text: erased")
    for line in _pretty(body).splitlines():
        click.echo(f"  {printable(line)}")


@notifications.command(epilog='Example: nodrop notifications resend --dead --reason "their server is back" --dry-run')
@click.argument("notification_id", metavar="[ID]", required=False)
@click.option("--dead", "is_dead_only", is_flag=True, help="Dead letters: all, or those of --endpoint and --since.")
@click.option("--endpoint", help="All for this URL since --since, delivered ones too.")
@click.option("--since", type=Since(), help="Made since then: 30m, 2h, 7d, or an instant in ISO 8601.")
@click.option("--yes", is_flag=True, help="Do not ask before many are sent.")
@by_option
@reason_option
@dry_run_option
@json_option
def resend(
    notification_id: str | None,
    *,
    is_dead_only: bool,
    endpoint: str | None,
    since: timedelta | datetime | None,
    yes: bool,
    by: str,
    reason: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Send one notification again, or many.

    With the id and the text that it always had, so its receiver drops what it has. One is sent at once, also a
    delivered one; many are sent one after another, NOTIFY_RESEND_PER_S. A worker has to run, for it is the worker that
    sends.
    """
    if (notification_id is None) is not (is_dead_only or endpoint is not None or since is not None):
        raise click.UsageError("name one notification by its ID, or many by --dead, or by --endpoint and --since")
    if notification_id is not None:
        resend_one(notification_id, by=by, reason=reason, dry_run=dry_run, as_json=as_json)
    else:
        resend_many(is_dead_only, endpoint, since, by=by, reason=reason, yes=yes, dry_run=dry_run, as_json=as_json)


def resend_one(notification_id: str, *, by: str, reason: str, dry_run: bool, as_json: bool) -> None:
    """Send it again, or show what that would do."""
    from flows.resend import preview_resend, resend_notification

    if dry_run:
        preview = with_resources(lambda resources: preview_resend(resources, notification_id))
        show_preview(preview, as_json=as_json)
        return
    act = this_act(ActName.NOTIFICATION_RESEND, notification_id, by=by, reason=ask_reason(reason))
    row = with_resources(lambda resources: resend_notification(resources, notification_id), act=act)
    if as_json:
        print_json(_view(row))
    elif row.standing.is_paused:
        click.echo("it is sent once its endpoint is resumed")
    else:
        click.echo("due at once; a worker sends it")


def resend_many(
    is_dead_only: bool,  # noqa: FBT001 - passed on
    endpoint: str | None,
    since: timedelta | datetime | None,
    *,
    by: str,
    reason: str,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Send them again one after another, or show what that would do."""
    from flows import resend as flow

    async def look(resources: Resources) -> tuple[Choice, Preview]:
        choice = _choice(Listed.DEAD, endpoint, since, await find_now(resources.db))
        return choice, await flow.preview_resend_many(resources, choice, is_dead_only=is_dead_only)

    why = "" if dry_run else ask_reason(reason)
    choice, preview = with_resources(look)
    if dry_run:
        show_preview(preview, as_json=as_json)
        return
    if not yes:
        confirm_preview(preview, "send them?")
    from_ = "" if choice.since is None else choice.since.isoformat()
    what = "dead" if is_dead_only else "all"
    act = this_act(ActName.NOTIFICATIONS_RESEND, choice.endpoint or "all", by=by, reason=why, what=what, since=from_)
    count = with_resources(lambda resources: flow.resend_many(resources, choice, is_dead_only=is_dead_only), act=act)
    if as_json:
        print_json({"resent": count})
        return
    click.echo(f"{count} are sent one after another; a worker sends them" if count else "none to send, nothing to do")


async def _read(db: Database, choice: Choice, limit: int) -> tuple[list[NotificationRow], bool]:
    """So many of a list, and whether there are more."""
    rows, cursor = await list_notifications(db, choice, limit=limit)
    while cursor is not None and len(rows) < limit:
        page, cursor = await list_notifications(db, choice, cursor=cursor, limit=limit - len(rows))
        rows += page
    return rows, cursor is not None


def _choice(listed: Listed, endpoint: str | None, since: timedelta | datetime | None, now: datetime) -> Choice:
    from core.deliveries import endpoint_of

    at = now - since if isinstance(since, timedelta) else since
    return Choice(listed=listed, endpoint=None if endpoint is None else endpoint_of(endpoint), since=at)


def _view(row: NotificationRow, body: bytes | None = None) -> NotificationView:
    """As the API shows it."""
    from api.v1.deliveries import view_notification

    return view_notification(row, body)


def _pretty(body: bytes) -> str:
    import msgspec

    try:
        return msgspec.json.format(body, indent=2).decode()
    except msgspec.DecodeError:
        return body.decode(errors="replace")
