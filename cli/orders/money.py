"""`nodrop orders close|accept|refund|attach`: what ends an order or decides about its money. Each has a dry run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from api.v1.views import view_approval, view_order, view_refund
from cli.acts import ask_reason, by_option, confirm_preview, dry_run_option, reason_option, show_preview
from cli.audit import this_act
from cli.environment import current_settings, with_database, with_resources
from cli.orders.text import approval_line, headline, refund_line
from cli.output import Stop, Wrong, json_option, print_json, printable
from cli.proof import password_option, prove, waits_for_another
from core.act_names import ActName

if TYPE_CHECKING:
    from core.order import OrderState
    from flows.refund_request import RefundWish, RequestedRefund


@click.command(epilog='Example: nodrop orders close 2026-1123-0001 --reason "the buyer has cancelled"')
@click.argument("order_no")
@by_option
@reason_option
@dry_run_option
@json_option
def close(order_no: str, *, by: str, reason: str, dry_run: bool, as_json: bool) -> None:
    """End an order now, as its deadline would.

    Each channel is queried, asked to close the payment, and queried again. Only a payment that is unpaid there is
    closed. Exit code 1 when the order is paid, or not closed yet because a channel gave no clear answer: then the
    worker carries on.
    """
    from core.evidence import Source
    from flows.close import preview_close, request_close

    if dry_run:
        show_preview(with_resources(lambda resources: preview_close(resources, order_no)), as_json=as_json)
        return
    act = this_act(ActName.ORDER_CLOSE, order_no, by=by, reason=ask_reason(reason))
    state = with_resources(
        lambda resources: request_close(resources, order_no, by=Source.OPERATOR, by_name=act.by), act=act
    )
    _show(state, as_json=as_json)
    if not state.order.is_resolved:
        raise Stop("not closed yet: a channel has not reported it unpaid. The worker carries on with it")


@click.command(epilog='Example: nodrop orders accept 2026-1123-0001 --by alice --reason "it is still in stock"')
@click.argument("order_no")
@by_option
@reason_option
@dry_run_option
@json_option
def accept(order_no: str, *, by: str, reason: str, dry_run: bool, as_json: bool) -> None:
    """Accept money that came after an order was closed.

    For accounts with late_policy "flag": the order becomes paid by the payment that its channel has confirmed, the
    merchant is notified, and the case is resolved. An order that no channel has confirmed cannot be marked paid.
    """
    from flows.accept import accept_late, preview_accept

    if dry_run:
        show_preview(with_resources(lambda resources: preview_accept(resources, order_no)), as_json=as_json)
        return
    act = this_act(ActName.ORDER_ACCEPT, order_no, by=by, reason=ask_reason(reason))
    _show(with_resources(lambda resources: accept_late(resources, order_no, by=by), act=act), as_json=as_json)


@click.command(
    epilog="Example: nodrop orders refund 2026-1123-0001 --out-trade-no 019aaf3c1a2b00112233445566778899"
    ' --amount 12.50 --key ticket-77 --reason "one cup was broken"'
)
@click.argument("order_no")
@click.option("--out-trade-no", required=True, help="Which payment: its number, as in `nodrop orders show`.")
@click.option("--amount", help="How much of it, like 12.50; all that is left without it. Needs --key.")
@click.option("--key", default="", help="A key of yours, a ticket's number: the same key is the same refund.")
@click.option("--yes", is_flag=True, help="Do not ask: the money goes back.")
@by_option
@password_option
@reason_option
@dry_run_option
@json_option
def refund(
    order_no: str,
    *,
    out_trade_no: str,
    amount: str | None,
    key: str,
    yes: bool,
    by: str,
    password_stdin: bool,
    reason: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Give back money of a payment: all that is left of it, or a part.

    Of any payment of nodrop's own whose money is there: the one that has paid the order, late or double money, or after
    a refund that failed. The order stays what it is. However often this is run, the same key is one refund, and without
    a key one of all that is left; the worker has the channel do it, asks until that is definite, tells the merchant and
    resolves the case. Above OPS_REFUND_ALONE_MAX it waits for a second operator (`nodrop approvals`), and --by proves
    by password who that is.
    """
    from flows.refund_request import preview_refund, request_refund

    if amount is not None and not key:
        raise click.UsageError("--amount needs --key: without one, running this twice would refund twice")
    wish = _wish(order_no, out_trade_no, amount, key)
    why = "" if dry_run else ask_reason(reason)
    version, is_proven = None, False
    if dry_run or not yes or current_settings().ops_refund_alone_max:
        preview = with_resources(lambda resources: preview_refund(resources, wish))
        if dry_run:
            show_preview(preview, as_json=as_json)
            return
        if not yes:
            confirm_preview(preview, f"give it back, order {printable(order_no)}?")
            version = preview.version
        is_proven = waits_for_another(preview)
        if is_proven:
            prove(by, from_stdin=password_stdin)
    act = this_act(ActName.ORDER_REFUND, order_no, by=by, out_trade_no=out_trade_no, amount=amount, key=key, reason=why)
    requested = with_resources(
        lambda resources: request_refund(
            resources, wish, by=by, reason=why, expected_version=version, is_proven=is_proven
        ),
        act=act,
    )
    show_requested(requested, as_json=as_json)


