"""`nodrop lookup`: what a channel says about a number that nodrop does not know."""

from __future__ import annotations

import click

from cli.acts import by_option
from cli.audit import this_act
from cli.environment import with_resources
from cli.output import json_option, print_json, printable
from core.act_names import ActName


@click.command(epilog="Example: nodrop lookup main 4200002345202611230123456789")
@click.argument("account")
@click.argument("number")
@by_option
@json_option
def lookup(account: str, number: str, *, by: str, as_json: bool) -> None:
    """Ask an account's channel about a number that a buyer has.

    Nothing is changed. `nodrop orders attach` gives the money of such a number to an order; one that nodrop knows is
    found by `nodrop orders find`.
    """
    from api.v1.money import view_lookup
    from flows.attach import look_up

    act = this_act(ActName.ORDER_LOOKUP, account, by=by, number=number)
    found = with_resources(lambda resources: look_up(resources, account, number), act=act)
    if as_json:
        print_json(view_lookup(found))
        return
    click.echo(printable(found.line.text))
    if found.known is not None:
        click.echo(printable(f"nodrop knows it, as a payment of order {found.known.order_no}"))
