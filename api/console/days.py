"""Days of accounts: money, statement, differences and sign-off; and statements that are read again or uploaded."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import msgspec

from api.console.render import csv_reply, fragment, render, see_other
from api.console.visit import Visit
from api.context import Context
from api.http.fields import number_in
from api.http.response import Reply
from core.act_names import ActName
from core.closing import Closing, StatementState
from core.errors import InvalidRequest, NotFound, UnknownAccount
from core.money import decimal_text
from core.reconciliation import Finding, is_difference
from core.sight import Sight
from flows import closings
from flows.closings import Day
from flows.reconcile.requested import confirm, get_preview, request_fetched, upload
from runtime.resources import Resources
from storage.postgres.accounts import list_accounts
from storage.postgres.closings import list_sign_offs
from storage.postgres.reconciliation.differences import list_differences
from storage.postgres.reconciliation.runs import Reconciliation, list_reconciliations
from storage.postgres.statement_requests import FILE_BYTES_MAX, StatementRequest, list_requests

ROWS_PER_PAGE = 31
ROWS_PER_FILE = 1000
DIFFERENCES_SHOWN = 50
UPLOAD_BYTES_MAX = FILE_BYTES_MAX + 64 * 1024
"""With the other fields of the form."""

KINDS: Mapping[StatementState, str] = {
    StatementState.READ: "good",
    StatementState.PART: "wait",
    StatementState.READING: "wait",
    StatementState.NOT_DUE: "calm",
    StatementState.INCOMPLETE: "bad",
    StatementState.FAILED: "bad",
    StatementState.MISSING: "look",
}
"""The shape of a statement's state; its word says the same."""


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """Choice of days. `before` and `before_account` are of the last day of the page before."""

    account: str | None = None
    before: date | None = None
    before_account: str = ""


async def show(context: Context, visit: Visit) -> Reply:
    query, resources = visit.read_query(Query), context.resources
    days = await _listed(resources, query, ROWS_PER_PAGE + 1)
    shown = days[:ROWS_PER_PAGE]
    more = ""
    if len(days) > ROWS_PER_PAGE:
        more = visit.url(before=shown[-1].day, before_account=shown[-1].closing.account)
    return render(
        visit,
        "days/show.html",
        title=visit.language.texts["days.title"],
        days=shown,
        query=query,
        accounts=[row.name for row in await list_accounts(visit.db)],
        kinds=KINDS,
        more=more,
        file=visit.url(before=None, before_account=None).replace("/ops/days", "/ops/days.csv", 1),
    )


async def download(context: Context, visit: Visit) -> Reply:
    """The newest thousand days of the choice, a row for each currency. Amounts are decimal."""
    await visit.record(ActName.DAYS_FILE, "", dict(visit.query))
    days = await _listed(context.resources, visit.read_query(Query), ROWS_PER_FILE)
    return csv_reply("days", _HEADER, [row for day in days for row in _csv_rows(day, visit.sight)])


async def show_one(context: Context, visit: Visit) -> Reply:
    account, day = day_of(visit)
    found = await closings.read_day(context.resources, account, day)
    closing = found.closing
    run_id = None if closing.read_by is None else closing.read_by.id
    differences = [] if run_id is None else await list_differences(visit.db, run_id, DIFFERENCES_SHOWN + 1)
    return render(
        visit,
        "days/one.html",
        title=visit.language.texts["days.one_title"].format(account=account, day=day),
        day=found,
        closing=closing,
        preview=closings.preview_of(found),
        kinds=KINDS,
        differences=[each for each in differences[:DIFFERENCES_SHOWN] if is_difference(each.kind)],
        more_differences=len(differences) > DIFFERENCES_SHOWN,
        sign_offs=await list_sign_offs(visit.db, account, day),
        address=f"/ops/days/{quote(account, safe='')}/{day}",
        mebibytes=FILE_BYTES_MAX >> 20,
        **await _requests(visit, account, day),
    )


async def show_requests(_context: Context, visit: Visit) -> Reply:
    """The part of the page that changes while a worker reads a statement."""
    account, day = day_of(visit)
    return fragment(visit, "days/requests.html", **await _requests(visit, account, day))


async def sign_off(context: Context, visit: Visit) -> Reply:
    account, day = day_of(visit)
    version = visit.form.get("version", "")
    if not version.isascii() or not version.isdigit():
        raise InvalidRequest("version: open the day again")
    reason = visit.reason()
    await visit.record(ActName.DAY_SIGN_OFF, account, {"of": day.isoformat(), "reason": reason})
    await closings.sign_off(
        context.resources, account, day, by=visit.operator, note=reason, expected_version=int(version[:12])
    )
    return see_other(_address(account, day), "days.signed_off", day=day.isoformat(), account=account)


async def read_again(context: Context, visit: Visit) -> Reply:
    """Ask for the preview of the channel's own statement."""
    account, day = day_of(visit)
    await visit.record(ActName.STATEMENT_READ, account, {"of": day.isoformat(), "dry_run": True})
    await request_fetched(context.resources, account, day, by=visit.operator, dry_run=True)
    return see_other(_address(account, day), "days.requested")


