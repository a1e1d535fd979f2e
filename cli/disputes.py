"""`nodrop disputes`: what channels take back or may take back, by the last moment to answer."""

from __future__ import annotations

from datetime import datetime

import click

from cli.environment import with_database
from cli.output import Stop, cell, json_option, print_json, print_table, printable, span, warn
from core.dispute import Dispute, DisputeState
from core.money import decimal_text
from storage.postgres.disputes import find_disputes, list_disputes
from storage.postgres.orders import find_now

LIMIT_MAX = 1000
ENDS = [state.value for state in DisputeState if state.is_final]


@click.group(epilog="Example: nodrop disputes list")
def disputes() -> None:
    """Disputes of buyers, banks and channels."""


@disputes.command("list", epilog="Example: nodrop disputes list --state lost")
@click.option("--state", type=click.Choice(ENDS), help="Those that ended so, newest first.")
@click.option("--account", help="At this account.")
@click.option("--limit", type=click.IntRange(1, LIMIT_MAX), default=50, show_default=True, help="How many at most.")
@json_option
def list_(*, state: str | None, account: str | None, limit: int, as_json: bool) -> None:
    """List disputes that are not over, the soonest to answer first.

    Answer them at the channel; nodrop shows what the channel says.
    """
    chosen = None if state is None else DisputeState(state)
    rows, more = with_database(lambda db: list_disputes(db, state=chosen, account=account, limit=limit))
    if as_json:
        print_json(rows)
    else:
        now = with_database(find_now)
        columns = ("answer by", "left", "state", "kind", "amount", "order", "account", "payment", "dispute", "reason")
        table = [
            (
                row.respond_by,
                None if row.respond_by is None or row.state.is_final else _left((row.respond_by - now).total_seconds()),
                row.state,
                row.kind,
                None
                if row.amount is None or row.currency is None
                else f"{decimal_text(row.amount, row.currency)} {row.currency}",
                row.order_no,
                row.channel_account,
                row.out_trade_no,
                row.dispute_id,
                row.reason,
            )
            for row in rows
        ]
        print_table(columns, table, empty="no such disputes")
    if more:
        warn(f"there are more than these {limit}: --limit shows up to {LIMIT_MAX}")


@disputes.command(epilog="Example: nodrop disputes show PP-D-4012")
@click.argument("dispute_id", metavar="ID")
@json_option
def show(dispute_id: str, *, as_json: bool) -> None:
    """Show a dispute by the channel's id, at each account that has one."""
    rows = with_database(lambda db: find_disputes(db, dispute_id))
    if not rows:
        raise Stop(f"there is no dispute {dispute_id}; `nodrop disputes list` shows those that are not over")
    if as_json:
        print_json(rows)
        return
    now = with_database(find_now)
    for row in rows:
        click.echo(printable(f"dispute {row.dispute_id}: {row.kind}, {row.state}"))
        for name, value in _facts(row, now):
            click.echo(f"  {name:<10} {cell(value)}")


def _facts(row: Dispute, now: datetime) -> list[tuple[str, object]]:
    """All there is to say about a dispute, line by line."""
    amount = None if row.amount is None or row.currency is None else decimal_text(row.amount, row.currency)
    left = "" if row.respond_by is None or row.state.is_final else _left((row.respond_by - now).total_seconds())
    facts: list[tuple[str, object]] = [
        ("account", row.channel_account),
        ("order", row.order_no),
        ("payment", row.out_trade_no),
        ("amount", None if amount is None else f"{amount} {row.currency}"),
        ("answer by", None if row.respond_by is None else f"{cell(row.respond_by)} {left}".rstrip()),
        ("opened", row.opened_at),
        ("changed", row.changed_at),
        ("reason", row.reason),
        ("outcome", row.outcome),
    ]
    return [(name, value) for name, value in facts if value]


def _left(seconds: float) -> str:
    return f"OVERDUE, {span(seconds)}" if seconds <= 0 else span(seconds).removeprefix("in ")
