"""Endpoints of the merchant: a person pauses one, and resumes it. What was held meanwhile the worker lets go, a few at
a time (`flows.let_go`).
"""

from __future__ import annotations

import structlog

from core.acts import Line, Preview
from core.deliveries import endpoint_of
from core.errors import InvalidRequest, NotPossible
from core.resending import preview_pause, preview_resume
from flows.egress import check_notify_url
from runtime.resources import Resources
from storage.postgres import endpoints
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


async def find_endpoint(resources: Resources, endpoint: str) -> EndpointRow | None:
    """None: it is not paused, and nothing for it is undelivered."""
    rows = await endpoints.list_endpoints(resources.db)
    return next((row for row in rows if row.endpoint == endpoint), None)


async def preview_pausing(resources: Resources, endpoint: str) -> Preview:
    """The effect of pausing it. Raises InvalidRequest."""
    name = check_endpoint(resources, endpoint)
    row = await find_endpoint(resources, name)
    pause = await endpoints.find_pause(resources.db, name)
    return preview_pause(
        name,
        undelivered=0 if row is None else row.undelivered,
        paused_by=None if pause is None else pause.paused_by,
        is_known=row is not None,
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
    row = await find_endpoint(resources, name)
    return preview_resume(
        name,
        held=0 if row is None else row.held,
        per_s=resources.settings.notify_resend_per_s,
        is_paused=await endpoints.find_pause(resources.db, name) is not None,
    )


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
