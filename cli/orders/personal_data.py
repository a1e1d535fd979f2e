"""`nodrop orders export` and `nodrop orders erase`: all that is stored about an order, and the end of its texts."""

from __future__ import annotations

from typing import Any

import click

from api.v1.views import view_order
from cli.acts import ask_reason, by_option, confirm_preview, dry_run_option, reason_option, show_preview
from cli.audit import this_act
from cli.environment import current_settings, with_database, with_resources
from cli.output import json_option, print_json, printable
from core.act_names import ActName


@click.command(epilog="Example: nodrop orders export 2026-1123-0001 > order.json")
@click.argument("order_no")
@json_option
def export(order_no: str, *, as_json: bool) -> None:
    """Print all that is stored about an order, as JSON.

    With or without --json: a list of rows for each table, with raw callbacks opened. It is for the person that the data
    is about, and holds the token of the order's page. docs/operations.md describes it.
    """
    del as_json
    from core.errors import NotFound
    from storage.postgres.database import Database
    from storage.postgres.personal_data import export_order
    from storage.sealing import Sealer

    sealer = Sealer.from_setting(current_settings("database_url", "nodrop_master_keys").nodrop_master_keys)

    async def read(db: Database) -> dict[str, list[dict[str, Any]]]:
        return await export_order(db, sealer, order_no)

    tables = with_database(read, act=this_act(ActName.ORDER_EXPORT, order_no))
    if not tables["orders"]:
        raise NotFound(f"there is no order {order_no}")
    print_json(tables)


@click.command(epilog='Example: nodrop orders erase 2026-1123-0001 --by alice --reason "the buyer wants it"')
@click.argument("order_no")
@click.option("--dead-letters", is_flag=True, help="Also notifications that were never delivered: they are given up.")
@click.option("--yes", is_flag=True, help="Do not ask: the texts are gone for ever.")
@by_option
@reason_option
@dry_run_option
@json_option
def erase(order_no: str, *, dead_letters: bool, yes: bool, by: str, reason: str, dry_run: bool, as_json: bool) -> None:
    """Erase what is personal about an order.

    Subject, metadata, return address, checkouts, raw callbacks, bodies of notifications and what people wrote into its
    cases go. Amounts, numbers and the history stay. Refused while a payment, a refund, a dispute, a case or a delivery
    is open. To do it twice does no harm.
    """
    from flows.erase import erase_order, preview_erasing

    why = "" if dry_run else ask_reason(reason)
    if dry_run or not yes:
        preview = with_resources(lambda resources: preview_erasing(resources, order_no, dead_letters=dead_letters))
        if dry_run:
            show_preview(preview, as_json=as_json)
            return
        confirm_preview(preview, f"Erase what is personal about order {printable(order_no)}, for ever?")
    erased = with_resources(
        lambda resources: erase_order(resources, order_no, by=by, dead_letters=dead_letters),
        act=this_act(ActName.ORDER_ERASE, order_no, by=by, dead_letters=dead_letters, reason=why),
    )
    if as_json:
        print_json({"order": view_order(erased.state, current_settings().public_url), "rows": erased.rows})
    else:
        rows = erased.rows
        click.echo(
            f"erased {order_no}: {rows.callbacks} callbacks, {rows.notifications} notifications, {rows.cases} cases"
        )
