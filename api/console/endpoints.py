"""Endpoints of the merchant: what waits for each, and pausing and resuming one."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

import msgspec

from api.console.notifications import KINDS
from api.console.render import render, see_other
from api.console.visit import Visit
from api.context import Context
from api.http.response import Reply
from core.act_names import ActName
from core.errors import NotPossible
from flows.endpoints import (
    check_endpoint,
    find_served,
    list_served,
    pause_endpoint,
    preview_pausing_of,
    preview_resuming_of,
    resume_endpoint,
)
from storage.postgres.deliveries import Choice, Listed, list_notifications
from storage.postgres.endpoints import READ_MAX

ROWS = 20
"""Notifications of each kind that the page of an endpoint shows."""


class EndpointQuery(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint by its URL."""

    endpoint: Annotated[str, msgspec.Meta(min_length=1, max_length=2048)]


async def show_all(_context: Context, visit: Visit) -> Reply:
    served = await list_served(visit.db, visit.now)
    title = visit.language.texts["endpoints.title"]
    return render(visit, "endpoints/list.html", title=title, served=served, read_max=READ_MAX)


async def show_one(context: Context, visit: Visit) -> Reply:
    if "endpoint" not in visit.query:
        return see_other("/ops/endpoints")
    return await _page(context, visit, visit.read_query(EndpointQuery).endpoint)


async def pause(context: Context, visit: Visit) -> Reply:
    name, reason = check_endpoint(context.resources, visit.read_form(EndpointQuery).endpoint), visit.reason()
    await visit.record(ActName.ENDPOINT_PAUSE, name, {"reason": reason})
    try:
        await pause_endpoint(context.resources, name, by=visit.operator, reason=reason)
    except NotPossible:
        return await _page(context, visit, name, status=409)
    return see_other(_address(name), "endpoints.paused_notice")


async def resume(context: Context, visit: Visit) -> Reply:
    name, reason = check_endpoint(context.resources, visit.read_form(EndpointQuery).endpoint), visit.reason()
    await visit.record(ActName.ENDPOINT_RESUME, name, {"reason": reason})
    try:
        await resume_endpoint(context.resources, name)
    except NotPossible:
        return await _page(context, visit, name, status=409)
    return see_other(_address(name), "endpoints.resumed_notice")


async def _page(context: Context, visit: Visit, endpoint: str, *, status: int = 200) -> Reply:
    name = check_endpoint(context.resources, endpoint)
    served = await find_served(visit.db, name, visit.now)
    preview = preview_pausing_of(served) if served.row.pause is None else preview_resuming_of(context.resources, served)
    lists = {
        listed: (await list_notifications(visit.db, Choice(listed=listed, endpoint=name), limit=ROWS))[0]
        for listed in (Listed.UNDELIVERED, Listed.DEAD)
    }
    return render(
        visit,
        "endpoints/one.html",
        status=status,
        title=name,
        row=served.row,
        served=served,
        pause=served.row.pause,
        preview=preview,
        lists=lists,
        kinds=KINDS,
        read_max=READ_MAX,
        has_changed=status != 200,  # noqa: PLR2004 - the page as it is
    )


def _address(endpoint: str) -> str:
    return f"/ops/endpoints/show?{urlencode({'endpoint': endpoint})}"
