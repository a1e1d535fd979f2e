"""Acts of people, newest first: by operator, act, subject and day, in pages and as a file."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import msgspec

from api.console.instants import midnight
from api.console.render import csv_reply, render
from api.console.visit import Visit
from api.context import Context
from api.http.response import Reply
from core.act_names import ActName, act_of
from storage.postgres.audit import AuditRow, Filters, cursor_of, find_acts, read_cursor

ROWS_PER_PAGE = 100
ROWS_PER_FILE = 10_000


class Query(msgspec.Struct, frozen=True, kw_only=True, rename={"since": "from"}):
    """Days are in UTC, both within. `before` is the cursor of the page before."""

    by: str = ""
    action: str = ""
    subject: str = ""
    since: date | None = None
    until: date | None = None
    before: str = ""


async def show(_context: Context, visit: Visit) -> Reply:
    query = visit.read_query(Query)
    rows = await find_acts(visit.db, _filters(query), limit=ROWS_PER_PAGE + 1)
    shown = rows[:ROWS_PER_PAGE]
    more = visit.url(before=cursor_of(shown[-1])) if len(rows) > ROWS_PER_PAGE else ""
    return render(
        visit,
        "audit/show.html",
        title=visit.language.texts["audit.title"],
        rows=[(row, _words(visit, row), _listed(row)) for row in shown],
        acts=[(name.value, visit.language.texts[f"did.{name}"]) for name in ActName],
        chosen=act_of(query.action) or query.action,
        query=query,
        more=more,
        file=visit.url(before=None).replace("/ops/audit", "/ops/audit.csv", 1),
    )


async def download(_context: Context, visit: Visit) -> Reply:
    """The same rows, at most 10,000."""
    await visit.record(ActName.AUDIT_FILE, "", dict(visit.query))
    rows = await find_acts(visit.db, _filters(visit.read_query(Query)), limit=ROWS_PER_FILE)
    header = ("id", "at", "by", "via", "action", "subject", "detail", "role")
    cells = [(row.id, row.at, row.by, row.via, row.action, row.subject, _detail(row), row.role) for row in rows]
    return csv_reply("audit", header, cells)


def _filters(query: Query) -> Filters:
    return Filters(
        by=query.by or None,
        action=query.action or None,
        subject=query.subject or None,
        since=midnight(query.since),
        until=midnight(query.until, days=1),
        before=read_cursor(query.before or None),
    )


def _words(visit: Visit, row: AuditRow) -> str:
    """The act in words; a name that no release of ours wrote stands as it is."""
    act = act_of(row.action)
    return row.action if act is None else visit.language.texts[f"did.{act}"]


def _listed(row: AuditRow) -> list[tuple[str, str]]:
    return list(_flat("", row.detail))


def _flat(name: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}" if name else key, inner)
    else:
        yield name, value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _detail(row: AuditRow) -> str:
    return msgspec.json.encode(row.detail).decode() if row.detail else ""
