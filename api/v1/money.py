"""The handlers of /v1 by which operators' programs act on orders and money: each has a dry run, and decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from api.context import Context
from api.http.fields import number_in
from api.http.request import Request
from api.http.response import Response, json_response
from api.v1.acts import (
    CaseVersion,
    DryRun,
    ExpectedVersion,
    Reason,
    actor,
    is_proven,
    record,
)
from api.v1.paths import order_no_in
from api.v1.schemas import (
    LIST_LIMIT_MAX,
    AccountName,
    Amount,
    ApprovalView,
    CaseView,
    OrderNo,
    OrderView,
    RefundView,
)
from api.v1.views import view_approval, view_order, view_refund
from core.act_names import ActName
from core.act_view import LineView, PreviewView, view_line, view_preview
from core.acts import Preview
from core.case_choices import Choice
from core.errors import NotPossible
from core.order import OrderState
from flows.accept import accept_late, preview_accept
from flows.account_switch import preview_switch, switch_account
from flows.attach import NUMBER_MAX, Lookup, attach_payment, look_up, preview_attach
from flows.case_resolution import Answer, answer_case, preview_answer
from flows.refund_request import (
    REQUEST_KEY_MAX,
    RefundWish,
    approve_refund,
    decline_refund,
    preview_approval,
    preview_refund,
    request_refund,
)
from storage.postgres.refund_approvals import list_approvals

OutTradeNo = Annotated[str, Meta(min_length=1, max_length=255, description="The payment's number.")]
Key = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=REQUEST_KEY_MAX,
        description="A key of yours: the same key of an order is the same refund, however often it is sent.",
        examples=["ticket-77"],
    ),
]
Number = Annotated[
    str, Meta(min_length=1, max_length=NUMBER_MAX, description="A number that the buyer or the channel's console has.")
]


class _Input(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As the inputs of `api.v1.schemas`."""


class RefundInput(_Input, frozen=True, kw_only=True):
    """Money of a payment to be given back. Without `amount`: all that is left."""

    out_trade_no: OutTradeNo
    key: Key
    reason: Reason
    amount: Amount | None = None
    expected_version: ExpectedVersion | None = None
    dry_run: DryRun = False


class ActInput(_Input, frozen=True, kw_only=True):
    """An act on an order."""

    reason: Reason
    expected_version: ExpectedVersion | None = None
    dry_run: DryRun = False


class AttachInput(_Input, frozen=True, kw_only=True):
    """A number that nodrop does not know, at this account, whose money is to be the order's."""

    account: AccountName
    number: Number
    reason: Reason
    expected_version: ExpectedVersion | None = None
    dry_run: DryRun = False


class LookupInput(_Input, frozen=True, kw_only=True):
    """A number that nodrop does not know, at this account."""

    account: AccountName
    number: Number


class DecideInput(_Input, frozen=True, kw_only=True):
    """A decision about a refund that waits."""

    reason: Reason
    dry_run: DryRun = False


class SwitchInput(_Input, frozen=True, kw_only=True):
    """An account to be switched off or on."""

    reason: Reason
    dry_run: DryRun = False


class AnswerInput(_Input, frozen=True, kw_only=True):
    """An answer to a case. `amount` and `key` are of the choice `refund`, `order_no` of `attach`.

    `version` is the case's, as it was seen; `expected_version` its order's.
    """

    reason: Reason
    choice: Choice = Choice.NOTE
    amount: Amount | None = None
    key: Key | None = None
    order_no: OrderNo | None = None
    version: CaseVersion | None = None
    expected_version: ExpectedVersion | None = None
    dry_run: DryRun = False


class ApprovalsQuery(_Input, frozen=True, kw_only=True):
    """Choice of refunds above the limit, newest first. `before` is the id of the last one of the page before."""

    open: bool = True
    before: Annotated[int, Meta(ge=1)] | None = None
    limit: Annotated[int, Meta(ge=1, le=LIST_LIMIT_MAX)] = 50


class ActResult(msgspec.Struct, frozen=True, kw_only=True):
    """The preview of a dry run alone; or what the act has left."""

    preview: PreviewView | None = None
    order: OrderView | None = None
    refund: RefundView | None = None
    approval: ApprovalView | None = None
    case: CaseView | None = None


class ApprovalPage(msgspec.Struct, frozen=True, kw_only=True):
    """`next_id` is the `before` of the next page; null: this is the last one."""

    approvals: Sequence[ApprovalView]
    next_id: int | None


