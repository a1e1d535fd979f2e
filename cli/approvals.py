"""`nodrop approvals`: refunds above the limit, which wait for a second operator."""

from __future__ import annotations

import click

from api.v1.views import view_approval
from cli.acts import ask_reason, by_option, dry_run_option, reason_option, show_preview
from cli.audit import this_act
from cli.environment import with_database, with_resources
from cli.orders.money import show_requested
from cli.orders.text import approval_line, money
from cli.output import json_option, print_json, print_table, warn
from cli.proof import password_option, prove
from core.act_names import ActName
from storage.postgres.refund_approvals import Approval, list_approvals

LIMIT_MAX = 1000
ID_MAX = 2**63 - 1

COLUMNS = ("id", "order", "payment", "amount", "asked by", "reason", "until", "decision", "by", "refund")

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


@approvals.command(epilog='Example: nodrop approvals approve 7 --by bob --reason "I have seen the cup"')
@_id_argument
@by_option
@password_option
@reason_option
@dry_run_option
@json_option
def approve(approval_id: int, *, by: str, password_stdin: bool, reason: str, dry_run: bool, as_json: bool) -> None:
    """Agree to a refund that somebody else has asked for; then it is requested.

    Where there are operators, --by is one of them, and is asked for the password, and for a code if that is set up. To
    run it again is safe: it ends what was cut off, and is still one refund.
    """
    from flows.refund_request import approve_refund, preview_approval

    if dry_run:
        preview = with_resources(lambda resources: preview_approval(resources, approval_id, by=by))
        show_preview(preview, as_json=as_json)
        return
    why = ask_reason(reason)
    prove(by, from_stdin=password_stdin)
    act = this_act(ActName.REFUND_APPROVE, str(approval_id), by=by, reason=why)
    requested = with_resources(lambda resources: approve_refund(resources, approval_id, by=by, reason=why), act=act)
    show_requested(requested, as_json=as_json)


@approvals.command(epilog='Example: nodrop approvals decline 7 --by bob --reason "the cup was fine"')
@_id_argument
@by_option
@password_option
@reason_option
@dry_run_option
@json_option
def decline(approval_id: int, *, by: str, password_stdin: bool, reason: str, dry_run: bool, as_json: bool) -> None:
    """Do not agree: nothing is refunded. --by proves who that is, as for `approve`."""
    from flows.refund_request import decline_refund, preview_approval

    if dry_run:
        preview = with_resources(lambda resources: preview_approval(resources, approval_id, by=by, declines=True))
        show_preview(preview, as_json=as_json)
        return
    why = ask_reason(reason)
    prove(by, from_stdin=password_stdin)
    declined = with_resources(
        lambda resources: decline_refund(resources, approval_id, by=by, reason=why),
        act=this_act(ActName.REFUND_DECLINE, str(approval_id), by=by, reason=why),
    )
    if as_json:
        print_json(view_approval(declined))
    else:
        click.echo(approval_line(declined))


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
