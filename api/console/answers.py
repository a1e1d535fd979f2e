"""Answers to a case: acts that fit its reason, or a note."""

from __future__ import annotations

from secrets import token_hex

import msgspec

from api.console.acting import CONFLICT, number_in, shown
from api.console.render import render, see_other
from api.console.visit import Visit, path_of
from api.context import Context
from api.http.response import Reply
from core.acts import Preview
from core.case_choices import Choice, choices_for
from core.errors import NotFound, NotPossible, PreviewOutdated
from flows.case_resolution import Answer, answer_case, preview_answer
from storage.postgres.cases import CaseRow, find_case


def acting_choices(case: CaseRow) -> list[Choice]:
    """The answers to a case that are acts: all but the note."""
    fitting = choices_for(case.reason, has_order=case.order_no is not None)
    return [choice for choice in fitting if choice is not Choice.NOTE]


class AnswerForm(msgspec.Struct, frozen=True, kw_only=True):
    choice: Choice = Choice.NOTE
    order_no: str = ""
    key: str = ""
    version: int | None = None


async def ask_answer(context: Context, visit: Visit) -> Reply:
    return await _case_page(context, visit, visit.read_query(AnswerForm))


async def do_answer(context: Context, visit: Visit) -> Reply:
    form, reason = visit.read_form(AnswerForm), visit.reason()
    case = await _case(visit)
    await visit.record("cases.resolve", str(case.id), {"choice": form.choice, "reason": reason})
    try:
        answered = await answer_case(context.resources, case.id, _answer(form), by=visit.operator, reason=reason)
    except (NotPossible, PreviewOutdated) as refused:
        return await _case_page(context, visit, form, refused)
    if answered.approval is not None:
        return see_other("/ops/approvals", "money.refund_waits", approval=str(answered.approval.id))
    is_open = answered.case.resolved_at is None
    here = path_of("/ops/cases/{id}", id=str(case.id))
    return see_other(here, "money.case_stays" if is_open else "money.case_resolved", case=str(case.id))


async def _case_page(
    context: Context, visit: Visit, form: AnswerForm, refused: NotPossible | PreviewOutdated | None = None
) -> Reply:
    case = await _case(visit)
    choices = [*acting_choices(case), Choice.NOTE]
    if form.choice is Choice.NOTE and refused is None and "choice" not in visit.query:
        form = msgspec.structs.replace(form, choice=choices[0])
    form = msgspec.structs.replace(form, key=form.key or token_hex(8), order_no=form.order_no or case.order_no or "")
    preview = Preview(lines=()) if refused is None else shown(refused)
    if refused is None and (form.choice is not Choice.ATTACH or form.order_no):
        preview = await preview_answer(context.resources, case.id, _answer(form))
    return render(
        visit,
        "money/case.html",
        status=200 if refused is None else CONFLICT,
        title=visit.language.texts["money.resolve"].format(id=case.id),
        case=case,
        form=form,
        choices=[(choice, visit.language.texts[f"money.choices.{choice}"]) for choice in choices],
        takes_order=Choice.ATTACH in choices,
        preview=preview,
        has_moved=isinstance(refused, PreviewOutdated),
    )


def _answer(form: AnswerForm) -> Answer:
    return Answer(choice=form.choice, order_no=form.order_no or None, key=form.key, expected_version=form.version)


async def _case(visit: Visit) -> CaseRow:
    case = await find_case(visit.db, number_in(visit.params["id"]))
    if case is None:
        raise NotFound("there is no such case")
    return case
