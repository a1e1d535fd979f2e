"""The handlers for operators and their tools: health, readiness, metrics and OpenAPI."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import msgspec

from api import store_metrics
from api.context import Context
from api.http import metrics
from api.http.request import Request
from api.http.response import Response, json_response
from core.errors import DatabaseUnavailable, RedisUnavailable
from core.jobs import Lane
from runtime.exposing import show_process
from runtime.resources import Resources
from storage.postgres import alerts, callbacks, processes
from storage.postgres.backlog import read_backlog
from storage.postgres.reconciliation.runs import find_incomplete_days, find_last_reconciliations
from storage.redis.checks import find_redis_fault


class Health(msgspec.Struct, frozen=True, kw_only=True):
    status: str


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """`ready` while either store works and the clock is not an hour off: callbacks are accepted with one of them down.

    `postgres_fault`: `refused` (the user, the password, the database or TLS; `nodrop config check` names the variable),
    `read_only`, `no_answer` in time, or `unreachable`; `redis_fault` likewise. Null: the store works.

    `clock`: `right`, `corrected` (more than 2 s from Postgres's, whose time is used), `contradicted` (channels' times
    are more than 60 s from Postgres's), `far_off` (more than an hour) or `not_compared`. `clock_skew_s` is this
    process's time minus Postgres's.
    """

    ready: bool
    postgres: bool
    postgres_fault: str | None
    redis: bool
    redis_fault: str | None
    draining: bool
    clock: str
    clock_skew_s: float | None


async def healthz(_context: Context, _request: Request) -> Response:
    """Alive while the event loop runs. No store is read: a process must not be restarted because a database is down."""
    return json_response(Health(status="ok"))


async def readyz(context: Context, _request: Request) -> Response:
    """Ready while either store works: without Redis orders go on, without Postgres callbacks are parked."""
    postgres_fault, redis_fault = await context.stores.run("stores", lambda: _look_at_stores(context.resources))
    draining = context.draining.is_set()
    verdict = context.resources.clock.verdict
    readiness = Readiness(
        ready=(postgres_fault is None or redis_fault is None) and not draining and not verdict.is_far_off,
        postgres=postgres_fault is None,
        postgres_fault=postgres_fault,
        redis=redis_fault is None,
        redis_fault=redis_fault,
        draining=draining,
        clock=verdict.state,
        clock_skew_s=None if verdict.skew_s is None else round(verdict.skew_s, 1),
    )
    return json_response(readiness, 200 if readiness.ready else 503)


async def expose_metrics(context: Context, _request: Request) -> Response:
    """A store that is down leaves its last figures standing; /readyz says that it is down."""
    await show_process(context.resources)
    with suppress(DatabaseUnavailable):
        store_metrics.show_backlog(await read_backlog(context.resources.db))
        store_metrics.show_callback_counts(await callbacks.find_counts(context.resources.db))
        store_metrics.show_reconciled(await find_last_reconciliations(context.resources.db))
        store_metrics.show_incomplete_days(await find_incomplete_days(context.resources.db))
        unsent = await alerts.find_unsent(context.resources.db)
        store_metrics.show_alerts(await alerts.count_open(context.resources.db), unsent.count)
        store_metrics.show_workers(await processes.count_workers(context.resources.db))
    with suppress(RedisUnavailable):
        for lane in Lane:
            store_metrics.show_lane(lane, await context.resources.queue.depth(lane))
    return Response(body=metrics.exposition(), content_type=metrics.CONTENT_TYPE)


async def describe_api(context: Context, _request: Request) -> Response:
    return context.openapi


async def _look_at_stores(resources: Resources) -> tuple[str | None, str | None]:
    return await asyncio.gather(resources.db.find_fault(), find_redis_fault(resources.redis))
