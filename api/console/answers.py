"""The page that resolves a case: the choices that fit it, what each would do, and its form. A note is one of them."""

from __future__ import annotations

from collections.abc import Sequence
from secrets import token_hex
from typing import Annotated

import msgspec
from msgspec import Meta

from api.console.acting import CONFLICT, shown
from api.console.render import render, see_other
from api.console.visit import Visit, path_of
from api.context import Context
from api.http.fields import number_in
from api.http.response import Reply
from core.act_names import ActName
from core.acts import Preview
from core.case_choices import Choice, choices_for
from core.errors import NotPossible, PreviewOutdated
from core.order import Payment
from flows.case_resolution import Answer, answer_case, preview_answer, refusal_of
from flows.cases import get_case
from flows.refund_request import refund_amount
from storage.postgres.cases import CaseRow
from storage.postgres.orders import find_state


class AnswerForm(msgspec.Struct, frozen=True, kw_only=True):
    """`amount` as a person writes it, of the choice *refund*; empty: all that is left. `key` was made with the page.

    `version` is the order's, `case_version` the case's, as the page showed them. `look`: see what the choice would do.
    """

    choice: Choice | None = None
    order_no: str = ""
    amount: str = ""
    key: str = ""
    case_version: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    version: int | None = None
    look: bool = False


async def ask_answer(context: Context, visit: Visit) -> Reply:
    """The choices with what the chosen one would do, as far as that needs no question to a channel. A case that is
    resolved is shown instead.
    """
    case = await get_case(visit.db, number_in(visit.params["id"]))
    if case.resolved_at is not None:
        return see_other(_address(case))
    return await _page(context, visit, case, visit.read_query(AnswerForm))


async def do_answer(context: Context, visit: Visit) -> Reply:
    """Answer the case, or only see what that would do: a channel is asked by a form that was sent, and by no page."""
    form = visit.read_form(AnswerForm)
    case = await get_case(visit.db, number_in(visit.params["id"]))
    if form.look:
        return await _look(context, visit, case, form)
    reason = visit.reason()
    answer = _answer(form, await _payment(visit, case))
    detail = {
        "choice": answer.choice,
        "reason": reason,
        "order_no": answer.order_no,
        "amount": answer.amount,
        "key": answer.key if answer.choice is Choice.REFUND else None,
    }
    await visit.record(ActName.CASE_RESOLVE, str(case.id), {name: each for name, each in detail.items() if each})
    try:
        answered = await answer_case(context.resources, case.id, answer, by=visit.operator, reason=reason)
    except (NotPossible, PreviewOutdated) as refused:
        return await _page(context, visit, await get_case(visit.db, case.id), form, refused)
    if answered.approval is not None:
        return see_other("/ops/approvals", "money.refund_waits", approval=str(answered.approval.id))
    notice = "cases.stays" if answered.case.resolved_at is None else "cases.was_resolved"
    return see_other(_address(case), notice, id=case.id)


async def _look(context: Context, visit: Visit, case: CaseRow, form: AnswerForm) -> Reply:
    """The page with the preview of the choice *attach*, for which its channel is asked."""
    form = msgspec.structs.replace(form, choice=Choice.ATTACH)
    if not form.order_no:
        return await _page(context, visit, case, form)
    looked_up = {"account": case.account or "", "number": case.out_trade_no or ""}
    await visit.record(ActName.ORDER_LOOKUP, form.order_no, looked_up)
    try:
        preview = await preview_answer(context.resources, case.id, _answer(form, None))
    except NotPossible as impossible:
        preview = shown(impossible)
    return await _page(context, visit, case, form, preview=preview)


async def _page(
    context: Context,
    visit: Visit,
    case: CaseRow,
    form: AnswerForm,
    refused: NotPossible | PreviewOutdated | None = None,
    preview: Preview | None = None,
) -> Reply:
    choices = choices_for(case.reason, has_order=case.order_no is not None)
    form = msgspec.structs.replace(form, key=form.key or token_hex(8), order_no=form.order_no or case.order_no or "")
    payment = await _payment(visit, case)
    if refused is not None:
        preview = shown(refused)
    elif preview is None:
        form, preview = await _choose(context, case, form, payment, choices if form.choice is None else (form.choice,))
    return render(
        visit,
        "cases/resolve.html",
        status=200 if refused is None else CONFLICT,
        title=visit.language.texts["cases.resolve_title"].format(id=case.id),
        case=case,
        form=form,
        choices=choices,
        payment=payment,
        preview=preview,
        has_moved=isinstance(refused, PreviewOutdated),
    )


async def _choose(
    context: Context, case: CaseRow, form: AnswerForm, payment: Payment | None, choices: Sequence[Choice]
) -> tuple[AnswerForm, Preview]:
    """The first of the choices that is possible, the last one if none is; and what it would do."""
    *others, last = choices
    for choice in others:
        chosen = msgspec.structs.replace(form, choice=choice)
        preview = await _preview(context, case, chosen, payment)
        if preview.is_possible:
            return chosen, preview
    chosen = msgspec.structs.replace(form, choice=last)
    return chosen, await _preview(context, case, chosen, payment)


async def _preview(context: Context, case: CaseRow, form: AnswerForm, payment: Payment | None) -> Preview:
    """Effects of the chosen answer. Those of attaching are known once the channel was asked, by the form for that."""
    if form.choice is Choice.ATTACH:
        return Preview(lines=(), refusal=refusal_of(case, form.choice))
    return await preview_answer(context.resources, case.id, _answer(form, payment))


def _answer(form: AnswerForm, payment: Payment | None) -> Answer:
    """Raises InvalidRequest: the amount is none of the payment's currency."""
    choice = form.choice or Choice.NOTE
    amount = None
    if choice is Choice.REFUND and payment is not None:
        amount = refund_amount(form.amount, payment.currency)
    return Answer(
        choice=choice,
        order_no=(form.order_no or None) if choice is Choice.ATTACH else None,
        amount=amount,
        key=form.key,
        case_version=form.case_version,
        expected_version=form.version,
    )


async def _payment(visit: Visit, case: CaseRow) -> Payment | None:
    """The payment that the case is about, if an order here has it."""
    state = None if case.order_no is None else await find_state(visit.db, case.order_no)
    payments = () if state is None else state.payments
    return next((each for each in payments if each.key == (case.account, case.out_trade_no)), None)


def _address(case: CaseRow) -> str:
    return path_of("/ops/cases/{id}", id=str(case.id))
