"""The story of one order, and what happens next."""

from __future__ import annotations

from api.context import Context
from api.http.request import Request
from api.http.response import Response, json_response
from api.v1.paths import order_no_in
from api.v1.story_views import view_story
from core.errors import NotFound
from storage.postgres.order_facts import find_facts


async def get(context: Context, request: Request) -> Response:
    facts = await find_facts(context.resources.db, order_no_in(request))
    if facts is None:
        raise NotFound("no such order")
    return json_response(view_story(facts))
