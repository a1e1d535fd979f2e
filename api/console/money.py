"""Acts on orders and money: each page shows what the act would do, and its form does that with a reason.

The form carries the order's version. If the order has moved since, the page shows what the act would do now, and
nothing was done. The flows are those of /v1 and of the commands.
"""

from __future__ import annotations

from collections.abc import Mapping
from secrets import token_hex
from typing import NamedTuple

import msgspec

from api.console.render import render, see_other
from api.console.visit import Visit, path_of
from api.context import Context
from api.http.response import Reply
from core.acts import Preview
from core.case_choices import Choice, choices_for
from core.errors import InvalidRequest, NotFound, NotPossible, PreviewOutdated
from core.evidence import Source
from core.lifecycle import acceptable_payments, refund_obstacle, refundable_amount
from core.money import decimal_text, minor_units
from core.order import OrderState, OrderStatus, Payment
from core.previews import query_preview
from flows.accept import accept_late, preview_accept
from flows.account_switch import preview_switch, switch_account
from flows.attach import Lookup, attach_payment, look_up, preview_attach
from flows.case_resolution import Answer, answer_case, preview_answer
from flows.close import preview_close, request_close
from flows.refresh import refresh_order
from flows.refund_request import (
    RefundWish,
    approve_refund,
    decline_refund,
    preview_approval,
    preview_refund,
    request_refund,
)
from storage.postgres.cases import CaseRow, find_case
from storage.postgres.orders import find_state
from storage.postgres.refund_approvals import Approval, approvals_of, find_approval, list_approvals

ORDER = "/ops/orders/{order_no}"
PAGE = 50

CONFLICT = 409


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
    return _confirm(visit, "query", query_preview(state, context.resources.rules))


async def do_query(context: Context, visit: Visit) -> Reply:
    order_no = visit.params["order_no"]
    await visit.record("order.query", order_no, {"reason": visit.reason()})
    await refresh_order(context.resources, order_no, trailing=True, by=Source.OPERATOR)
    return see_other(_back(visit), "money.queried")


async def ask_close(context: Context, visit: Visit) -> Reply:
    return _confirm(visit, "close", await preview_close(context.resources, visit.params["order_no"]))


async def do_close(context: Context, visit: Visit) -> Reply:
    order_no, form, reason = visit.params["order_no"], visit.read_form(VersionForm), visit.reason()
    await visit.record("order.close", order_no, {"reason": reason})
    try:
        state = await request_close(
            context.resources,
            order_no,
            by=Source.OPERATOR,
            by_name=visit.operator,
            expected_version=form.version,
        )
    except (NotPossible, PreviewOutdated) as refused:
        return _refused(visit, "close", refused)
    return see_other(_back(visit), "money.closed" if state.order.is_resolved else "money.closes_later")


async def ask_accept(context: Context, visit: Visit) -> Reply:
    return _confirm(visit, "accept", await preview_accept(context.resources, visit.params["order_no"]))


async def do_accept(context: Context, visit: Visit) -> Reply:
    order_no, form, reason = visit.params["order_no"], visit.read_form(VersionForm), visit.reason()
    await visit.record("order.accept", order_no, {"reason": reason})
    try:
        await accept_late(context.resources, order_no, by=visit.operator, expected_version=form.version)
    except (NotPossible, PreviewOutdated) as refused:
        return _refused(visit, "accept", refused)
    return see_other(_back(visit), "money.accepted")


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
    await visit.record("order.refund", state.order.order_no, {name: each for name, each in detail.items() if each})
    try:
        requested = await request_refund(
            context.resources, wish, by=visit.operator, reason=reason, expected_version=form.version
        )
    except (NotPossible, PreviewOutdated) as refused:
        return await _refund_page(context, visit, form, refused)
    if requested.approval is not None:
        return see_other("/ops/approvals", "money.refund_waits", approval=str(requested.approval.id))
    number = "" if requested.refund is None else requested.refund.refund_no
    return see_other(_back(visit), "money.refund_requested", refund_no=number)


async def _refund_page(
    context: Context, visit: Visit, form: RefundForm, refused: NotPossible | PreviewOutdated | None = None
) -> Reply:
    state, payment = await _payment(context, visit)
    wish = _wish(state, payment, form)
    preview = await preview_refund(context.resources, wish) if refused is None else _shown(refused)
    left = refundable_amount(state, payment)
    return render(
        visit,
        "money/refund.html",
        status=200 if refused is None else CONFLICT,
        title=visit.language.texts["money.refund"],
        back=_back(visit),
        state=state,
        payment=payment,
        preview=preview,
        left=left,
        key=wish.key,
        amount=form.amount,
        all_that_is_left=decimal_text(left or 0, payment.currency),
        has_moved=isinstance(refused, PreviewOutdated),
        approvals=await approvals_of(visit.db, state.order.order_no),
    )


