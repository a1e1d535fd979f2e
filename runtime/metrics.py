"""Metrics that web and worker share: calls of channels, breakers and rates, deliveries, jobs, and by what orders became
paid. Each process counts for itself; a label has a bounded number of values.

What counts on an order's way is a child of a metric that is looked up once: two attributes and an addition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from core.admission import CallKind
from core.clocks import ClockVerdict

CONTENT_TYPE = CONTENT_TYPE_LATEST

# The time at which a counter began is of no use, and doubles the series.
disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no annotations

RESULTS: Mapping[tuple[bool | None, bool], str] = MappingProxyType(
    {
        (True, True): "ok",
        (True, False): "refused",
        (False, False): "unanswered",
        (None, False): "not_called",
    }
)
"""Results of calls by whether the channel answered, and whether the call ended without an error."""

CHILDREN_MAX = 4096
"""Children that are kept at hand: a thousand accounts with some kinds of call each."""

_CALL_BUCKETS_S = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15)
_DELIVERY_BUCKETS_S = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

_calls = Counter("nodrop_channel_calls", "Calls of channels that have ended.", ("account", "kind", "result"))
_call_seconds = Histogram(
    "nodrop_channel_call_seconds", "From the admission of a call to its end.", ("account", "kind"),
    buckets=_CALL_BUCKETS_S,
)  # fmt: skip
_deferred = Counter(
    "nodrop_channel_calls_deferred", "Calls that were not made, to be made later.", ("account", "kind", "reason")
)
_deliveries = Counter("nodrop_deliveries", "Deliveries of notifications by how they ended.", ("result",))
_jobs = Counter("nodrop_jobs", "Jobs that have ended.", ("lane", "result"))
_paid = Counter("nodrop_orders_paid", "Orders that became paid, by what found the money.", ("by",))
_breakers = Gauge("nodrop_breaker_open", "1: calls of this kind wait for the channel.", ("account", "kind"))
_rate = Gauge("nodrop_channel_rate", "Calls that an account may make in a second.", ("account",))
_rate_used = Gauge("nodrop_channel_rate_used", "Calls that count now, by all processes together.", ("account",))
_clock_skew = Gauge("nodrop_clock_skew_seconds", "This process's time minus Postgres's.")
_clock_contradicted = Gauge("nodrop_clock_contradicted", "1: channels' times are more than 60 s from Postgres's.")

delivery_seconds = Histogram("nodrop_delivery_seconds", "From the claim to the status.", buckets=_DELIVERY_BUCKETS_S)

# A cached look-up runs no Python of ours: what counts is no further file on an order's way.
calls_of = lru_cache(CHILDREN_MAX)(_calls.labels)
call_seconds_of = lru_cache(CHILDREN_MAX)(_call_seconds.labels)
deferred_of = lru_cache(CHILDREN_MAX)(_deferred.labels)
deliveries_of = lru_cache(CHILDREN_MAX)(_deliveries.labels)
jobs_of = lru_cache(CHILDREN_MAX)(_jobs.labels)
paid_by = lru_cache(CHILDREN_MAX)(_paid.labels)


def show_breakers(accounts: Sequence[str], open_breakers: Sequence[tuple[str, CallKind]]) -> None:
    """Every breaker of these accounts, one for each kind of call."""
    _breakers.clear()
    for account in accounts:
        for kind in CallKind:
            _breakers.labels(account, kind.value).set((account, kind) in open_breakers)


def show_rates(rates: Mapping[str, int], used: Mapping[str, int]) -> None:
    """The rate of each account, and how much of it is used now."""
    _rate.clear()
    _rate_used.clear()
    for account, rate in rates.items():
        _rate.labels(account).set(rate)
        _rate_used.labels(account).set(used.get(account, 0))


def show_clock(verdict: ClockVerdict) -> None:
    """The clock of this process alone."""
    _clock_skew.set(verdict.skew_s or 0.0)
    _clock_contradicted.set(verdict.is_contradicted)


def exposition() -> bytes:
    """All metrics of this process, as Prometheus reads them."""
    return generate_latest()
