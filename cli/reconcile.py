"""`nodrop reconcile`: a channel's statement against our payments, now. docs/reconciliation.md says what to do then."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, NamedTuple

import click

from cli.audit import this_act
from cli.environment import with_database, with_resources
from cli.output import Stop, Wrong, json_option, print_json, print_table, warn
from cli.progress import Progress
from core.act_names import ActName
from core.errors import ChannelRefused, ChannelUnavailable, ChannelUnreadable
from core.order import ORDER_NO, OUT_TRADE_NO
from core.reconciliation import Finding
from storage.postgres.reconciliation.differences import DIFFERENCES_MAX, DifferenceRow, list_differences
from storage.postgres.reconciliation.runs import Reconciliation, list_reconciliations

if TYPE_CHECKING:
    from channels.base import StatementRow
    from flows.reconcile.rows import OnUnknown
    from flows.reconcile.run import Hooks
    from runtime.accounts import Account
    from runtime.resources import Resources

NEEDS_PERSON = 3
SHOWN = 20
LIMIT_MAX = 1000
ID_MAX = 2**63 - 1

BUSY_S = 1.5
"""Times the lease: the lease of a run that was killed has ended by then, that of a live one has not."""

MEANINGS: Mapping[Finding, str] = MappingProxyType(
    {
        Finding.AGREES: "here as there",
        Finding.REPAIRED: "was paid or refunded there only; confirmed, and here as well now",
        Finding.UNKNOWN: "of payments that nodrop does not know",
        Finding.WAITING: "paid or refunded here; the day beside it has not been read yet",
        Finding.PAID_THERE_ONLY: "paid there, not here",
        Finding.PAID_HERE_ONLY: "paid here, and no row there",
        Finding.AMOUNT: "another amount",
        Finding.CURRENCY: "another currency",
        Finding.TRANSACTION: "other money than that which paid here",
        Finding.DUPLICATE: "the same money twice",
        Finding.REFUND: "given back there, and nodrop did not do it",
        Finding.STATUS: "paid there, but the channel says no when it is asked",
        Finding.UNCONFIRMED: "paid there, and the channel gives no clear answer when it is asked",
        Finding.MALFORMED: "could not be read",
        Finding.CANDIDATES: "of payments that nodrop does not know, with the amount and day of unpaid orders",
        Finding.UNCLAIMED: "of payments that nodrop does not know, at an account where nobody else sells",
        Finding.REFUND_HERE_ONLY: "refunded here, and no row there",
        Finding.TOTAL: "totals that the statement states and its rows do not have",
    }
)


class Scope(NamedTuple):
    """The statement to reconcile: a file, or a day (None: yesterday in the channel's calendar)."""

    account: str
    day: date | None
    file: Path | None
    dry_run: bool


@click.command(epilog="Example: nodrop reconcile --account main --date 2026-11-22 --dry-run")
@click.option("--account", required=True, help="Of this account.")
@click.option(
    "--date",
    "day",
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="YYYY-MM-DD",
    help="The statement of this day of the channel's calendar. Without it: yesterday.",
)
@click.argument(
    "file",
    metavar="[FILE]",
    required=False,
    type=click.Path(exists=True, dir_okay=False, readable=True, path_type=Path),
)
@click.option("--dry-run", is_flag=True, help="Compare and list; query nothing, change nothing, open no case.")
@click.option("--all", "is_all", is_flag=True, help=f"List all differences, not the first {SHOWN}.")
@click.option(
    "--unknown",
    type=click.File("wb", atomic=True),
    metavar="FILE",
    help="Write payments that nodrop does not know, one a line, as POST /v1/orders takes them.",
)
@json_option
@click.pass_context
def reconcile(
    ctx: click.Context,
    *,
    account: str,
    day: datetime | None,
    file: Path | None,
    dry_run: bool,
    is_all: bool,
    unknown: IO[bytes] | None,
    as_json: bool,
) -> None:
    """Compare a channel's statement with our payments, both ways.

    What was paid there only is confirmed by a query, and its order becomes paid; every other difference opens a case.
    FILE is a statement downloaded by hand; otherwise it is fetched. A run that was killed is carried on by the same
    command, and a second one changes nothing.

    Exit code 0: nothing is left to do. 1: it could not be done, or the statement states other totals than its rows
    have. 3: there are differences that need a person.
    """
    if day is not None and file is not None:
        raise click.UsageError("give --date or FILE: a file is of the days that it is of")
    if file is not None and file.stat().st_size == 0:
        raise Wrong(f"{file} is empty: a statement has a header at least")
    scope = Scope(account=account, day=None if day is None else day.date(), file=file, dry_run=dry_run)
    limit = DIFFERENCES_MAX if is_all else SHOWN
    run, differences = with_resources(
        lambda resources: _reconcile(resources, scope, unknown, limit),
        act=this_act(ActName.STATEMENT_READ, account, of=str(file or scope.day or "yesterday"), dry_run=dry_run),
    )
    _print(run, differences, as_json=as_json, limit=limit)
    if run.status == "failed":
        raise Stop(f"{run.last_error}; the rows that were read are worked on: run it again with a whole statement")
    from flows.reconcile.run import needs_person

    if needs_person(run.counts):
        ctx.exit(NEEDS_PERSON)


async def _reconcile(
    resources: Resources, scope: Scope, unknown: IO[bytes] | None, limit: int
) -> tuple[Reconciliation, list[DifferenceRow]]:
    account = await resources.accounts.get(scope.account)
    try:
        with Progress() as progress:
            run = await _run(resources, account, scope, progress, _writer(account, unknown))
    except ChannelUnreadable as error:
        raise Stop(f"the statement is not of the form of channel {account.config.channel}: {error}") from None
    except ChannelUnavailable as error:
        raise Stop(f"the channel does not answer: {error}; the same command carries on from here") from None
    except ChannelRefused as error:
        raise Stop(f"the channel refuses to give the statement: {error.code}") from None
    return run, await list_differences(resources.db, run.id, limit + 1)


async def _run(
    resources: Resources, account: Account, scope: Scope, progress: Progress, on_unknown: OnUnknown | None
) -> Reconciliation:
    from flows.reconcile.run import Hooks, reconcile_file

    def show(done: int, total: int) -> None:
        progress.update("rows", done, total, "")

    hooks = Hooks(on_progress=show, on_unknown=on_unknown)
    day = await _day(resources, account, scope)
    deadline = asyncio.get_running_loop().time() + BUSY_S * resources.settings.lease_s
    is_announced = False
    while True:
        if scope.file is not None:
            run = await reconcile_file(resources, account, scope.file, dry_run=scope.dry_run, hooks=hooks)
        else:
            run = await _fetch(resources, account, day, scope, progress, hooks)
        if run is not None:
            return run
        if asyncio.get_running_loop().time() > deadline:
            raise Stop("another process is reconciling this very statement; `nodrop reconciliations list` shows it")
        if not is_announced:
            progress.write("another process is at it, or was killed; looking again")
            is_announced = True
        await asyncio.sleep(0.5)


async def _fetch(
    resources: Resources, account: Account, day: date, scope: Scope, progress: Progress, hooks: Hooks
) -> Reconciliation | None:
    from flows.reconcile.run import reconcile_day

    progress.write(f"{account.config.name}: the statement of {day}")
    return await reconcile_day(resources, account, day, dry_run=scope.dry_run, hooks=hooks)


async def _day(resources: Resources, account: Account, scope: Scope) -> date:
    """The day by the channel's calendar and the database's clock. Of today, the statement so far is compared."""
    from storage.postgres.orders import find_now

    today = (await find_now(resources.db)).astimezone(account.channel.statement_zone).date()
    if scope.day is not None and scope.day > today:
        raise Wrong(f"{scope.day} has not come yet; today is {today} in the channel's calendar")
    return scope.day or today - timedelta(days=1)


def _writer(account: Account, unknown: IO[bytes] | None) -> OnUnknown | None:
    """Unknown payments as bodies of POST /v1/orders. The order's number is the merchant's to choose: it is a guess."""
    if unknown is None:
        return None
    import msgspec

    if account.channel.queries_by_reference:
        warn("this channel is queried by its own number: add watch.channel_reference to what is written")

    def write(row: StatementRow) -> None:
        is_one = OUT_TRADE_NO.fullmatch(row.out_trade_no) and ORDER_NO.fullmatch(row.out_trade_no)
        if row.kind != "payment" or not is_one or row.amount < 1:
            return
        order = {
            "order_no": row.out_trade_no,
            "amount": row.amount,
            "currency": row.currency,
            "subject": f"Payment {row.out_trade_no}",
            "account": account.config.name,
            "metadata": {"channel_transaction_id": row.channel_transaction_id},
            "watch": {"out_trade_no": row.out_trade_no},
        }
        unknown.write(msgspec.json.encode(order) + b"\n")

    return write


@click.group(epilog="Example: nodrop reconciliations list --account main")
def reconciliations() -> None:
    """Runs of the reconciliation, with what they found."""


@reconciliations.command("list", epilog="Example: nodrop reconciliations list --account main")
@click.option("--account", help="Of this account.")
@click.option("--limit", type=click.IntRange(1, LIMIT_MAX), default=50, show_default=True, help="How many at most.")
@json_option
def list_(*, account: str | None, limit: int, as_json: bool) -> None:
    """List runs, newest first."""
    runs = with_database(lambda db: list_reconciliations(db, account=account, limit=limit))
    if as_json:
        print_json(runs)
        return
    columns = ("id", "account", "of", "status", "started", "rows", "repaired", "unknown", "differences")
    print_table(columns, [_row(run) for run in runs], empty="no runs yet")


@reconciliations.command(epilog="Example: nodrop reconciliations show 12 --all")
@click.argument("run_id", metavar="ID", type=click.IntRange(1, ID_MAX))
@click.option("--all", "is_all", is_flag=True, help=f"List all differences, not the first {SHOWN}.")
@json_option
def show(run_id: int, *, is_all: bool, as_json: bool) -> None:
    """Show one run with the differences that it found."""
    limit = DIFFERENCES_MAX if is_all else SHOWN
    runs = with_database(lambda db: list_reconciliations(db, run_id=run_id, limit=1))
    if not runs:
        raise Stop(f"there is no run {run_id}; `nodrop reconciliations list` shows them")
    _print(runs[0], with_database(lambda db: list_differences(db, run_id, limit + 1)), as_json=as_json, limit=limit)


def _row(run: Reconciliation) -> tuple[object, ...]:
    differences = sum(run.counts.get(kind, 0) for kind in Finding if kind.is_difference)
    status = f"{run.status}: {run.last_error}" if run.status == "failed" else run.status
    counted = (run.counts.get("rows", 0), run.counts.get(Finding.REPAIRED, 0), run.counts.get(Finding.UNKNOWN, 0))
    return (run.id, run.account, _of(run), status, run.started_at, *counted, differences)


def _print(run: Reconciliation, differences: Sequence[DifferenceRow], *, as_json: bool, limit: int) -> None:
    shown = differences[:limit]
    if as_json:
        print_json({"run": run, "differences": shown, "more": len(differences) > limit})
        return
    click.echo(f"run {run.id} of account {run.account} over {_of(run)}: {run.counts.get('rows', 0)} rows\n")
    counted = [(kind, run.counts[kind], meaning) for kind, meaning in MEANINGS.items() if run.counts.get(kind, 0)]
    print_table(("what", "how many", "meaning"), counted, empty="nothing there and nothing here")
    if shown:
        click.echo()
        columns = ("row", "what", "order", "payment", "detail")
        table = [(each.row_no or None, each.kind, each.order_no, each.out_trade_no, each.detail) for each in shown]
        print_table(columns, table, empty="")
    if len(differences) > limit:
        warn(f"there are more than these {limit}: --all lists up to {DIFFERENCES_MAX}")


def _of(run: Reconciliation) -> str:
    """The statement that it is of, and whether it was a dry run."""
    of = f"file {(run.sha256 or '')[:12]}" if run.day is None else run.day.isoformat()
    return f"{of} (dry run)" if run.dry_run else of
