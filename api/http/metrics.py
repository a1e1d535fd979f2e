"""What this process counts about its requests. Labels come from the route table, so their number is bounded."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from core.jobs import Lane
from core.reconciliation import Finding
from storage.postgres.backlog import Backlog
from storage.postgres.reconciliation.runs import Reconciled
from storage.redis.delay_queue import LaneDepth

CONTENT_TYPE = CONTENT_TYPE_LATEST

# When a counter began is of no use to anybody, and doubles the series.
disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no annotations

_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

_requests = Counter("nodrop_http_requests", "Requests answered.", ("method", "route", "status"))
_seconds = Histogram("nodrop_http_request_seconds", "From headers read to answer sent.", ("route",), buckets=_BUCKETS_S)
streams_open = Gauge("nodrop_http_streams_open", "Streams of server-sent events open now.")
_open = Gauge("nodrop_open", "Rows that are not definite yet.", ("kind",))
_oldest_due = Gauge("nodrop_oldest_due_seconds", "How long the oldest open row has been due; 0: none is.", ("kind",))
_overdue = Gauge("nodrop_pending_due", "Pending rows that are due now.")
_dead_letters = Gauge("nodrop_dead_letters", "Notifications that were given up.")
_cases = Gauge("nodrop_cases_open", "Questions for a person.", ("reason",))
_lane_queued = Gauge("nodrop_lane_queued", "Jobs in a lane, running ones among them.", ("lane",))
_lane_due = Gauge("nodrop_lane_due", "Jobs of a lane that are due, running ones among them.", ("lane",))
_reconciled_age = Gauge("nodrop_reconciled_age_seconds", "Since the account was last reconciled.", ("account",))
_differences = Gauge("nodrop_reconciliation_differences", "What its last reconciliation found.", ("account", "kind"))
requests_open = Gauge("nodrop_http_requests_open", "Requests being answered now, streams not counted.")


def count_request(method: str, route: str, status: int, seconds: float) -> None:
    _requests.labels(method, route, str(status)).inc()
    _seconds.labels(route).observe(seconds)


def show_backlog(backlog: Backlog) -> None:
    """What is open in the database, the same from every process that is asked."""
    for kind, count, oldest_due_s in (
        ("pending", backlog.pending, backlog.pending_oldest_due_s),
        ("callbacks", backlog.callbacks, backlog.callbacks_oldest_due_s),
        ("notifications", backlog.notifications, backlog.notifications_oldest_due_s),
        ("refunds", backlog.refunds, backlog.refunds_oldest_due_s),
    ):
        _open.labels(kind).set(count)
        _oldest_due.labels(kind).set(oldest_due_s)
    _overdue.set(backlog.pending_overdue)
    _dead_letters.set(backlog.dead_letters)
    _cases.clear()
    for reason, count in backlog.cases.items():
        _cases.labels(reason).set(count)


def show_reconciled(accounts: Sequence[Reconciled]) -> None:
    """How each account's last reconciliation ended; one that never was reconciled is left out."""
    _reconciled_age.clear()
    _differences.clear()
    for each in accounts:
        _reconciled_age.labels(each.account).set(each.age_s)
        for kind in (Finding.UNKNOWN, Finding.REPAIRED, *(kind for kind in Finding if kind.is_difference)):
            _differences.labels(each.account, kind.value).set(each.counts.get(kind, 0))


def show_lane(lane: Lane, depth: LaneDepth) -> None:
    """How full a lane of the delay queue is."""
    _lane_queued.labels(lane.value).set(depth.queued)
    _lane_due.labels(lane.value).set(depth.due)


def exposition() -> bytes:
    """Everything that this process counts, as Prometheus reads it."""
    return generate_latest()
