"""The counts beside the navigation alone, for a page that is kept current."""

from __future__ import annotations

from api.console.render import fragment
from api.console.visit import Visit
from api.context import Context
from api.http.response import Reply
from storage.postgres.open_work import count_open_work


async def live(_context: Context, visit: Visit) -> Reply:
    visit.open_work = await count_open_work(visit.db)
    return fragment(visit, "waiting.html")
