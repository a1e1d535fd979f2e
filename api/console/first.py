"""The first page: that of the first family that the operator may read."""

from __future__ import annotations

from api.console.render import see_other
from api.console.visit import Visit
from api.context import Context
from api.http.response import Reply


async def show(_context: Context, visit: Visit) -> Reply:
    from api.console.routes import ROWS  # noqa: PLC0415 - the table names this handler

    readable = (row.route.pattern for row in ROWS if row.nav and row.route.role and visit.may(row.route.role))
    return see_other(next(readable, "/ops/me"))
