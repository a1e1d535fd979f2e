"""`nodrop alerts`: what a person must hear of, and a test of the way on which it is told."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from cli.acts import dry_run_option, show_preview
from cli.audit import this_act
from cli.environment import current_settings, with_database, with_resources
from cli.output import Stop, json_option, print_json, print_table, warn
from core.act_names import ActName
from storage.postgres.alerts import AlertRow, MessageState, find_message, find_unsent, list_alerts

if TYPE_CHECKING:
    from runtime.resources import Resources
    from storage.postgres.database import Database

LIMIT_MAX = 1000
LOOK_S = 0.5


@click.group(epilog="Example: nodrop alerts list --all")
def alerts() -> None:
    """Conditions that a person must hear of."""


@alerts.command("list", epilog="Example: nodrop alerts list --all")
@click.option("--all", "with_cleared", is_flag=True, help="Also those that were cleared.")
@click.option("--limit", type=click.IntRange(1, LIMIT_MAX), default=50, show_default=True, help="How many at most.")
@json_option
def list_(*, with_cleared: bool, limit: int, as_json: bool) -> None:
    """List alerts, newest first."""

    async def read(db: Database) -> tuple[list[AlertRow], bool, int]:
        rows, more = await list_alerts(db, is_open=None if with_cleared else True, limit=limit)
        return rows, more is not None, (await find_unsent(db)).count

    rows, has_more, unsent = with_database(read)
    if as_json:
        print_json(rows)
    else:
        columns = ("raised", "cleared", "rule", "what")
        table = [(row.raised_at, row.cleared_at, row.rule, row.text) for row in rows]
        print_table(columns, table, empty="no alerts" if with_cleared else "no open alerts")
    if has_more:
        warn(f"there are more than these {limit}: --limit shows up to {LIMIT_MAX}")
    if unsent:
        warn(f"{unsent} messages wait for ALERT_URL; the log of a worker says why (alert_not_sent)")


@alerts.command(epilog="Example: nodrop alerts test")
@click.option(
    "--wait", "wait_s", type=click.FloatRange(0, 600), default=20.0, show_default=True, help="Seconds to wait for it."
)
@dry_run_option
@json_option
def test(*, wait_s: float, dry_run: bool, as_json: bool) -> None:
    """Send a test to ALERT_URL.

    A worker sends it, as it sends alerts; so this shows whether one would arrive.
    """
    if dry_run:
        from flows.alert_messages import preview_test

        show_preview(preview_test(current_settings()), as_json=as_json)
        return
    act = this_act(ActName.ALERT_TEST, "ALERT_URL")

    async def send(resources: Resources) -> tuple[str, MessageState | None]:
        from flows.alert_messages import queue_test

        message_id = await queue_test(resources, by=act.by)
        return message_id, await _wait_for(resources.db, message_id, wait_s)

    message_id, state = with_resources(send, act=act)
    if as_json:
        print_json({"id": message_id, "state": state})
    if state is None or state.sent_at is None:
        tried = f"ALERT_URL: {state.last_status}" if state and state.last_status else "does a worker run?"
        raise Stop(f"the test was not taken within {wait_s:.0f} s, and will be tried again; {tried}")
    if not as_json:
        click.echo(f"ALERT_URL has taken the test: {state.last_status}")


async def _wait_for(db: Database, message_id: str, wait_s: float) -> MessageState | None:
    """The state of a message once it was sent, or tried, or after so many seconds."""
    ends_at = asyncio.get_running_loop().time() + wait_s
    while True:
        state = await find_message(db, message_id)
        is_over = asyncio.get_running_loop().time() >= ends_at
        if is_over or (state is not None and (state.sent_at or state.last_status)):
            return state
        await asyncio.sleep(LOOK_S)
