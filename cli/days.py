"""`nodrop days`: the closing of each day of an account, and its sign-off (docs/operations.md, "Closing a day")."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.acts import ask_reason, by_option, dry_run_option, reason_option, show_preview
from cli.audit import this_act
from cli.environment import with_database, with_resources
from cli.output import instant, json_option, print_json, print_table, printable
from core.act_names import ActName
from core.closing_view import view_of
from core.money import decimal_text

if TYPE_CHECKING:
    from core.closing import Closing, Line
    from flows.closings import Day
    from runtime.resources import Resources
    from storage.postgres.statement_requests import StatementRequest

LIMIT_MAX = 366
ID_MAX = 2**63 - 1
DAY = click.DateTime(["%Y-%m-%d"])


@click.group(epilog="Example: nodrop days show main 2026-11-22")
def days() -> None:
    """Days of an account: their money, statements, differences and sign-offs."""


@days.command("list", epilog="Example: nodrop days list --account main")
@click.option("--account", help="Of this account.")
@click.option("--limit", type=click.IntRange(1, LIMIT_MAX), default=30, show_default=True, help="How many at most.")
@json_option
def list_(*, account: str | None, limit: int, as_json: bool) -> None:
    """List days, newest first, as the worker last summed them."""
    from flows.closings import list_days

    rows = with_resources(lambda resources: list_days(resources, account=account, limit=limit))
    if as_json:
        print_json([view_of(row.day, row.closing) for row in rows])
        return
    columns = (
        *(
            "day",
            "account",
            "currency",
            "paid",
            "refunded",
            "disputed",
            "fees",
            "net",
            "statement",
            "open",
            "signed off",
        ),
    )
    table = [line for row in rows for line in _lines(row)]
    print_table(columns, table, empty="no days yet; a worker sums them within an hour")


@days.command(epilog="Example: nodrop days show main 2026-11-22")
@click.argument("account")
@click.argument("day", metavar="YYYY-MM-DD", type=DAY)
@json_option
def show(account: str, day: datetime, *, as_json: bool) -> None:
    """Show one day as it is now, in the channel's calendar."""
    from flows.closings import read_day

    found = with_resources(lambda resources: read_day(resources, account, day.date()))
    _show(found, as_json=as_json)


@days.command(
    "sign-off", epilog='Example: nodrop days sign-off main 2026-11-22 --by alice --reason "agrees with the bank"'
)
@click.argument("account")
@click.argument("day", metavar="YYYY-MM-DD", type=DAY)
@click.option("--reason", "--note", default="", help="Why the figures are right, or signed all the same.")
@by_option
@dry_run_option
@json_option
def sign_off(account: str, day: datetime, *, reason: str, by: str, dry_run: bool, as_json: bool) -> None:
    """Sign a day off: its figures are right, as far as its signer knows.

    The figures are kept with the sign-off. If others come later, the day is shown as changed since then.
    """
    from flows import closings

    if dry_run:
        preview = with_resources(lambda resources: closings.preview_sign_off(resources, account, day.date()))
        show_preview(preview, as_json=as_json)
        return
    why = ask_reason(reason)
    act = this_act(ActName.DAY_SIGN_OFF, account, by=by, of=day.date().isoformat(), reason=why)
    found = with_resources(
        lambda resources: closings.sign_off(resources, account, day.date(), by=by, note=why), act=act
    )
    _show(found, as_json=as_json)


@days.command(epilog='Example: nodrop days request main 2026-11-22 --reason "callbacks were lost"')
@click.argument("account")
@click.argument("day", metavar="YYYY-MM-DD", type=DAY)
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, readable=True, path_type=Path))
@by_option
@reason_option
@json_option
def request(account: str, day: datetime, file: Path | None, *, by: str, reason: str, as_json: bool) -> None:
    """Have a worker read a statement as a preview.

    The channel's own of the day, or FILE, which is one of the whole day from the channel's portal. Nothing is changed
    before `nodrop days confirm`. `nodrop reconcile` does the same in this process, and at once.
    """
    from flows.reconcile.requested import request_fetched, upload

    content = None if file is None else file.read_bytes()
    action = ActName.STATEMENT_READ if content is None else ActName.STATEMENT_UPLOAD
    act = this_act(action, account, by=by, of=day.date().isoformat(), reason=reason)

    async def ask(resources: Resources) -> StatementRequest:
        if content is None:
            return await request_fetched(resources, account, day.date(), by=act.by, dry_run=True, reason=reason)
        return await upload(resources, account, day.date(), content, by=act.by)

    _show_request(with_resources(ask, act=act), as_json=as_json)


