"""Alerts: open ones, past ones, the messages that wait, and a test of the way on which they are sent."""

from __future__ import annotations

from urllib.parse import quote, urlencode

import msgspec

from api.console.render import render, see_other
from api.console.visit import Visit
from api.context import Context
from api.http.response import Reply
from core.act_names import ActName
from core.alerts import OTHERS, WHOLE_HOST, Rule
from flows.alert_messages import queue_test
from storage.postgres.alerts import AlertRow, find_unsent, list_alerts

ROWS_PER_PAGE = 50
OPEN_MAX = 200


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """`cursor`: where the page of past alerts begins."""

    cursor: str | None = None


async def show(context: Context, visit: Visit) -> Reply:
    """Open ones first, all of them on each page; then past ones, page by page."""
    query = visit.read_query(Query)
    opened, more_open = await list_alerts(visit.db, is_open=True, limit=OPEN_MAX)
    past, cursor = await list_alerts(visit.db, is_open=False, cursor=query.cursor, limit=ROWS_PER_PAGE)
    return render(
        visit,
        "alerts/show.html",
        title=visit.language.texts["alerts.title"],
        opened=[(row, address_of(row)) for row in opened],
        has_more_open=more_open is not None,
        past=[(row, address_of(row)) for row in past],
        subjects={row.id: subject_of(row, visit) for row in (*opened, *past)},
        more="" if cursor is None else visit.url(cursor=cursor),
        unsent=await find_unsent(visit.db),
        is_sent=bool(context.resources.settings.alert_url),
    )


async def send_test(context: Context, visit: Visit) -> Reply:
    """A worker sends it, as it sends alerts."""
    await visit.record(ActName.ALERT_TEST, "ALERT_URL", {})
    await queue_test(context.resources, by=visit.operator)
    return see_other("/ops/alerts", "alerts.test_queued")


def subject_of(row: AlertRow, visit: Visit) -> str:
    """The subject as a person calls it: no code where there is a word."""
    texts = visit.language.texts
    first, _, rest = row.subject.partition("/")
    match row.rule:
        case Rule.CASE if rest == OTHERS:
            return texts.get(f"reason.{first}", first)
        case Rule.CASE:
            return texts["cases.one_title"].format(id=row.subject)
        case Rule.BREAKER_OPEN:
            return f"{first}{texts['base.pause']}{texts.get(f'overview.call_{rest}', rest)}"
        case Rule.INVARIANT:
            return rest
    return row.subject


def address_of(row: AlertRow) -> str:
    """The page of the console about the subject; empty: there is none."""
    first, _, rest = row.subject.partition("/")
    match row.rule:
        case Rule.CASE:
            return "/ops/cases" if rest == OTHERS else f"/ops/cases/{quote(row.subject, safe='')}"
        case Rule.INVARIANT:
            return f"/ops/orders/{quote(rest, safe='')}"
        case Rule.CALLBACKS_SILENT | Rule.NOT_RECONCILED | Rule.BREAKER_OPEN:
            return f"/ops/accounts/{quote(first, safe='')}"
        case Rule.DEAD_LETTERS if row.subject.endswith(WHOLE_HOST):
            return "/ops/notifications?status=dead"
        case Rule.ENDPOINT_FAILING if row.subject.endswith(WHOLE_HOST):
            return "/ops/endpoints"
        case Rule.DEAD_LETTERS:
            return f"/ops/notifications?{urlencode({'status': 'dead', 'endpoint': row.subject})}"
        case Rule.ENDPOINT_FAILING | Rule.ENDPOINT_PAUSED:
            return f"/ops/endpoints/show?{urlencode({'endpoint': row.subject})}"
    return ""
