"""Acts on orders and money: each page shows what the act would do, and its form does that with a reason.

The form carries the order's version. If the order has moved since, the page shows what the act would do now, and
nothing was done. The flows are those of /v1 and of the commands.
"""

from __future__ import annotations

from secrets import token_hex
from typing import NamedTuple

import msgspec

from api.console.acting import CONFLICT, ORDER, back_of_act, confirm, refused_page, shown
from api.console.render import render, see_other
from api.console.visit import Visit, path_of
from api.context import Context
from api.http.response import Reply
from core.act_names import ActName
from core.errors import NotFound, NotPossible, PreviewOutdated
from core.evidence import Source
from core.lifecycle import acceptable_payments, refund_obstacle, refundable_amount
from core.money import decimal_text
from core.order import OrderState, OrderStatus, Payment
from core.previews import query_preview
from core.sentences import Sentence
from flows.accept import accept_late, preview_accept
from flows.close import preview_close, request_close
from flows.refresh import refresh_order
from flows.refund_request import RefundWish, preview_refund, refund_amount, request_refund
from storage.postgres.orders import find_state
from storage.postgres.refund_approvals import approvals_of


class ActLink(NamedTuple):
    """An act that an order offers: its page, the key of its text, and which payment it is about."""

    path: str
    key: str
    payment: Payment | None = None


def order_acts(state: OrderState) -> list[ActLink]:
    """The acts that fit this order as it is; what each would do is on its page."""
    order_no, open_ = state.order.order_no, not state.order.is_resolved
    links = [ActLink(path_of(f"{ORDER}/query", order_no=order_no), "money.query")]
    if open_:
        links.append(ActLink(path_of(f"{ORDER}/close", order_no=order_no), "money.close"))
    if state.order.status is OrderStatus.CLOSED and acceptable_payments(state):
        links.append(ActLink(path_of(f"{ORDER}/accept", order_no=order_no), "money.accept"))
    for payment in state.payments:
        if refund_obstacle(state, payment.key) is None:
            path = path_of(f"{ORDER}/refund/{{number}}", order_no=order_no, number=payment.out_trade_no)
            links.append(ActLink(path, "money.refund", payment))
    links.append(ActLink(path_of(f"{ORDER}/attach", order_no=order_no), "money.attach"))
    return links


# -- querying, closing, accepting --------------------------------------------------------------------------------------


class VersionForm(msgspec.Struct, frozen=True, kw_only=True):
    """The order's version that the page was made of."""

    version: int | None = None


async def ask_query(context: Context, visit: Visit) -> Reply:
    state = await _order(context, visit)
    return confirm(visit, "query", query_preview(state, context.resources.rules))


async def do_query(context: Context, visit: Visit) -> Reply:
    order_no = visit.params["order_no"]
    await visit.record(ActName.ORDER_QUERY, order_no, {"reason": visit.reason()})
    await refresh_order(context.resources, order_no, trailing=True, by=Source.OPERATOR)
    return see_other(back_of_act(visit), "money.queried")


async def ask_close(context: Context, visit: Visit) -> Reply:
    return confirm(visit, "close", await preview_close(context.resources, visit.params["order_no"]))


async def do_close(context: Context, visit: Visit) -> Reply:
    order_no, form, reason = visit.params["order_no"], visit.read_form(VersionForm), visit.reason()
    await visit.record(ActName.ORDER_CLOSE, order_no, {"reason": reason})
    try:
        state = await request_close(
            context.resources,
            order_no,
            by=Source.OPERATOR,
            by_name=visit.operator,
            expected_version=form.version,
        )
    except (NotPossible, PreviewOutdated) as refused:
        return refused_page(visit, "close", refused)
    return see_other(back_of_act(visit), "money.closed" if state.order.is_resolved else "money.closes_later")


async def ask_accept(context: Context, visit: Visit) -> Reply:
    return confirm(visit, "accept", await preview_accept(context.resources, visit.params["order_no"]))


async def do_accept(context: Context, visit: Visit) -> Reply:
    order_no, form, reason = visit.params["order_no"], visit.read_form(VersionForm), visit.reason()
    await visit.record(ActName.ORDER_ACCEPT, order_no, {"reason": reason})
    try:
        await accept_late(context.resources, order_no, by=visit.operator, expected_version=form.version)
    except (NotPossible, PreviewOutdated) as refused:
        return refused_page(visit, "accept", refused)
    return see_other(back_of_act(visit), "money.accepted")


# -- refunds -----------------------------------------------------------------------------------------------------------


class RefundForm(msgspec.Struct, frozen=True, kw_only=True):
    """`amount` as a person writes it; empty: all that is left. `key` was made with the page."""

    amount: str = ""
    key: str = ""
    version: int | None = None


async def ask_refund(context: Context, visit: Visit) -> Reply:
    return await _refund_page(context, visit, visit.read_query(RefundForm))


async def do_refund(context: Context, visit: Visit) -> Reply:
    form, reason = visit.read_form(RefundForm), visit.reason()
    state, payment = await _payment(context, visit)
    wish = _wish(state, payment, form)
    detail = {"out_trade_no": payment.out_trade_no, "amount": wish.amount, "key": wish.key, "reason": reason}
    await visit.record(
        ActName.ORDER_REFUND, state.order.order_no, {name: each for name, each in detail.items() if each}
    )
    try:
        requested = await request_refund(
            context.resources, wish, by=visit.operator, reason=reason, expected_version=form.version
        )
    except (NotPossible, PreviewOutdated) as refused:
        return await _refund_page(context, visit, form, refused)
    if requested.approval is not None:
        return see_other("/ops/approvals", "money.refund_waits", approval=str(requested.approval.id))
    number = "" if requested.refund is None else requested.refund.refund_no
    return see_other(back_of_act(visit), "money.refund_requested", refund_no=number)


async def _refund_page(
    context: Context, visit: Visit, form: RefundForm, refused: NotPossible | PreviewOutdated | None = None
) -> Reply:
    state, payment = await _payment(context, visit)
    wish = _wish(state, payment, form)
    preview = await preview_refund(context.resources, wish) if refused is None else shown(refused)
    left = refundable_amount(state, payment)
    return render(
        visit,
        "money/refund.html",
        status=200 if refused is None else CONFLICT,
        title=visit.language.texts["money.refund"],
        state=state,
        payment=payment,
        preview=preview,
        left=left,
        key=wish.key,
        amount=form.amount,
        all_that_is_left=decimal_text(left or 0, payment.currency),
        has_moved=isinstance(refused, PreviewOutdated),
        refunds=state.refunds_of(payment.key),
        approvals=await approvals_of(visit.db, state.order.order_no),
    )


def _wish(state: OrderState, payment: Payment, form: RefundForm) -> RefundWish:
    """Raises InvalidRequest: the amount is none of this currency."""
    return RefundWish(
        order_no=state.order.order_no,
        out_trade_no=payment.out_trade_no,
        amount=refund_amount(form.amount, payment.currency),
        key=form.key or token_hex(8),
    )


# -- in parts ----------------------------------------------------------------------------------------------------------


async def _order(context: Context, visit: Visit) -> OrderState:
    state = await find_state(context.resources.db, visit.params["order_no"])
    if state is None:
        raise NotFound(Sentence("there is no order {order_no}", order_no=visit.params["order_no"]))
    return state


async def _payment(context: Context, visit: Visit) -> tuple[OrderState, Payment]:
    state = await _order(context, visit)
    payment = next((row for row in state.payments if row.out_trade_no == visit.params["number"]), None)
    if payment is None:
        raise NotFound(Sentence("the order has no payment {number}", number=visit.params["number"]))
    return state, payment
