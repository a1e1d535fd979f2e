"""Money that nodrop does not know: ask a channel what a number stands for, and give its money to an order.

A channel is asked by a form that was sent, and by no page that was opened.
"""

from __future__ import annotations

import msgspec

from api.console.acting import CONFLICT, ORDER, back_of_act, shown
from api.console.render import render, see_other
from api.console.visit import Visit, path_of
from api.context import Context
from api.http.response import Reply
from core.act_names import ActName
from core.acts import Preview
from core.errors import NotPossible, PreviewOutdated
from flows.attach import Lookup, attach_payment, look_up, preview_attach


class LookupForm(msgspec.Struct, frozen=True, kw_only=True):
    """A number at an account, and the order that its money may be of."""

    account: str = ""
    number: str = ""
    order_no: str = ""
    version: int | None = None


async def ask_lookup(context: Context, visit: Visit) -> Reply:
    """The form of a question to a channel. It asks nobody: a browser may fetch a page that nobody wants to see."""
    return await _lookup_page(context, visit, visit.read_query(LookupForm))


async def ask_attach(context: Context, visit: Visit) -> Reply:
    """The same for one order."""
    form = visit.read_query(LookupForm)
    return await _lookup_page(context, visit, msgspec.structs.replace(form, order_no=visit.params["order_no"]))


async def do_lookup(context: Context, visit: Visit) -> Reply:
    """Ask the channel, and show its answer; for an order, what attaching the money would do."""
    form = visit.read_form(LookupForm)
    if not form.account or not form.number:
        return await _lookup_page(context, visit, form)
    subject = form.order_no or form.account
    await visit.record(ActName.ORDER_LOOKUP, subject, {"account": form.account, "number": form.number})
    lookup, preview = None, None
    try:
        if form.order_no:
            lookup, preview = await preview_attach(context.resources, form.order_no, form.account, form.number)
        else:
            lookup = await look_up(context.resources, form.account, form.number)
    except NotPossible as impossible:
        preview = shown(impossible)
    return await _lookup_page(context, visit, form, lookup, preview)


async def do_attach(context: Context, visit: Visit) -> Reply:
    form, reason = visit.read_form(LookupForm), visit.reason()
    order_no = visit.params["order_no"]
    detail = {"account": form.account, "number": form.number, "reason": reason}
    await visit.record(ActName.ORDER_ATTACH, order_no, detail)
    try:
        await attach_payment(
            context.resources,
            order_no,
            form.account,
            form.number,
            by=visit.operator,
            reason=reason,
            expected_version=form.version,
        )
    except (NotPossible, PreviewOutdated) as refused:
        form = msgspec.structs.replace(form, order_no=order_no)
        return await _lookup_page(context, visit, form, preview=shown(refused), refused=refused)
    return see_other(back_of_act(visit), "money.attached")


async def _lookup_page(
    context: Context,
    visit: Visit,
    form: LookupForm,
    lookup: Lookup | None = None,
    preview: Preview | None = None,
    refused: NotPossible | PreviewOutdated | None = None,
) -> Reply:
    accounts = sorted(account.config.name for account in await context.resources.accounts.all_enabled())
    return render(
        visit,
        "money/lookup.html",
        status=200 if refused is None else CONFLICT,
        title=visit.language.texts["money.attach" if form.order_no else "money.lookup"],
        form=form,
        accounts=[(name, name) for name in accounts],
        lookup=lookup,
        preview=preview,
        has_moved=isinstance(refused, PreviewOutdated),
        attach=path_of(f"{ORDER}/attach", order_no=form.order_no) if form.order_no else "",
    )
