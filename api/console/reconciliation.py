"""Runs of the reconciliation, and one run with its differences, their orders and cases."""

from __future__ import annotations

import msgspec

from api.console.render import csv_reply, render
from api.console.visit import Visit
from api.context import Context
from api.http.fields import number_in
from api.http.response import Reply
from core.act_names import ActName
from core.errors import NotFound
from core.reconciliation import Finding
from storage.postgres.accounts import list_accounts
from storage.postgres.reconciliation.differences import DIFFERENCES_MAX, find_cases_of, list_differences
from storage.postgres.reconciliation.runs import Reconciliation, list_reconciliations

ROWS_PER_PAGE = 50
DIFFERENCES_SHOWN = 200

KINDS = {"finished": "good", "running": "wait", "failed": "bad"}


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """Choice of runs. `before` is the last run of the page before."""

    account: str | None = None
    before: int | None = None


class RunQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Choice of the differences of a run."""

    kind: str | None = None


async def show(_context: Context, visit: Visit) -> Reply:
    query = visit.read_query(Query)
    runs = await list_reconciliations(visit.db, account=query.account, before=query.before, limit=ROWS_PER_PAGE + 1)
    shown = runs[:ROWS_PER_PAGE]
    return render(
        visit,
        "reconciliation/show.html",
        title=visit.language.texts["reconciliation.title"],
        runs=[(run, differences_in(run)) for run in shown],
        kinds=KINDS,
        query=query,
        accounts=[row.name for row in await list_accounts(visit.db)],
        more=visit.url(before=shown[-1].id) if len(runs) > ROWS_PER_PAGE else "",
    )


async def show_one(_context: Context, visit: Visit) -> Reply:
    run, query = await _run(visit), visit.read_query(RunQuery)
    found = await list_differences(visit.db, run.id, DIFFERENCES_SHOWN + 1, kind=query.kind)
    shown = found[:DIFFERENCES_SHOWN]
    cases = await find_cases_of(visit.db, run.account, shown)
    return render(
        visit,
        "reconciliation/one.html",
        title=visit.language.texts["reconciliation.one_title"].format(id=run.id),
        run=run,
        kinds=KINDS,
        counts=[(kind, run.counts[kind]) for kind in Finding if run.counts.get(kind)],
        differences=[(each, cases.get((each.row_no, each.kind, each.out_trade_no))) for each in shown],
        has_more=len(found) > DIFFERENCES_SHOWN,
        query=query,
        file=f"/ops/reconciliation/{run.id}/differences.csv",
    )


async def download(_context: Context, visit: Visit) -> Reply:
    """Every difference of a run, at most 10,000."""
    run = await _run(visit)
    await visit.record(ActName.DIFFERENCES_FILE, str(run.id), {"account": run.account})
    found = await list_differences(visit.db, run.id, DIFFERENCES_MAX)
    header = ("row", "kind", "order_no", "out_trade_no", "channel_transaction_id", "detail")
    rows = [
        (each.row_no, each.kind, each.order_no, each.out_trade_no, each.channel_transaction_id, each.detail)
        for each in found
    ]
    return csv_reply(f"reconciliation-{run.id}", header, rows)


def differences_in(run: Reconciliation) -> int:
    """Differences that need a person."""
    return sum(run.counts.get(kind, 0) for kind in Finding if kind.is_difference)


async def _run(visit: Visit) -> Reconciliation:
    runs = await list_reconciliations(visit.db, run_id=number_in(visit.params["id"]), limit=1)
    if not runs:
        raise NotFound("there is no such run")
    return runs[0]
