"""The handlers of /v1 about statements that a worker reads: asked for, uploaded, confirmed. Nothing is read here."""

from __future__ import annotations

import msgspec

from api.context import Context
from api.http.fields import number_in
from api.http.request import Request
from api.http.response import Response, json_response
from api.v1.acts import Reason, actor, record
from api.v1.day_schemas import StatementInput, StatementRequestView
from api.v1.paths import day_in
from core.act_names import ActName
from core.acts import check_reason
from core.errors import NotFound
from flows.reconcile.requested import confirm as confirm_preview
from flows.reconcile.requested import get_preview, request_fetched
from flows.reconcile.requested import upload as keep_file
from storage.postgres.statement_requests import StatementRequest, find_request


class ConfirmInput(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The reason why what a preview has shown is to be done."""

    reason: Reason


async def read(context: Context, _request: Request, body: StatementInput) -> Response:
    reason = check_reason(body.reason)
    await record(
        context, ActName.STATEMENT_READ, body.account, of=body.day.isoformat(), reason=reason, dry_run=body.dry_run
    )
    requested = await request_fetched(
        context.resources, body.account, body.day, by=actor(), dry_run=body.dry_run, reason=reason
    )
    return json_response(view_request(requested), 202)


async def upload(context: Context, request: Request) -> Response:
    """Keep the bytes of the body, whatever their type: channels give text, zip, gzip and spreadsheets."""
    account, day = day_in(request)
    await record(context, ActName.STATEMENT_UPLOAD, account, of=day.isoformat(), bytes=len(request.body))
    requested = await keep_file(context.resources, account, day, request.body, by=actor())
    return json_response(view_request(requested), 202)


async def confirm(context: Context, request: Request, body: ConfirmInput) -> Response:
    preview = await get_preview(context.resources.db, number_in(request.params["id"]))
    reason = check_reason(body.reason)
    detail = {"of": preview.day.isoformat(), "preview": preview.id, "reason": reason}
    await record(context, ActName.STATEMENT_CONFIRM, preview.account, **detail)
    return json_response(
        view_request(await confirm_preview(context.resources, preview.id, by=actor(), reason=reason)), 202
    )


async def get(context: Context, request: Request) -> Response:
    found = await find_request(context.resources.db, number_in(request.params["id"]))
    if found is None:
        raise NotFound("no such request")
    return json_response(view_request(found))


def view_request(request: StatementRequest) -> StatementRequestView:
    fields = {name: getattr(request, name) for name in StatementRequestView.__struct_fields__ if name != "is_uploaded"}
    return StatementRequestView(is_uploaded=request.sha256 is not None, **fields)