@days.command(epilog="Example: nodrop days requests main 2026-11-22")
@click.argument("account")
@click.argument("day", metavar="YYYY-MM-DD", type=DAY)
@json_option
def requests(account: str, day: datetime, *, as_json: bool) -> None:
    """List the statements of a day that workers read, newest first."""
    from api.v1.statements import view_request
    from storage.postgres.statement_requests import list_requests

    rows = with_database(lambda db: list_requests(db, account, day.date()))
    if as_json:
        print_json([view_request(row) for row in rows])
        return
    columns = ("id", "asked", "by", "what", "of", "status", "rows", "run", "error")
    table = [
        (
            row.id,
            row.requested_at,
            row.requested_by,
            "preview" if row.dry_run else "for real",
            "a file" if row.sha256 else "the channel",
            row.status,
            row.rows_done,
            row.run_id,
            row.error,
        )
        for row in rows
    ]
    print_table(columns, table, empty="no worker was asked to read a statement of this day")


@days.command(epilog='Example: nodrop days confirm 12 --reason "the portal has the same" --by alice')
@click.argument("request_id", metavar="ID", type=click.IntRange(1, ID_MAX))
@by_option
@reason_option
@json_option
def confirm(request_id: int, *, by: str, reason: str, as_json: bool) -> None:
    """Have a worker do what a preview has shown.

    `nodrop days requests` has the previews, and `nodrop reconciliations show` what the run of one has found.
    """
    from flows.reconcile import requested

    preview = with_database(lambda db: requested.get_preview(db, request_id))
    why = ask_reason(reason)
    detail = {"of": preview.day.isoformat(), "preview": preview.id}
    act = this_act(ActName.STATEMENT_CONFIRM, preview.account, by=by, reason=why, **detail)
    confirmed = with_resources(
        lambda resources: requested.confirm(resources, request_id, by=act.by, reason=why), act=act
    )
    _show_request(confirmed, as_json=as_json)


def _show_request(found: StatementRequest, *, as_json: bool) -> None:
    from api.v1.statements import view_request

    if as_json:
        print_json(view_request(found))
        return
    what = "compares it, and changes nothing" if found.dry_run else "does what the preview has shown"
    click.echo(printable(f"request {found.id}: a worker {what}; `nodrop days requests {found.account} {found.day}`"))


def _show(found: Day, *, as_json: bool) -> None:
    if as_json:
        print_json(view_of(found.day, found.closing))
        return
    closing = found.closing
    click.echo(printable(f"{closing.account}, {found.day} ({found.calendar}): statement {closing.statement}"))
    if closing.run is not None:
        click.echo(printable(f"  run {closing.run.id} {closing.run.status} {closing.run.last_error}".rstrip()))
    click.echo(f"  differences: {closing.open_differences} open, {closing.resolved_differences} resolved")
    click.echo(f"  {_signed(closing)}\n")
    columns = ("currency", "what", "here", "there")
    print_table(columns, [row for line in closing.lines for row in _compared(line)], empty="no money on this day")


def _compared(line: Line) -> list[tuple[object, ...]]:
    """The money that is known here beside the statement, kind by kind."""
    here, there, currency = line.here, line.there, line.currency

    def both(count: int, amount: int) -> str:
        return f"{decimal_text(amount, currency)} in {count}"

    return [
        (currency, "paid", both(here.payments, here.paid), None if there is None else both(there.payments, there.paid)),
        (
            currency,
            "refunded",
            both(here.refunds, here.refunded),
            None if there is None else both(there.refunds, there.refunded),
        ),
        (
            currency,
            "of these outside nodrop",
            None,
            None if there is None else both(there.refunds_outside, there.refunded_outside),
        ),
        (currency, "disputed", both(here.disputes, here.taken), None),
        (currency, "fees", None, None if line.fees is None else _signed_text(line.fees, currency)),
        (currency, "net", _signed_text(line.net, currency), None),
        (
            currency,
            "of other systems",
            None,
            None if there is None else f"{_signed_text(there.other_net, currency)} in {there.others}",
        ),
    ]


def _lines(row: Day) -> list[tuple[object, ...]]:
    closing = row.closing
    head, end = (row.day, closing.account), (closing.statement, closing.open_differences, _signed(closing))
    lines: list[tuple[object, ...]] = [
        (
            *head,
            line.currency,
            decimal_text(line.here.paid, line.currency),
            decimal_text(line.here.refunded, line.currency),
            decimal_text(line.here.taken, line.currency),
            None if line.fees is None else _signed_text(line.fees, line.currency),
            _signed_text(line.net, line.currency),
            *end,
        )
        for line in closing.lines
    ]
    return lines or [(*head, None, None, None, None, None, None, *end)]


def _signed_text(amount: int, currency: str) -> str:
    return ("-" if amount < 0 else "") + decimal_text(abs(amount), currency)


def _signed(closing: Closing) -> str:
    if closing.sign_off is None:
        return "not signed off"
    changed = ", changed since" if closing.is_changed else ""
    note = f": {closing.sign_off.note}" if closing.sign_off.note else ""
    return f"signed off by {closing.sign_off.by} at {instant(closing.sign_off.at)}{changed}{note}"
