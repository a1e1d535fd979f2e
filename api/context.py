"""Objects that all handlers share: the resources of the process, and its memory between requests. None of it is truth:
that is in Postgres.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from api.http.event_stream import OpenStreams
from api.http.response import Response
from api.limits import Guesses, RefreshLimits, StartLimits
from api.refreshes import Refreshes
from api.shop import Shop
from channels.kit.single_flight import SingleFlight
from flows.overview import Overview
from runtime.resources import Resources
from storage.redis.unnoted_returns import UnnotedReturns


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Made once, at start. `shop` is the look of the pages, `openapi` the document of all routes, `reference` the page
    made of it. `stores` is the one look at Postgres and Redis that all who ask for readiness share: anybody may ask.
    `overviews` are the readings of the overview under way, by span.
    """

    resources: Resources
    limits: RefreshLimits
    starts: StartLimits
    guesses: Guesses
    streams: OpenStreams
    refreshes: Refreshes
    unnoted_returns: UnnotedReturns
    draining: asyncio.Event
    stores: SingleFlight[str, tuple[str | None, str | None]]
    overviews: SingleFlight[str, Overview]
    openapi: Response
    reference: Response
    shop: Shop
