"""The overview: figures of a span of time from the roll-ups, beside what is open at this moment.

Console, API and command line show the same. All of it is read, nothing is decided. A Redis that is down leaves the
lanes out, and the breakers and calls are then those of this process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime

import msgspec

from core.errors import RedisUnavailable
from core.jobs import Lane
from core.rollups import (
    CALL_BOUNDS_S,
    SPAN_BOUNDS_S,
    Figures,
    Scope,
    Span,
    by_word,
    histogram,
    merged,
    quantile,
)
from core.silence import SilentAccount
from flows.silence import find_silent_accounts
from runtime.resources import Resources
from storage.postgres import rollups
from storage.postgres.accounts import list_accounts
from storage.postgres.backlog import Backlog, read_backlog
from storage.postgres.endpoints import EndpointRow, list_endpoints
from storage.postgres.live import OpenQueries, read_open_queries
from storage.postgres.orders import find_now
from storage.postgres.rollups import Rollup

WAITING_MAX = 100
"""Endpoints with something undelivered, those with the oldest first."""


class Durations(msgspec.Struct, frozen=True, kw_only=True):
    """Half and 99 of 100 of `count` durations were shorter than these seconds, within the width of a slot. Null: there
    are none.
    """

    count: int
    p50_s: float | None
    p99_s: float | None


class CurrencySum(msgspec.Struct, frozen=True, kw_only=True):
    """Minor units of a currency."""

    currency: str
    amount: int


class PaidFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Payments that became paid here, and how.

    `late`: of an order that was closed; `double`: of one that was paid. `by`: what brought the news of each: a
    callback, its compensation, or a repair: query, refresh (a page or a person asked), sweep, close, undelivered,
    reconciliation.
    `unheard`: of the payments that nodrop created (`expected`) those without any genuine callback within ten minutes:
    who relies on callbacks alone would have lost them.
    """

    paid: int
    money: list[CurrencySum]
    late: int
    double: int
    by: dict[str, int]
    expected: int
    unheard: int
    unheard_money: list[CurrencySum]
    time_to_paid: Durations
    time_to_repair: Durations


class AccountFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One account. `callbacks` were handled; `callbacks_paid` of them said something of money. `calls` reached for the
    channel; `calls_unanswered` had no answer; `held` were not made, by the reason: rate, breaker. `open_breakers` are
    kinds of calls that wait for the channel; `calls_in_use` count now against `rate_per_s` (null: it is off or
    gone).
    """

    account: str
    channel: str | None
    paid: PaidFigures
    callbacks: int
    callbacks_paid: int
    callbacks_refused: int
    callbacks_dead: int
    calls: int
    calls_unanswered: int
    call_latency: Durations
    held: dict[str, int]
    open_breakers: list[str]
    calls_in_use: int
    rate_per_s: int | None
    is_silent: bool


class EndpointFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint of the merchant: its URL without the query; empty: all others. `tries` were sent, `tries_failed` not
    acknowledged. `undelivered` wait now, the oldest since `oldest_undelivered_s`; `dead` were given up in the span,
    `dead_letters` are there now.
    """

    endpoint: str
    delivered: int
    first_try: int
    dead: int
    tries: int
    tries_failed: int
    try_latency: Durations
    time_to_delivered: Durations
    undelivered: int
    oldest_undelivered_s: float
    dead_letters: int


class BucketFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of one bucket of the span, which begins `at`."""

    at: datetime
    placed: int
    closed: int
    paid: int
    by: dict[str, int]
    unheard: int
    callbacks: int
    delivered: int
    dead: int
    calls: int
    calls_unanswered: int


class LaneFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs of one lane, and since when the oldest has been due."""

    lane: str
    queued: int
    due: int
    oldest_due_s: float


class LiveFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Open work of this moment. `lanes` is empty while Redis is down."""

    backlog: Backlog
    oldest_due_s: float
    open_cases: int
    queries: OpenQueries
    lanes: list[LaneFigures]


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """`histogram_s` are the bounds of `repaired_slots`, payments by the time that their repair took."""

    at: datetime
    span: str
    since: datetime
    step_s: int
    placed: int
    closed: int
    paid: PaidFigures
    delivered: int
    dead: int
    histogram_s: list[float]
    repaired_slots: list[int]
    buckets: list[BucketFigures]
    accounts: list[AccountFigures]
    endpoints: list[EndpointFigures]
    silent: list[SilentAccount]
    live: LiveFigures


class AccountOverview(msgspec.Struct, frozen=True, kw_only=True):
    """One account alone, with its buckets."""

    at: datetime
    span: str
    since: datetime
    step_s: int
    figures: AccountFigures
    silent: SilentAccount | None
    histogram_s: list[float]
    paid_slots: list[int]
    call_histogram_s: list[float]
    call_slots: list[int]
    buckets: list[BucketFigures]


class _Channels(msgspec.Struct, frozen=True, kw_only=True):
    """Accounts by name with channel and rate (null: it is off), and their breakers and calls of this moment."""

    accounts: dict[str, tuple[str, int | None]]
    breakers: dict[str, list[str]]
    in_use: dict[str, int]


async def read_overview(resources: Resources, span: Span) -> Overview:
    """The figures of all.

    Raises:
        DatabaseUnavailable: they cannot be read.
    """
    db = resources.db
    now = await find_now(db)
    rows, silent, waiting = await asyncio.gather(
        rollups.read(db, span.step, span.since(now)), find_silent_accounts(db), list_endpoints(db, limit=WAITING_MAX)
    )
    live, channels = await asyncio.gather(_live(resources), _channels(resources))
    by_name, by_bucket = _summed(rows)
    of_all = merged(by_name[Scope.ALL].values())
    total = merged(by_name[Scope.ACCOUNT].values())
    notified = merged(by_name[Scope.ENDPOINT].values())
    return Overview(
        at=now,
        span=span.name,
        since=span.since(now),
        step_s=int(span.step),
        placed=of_all.get("placed", 0),
        closed=of_all.get("closed", 0),
        paid=_paid(total),
        delivered=notified.get("delivered", 0),
        dead=notified.get("dead", 0),
        histogram_s=list(map(float, SPAN_BOUNDS_S)),
        repaired_slots=list(histogram(total, "repaired_s", SPAN_BOUNDS_S)),
        buckets=_buckets(by_bucket, span, now),
        accounts=_accounts(by_name[Scope.ACCOUNT], channels, {each.account for each in silent}),
        endpoints=_endpoints(by_name[Scope.ENDPOINT], waiting, now),
        silent=silent,
        live=live,
    )


async def read_account(resources: Resources, name: str, span: Span) -> AccountOverview:
    """The figures of one account, which need not be there any more. Raises DatabaseUnavailable."""
    db = resources.db
    now = await find_now(db)
    rows = await rollups.read_one(db, span.step, span.since(now), Scope.ACCOUNT, name)
    silent = next((each for each in await find_silent_accounts(db) if each.account == name), None)
    channels = await _channels(resources)
    figures = merged(row.figures for row in rows)
    return AccountOverview(
        at=now,
        span=span.name,
        since=span.since(now),
        step_s=int(span.step),
        figures=_account(name, figures, channels, is_silent=silent is not None),
        silent=silent,
        histogram_s=list(map(float, SPAN_BOUNDS_S)),
        paid_slots=list(histogram(figures, "paid_s", SPAN_BOUNDS_S)),
        call_histogram_s=list(CALL_BOUNDS_S),
        call_slots=list(histogram(figures, "call_s", CALL_BOUNDS_S)),
        buckets=_buckets(_summed(rows)[1], span, now),
    )


# -- this moment -------------------------------------------------------------------------------------------------------


async def _live(resources: Resources) -> LiveFigures:
    backlog = await read_backlog(resources.db)
    lanes: list[LaneFigures] = []
    with suppress(RedisUnavailable):
        for lane in Lane:
            depth = await resources.queue.depth(lane)
            lanes.append(
                LaneFigures(
                    lane=lane.value, queued=depth.queued, due=depth.due, oldest_due_s=depth.oldest_due_ms / 1000
                )
            )
    return LiveFigures(
        backlog=backlog,
        oldest_due_s=max(
            backlog.pending_oldest_due_s,
            backlog.callbacks_oldest_due_s,
            backlog.notifications_oldest_due_s,
            backlog.refunds_oldest_due_s,
        ),
        open_cases=sum(backlog.cases.values()),
        queries=await read_open_queries(resources.db),
        lanes=lanes,
    )


async def _channels(resources: Resources) -> _Channels:
    configs = [account.config for account in await resources.accounts.all_enabled()]
    names = [config.name for config in configs]
    breakers: dict[str, list[str]] = {}
    for name, kind in await resources.admission.open_breakers(names):
        breakers.setdefault(name, []).append(kind.value)
    switched_off = {row.name: (row.channel, None) for row in await list_accounts(resources.db) if not row.enabled}
    return _Channels(
        accounts={**switched_off, **{config.name: (config.channel, config.rate_per_s) for config in configs}},
        breakers=breakers,
        in_use=await resources.admission.calls_in_use(names),
    )


# -- figures of a span -------------------------------------------------------------------------------------------------


_Sums = dict[str, int]


def _summed(rows: Sequence[Rollup]) -> tuple[dict[Scope, dict[str, _Sums]], dict[datetime, _Sums]]:
    """The sums by scope and name, and those by bucket. Each figure is read once: a week has a hundred thousand."""
    by_name: dict[Scope, dict[str, _Sums]] = {scope: {} for scope in Scope}
    by_bucket: dict[datetime, _Sums] = {}
    for row in rows:
        named = by_name[row.scope].setdefault(row.name, {})
        bucket = by_bucket.setdefault(row.at, {})
        for key, value in row.figures.items():
            named[key] = named.get(key, 0) + value
            bucket[key] = bucket.get(key, 0) + value
    return by_name, by_bucket


def _durations(figures: Figures, key: str, bounds: Sequence[float]) -> Durations:
    counts = histogram(figures, key, bounds)
    return Durations(count=sum(counts), p50_s=quantile(counts, bounds, 0.5), p99_s=quantile(counts, bounds, 0.99))


def _money(figures: Figures, key: str) -> list[CurrencySum]:
    return [CurrencySum(currency=currency, amount=amount) for currency, amount in by_word(figures, key).items()]


def _paid(figures: Figures) -> PaidFigures:
    return PaidFigures(
        paid=figures.get("paid", 0),
        money=_money(figures, "paid_amount"),
        late=figures.get("late", 0),
        double=figures.get("double", 0),
        by=by_word(figures, "by"),
        expected=figures.get("expected", 0),
        unheard=figures.get("unheard", 0),
        unheard_money=_money(figures, "unheard_amount"),
        time_to_paid=_durations(figures, "paid_s", SPAN_BOUNDS_S),
        time_to_repair=_durations(figures, "repaired_s", SPAN_BOUNDS_S),
    )


def _accounts(by_name: Mapping[str, Figures], channels: _Channels, silent: set[str]) -> list[AccountFigures]:
    """Every account, and those that are gone and have figures: the silent ones first, then by name."""
    names = sorted({*by_name, *channels.accounts}, key=lambda name: (name not in silent, name))
    return [_account(name, by_name.get(name, {}), channels, is_silent=name in silent) for name in names]


def _account(name: str, figures: Figures, channels: _Channels, *, is_silent: bool) -> AccountFigures:
    channel, rate_per_s = channels.accounts.get(name, (None, None))
    return AccountFigures(
        account=name,
        channel=channel,
        paid=_paid(figures),
        callbacks=figures.get("callbacks", 0),
        callbacks_paid=figures.get("callbacks_paid", 0),
        callbacks_refused=figures.get("callbacks_refused", 0),
        callbacks_dead=figures.get("callbacks_dead", 0),
        calls=figures.get("calls", 0),
        calls_unanswered=figures.get("calls_unanswered", 0),
        call_latency=_durations(figures, "call_s", CALL_BOUNDS_S),
        held=by_word(figures, "held"),
        open_breakers=channels.breakers.get(name, []),
        calls_in_use=channels.in_use.get(name, 0),
        rate_per_s=rate_per_s,
        is_silent=is_silent,
    )


def _endpoints(by_name: Mapping[str, Figures], open_now: Sequence[EndpointRow], now: datetime) -> list[EndpointFigures]:
    """Those with figures or with open notifications, the longest undelivered first."""
    waiting: Mapping[str, EndpointRow] = {each.endpoint: each for each in open_now if each.undelivered or each.dead}
    return sorted(
        (_endpoint(name, by_name.get(name, {}), waiting.get(name), now) for name in {*by_name, *waiting}),
        key=lambda each: (-each.oldest_undelivered_s, -each.dead_letters, -each.delivered, each.endpoint),
    )


def _endpoint(name: str, figures: Figures, waiting: EndpointRow | None, now: datetime) -> EndpointFigures:
    oldest_at = None if waiting is None else waiting.oldest_at
    return EndpointFigures(
        endpoint=name,
        delivered=figures.get("delivered", 0),
        first_try=figures.get("first_try", 0),
        dead=figures.get("dead", 0),
        tries=figures.get("tries", 0),
        tries_failed=figures.get("tries_failed", 0),
        try_latency=_durations(figures, "try_s", CALL_BOUNDS_S),
        time_to_delivered=_durations(figures, "delivered_s", SPAN_BOUNDS_S),
        undelivered=0 if waiting is None else waiting.undelivered,
        oldest_undelivered_s=0.0 if oldest_at is None else max(0.0, (now - oldest_at).total_seconds()),
        dead_letters=0 if waiting is None else waiting.dead,
    )


def _buckets(by_bucket: Mapping[datetime, Figures], span: Span, now: datetime) -> list[BucketFigures]:
    """Every bucket of the span, also those in which nothing happened."""
    return [_bucket(at, by_bucket.get(at, {})) for at in span.buckets(now)]


def _bucket(at: datetime, figures: Figures) -> BucketFigures:
    return BucketFigures(
        at=at,
        placed=figures.get("placed", 0),
        closed=figures.get("closed", 0),
        paid=figures.get("paid", 0),
        by=by_word(figures, "by"),
        unheard=figures.get("unheard", 0),
        callbacks=figures.get("callbacks", 0),
        delivered=figures.get("delivered", 0),
        dead=figures.get("dead", 0),
        calls=figures.get("calls", 0),
        calls_unanswered=figures.get("calls_unanswered", 0),
    )