@click.command(
    epilog='Example: nodrop orders attach 2026-1123-0001 --account main --number 4200000000 --reason "the buyer wrote"'
)
@click.argument("order_no")
@click.option("--account", required=True, help="The account whose channel is asked.")
@click.option("--number", required=True, help="The number that the buyer or the channel's console has.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@by_option
@reason_option
@dry_run_option
@json_option
def attach(
    order_no: str, *, account: str, number: str, yes: bool, by: str, reason: str, dry_run: bool, as_json: bool
) -> None:
    """Give money of a number that nodrop does not know to an order.

    The channel is asked about the number.
    The channel has to show money of this very amount, currency and account, and the number may be known nowhere else.
    --dry-run only asks, and shows what the channel says. Another system's payment becomes a watched one.
    """
    from flows.attach import attach_payment, preview_attach

    version = None
    if dry_run or not yes:
        _, preview = with_resources(lambda resources: preview_attach(resources, order_no, account, number))
        if dry_run:
            show_preview(preview, as_json=as_json)
            return
        confirm_preview(preview, f"attach it to order {printable(order_no)}?")
        version = preview.version
    why = ask_reason(reason)
    act = this_act(ActName.ORDER_ATTACH, order_no, by=by, account=account, number=number, reason=why)
    state = with_resources(
        lambda resources: attach_payment(
            resources, order_no, account, number, by=by, reason=why, expected_version=version
        ),
        act=act,
    )
    _show(state, as_json=as_json)


def show_requested(requested: RequestedRefund, *, as_json: bool) -> None:
    """Print the refund, or the approval that it waits for."""
    if requested.refund is not None:
        print_json(view_refund(requested.refund)) if as_json else click.echo(refund_line(requested.refund))
    elif requested.approval is not None:
        print_json(view_approval(requested.approval)) if as_json else click.echo(approval_line(requested.approval))


def _wish(order_no: str, out_trade_no: str, amount: str | None, key: str) -> RefundWish:
    """The wish, with the amount in minor units of the order's currency."""
    from flows.refund_request import RefundWish

    minor = None if amount is None else amount_in_units(order_no, amount)
    return RefundWish(order_no=order_no, out_trade_no=out_trade_no, key=key, amount=minor)


def amount_in_units(order_no: str, amount: str) -> int | None:
    """--amount in minor units of the order's currency."""
    from core.errors import InvalidRequest, NotFound
    from flows.refund_request import refund_amount
    from storage.postgres.orders import find_state

    state = with_database(lambda db: find_state(db, order_no))
    if state is None:
        raise NotFound(f"there is no order {order_no}")
    try:
        return refund_amount(amount.strip() or "0", state.order.currency)
    except InvalidRequest as error:
        raise Wrong(f"--amount: {error.detail}") from None


def _show(state: OrderState, *, as_json: bool) -> None:
    if as_json:
        print_json(view_order(state, current_settings().public_url))
    else:
        click.echo(headline(state))
