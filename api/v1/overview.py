"""The overview for programs: the figures that the console and `nodrop top` show."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

import msgspec

from api.context import Context
from api.http.request import Request
from api.http.response import Response, json_response
from core.rollups import SPANS
from flows.overview import read_overview


class OverviewQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`span`: the last hour in buckets of five minutes, the last 24 hours or 7 days in hours, the last 30 or 90 days in
    days. The newest bucket is the current one, which is not over.
    """

    span: Annotated[Literal["1h", "24h", "7d", "30d", "90d"], msgspec.Meta(description="How far back.")] = "1h"


async def show(context: Context, _request: Request, query: OverviewQuery) -> Response:
    read = partial(read_overview, context.resources, SPANS[query.span])
    return json_response(await context.overviews.run(query.span, read))