def _wish(state: OrderState, payment: Payment, form: RefundForm) -> RefundWish:
    """Raises InvalidRequest: the amount is none of this currency."""
    amount = minor_units(form.amount.strip(), payment.currency) if form.amount.strip() else None
    if amount == 0:
        raise InvalidRequest("amount: nothing is no refund")
    return RefundWish(
        order_no=state.order.order_no,
        out_trade_no=payment.out_trade_no,
        amount=amount,
        key=form.key or token_hex(8),
    )


# -- approvals ---------------------------------------------------------------------------------------------------------


class ApprovalsQuery(msgspec.Struct, frozen=True, kw_only=True):
    state: str = "open"
    before: int | None = None


async def show_approvals(_context: Context, visit: Visit) -> Reply:
    query = visit.read_query(ApprovalsQuery)
    rows = await list_approvals(visit.db, open_only=query.state != "all", before=query.before, limit=PAGE + 1)
    return render(
        visit,
        "money/approvals.html",
        title=visit.language.texts["money.approvals"],
        rows=rows[:PAGE],
        state=query.state,
        next_page=visit.url(before=rows[PAGE - 1].id) if len(rows) > PAGE else "",
    )


async def show_approval(context: Context, visit: Visit) -> Reply:
    return await _approval_page(context, visit)


async def do_approve(context: Context, visit: Visit) -> Reply:
    approval, reason = await _approval(visit), visit.reason()
    await visit.record("refund.approve", str(approval.id), {"order_no": approval.order_no, "reason": reason})
    try:
        requested = await approve_refund(context.resources, approval.id, by=visit.operator, reason=reason)
    except NotPossible as refused:
        return await _approval_page(context, visit, refused)
    number = "" if requested.refund is None else requested.refund.refund_no
    return see_other("/ops/approvals", "money.refund_requested", refund_no=number)


async def do_decline(context: Context, visit: Visit) -> Reply:
    approval, reason = await _approval(visit), visit.reason()
    await visit.record("refund.decline", str(approval.id), {"order_no": approval.order_no, "reason": reason})
    try:
        await decline_refund(context.resources, approval.id, by=visit.operator, reason=reason)
    except NotPossible as refused:
        return await _approval_page(context, visit, refused)
    return see_other("/ops/approvals", "money.declined", approval=str(approval.id))


async def _approval_page(context: Context, visit: Visit, refused: NotPossible | None = None) -> Reply:
    approval = await _approval(visit)
    if refused is None:
        preview = await preview_approval(context.resources, approval.id, by=visit.operator)
    else:
        preview = _shown(refused)
    return render(
        visit,
        "money/approval.html",
        status=200 if refused is None else CONFLICT,
        title=visit.language.texts["money.approval"].format(id=approval.id),
        approval=approval,
        preview=preview,
    )


async def _approval(visit: Visit) -> Approval:
    approval = await find_approval(visit.db, _number(visit.params["approval_id"]))
    if approval is None:
        raise NotFound("there is no such approval")
    return approval


# -- money that nodrop does not know -----------------------------------------------------------------------------------


class LookupForm(msgspec.Struct, frozen=True, kw_only=True):
    """A number at an account, and the order that its money may be of."""

    account: str = ""
    number: str = ""
    order_no: str = ""
    version: int | None = None


async def ask_lookup(context: Context, visit: Visit) -> Reply:
    """The page to ask a channel; it asks once account and number are there."""
    return await _lookup_page(context, visit, visit.read_query(LookupForm))


async def ask_attach(context: Context, visit: Visit) -> Reply:
    """The same for one order."""
    form = visit.read_query(LookupForm)
    return await _lookup_page(context, visit, msgspec.structs.replace(form, order_no=visit.params["order_no"]))


async def do_attach(context: Context, visit: Visit) -> Reply:
    form, reason = visit.read_form(LookupForm), visit.reason()
    order_no = visit.params["order_no"]
    detail = {"account": form.account, "number": form.number, "reason": reason}
    await visit.record("order.attach", order_no, detail)
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
        return await _lookup_page(context, visit, msgspec.structs.replace(form, order_no=order_no), refused)
    return see_other(_back(visit), "money.attached")


