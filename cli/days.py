"""`nodrop days`: the closing of each day of an account, and its sign-off (docs/operations.md, "Closing a day")."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click

from cli.audit import this_act
from cli.environment import with_resources
from cli.output import instant, json_option, print_json, print_table, printable, warn
from core.closing_view import view_of
from core.money import decimal_text

if TYPE_CHECKING:
    from core.closing import Closing, Line
    from flows.closings import Day

LIMIT_MAX = 366
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


@days.command("sign-off", epilog="Example: nodrop days sign-off main 2026-11-22 --by alice --dry-run")
@click.argument("account")
@click.argument("day", metavar="YYYY-MM-DD", type=DAY)
@click.option("--by", required=True, help="Who signs.")
@click.option("--note", default="", help="Needed while a difference is open, or without the day's statement.")
@click.option("--dry-run", is_flag=True, help="Show what would be signed, and what speaks against it.")
@json_option
def sign_off(account: str, day: datetime, *, by: str, note: str, dry_run: bool, as_json: bool) -> None:
    """Sign a day off: its figures are right, as far as its signer knows.

    The figures are kept with the sign-off. If others come later, the day is shown as changed since then.
    """
    from flows import closings

    if not by.strip():
        raise click.UsageError("--by says who signs: it may not be empty")
    if dry_run:
        preview = with_resources(lambda resources: closings.preview_sign_off(resources, account, day.date()))
        if as_json:
            print_json(preview)
            return
        for line in preview.lines:
            click.echo(printable(line.text))
        for line in preview.warnings:
            warn(line.text)
        if preview.refusal is not None:
            warn(preview.refusal.text)
        return
    act = this_act(account, by=by.strip(), of=day.date().isoformat(), note=note.strip())
    found = with_resources(
        lambda resources: closings.sign_off(resources, account, day.date(), by=by.strip(), note=note), act=act
    )
    _show(found, as_json=as_json)


def _show(found: Day, *, as_json: bool) -> None:
    if as_json:
        print_json(view_of(found.day, found.closing))
        return
    closing = found.closing
    click.echo(printable(f"{closing.account}, {found.day}: statement {closing.statement}"))
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
