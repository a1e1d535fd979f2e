"""The application of a web process: the routes, the objects that their handlers share, and the tasks beside them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from functools import cache, partial
from secrets import token_hex
from typing import Any

import structlog

from api import routes
from api.context import Context
from api.http import openapi
from api.http.asgi import App, Console
from api.http.auth import LAST_USED_S, ApiKeys
from api.http.event_stream import OpenStreams
from api.http.packing import packed
from api.http.request import BODY_TIMEOUT_S, LoopLag
from api.http.response import Response, html_response
from api.limits import Guesses, RefreshLimits, StartLimits
from api.pages.handlers import show_fault
from api.pages.reference import reference
from api.refreshes import Refreshes
from api.shop import open_shop
from channels.kit.single_flight import SingleFlight
from core.errors import NodropError
from flows.alert import look_without_workers
from flows.alert_messages import AlertSender, send_without_workers
from flows.refusals import WRITE_INTERVAL_S, write_refusals
from flows.rollup import INTERVAL_S, TallyWriter
from flows.take_over import BEAT_S, Beats, beat_once
from runtime.accounts import KEEP_CURRENT_S
from runtime.clock import CHECK_S
from runtime.loop import run_periodically
from runtime.resources import Resources
from storage.redis.unnoted_returns import UnnotedReturns

REFRESHES_WAIT_S = 1.0
LAST_WRITE_S = 1.0
LISTEN_AGAIN_S = 1.0
CANCEL_AGAIN_S = 0.1
WATCH_S = 15.0
"""Interval at which a web process looks whether workers are there."""

log = structlog.get_logger()


@asynccontextmanager
async def open_application(
    resources: Resources,
    draining: asyncio.Event,
    *,
    body_timeout_s: float = BODY_TIMEOUT_S,
    streams: OpenStreams | None = None,
) -> AsyncIterator[App[Context]]:
    """The ASGI application, while it hears of changes that other processes make and keeps its accounts current. At the
    end the refreshes under way may finish.
    """
    table = routes.table(resources.settings.callback_body_bytes_max)
    context = _context(resources, draining, streams or OpenStreams())
    keys, settings, lag = ApiKeys(resources.db), resources.settings, LoopLag()
    console = _console(resources)
    inside = routes.console_table() if console is not None else ()
    health = tuple(route for route in table if route.pattern == "/healthz")
    sender = AlertSender(settings, resources.clock)
    lag.watch()
    tally_writer = TallyWriter(resources.db, resources.tallies)
    beside = [asyncio.create_task(each) for each in _beside(resources, keys, tally_writer, sender)]
    try:
        yield App(
            table if settings.ops_port else (*table, *inside),
            context,
            keys,
            draining,
            trusted_proxy_hops=settings.trusted_proxy_hops,
            public_url=settings.public_url,
            page_origins=settings.shop_origins(),
            body_timeout_s=body_timeout_s,
            lag=lag,
            page_of_fault=partial(show_fault, context.shop),
            console=console,
            routes_by_port={settings.ops_port: (*health, *inside)} if inside and settings.ops_port else {},
        )
        await context.refreshes.close(REFRESHES_WAIT_S)
        with suppress(NodropError, TimeoutError):
            async with asyncio.timeout(LAST_WRITE_S):
                await keys.write_last_uses()
                await write_refusals(resources)
                await tally_writer.write_once()
    finally:
        lag.end()
        for task in beside:
            await _end(task)
        await sender.aclose()


def _console(resources: Resources) -> Console | None:
    """The gate of the console, where it is on."""
    if not resources.settings.ops:
        return None
    from api.console.gate import Gate  # noqa: PLC0415 - what it needs is not imported where it is off

    return Gate(resources)


@cache
def _documents(callback_body_bytes_max: int) -> tuple[Response, Response]:
    """The OpenAPI document, and the page that is made of it."""
    document = openapi.document(routes.table(callback_body_bytes_max), routes.PARAMETERS)
    return packed(Response(body=document)), packed(html_response(reference(document)))


def _context(resources: Resources, draining: asyncio.Event, streams: OpenStreams) -> Context:
    document, page = _documents(resources.settings.callback_body_bytes_max)
    return Context(
        resources=resources,
        limits=RefreshLimits(),
        starts=StartLimits(),
        guesses=Guesses(),
        streams=streams,
        refreshes=Refreshes(resources),
        unnoted_returns=UnnotedReturns(resources.redis),
        draining=draining,
        stores=SingleFlight(),
        overviews=SingleFlight(),
        openapi=document,
        reference=page,
        shop=open_shop(resources.settings),
    )


def _beside(
    resources: Resources, keys: ApiKeys, tally_writer: TallyWriter, sender: AlertSender
) -> Iterator[Coroutine[Any, Any, None]]:
    """Tasks beside the requests, each until it is cancelled."""
    yield _listen(resources)
    # Without it callbacks could not be verified any more once their channel has changed its keys.
    yield run_periodically("keep_current", KEEP_CURRENT_S, resources.accounts.keep_current, asyncio.Event())
    yield run_periodically("clock", CHECK_S, partial(resources.clock.keep, resources.db), asyncio.Event())
    yield run_periodically("last_uses", LAST_USED_S, keys.write_last_uses, asyncio.Event())
    yield run_periodically("refusals", WRITE_INTERVAL_S, partial(write_refusals, resources), asyncio.Event())
    yield run_periodically("tallies", INTERVAL_S, tally_writer.write_once, asyncio.Event())
    # A lease of a killed process would keep the workers from its payment.
    beats = Beats(f"web-{token_hex(8)}", "web")
    yield run_periodically("beat", BEAT_S, partial(beat_once, resources, beats), asyncio.Event())
    yield _watch_workers(resources, sender)


async def _watch_workers(resources: Resources, sender: AlertSender) -> None:
    """Look for alerts while no worker is there, for nobody else could tell that. Workers have a while to start."""
    await asyncio.sleep(WATCH_S)
    async with asyncio.TaskGroup() as group:
        for name, work in (
            ("alerts", partial(look_without_workers, resources)),
            ("alert_messages", partial(send_without_workers, resources, sender)),
        ):
            group.create_task(run_periodically(name, WATCH_S, work, asyncio.Event()))


async def _end(task: asyncio.Task[None]) -> None:
    """Cancel until it is over: redis-py swallows a cancellation that hits it while it connects."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=CANCEL_AGAIN_S)


async def _listen(resources: Resources) -> None:
    """Run for ever: without it pages hear of a change only at the next heartbeat."""
    while True:
        try:
            await resources.changes.listen()
        except Exception:  # a bug there must not make every page slow for ever
            log.exception("changes_listener_broke")
        await asyncio.sleep(LISTEN_AGAIN_S)
