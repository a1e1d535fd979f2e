"""Search by any number that a person may hold."""

from __future__ import annotations

from typing import Annotated

import msgspec

from api.context import Context
from api.http.request import Request
from api.http.response import Response, json_response
from api.v1.story_views import SearchView, view_match
from storage.postgres.search import NUMBER_CHARACTERS_MAX, find_by_number, order_of


class SearchQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A number: the merchant's, ours or the channel's, or the beginning of an order number."""

    number: Annotated[
        str,
        msgspec.Meta(
            min_length=1,
            max_length=NUMBER_CHARACTERS_MAX,
            description="Of an order, payment, transaction, refund, notification, callback, dispute or case.",
        ),
    ]


async def by_number(context: Context, _request: Request, query: SearchQuery) -> Response:
    matches = await find_by_number(context.resources.db, query.number)
    return json_response(SearchView(order_no=order_of(matches), matches=[view_match(match) for match in matches]))
