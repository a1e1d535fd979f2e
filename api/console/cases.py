"""The inbox of cases, oldest first, and one case with what to do about it. It works by keyboard alone."""

from __future__ import annotations

import re
from datetime import timedelta
from enum import StrEnum

import msgspec

from api.console.render import render, see_other
from api.console.visit import Visit
from api.context import Context
from api.http.fields import number_in
from api.http.response import Reply
from core.act_names import ActName
from core.errors import InvalidRequest
from core.order import CaseReason
from flows import cases
from flows.guides.texts import guide_of, pieces
from storage.postgres.cases import count_open_cases, list_cases

ROWS_PER_PAGE = 50

_VERSION = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)


class Whose(StrEnum):
    """Choice of cases by who works on them."""

    ANYBODY = "anybody"
    MINE = "mine"
    NOBODY = "nobody"


class Age(StrEnum):
    """Choice of cases by how long they have been open, at least."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"


_AGES = {Age.HOUR: timedelta(hours=1), Age.DAY: timedelta(days=1), Age.WEEK: timedelta(days=7)}


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """Choice of the inbox. `cursor` is of the page before."""

    reason: str | None = None
    whose: Whose = Whose.ANYBODY
    age: Age | None = None
    cursor: str | None = None


async def show(_context: Context, visit: Visit) -> Reply:
    query = visit.read_query(Query)
    rows, cursor = await list_cases(
        visit.db,
        oldest_first=True,
        reason=query.reason,
        assignee=visit.operator if query.whose is Whose.MINE else None,
        unassigned_only=query.whose is Whose.NOBODY,
        opened_before=None if query.age is None else visit.now - _AGES[query.age],
        cursor=query.cursor,
        limit=ROWS_PER_PAGE,
    )
    counts = await count_open_cases(visit.db, mine=visit.operator)
    return render(
        visit,
        "cases/show.html",
        title=visit.language.texts["cases.title"],
        rows=rows,
        counts=counts,
        total=sum(each.open for each in counts),
        query=query,
        reasons=sorted(CaseReason),
        whose=list(Whose),
        ages=list(Age),
        more=visit.url(cursor=cursor) if cursor else "",
        here=visit.url(),
    )


async def show_one(_context: Context, visit: Visit) -> Reply:
    case = await cases.get_case(visit.db, number_in(visit.params["id"]))
    guide = guide_of(case.reason, visit.lang)
    return render(
        visit,
        "cases/one.html",
        title=visit.language.texts["cases.one_title"].format(id=case.id),
        case=case,
        what=[] if guide is None else list(pieces(guide.what)),
        do=[] if guide is None else list(pieces(guide.do)),
    )


async def assign(_context: Context, visit: Visit) -> Reply:
    """To the operator of the form, to oneself without one, or back with `nobody`."""
    case_id, form = number_in(visit.params["id"]), visit.form
    version = _version(visit)
    assignee = None if form.get("nobody") else form.get("assignee", "").strip() or visit.operator
    await visit.record(ActName.CASE_ASSIGN, str(case_id), {"to": assignee})
    await cases.assign(visit.db, case_id, assignee, version=version)
    back = visit.back if visit.back.startswith("/ops/cases?") or visit.back == "/ops/cases" else f"/ops/cases/{case_id}"
    if assignee is None:
        return see_other(back, "cases.given_back", id=case_id)
    return see_other(back, "cases.assigned", id=case_id, assignee=assignee)


def _version(visit: Visit) -> int:
    """The version of the case that the operator has seen."""
    version = visit.form.get("version", "")
    if _VERSION.fullmatch(version) is None:
        raise InvalidRequest("version: open the case again")
    return int(version)
