"""For those who run it: is it alive, may it have traffic, what does it count, and how is it called."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from api.http import metrics, problems
from api.http.request import Request
from api.http.response import HTML, Response, json_response
from api.service import Service
from api.v1.schemas import Health, Readiness
from core.errors import DatabaseUnavailable, NotFound, RedisUnavailable
from core.jobs import Lane
from runtime.resources import Resources
from storage.postgres.backlog import read_backlog
from storage.postgres.reconciliation.runs import last_reconciled

PING_TIMEOUT_S = 2.0


async def healthz(_service: Service, _request: Request) -> Response:
    """The loop turns. It asks nobody: a process must not be restarted because a database is down."""
    return json_response(Health(status="ok"))


async def readyz(service: Service, _request: Request) -> Response:
    """Ready while either store works: without Redis orders go on, without Postgres callbacks are parked."""
    postgres, redis = await asyncio.gather(service.resources.db.ping(), _is_redis_there(service.resources))
    draining = service.draining.is_set()
    ready = (postgres or redis) and not draining
    readiness = Readiness(ready=ready, postgres=postgres, redis=redis, draining=draining)
    return json_response(readiness, 200 if ready else 503)


async def expose_metrics(service: Service, _request: Request) -> Response:
    """A store that is down leaves its last figures standing; /readyz tells that it is down."""
    with suppress(DatabaseUnavailable):
        metrics.show_backlog(await read_backlog(service.resources.db))
        metrics.show_reconciled(await last_reconciled(service.resources.db))
    with suppress(RedisUnavailable):
        for lane in Lane:
            metrics.show_lane(lane, await service.resources.queue.depth(lane))
    return Response(body=metrics.exposition(), content_type=metrics.CONTENT_TYPE)


async def describe_api(service: Service, _request: Request) -> Response:
    return Response(body=service.openapi)


async def describe_problem(_service: Service, request: Request) -> Response:
    page = problems.describe(request.params["slug"])
    if page is None:
        raise NotFound("no such type of problem")
    return Response(body=page.encode(), content_type=HTML)


async def _is_redis_there(resources: Resources) -> bool:
    try:
        async with asyncio.timeout(PING_TIMEOUT_S):
            await resources.queue.depth(Lane.FRESH)
    except (RedisUnavailable, TimeoutError):
        return False
    return True