async def upload_file(context: Context, visit: Visit) -> Reply:
    """Keep a file and ask for its preview."""
    account, day = day_of(visit)
    file = visit.upload("file")
    if file is None:
        raise InvalidRequest("file: choose the statement")
    await visit.record(ActName.STATEMENT_UPLOAD, account, {"of": day.isoformat(), "bytes": len(file.content)})
    await upload(context.resources, account, day, file.content, by=visit.operator)
    return see_other(_address(account, day), "days.requested")


async def confirm_request(context: Context, visit: Visit) -> Reply:
    """Do what a preview has shown."""
    preview = await get_preview(visit.db, number_in(visit.params["id"]))
    reason = visit.reason()
    detail = {"of": preview.day.isoformat(), "preview": preview.id, "reason": reason}
    await visit.record(ActName.STATEMENT_CONFIRM, preview.account, detail)
    await confirm(context.resources, preview.id, by=visit.operator, reason=reason)
    return see_other(_address(preview.account, preview.day), "days.confirmed")


def day_of(visit: Visit) -> tuple[str, date]:
    """Account and day of the address."""
    try:
        return visit.params["account"], date.fromisoformat(visit.params["day"])
    except ValueError:
        raise NotFound("there is no such day: write it as 2026-11-23") from None


def _address(account: str, day: date) -> str:
    return f"/ops/days/{quote(account, safe='')}/{day}"


async def _listed(resources: Resources, query: Query, limit: int) -> list[Day]:
    if query.account is not None:
        try:
            await resources.accounts.get(query.account)
        except UnknownAccount:
            return []
    before = None if query.before is None else (query.before, query.before_account)
    return await closings.list_days(resources, account=query.account, before=before, limit=limit)


class ShownRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request with the run that came of it. `may_confirm`: it is the newest preview, and nothing was done with it."""

    request: StatementRequest
    run: Reconciliation | None
    counts: tuple[tuple[str, int], ...]
    may_confirm: bool


async def _requests(visit: Visit, account: str, day: date) -> dict[str, Any]:
    """The requests about a day, and whether one of them has not ended."""
    requests = await list_requests(visit.db, account, day)
    shown = []
    for number, request in enumerate(requests):
        runs = [] if request.run_id is None else await list_reconciliations(visit.db, run_id=request.run_id, limit=1)
        run = runs[0] if runs else None
        counts = () if run is None else tuple((kind, run.counts[kind]) for kind in Finding if run.counts.get(kind))
        is_newest = number == 0 and request.dry_run and request.status == "done"
        shown.append(ShownRequest(request=request, run=run, counts=counts, may_confirm=is_newest))
    is_open = any(request.ended_at is None for request in requests)
    return {"requests": shown, "is_open": is_open, "requests_address": f"{_address(account, day)}/requests"}


_HEADER = (
    *("day", "account", "currency", "payments", "paid", "refunds", "refunded", "disputes", "taken", "fees", "net"),
    *("statement", "statement_payments", "statement_paid", "statement_refunds", "statement_refunded"),
    *("statement_refunds_outside", "statement_refunded_outside"),
    *("differences_open", "differences_resolved", "signed_off_at", "signed_off_by", "changed_since", "note"),
)


def _csv_rows(day: Day, sight: Sight) -> list[tuple[object, ...]]:
    closing = day.closing
    rows: list[tuple[object, ...]] = []
    for line in closing.lines:
        here, there, currency = line.here, line.there, line.currency
        counted = (here.payments, _decimal(here.paid, currency), here.refunds, _decimal(here.refunded, currency))
        of_statement = (
            (None,) * 6
            if there is None
            else (
                there.payments,
                _decimal(there.paid, currency),
                there.refunds,
                _decimal(there.refunded, currency),
                there.refunds_outside,
                _decimal(there.refunded_outside, currency),
            )
        )
        rows.append(
            (
                day.day.isoformat(),
                closing.account,
                currency,
                *counted,
                here.disputes,
                _decimal(here.taken, currency),
                None if line.fees is None else _decimal(line.fees, currency),
                _decimal(line.net, currency),
                closing.statement.value,
                *of_statement,
                *_end(closing, sight),
            )
        )
    if not rows:
        rows.append(
            (
                day.day.isoformat(),
                closing.account,
                *[None] * 9,
                closing.statement.value,
                *[None] * 4,
                *_end(closing, sight),
            )
        )
    return rows


def _end(closing: Closing, sight: Sight) -> tuple[object, ...]:
    signed = closing.sign_off
    counts = (closing.open_differences, closing.resolved_differences)
    if signed is None:
        return (*counts, None, None, None, None)
    return (*counts, signed.at, signed.by, "yes" if closing.is_changed else "no", sight.text(signed.note))


def _decimal(amount: int, currency: str) -> Decimal:
    """A number that a spreadsheet adds up: "-12.30" is no formula, for no stranger wrote it."""
    return Decimal(f"{'-' if amount < 0 else ''}{decimal_text(abs(amount), currency)}")
