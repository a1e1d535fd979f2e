"""Certificates and keys that end, over HTTP, and what is in rotation; never a secret."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from api.context import Context
from api.http.request import Request
from api.http.response import Response, json_response
from core.clocks import Instant
from core.ending import EndingKind, Mark
from flows.ending import find_ending


class EndingsQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`within_days`: only what ends so soon or has ended. Without it every end is listed."""

    within_days: Annotated[int, Meta(ge=0, le=36_500)] | None = None


class EndingView(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate or a key. `name` is the account, key or host that has it, `what` the key of its settings.

    `ends_at` null: it has no end, and an old one is still in use beside it, since `since` where that is known. `mark`
    is ended, 1, 7 or 30 (days at most), later, or rotating.
    """

    kind: EndingKind
    name: str
    what: str
    ends_at: Instant | None
    since: Instant | None
    mark: Mark


class EndingList(msgspec.Struct, frozen=True, kw_only=True):
    """The soonest end first, then what is in rotation."""

    endings: Sequence[EndingView]


async def find(context: Context, _request: Request, query: EndingsQuery) -> Response:
    found = await find_ending(context.resources, within_days=query.within_days)
    return json_response(EndingList(endings=msgspec.convert(found, list[EndingView], from_attributes=True)))
