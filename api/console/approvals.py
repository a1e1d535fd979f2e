"""Refunds that wait for a second operator: the list, and agreeing to one or declining it."""

from __future__ import annotations

import msgspec

from api.console.acting import CONFLICT, shown
from api.console.render import render, see_other
from api.console.visit import Visit
from api.context import Context
from api.http.fields import number_in
from api.http.response import Reply
from core.act_names import ActName
from core.errors import NotFound, NotPossible
from flows.refund_request import approve_refund, decline_refund, preview_approval
from storage.postgres.refund_approvals import Approval, find_approval, list_approvals

PAGE = 50


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
    await visit.record(ActName.REFUND_APPROVE, str(approval.id), {"order_no": approval.order_no, "reason": reason})
    try:
        requested = await approve_refund(context.resources, approval.id, by=visit.operator, reason=reason)
    except NotPossible as refused:
        return await _approval_page(context, visit, refused)
    number = "" if requested.refund is None else requested.refund.refund_no
    return see_other("/ops/approvals", "money.refund_requested", refund_no=number)


async def do_decline(context: Context, visit: Visit) -> Reply:
    approval, reason = await _approval(visit), visit.reason()
    await visit.record(ActName.REFUND_DECLINE, str(approval.id), {"order_no": approval.order_no, "reason": reason})
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
        preview = shown(refused)
    return render(
        visit,
        "money/approval.html",
        status=200 if refused is None else CONFLICT,
        title=visit.language.texts["money.approval"].format(id=approval.id),
        approval=approval,
        preview=preview,
    )


async def _approval(visit: Visit) -> Approval:
    approval = await find_approval(visit.db, number_in(visit.params["approval_id"]))
    if approval is None:
        raise NotFound("there is no such approval")
    return approval
