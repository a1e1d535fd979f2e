"""`nodrop cases`: the questions that a person has to answer, and what to do about each (`flows.guides`)."""

from __future__ import annotations

import textwrap

import click

from cli.acts import ask_reason, by_option, dry_run_option, show_preview
from cli.audit import this_act
from cli.environment import with_database, with_resources
from cli.orders.money import amount_in_units
from cli.orders.text import approval_line
from cli.output import Stop, cell, json_option, print_json, print_table, printable, warn
from cli.proof import password_option, prove, waits_for_another
from core.act_names import ActName
from core.case_choices import Choice
from core.order import CaseReason
from storage.postgres.cases import CaseRow, find_case, list_cases
from storage.postgres.database import Database

LIMIT_MAX = 1000
ID_MAX = 2**63 - 1

COLUMNS = ("id", "opened", "reason", "order", "payment", "detail", "assignee", "resolution", "by")
OPEN_COLUMNS = 7
WIDTH = 78
"""Columns of a text that is read as one: no wider than a terminal of 80."""


@click.group(epilog="Example: nodrop cases list --reason paid_late")
def cases() -> None:
    """Questions that a person has to answer."""


@cases.command("list", epilog="Example: nodrop cases list --reason paid_late")
@click.option("--all", "with_resolved", is_flag=True, help="Also those that were resolved.")
@click.option("--reason", type=click.Choice([reason.value for reason in CaseReason]), help="For this reason.")
@click.option("--order", "order_no", help="About this order.")
@click.option("--assignee", help="That this operator has.")
@click.option(
    "--sort", type=click.Choice(["newest", "oldest"]), default="newest", show_default=True, help="Which come first."
)
@click.option("--limit", type=click.IntRange(1, LIMIT_MAX), default=50, show_default=True, help="How many at most.")
@json_option
def list_(
    *,
    with_resolved: bool,
    reason: str | None,
    order_no: str | None,
    assignee: str | None,
    sort: str,
    limit: int,
    as_json: bool,
) -> None:
    """List cases."""
    rows, more = with_database(
        lambda db: list_cases(
            db,
            open_only=not with_resolved,
            reason=None if reason is None else CaseReason(reason),
            order_no=order_no,
            assignee=assignee,
            oldest_first=sort == "oldest",
            limit=limit,
        )
    )
    if as_json:
        print_json(rows)
    else:
        columns = COLUMNS if with_resolved else COLUMNS[:OPEN_COLUMNS]
        table = [
            (
                row.id,
                row.opened_at,
                row.reason,
                row.order_no,
                row.out_trade_no,
                row.detail,
                row.assignee,
                row.resolution,
                row.by,
            )
            for row in rows
        ]
        print_table(columns, [row[: len(columns)] for row in table], empty="no such cases")
    if more:
        warn(f"there are more than these {limit}: --limit shows up to {LIMIT_MAX}")


@cases.command(epilog="Example: nodrop cases show 12")
@click.argument("case_id", metavar="ID", type=click.IntRange(1, ID_MAX))
@click.option("--lang", default="en", show_default=True, help="Language of what to do: en or zh.")
@json_option
def show(case_id: int, *, lang: str, as_json: bool) -> None:
    """Show a case with what happened and what to do about it."""
    from flows.guides.texts import guide_of, plain

    case = _get(case_id)
    guide = guide_of(case.reason, lang)
    if as_json:
        print_json({"case": case, "guide": guide})
        return
    click.echo(printable(f"case {case.id}: {case.reason}"))
    for name, value in _facts(case):
        click.echo(f"  {name:<10} {cell(value)}")
    if guide is not None:
        for title, text in (("What happened", guide.what), ("What to do", guide.do)):
            click.echo(f"\n{title}:")
            click.echo(textwrap.fill(plain(text), WIDTH, initial_indent="  ", subsequent_indent="  "))


@cases.command(epilog="Example: nodrop cases assign 12 --to alice --by alice")
@click.argument("case_id", metavar="ID", type=click.IntRange(1, ID_MAX))
@click.option("--to", "assignee", help="The operator who works on it from now on.")
@click.option("--nobody", is_flag=True, help="Give it back: anybody may take it.")
@by_option
@dry_run_option
@json_option
def assign(case_id: int, *, assignee: str | None, nobody: bool, by: str, dry_run: bool, as_json: bool) -> None:
    """Give a case to an operator, so that others see who works on it."""
    from flows import cases as flow

    if (assignee is None) is not nobody:
        raise click.UsageError("give --to NAME, or --nobody")
    if dry_run:
        preview = with_database(lambda db: flow.preview_assignment(db, case_id, assignee))
        show_preview(preview, as_json=as_json)
        return

    async def assign_now(db: Database) -> CaseRow:
        version = (await flow.get_case(db, case_id)).version
        return await flow.assign(db, case_id, assignee, version=version)

    case = with_database(assign_now, act=this_act(ActName.CASE_ASSIGN, str(case_id), by=by, to=assignee or "nobody"))
    if as_json:
        print_json(case)
    else:
        click.echo(
            printable(f"case {case_id} is {case.assignee}'s" if case.assignee else f"case {case_id} is nobody's")
        )


