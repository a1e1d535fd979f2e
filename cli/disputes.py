"""`nodrop disputes`: what channels take back or may take back, by the last moment to answer."""

from __future__ import annotations

import click

from cli.environment import with_database
from cli.output import json_option, print_json, print_table, span, warn
from core.dispute import DisputeState
from core.money import decimal_text
from storage.postgres.disputes import list_disputes
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


def _left(seconds: float) -> str:
    return f"OVERDUE, {span(seconds)}" if seconds <= 0 else span(seconds).removeprefix("in ")
