"""The handlers of /v1 about days, disputes, reconciliations and the work on cases. Nothing is decided here."""

from __future__ import annotations

from datetime import datetime

import msgspec

from api.context import Context
from api.http.fields import number_in
from api.http.request import Request
from api.http.response import Response, json_response
from api.v1.acts import actor, record
from api.v1.day_schemas import (
    AssignInput,
    CaseDetail,
    DayPage,
    DaysQuery,
    DifferencesQuery,
    DifferenceView,
    DisputePage,
    DisputesQuery,
    ListedDispute,
    ReconciliationDetail,
    ReconciliationPage,
    ReconciliationsQuery,
    ReconciliationView,
    SignedOff,
    SignOffInput,
)
from api.v1.paths import day_in
from api.v1.schemas import ActPreview, CaseView
from core.act_names import ActName
from core.act_view import view_preview
from core.closing_view import view_of
from core.dispute import Dispute
from core.errors import NotFound
from flows import cases, closings
from flows.guides.texts import guide_of
from storage.postgres.cases import CaseRow
from storage.postgres.disputes import list_disputes
from storage.postgres.orders import find_now
from storage.postgres.reconciliation.differences import list_differences
from storage.postgres.reconciliation.runs import Reconciliation, list_reconciliations


async def find_days(context: Context, _request: Request, query: DaysQuery) -> Response:
    before = None if query.before is None else (query.before, query.before_account or "")
    found = await closings.list_days(context.resources, account=query.account, before=before, limit=query.limit)
    return json_response(DayPage(days=[view_of(each.day, each.closing) for each in found]))


async def get_day(context: Context, request: Request) -> Response:
    found = await closings.read_day(context.resources, *day_in(request))
    return json_response(view_of(found.day, found.closing))


async def sign_off(context: Context, request: Request, body: SignOffInput) -> Response:
    account, day = day_in(request)
    if body.dry_run:
        preview = await closings.preview_sign_off(context.resources, account, day)
        return json_response(SignedOff(day=None, preview=view_preview(preview)))
    await record(context, ActName.DAY_SIGN_OFF, account, of=day.isoformat(), reason=body.reason)
    found = await closings.sign_off(
        context.resources, account, day, by=actor(), note=body.reason, expected_version=body.expected_version
    )
    return json_response(SignedOff(day=view_of(found.day, found.closing), preview=None))


async def find_disputes(context: Context, _request: Request, query: DisputesQuery) -> Response:
    db = context.resources.db
    rows, cursor = await list_disputes(
        db, state=query.state, account=query.account, cursor=query.cursor, limit=query.limit
    )
    now = await find_now(db)
    return json_response(DisputePage(disputes=[_dispute(row, now) for row in rows], next_cursor=cursor))


async def find_reconciliations(context: Context, _request: Request, query: ReconciliationsQuery) -> Response:
    runs = await list_reconciliations(
        context.resources.db, account=query.account, before=query.before, limit=query.limit
    )
    return json_response(ReconciliationPage(reconciliations=[_run(run) for run in runs]))


async def get_reconciliation(context: Context, request: Request, query: DifferencesQuery) -> Response:
    run_id, db = number_in(request.params["id"]), context.resources.db
    runs = await list_reconciliations(db, run_id=run_id, limit=1)
    if not runs:
        raise NotFound("no such run")
    found = await list_differences(db, run_id, query.limit + 1, kind=query.kind)
    differences = msgspec.convert(found[: query.limit], list[DifferenceView], from_attributes=True)
    return json_response(
        ReconciliationDetail(reconciliation=_run(runs[0]), differences=differences, more=len(found) > query.limit)
    )


async def get_case(context: Context, request: Request) -> Response:
    case = await cases.get_case(context.resources.db, number_in(request.params["id"]))
    guide = guide_of(case.reason)
    detail = CaseDetail(
        case=_case(case), what="" if guide is None else guide.what, do="" if guide is None else guide.do
    )
    return json_response(detail)


async def assign_case(context: Context, request: Request, body: AssignInput) -> Response:
    case_id = number_in(request.params["id"])
    if body.dry_run:
        preview = await cases.preview_assignment(context.resources.db, case_id, body.assignee)
        return json_response(ActPreview(preview=view_preview(preview)))
    await record(context, ActName.CASE_ASSIGN, str(case_id), to=body.assignee or "nobody")
    case = await cases.assign(context.resources.db, case_id, body.assignee, version=body.version)
    return json_response(_case(case))


def _case(case: CaseRow) -> CaseView:
    return msgspec.convert(case, CaseView, from_attributes=True)


def _run(run: Reconciliation) -> ReconciliationView:
    return msgspec.convert(run, ReconciliationView, from_attributes=True)


def _dispute(dispute: Dispute, now: datetime) -> ListedDispute:
    is_open = not dispute.state.is_final
    return ListedDispute(
        dispute_id=dispute.dispute_id,
        account=dispute.channel_account,
        out_trade_no=dispute.out_trade_no,
        order_no=dispute.order_no,
        kind=dispute.kind,
        state=dispute.state,
        withheld=dispute.takes_money and not dispute.is_settled,
        amount=dispute.amount,
        currency=dispute.currency,
        reason=dispute.reason,
        outcome=dispute.outcome,
        respond_by=dispute.respond_by,
        opened_at=dispute.opened_at,
        changed_at=dispute.changed_at,
        overdue=is_open and dispute.respond_by is not None and dispute.respond_by <= now,
    )
