"""Endpoints of the merchant: a person pauses one, and resumes it. What was held meanwhile the worker lets go, a few at
a time (`flows.let_go`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog
from msgspec import Struct

from core.acts import Line, Preview
from core.deliveries import endpoint_of
from core.errors import InvalidRequest, NotPossible
from core.resending import preview_pause, preview_resume
from core.rollups import Figures, Scope, Step, bucket_of, merged
from flows.egress import check_notify_url
from runtime.resources import Resources
from storage.postgres import endpoints, rollups
from storage.postgres.database import Database
from storage.postgres.endpoints import EndpointRow

log = structlog.get_logger()


def check_endpoint(resources: Resources, endpoint: str) -> str:
    """The endpoint of a URL that notifications may go to.

    Raises:
        InvalidRequest: it is no such URL.
    """
    try:
        check_notify_url(endpoint, allow_nets=resources.settings.allowed_nets())
    except InvalidRequest as error:
        raise InvalidRequest(error.detail.replace("notify_url", "endpoint", 1)) from None
    return endpoint_of(endpoint)


class ServedEndpoint(Struct, frozen=True, kw_only=True):
    """An endpoint with what waits for it, and its deliveries of about the last day, as the roll-ups have them."""

    row: EndpointRow
    deliveries: int = 0
    acknowledged: int = 0


async def list_served(db: Database, now: datetime) -> list[ServedEndpoint]:
    """Those with the oldest undelivered notification first, then those of the last day."""
    rows = {row.endpoint: row for row in await endpoints.list_endpoints(db)}
    figures: dict[str, list[Figures]] = {}
    for each in await rollups.read(db, Step.HOUR, _day_before(now)):
        if each.scope is Scope.ENDPOINT and each.name:
            figures.setdefault(each.name, []).append(each.figures)
    names = [*rows, *sorted(figures.keys() - rows.keys())]
    return [_served(rows.get(name) or nothing_waits(name), figures.get(name, ())) for name in names]


async def find_served(db: Database, endpoint: str, now: datetime) -> ServedEndpoint:
    """One of them; without figures if nothing waits for it and nothing was sent."""
    row = await endpoints.find_endpoint(db, endpoint)
    counted = await rollups.read_one(db, Step.HOUR, _day_before(now), Scope.ENDPOINT, endpoint)
    return _served(row or nothing_waits(endpoint), [each.figures for each in counted])


def nothing_waits(endpoint: str) -> EndpointRow:
    return EndpointRow(endpoint=endpoint, pause=None, undelivered=0, held=0, oldest_at=None, dead=0, last_failure=None)


def _day_before(now: datetime) -> datetime:
    return bucket_of(now, Step.HOUR) - timedelta(seconds=Step.DAY)


def _served(row: EndpointRow, figures: Sequence[Figures]) -> ServedEndpoint:
    sums = merged(figures)
    tries = sums.get("tries", 0)
    return ServedEndpoint(row=row, deliveries=tries, acknowledged=tries - sums.get("tries_failed", 0))


async def preview_pausing(resources: Resources, endpoint: str) -> Preview:
    """The effect of pausing it. Raises InvalidRequest."""
    name = check_endpoint(resources, endpoint)
    return preview_pausing_of(await find_served(resources.db, name, resources.clock.now()))


def preview_pausing_of(served: ServedEndpoint) -> Preview:
    """The same of one that was read."""
    name, pause = served.row.endpoint, served.row.pause
    return preview_pause(
        name,
        undelivered=served.row.undelivered,
        paused_by=None if pause is None else pause.paused_by,
        is_known=served.deliveries > 0 or served.row != nothing_waits(name),
    )


async def pause_endpoint(resources: Resources, endpoint: str, *, by: str, reason: str) -> None:
    """Send nothing to it from now on; what is under way ends.

    Raises:
        InvalidRequest: it is no URL that notifications may go to.
        NotPossible: it is paused.
    """
    name = check_endpoint(resources, endpoint)
    if not await endpoints.pause(resources.db, name, by=by, reason=reason):
        raise NotPossible((await preview_pausing(resources, name)).refusal or Line("endpoint.is_resumed"))
    log.info("endpoint_paused")


async def preview_resuming(resources: Resources, endpoint: str) -> Preview:
    """The effect of resuming it. Raises InvalidRequest."""
    name = check_endpoint(resources, endpoint)
    return preview_resuming_of(resources, await find_served(resources.db, name, resources.clock.now()))


def preview_resuming_of(resources: Resources, served: ServedEndpoint) -> Preview:
    """The same of one that was read."""
    row, per_s = served.row, resources.settings.notify_resend_per_s
    return preview_resume(row.endpoint, held=row.held, per_s=per_s, is_paused=row.pause is not None)


async def resume_endpoint(resources: Resources, endpoint: str) -> None:
    """End its pause. The worker lets its notifications go, so many a second.

    Raises:
        InvalidRequest: it is no URL that notifications may go to.
        NotPossible: it is not paused.
    """
    name = check_endpoint(resources, endpoint)
    if not await endpoints.resume(resources.db, name):
        raise NotPossible(Line("endpoint.not_paused"))
    log.info("endpoint_resumed")
