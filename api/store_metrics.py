"""Metrics of the stores: the work that is open in Postgres, and the lanes in Redis. Read anew for each scrape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prometheus_client import Gauge

from core.alerts import Rule
from core.jobs import Lane
from core.reconciliation import Finding
from storage.postgres.backlog import Backlog
from storage.postgres.callbacks import CallbackCount
from storage.postgres.reconciliation.runs import LastReconciliation
from storage.redis.delay_queue import LaneDepth

_open = Gauge("nodrop_open", "Rows that are not definite yet.", ("kind",))
_oldest_due = Gauge("nodrop_oldest_due_seconds", "How long the oldest open row has been due; 0: none is.", ("kind",))
_overdue = Gauge("nodrop_pending_due", "Pending rows that are due now.")
_dead_letters = Gauge("nodrop_dead_letters", "Notifications that were given up.")
_cases = Gauge("nodrop_cases_open", "Questions for a person.", ("reason",))
_not_kept = Gauge(
    "nodrop_callbacks_not_kept", "Genuine callbacks that were acknowledged and are not stored.", ("account", "reason")
)
_lane_queued = Gauge("nodrop_lane_queued", "Jobs in a lane, running ones among them.", ("lane",))
_lane_due = Gauge("nodrop_lane_due", "Jobs of a lane that are due and not running.", ("lane",))
_reconciled_age = Gauge("nodrop_reconciled_age_seconds", "Since the account was last reconciled.", ("account",))
_incomplete = Gauge("nodrop_statements_incomplete", "Days whose statement lacks rows that it counts.", ("account",))
_alerts = Gauge("nodrop_alerts_open", "Alerts that were raised and are not cleared.", ("rule",))
_unsent = Gauge("nodrop_alert_messages_unsent", "Messages of alerts that ALERT_URL has not taken.")
_workers = Gauge("nodrop_workers", "Worker processes that beat.")
_differences = Gauge("nodrop_reconciliation_differences", "What its last reconciliation found.", ("account", "kind"))


def show_callback_counts(counts: Sequence[CallbackCount]) -> None:
    """Genuine callbacks that were not kept, since the beginning: the same figures from every process."""
    for each in counts:
        _not_kept.labels(each.account, each.reason).set(each.count)


def show_backlog(backlog: Backlog) -> None:
    """Open rows in the database: the same figures from every process."""
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


def show_reconciled(accounts: Sequence[LastReconciliation]) -> None:
    """The last reconciliation of each account; an account that never was reconciled is left out."""
    _reconciled_age.clear()
    _differences.clear()
    for each in accounts:
        _reconciled_age.labels(each.account).set(each.age_s)
        for kind in (Finding.UNKNOWN, Finding.REPAIRED, *(kind for kind in Finding if kind.is_difference)):
            _differences.labels(each.account, kind.value).set(each.counts.get(kind, 0))


def show_incomplete_days(days: Mapping[str, int]) -> None:
    """Days of each account whose statement states other totals than its rows have."""
    _incomplete.clear()
    for account, count in days.items():
        _incomplete.labels(account).set(count)


def show_alerts(open_alerts: Mapping[str, int], unsent: int) -> None:
    """Open alerts, one figure for each rule, and messages that wait."""
    for rule in Rule:
        _alerts.labels(rule.value).set(open_alerts.get(rule, 0))
    _unsent.set(unsent)


def show_workers(count: int) -> None:
    """Worker processes, by their beats in Postgres."""
    _workers.set(count)


def show_lane(lane: Lane, depth: LaneDepth) -> None:
    """The depth of one lane of the delay queue."""
    _lane_queued.labels(lane.value).set(depth.queued)
    _lane_due.labels(lane.value).set(depth.due)