@cases.command(epilog='Example: nodrop cases resolve 12 --reason "refunded at the channel" --by alice')
@click.argument("case_id", metavar="ID", type=click.IntRange(1, ID_MAX))
@click.option(
    "--choice",
    type=click.Choice([choice.value for choice in Choice]),
    default=Choice.NOTE.value,
    show_default=True,
    help="What to do about it; `nodrop cases list` and docs/operations.md say what fits.",
)
@click.option("--reason", "--resolution", default="", help="The cause, and what was done about it.")
@by_option
@password_option
@click.option("--order", "order_no", help="The order to attach the money to; for the choice attach.")
@click.option("--amount", help="How much of it, like 12.50, for the choice refund; all that is left without it.")
@click.option("--key", default="", help="A key of yours for the refund, a ticket's number. --amount needs it.")
@dry_run_option
@json_option
def resolve(
    case_id: int,
    *,
    choice: str,
    reason: str,
    by: str,
    password_stdin: bool,
    order_no: str | None,
    amount: str | None,
    key: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Answer a case.

    A note changes no order and moves no money: it records for others that the case was handled. The other choices do
    what they say: accept late money, refund all that is left, query the channels, attach money to an order.
    """
    from flows import cases as flow
    from flows.case_resolution import Answer, answer_case, preview_answer

    answer = Answer(choice=Choice(choice), order_no=order_no, key=key, amount=_amount(case_id, choice, amount, key))
    if dry_run:
        preview = with_resources(lambda resources: preview_answer(resources, case_id, answer))
        show_preview(preview, as_json=as_json)
        return
    why = ask_reason(reason)
    given = {"amount": amount, "key": key, "order_no": order_no}
    act = this_act(ActName.CASE_RESOLVE, str(case_id), by=by, choice=choice, reason=why, **given)
    if answer.choice is Choice.NOTE:  # needs neither Redis nor an account
        noted = with_database(lambda db: flow.resolve(db, case_id, resolution=why, by=by), act=act)
        print_json({"case": noted, "approval": None}) if as_json else click.echo(f"resolved case {case_id}")
        return
    is_proven = answer.choice is Choice.REFUND and waits_for_another(
        with_resources(lambda resources: preview_answer(resources, case_id, answer))
    )
    if is_proven:
        prove(by, from_stdin=password_stdin)
    answered = with_resources(
        lambda resources: answer_case(resources, case_id, answer, by=by, reason=why, is_proven=is_proven), act=act
    )
    if as_json:
        print_json({"case": answered.case, "approval": answered.approval})
        return
    is_open = answered.case.resolved_at is None
    click.echo(f"case {case_id} stays open until that is done" if is_open else f"resolved case {case_id}")
    if answered.approval is not None:
        click.echo(approval_line(answered.approval))


def _amount(case_id: int, choice: str, amount: str | None, key: str) -> int | None:
    """--amount in minor units of the currency of the case's order."""
    if amount is None:
        return None
    if choice != Choice.REFUND:
        raise click.UsageError("--amount is of the choice refund")
    if not key:
        raise click.UsageError("--amount needs --key: without one, running this twice would refund twice")
    order_no = _get(case_id).order_no
    if order_no is None:
        raise Stop(f"case {case_id} is about no order: nothing of it can be refunded")
    return amount_in_units(order_no, amount)


def _get(case_id: int) -> CaseRow:
    case = with_database(lambda db: find_case(db, case_id))
    if case is None:
        raise Stop(f"there is no case {case_id}; `nodrop cases list --all` shows them")
    return case


def _facts(case: CaseRow) -> list[tuple[str, object]]:
    """All there is to say about a case, line by line."""
    facts: list[tuple[str, object]] = [
        ("opened", case.opened_at),
        ("order", case.order_no),
        ("account", case.account),
        ("payment", case.out_trade_no),
        ("detail", case.detail),
        ("assignee", None if case.assignee is None else f"{case.assignee}, since {cell(case.assigned_at)}"),
        ("resolved", case.resolved_at),
        ("resolution", case.resolution),
        ("by", case.by),
    ]
    return [(name, value) for name, value in facts if value]