class LookupView(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of a channel about a number. `order_no`: nodrop knows it all the same, as a payment of this order."""

    account: str
    number: str
    says: LineView
    evidence: dict[str, Any]
    order_no: str | None


# -- refunds -----------------------------------------------------------------------------------------------------------


async def refund(context: Context, request: Request, body: RefundInput) -> Response:
    order_no = order_no_in(request)
    wish = RefundWish(order_no=order_no, out_trade_no=body.out_trade_no, amount=body.amount, key=body.key)
    if body.dry_run:
        return _preview(await preview_refund(context.resources, wish))
    await record(
        context,
        ActName.ORDER_REFUND,
        order_no,
        out_trade_no=body.out_trade_no,
        amount=body.amount,
        key=body.key,
        reason=body.reason,
    )
    requested = await request_refund(
        context.resources,
        wish,
        by=actor(),
        reason=body.reason,
        expected_version=body.expected_version,
        is_proven=is_proven(),
    )
    result = ActResult(
        order=_view(context, requested.state),
        refund=None if requested.refund is None else view_refund(requested.refund),
        approval=None if requested.approval is None else view_approval(requested.approval),
    )
    return json_response(result, 200 if requested.approval is None else 202)


async def find_approvals(context: Context, _request: Request, query: ApprovalsQuery) -> Response:
    rows = await list_approvals(context.resources.db, open_only=query.open, before=query.before, limit=query.limit + 1)
    shown = rows[: query.limit]
    more = shown[-1].id if len(rows) > query.limit else None
    return json_response(ApprovalPage(approvals=[view_approval(row) for row in shown], next_id=more))


async def approve(context: Context, request: Request, body: DecideInput) -> Response:
    approval_id = number_in(request.params["approval_id"])
    if body.dry_run:
        preview = await preview_approval(context.resources, approval_id, by=actor(), is_proven=is_proven())
        return _preview(preview)
    await record(context, ActName.REFUND_APPROVE, str(approval_id), reason=body.reason)
    requested = await approve_refund(
        context.resources, approval_id, by=actor(), reason=body.reason, is_proven=is_proven()
    )
    result = ActResult(
        order=_view(context, requested.state),
        refund=None if requested.refund is None else view_refund(requested.refund),
        approval=None if requested.approval is None else view_approval(requested.approval),
    )
    return json_response(result)


async def decline(context: Context, request: Request, body: DecideInput) -> Response:
    approval_id = number_in(request.params["approval_id"])
    if body.dry_run:
        preview = await preview_approval(
            context.resources, approval_id, by=actor(), declines=True, is_proven=is_proven()
        )
        return _preview(preview)
    await record(context, ActName.REFUND_DECLINE, str(approval_id), reason=body.reason)
    declined = await decline_refund(
        context.resources, approval_id, by=actor(), reason=body.reason, is_proven=is_proven()
    )
    return json_response(ActResult(approval=view_approval(declined)))


# -- late and unknown money --------------------------------------------------------------------------------------------


async def accept(context: Context, request: Request, body: ActInput) -> Response:
    order_no = order_no_in(request)
    if body.dry_run:
        return _preview(await preview_accept(context.resources, order_no))
    await record(context, ActName.ORDER_ACCEPT, order_no, reason=body.reason)
    state = await accept_late(context.resources, order_no, by=actor(), expected_version=body.expected_version)
    return json_response(ActResult(order=_view(context, state)))


async def attach(context: Context, request: Request, body: AttachInput) -> Response:
    order_no = order_no_in(request)
    if body.dry_run:
        _, preview = await preview_attach(context.resources, order_no, body.account, body.number)
        return _preview(preview)
    await record(context, ActName.ORDER_ATTACH, order_no, account=body.account, number=body.number, reason=body.reason)
    state = await attach_payment(
        context.resources,
        order_no,
        body.account,
        body.number,
        by=actor(),
        reason=body.reason,
        expected_version=body.expected_version,
    )
    return json_response(ActResult(order=_view(context, state)))


async def ask(context: Context, _request: Request, body: LookupInput) -> Response:
    await record(context, ActName.ORDER_LOOKUP, body.account, number=body.number)
    return json_response(view_lookup(await look_up(context.resources, body.account, body.number)))


def view_lookup(lookup: Lookup) -> LookupView:
    return LookupView(
        account=lookup.account,
        number=lookup.number,
        says=view_line(lookup.line),
        evidence=msgspec.to_builtins(lookup.evidence),
        order_no=None if lookup.known is None else lookup.known.order_no,
    )


# -- cases and accounts ------------------------------------------------------------------------------------------------


async def resolve(context: Context, request: Request, body: AnswerInput) -> Response:
    case_id = number_in(request.params["id"])
    answer = Answer(
        choice=body.choice,
        amount=body.amount,
        key=body.key or "",
        order_no=body.order_no,
        case_version=body.version,
        expected_version=body.expected_version,
    )
    if body.dry_run:
        return _preview(await preview_answer(context.resources, case_id, answer))
    await record(
        context,
        ActName.CASE_RESOLVE,
        str(case_id),
        choice=body.choice,
        amount=body.amount,
        key=body.key,
        order_no=body.order_no,
        reason=body.reason,
    )
    answered = await answer_case(
        context.resources, case_id, answer, by=actor(), reason=body.reason, is_proven=is_proven()
    )
    result = ActResult(
        order=None if answered.state is None else _view(context, answered.state),
        case=msgspec.convert(answered.case, CaseView, from_attributes=True),
        approval=None if answered.approval is None else view_approval(answered.approval),
    )
    return json_response(result, 200 if answered.approval is None else 202)


async def disable(context: Context, request: Request, body: SwitchInput) -> Response:
    return await _switch(context, request, body, enabled=False)


async def enable(context: Context, request: Request, body: SwitchInput) -> Response:
    return await _switch(context, request, body, enabled=True)


# -- in parts ----------------------------------------------------------------------------------------------------------


async def _switch(context: Context, request: Request, body: SwitchInput, *, enabled: bool) -> Response:
    name = request.params["account"]
    preview = await preview_switch(context.resources.db, name, enabled=enabled)
    if not body.dry_run:
        if preview.refusal is not None:
            raise NotPossible(preview.refusal)
        await record(context, ActName.ACCOUNT_ENABLE if enabled else ActName.ACCOUNT_DISABLE, name, reason=body.reason)
        await switch_account(context.resources.db, name, enabled=enabled)
    return _preview(preview)


def _preview(preview: Preview) -> Response:
    return json_response(ActResult(preview=view_preview(preview)))


def _view(context: Context, state: OrderState) -> OrderView:
    return view_order(state, context.resources.settings.public_url)
