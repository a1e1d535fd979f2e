"""`nodrop cases`: the questions that a person has to answer. docs/operations.md says what to do about each reason."""

from __future__ import annotations

import click

from cli.audit import this_act
from cli.environment import with_database
from cli.output import Stop, json_option, print_json, print_table, warn
from core.order import CaseReason
from storage.postgres.cases import list_cases, resolve_case

LIMIT_MAX = 1000
ID_MAX = 2**63 - 1

COLUMNS = ("id", "opened", "reason", "order", "payment", "detail", "resolution", "by")
OPEN_COLUMNS = 6


@click.group(epilog="Example: nodrop cases list --reason paid_late")
def cases() -> None:
    """Questions that a person has to answer."""


@cases.command("list", epilog="Example: nodrop cases list --reason paid_late")
@click.option("--all", "with_resolved", is_flag=True, help="Also those that were resolved.")
@click.option("--reason", type=click.Choice([reason.value for reason in CaseReason]), help="For this reason.")
@click.option("--order", "order_no", help="About this order.")
@click.option("--limit", type=click.IntRange(1, LIMIT_MAX), default=50, show_default=True, help="How many at most.")
@json_option
def list_(*, with_resolved: bool, reason: str | None, order_no: str | None, limit: int, as_json: bool) -> None:
    """List cases, newest first."""
    of_reason = None if reason is None else CaseReason(reason)
    rows, more = with_database(
        lambda db: list_cases(db, open_only=not with_resolved, reason=of_reason, order_no=order_no, limit=limit)
    )
    if as_json:
        print_json(rows)
    else:
        columns = COLUMNS if with_resolved else COLUMNS[:OPEN_COLUMNS]
        table = [
            (row.id, row.opened_at, row.reason, row.order_no, row.out_trade_no, row.detail, row.resolution, row.by)
            for row in rows
        ]
        print_table(columns, [row[: len(columns)] for row in table], empty="no such cases")
    if more:
        warn(f"there are more than these {limit}: --limit shows up to {LIMIT_MAX}")


@cases.command(epilog='Example: nodrop cases resolve 12 --resolution "refunded at the channel" --by alice')
@click.argument("case_id", metavar="ID", type=click.IntRange(1, ID_MAX))
@click.option("--resolution", required=True, help="The cause, and what was done about it.")
@click.option("--by", required=True, help="Who did it.")
def resolve(case_id: int, *, resolution: str, by: str) -> None:
    """Write down the answer to a case.

    This changes no order and moves no money: it records for others that the case was handled.
    """
    if not resolution.strip() or not by.strip():
        raise click.UsageError("--resolution and --by say what was done and by whom: neither may be empty")
    act = this_act(str(case_id), by=by.strip())
    if not with_database(lambda db: resolve_case(db, case_id, resolution=resolution.strip(), by=by.strip()), act=act):
        raise Stop(f"there is no open case {case_id}; `nodrop cases list` shows them")
    click.echo(f"resolved case {case_id}")