async def _lookup_page(
    context: Context, visit: Visit, form: LookupForm, refused: NotPossible | PreviewOutdated | None = None
) -> Reply:
    lookup: Lookup | None = None
    preview = None if refused is None else _shown(refused)
    if refused is None and form.account and form.number:
        try:
            subject = form.order_no or form.account
            await visit.record("order.lookup", subject, {"account": form.account, "number": form.number})
            if form.order_no:
                lookup, preview = await preview_attach(context.resources, form.order_no, form.account, form.number)
            else:
                lookup = await look_up(context.resources, form.account, form.number)
        except NotPossible as impossible:
            preview = _shown(impossible)
    accounts = sorted(account.config.name for account in await context.resources.accounts.all_enabled())
    return render(
        visit,
        "money/lookup.html",
        status=200 if refused is None else CONFLICT,
        title=visit.language.texts["money.attach" if "order_no" in visit.params else "money.lookup"],
        back=_back(visit) if "order_no" in visit.params else "",
        form=form,
        accounts=[(name, name) for name in accounts],
        lookup=lookup,
        preview=preview,
        has_moved=isinstance(refused, PreviewOutdated),
        attach=path_of(f"{ORDER}/attach", order_no=form.order_no) if form.order_no else "",
    )


# -- cases -------------------------------------------------------------------------------------------------------------


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
    preview = Preview(lines=()) if refused is None else _shown(refused)
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
    case = await find_case(visit.db, _number(visit.params["id"]))
    if case is None:
        raise NotFound("there is no such case")
    return case


# -- accounts ----------------------------------------------------------------------------------------------------------


async def ask_disable(_context: Context, visit: Visit) -> Reply:
    return _confirm(visit, "disable", await preview_switch(visit.db, visit.params["name"], enabled=False))


async def do_disable(_context: Context, visit: Visit) -> Reply:
    return await _switch(visit, enabled=False)


async def ask_enable(_context: Context, visit: Visit) -> Reply:
    return _confirm(visit, "enable", await preview_switch(visit.db, visit.params["name"], enabled=True))


async def do_enable(_context: Context, visit: Visit) -> Reply:
    return await _switch(visit, enabled=True)


async def _switch(visit: Visit, *, enabled: bool) -> Reply:
    name, reason = visit.params["name"], visit.reason()
    await visit.record("account.enable" if enabled else "account.disable", name, {"reason": reason})
    await switch_account(visit.db, name, enabled=enabled)
    return see_other(_back(visit), "money.enabled" if enabled else "money.disabled", account=name)


# -- in parts ----------------------------------------------------------------------------------------------------------


def _confirm(visit: Visit, act: str, preview: Preview, *, status: int = 200, has_moved: bool = False) -> Reply:
    """The page of an act: what it would do, and its form."""
    return render(
        visit,
        "money/confirm.html",
        status=status,
        title=visit.language.texts[f"money.{act}"],
        back=_back(visit),
        subject=next(iter(visit.params.values())),
        button=visit.language.texts[f"money.{act}_now"],
        preview=preview,
        has_moved=has_moved,
        fields=_fields(preview),
    )


def _refused(visit: Visit, act: str, refused: NotPossible | PreviewOutdated) -> Reply:
    """The page once more, with what has changed: nothing was done."""
    return _confirm(visit, act, _shown(refused), status=CONFLICT, has_moved=isinstance(refused, PreviewOutdated))


def _shown(refused: NotPossible | PreviewOutdated) -> Preview:
    return refused.preview if isinstance(refused, PreviewOutdated) else Preview(lines=(), refusal=refused.line)


def _fields(preview: Preview) -> Mapping[str, str]:
    return {} if preview.version is None else {"version": str(preview.version)}


def _back(visit: Visit) -> str:
    """The page of what the act is about."""
    if "order_no" in visit.params:
        return path_of(ORDER, order_no=visit.params["order_no"])
    return path_of("/ops/accounts/{name}", name=visit.params["name"])


async def _order(context: Context, visit: Visit) -> OrderState:
    state = await find_state(context.resources.db, visit.params["order_no"])
    if state is None:
        raise NotFound(f"there is no order {visit.params['order_no']}")
    return state


async def _payment(context: Context, visit: Visit) -> tuple[OrderState, Payment]:
    state = await _order(context, visit)
    payment = next((row for row in state.payments if row.out_trade_no == visit.params["number"]), None)
    if payment is None:
        raise NotFound(f"the order has no payment {visit.params['number']}")
    return state, payment


def _number(text: str) -> int:
    """A number in the path; one that nothing can have is not found."""
    if not (text.isascii() and text.isdigit() and len(text) <= 18):  # noqa: PLR2004 - digits of a bigint
        raise NotFound("there is nothing here under this number")
    return int(text)
