"""`nodrop approvals`: refunds above the limit, which wait for a second operator."""

from __future__ import annotations

import click

from api.v1.views import view_approval
from cli.acts import dry_run_option, reason_option, show_preview
from cli.audit import this_act
from cli.environment import with_database, with_resources
from cli.orders.money import show_requested
from cli.orders.text import approval_line, money
from cli.output import json_option, print_json, print_table, warn
from storage.postgres.refund_approvals import Approval, list_approvals

LIMIT_MAX = 1000
ID_MAX = 2**63 - 1

COLUMNS = ("id", "order", "payment", "amount", "asked by", "reason", "until", "decision", "by", "refund")

_by_option = click.option("--by", required=True, help="Who decides: somebody else than who has asked for it.")
_id_argument = click.argument("approval_id", metavar="ID", type=click.IntRange(1, ID_MAX))


@click.group(epilog="Example: nodrop approvals list")
def approvals() -> None:
    """Refunds that wait for a second operator."""


@approvals.command("list", epilog="Example: nodrop approvals list --all")
@click.option("--all", "with_decided", is_flag=True, help="Also those that were decided or have expired.")
@click.option("--limit", type=click.IntRange(1, LIMIT_MAX), default=50, show_default=True, help="How many at most.")
@json_option
def list_(*, with_decided: bool, limit: int, as_json: bool) -> None:
    """List refunds that wait, newest first."""
    rows = with_database(lambda db: list_approvals(db, open_only=not with_decided, limit=limit + 1))
    shown = rows[:limit]
    if as_json:
        print_json([view_approval(row) for row in shown])
    else:
        print_table(COLUMNS, [_row(row) for row in shown], empty="no refund waits for an approval")
    if len(rows) > limit:
        warn(f"there are more than these {limit}: --limit shows up to {LIMIT_MAX}")


@approvals.command(epilog="Example: nodrop approvals approve 7 --by bob")
@_id_argument
@_by_option
@reason_option(required=False)
@dry_run_option
@json_option
def approve(approval_id: int, *, by: str, reason: str, dry_run: bool, as_json: bool) -> None:
    """Agree to a refund that somebody else has asked for; then it is requested.

    To run it again is safe: it ends what was cut off, and is still one refund.
    """
    from flows.refund_request import approve_refund, preview_approval

    name = _name(by)
    if dry_run:
        show_preview(
            with_resources(lambda resources: preview_approval(resources, approval_id, by=name)), as_json=as_json
        )
        return
    act = this_act(str(approval_id), by=name, **({"reason": reason} if reason else {}))
    requested = with_resources(
        lambda resources: approve_refund(resources, approval_id, by=name, reason=reason), act=act
    )
    show_requested(requested, as_json=as_json)


@approvals.command(epilog='Example: nodrop approvals decline 7 --by bob --reason "the cup was fine"')
@_id_argument
@_by_option
@reason_option(required=True)
@json_option
def decline(approval_id: int, *, by: str, reason: str, as_json: bool) -> None:
    """Do not agree: nothing is refunded."""
    from flows.refund_request import decline_refund

    name = _name(by)
    declined = with_resources(
        lambda resources: decline_refund(resources, approval_id, by=name, reason=reason),
        act=this_act(str(approval_id), by=name, reason=reason),
    )
    if as_json:
        print_json(view_approval(declined))
    else:
        click.echo(approval_line(declined))


def _name(by: str) -> str:
    if not by.strip():
        raise click.UsageError("--by says who decides: it may not be empty")
    return by.strip()


def _row(row: Approval) -> tuple[object, ...]:
    decision = row.decision or ("expired" if row.is_expired else None)
    amount = money(row.amount, row.currency)
    return (
        row.id,
        row.order_no,
        f"{row.account} {row.out_trade_no}",
        amount,
        row.requested_by,
        row.reason,
        row.expires_at,
        decision,
        row.decided_by,
        row.refund_no,
    )
