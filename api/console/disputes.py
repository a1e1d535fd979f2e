"""Disputes: those that are not over by the last moment to answer, the others by how they ended."""

from __future__ import annotations

import msgspec

from api.console.render import render
from api.console.visit import Visit
from api.context import Context
from api.http.response import Reply
from core.dispute import DisputeState
from core.ending import DisputeUrgency, dispute_urgency
from storage.postgres.accounts import list_accounts
from storage.postgres.disputes import list_disputes

ROWS_PER_PAGE = 100

KINDS = {
    DisputeUrgency.OVERDUE: "bad",
    DisputeUrgency.DAY: "bad",
    DisputeUrgency.WEEK: "look",
    DisputeUrgency.LATER: "wait",
    DisputeUrgency.NONE: "calm",
}


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """Choice of disputes: without `state`, those that are not over."""

    state: DisputeState | None = None
    account: str | None = None
    cursor: str | None = None


async def show(_context: Context, visit: Visit) -> Reply:
    query = visit.read_query(Query)
    rows, cursor = await list_disputes(
        visit.db, state=query.state, account=query.account, cursor=query.cursor, limit=ROWS_PER_PAGE
    )
    return render(
        visit,
        "disputes/show.html",
        title=visit.language.texts["disputes.title"],
        rows=[(row, dispute_urgency(row.respond_by, visit.now)) for row in rows],
        kinds=KINDS,
        query=query,
        ends=[state for state in DisputeState if state.is_final],
        accounts=[row.name for row in await list_accounts(visit.db)],
        more=visit.url(cursor=cursor) if cursor else "",
    )
