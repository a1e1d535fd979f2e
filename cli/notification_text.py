"""Notifications and endpoints in words: lines that fit 80 columns."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from textwrap import wrap
from typing import TYPE_CHECKING

from cli.output import instant, printable, span
from core.deliveries import Attempt, NotificationState
from storage.postgres.deliveries import NotificationRow
from storage.postgres.endpoints import EndpointRow

if TYPE_CHECKING:
    from flows.endpoints import ServedEndpoint

WIDTH = 80
INDENT = "  "


def notification_lines(row: NotificationRow, now: datetime) -> Iterator[str]:
    """Three lines: what it is, where it stands, and for whom it is."""
    yield printable(f"{row.id}  {row.type}  {row.order_no}")
    last = row.last_attempt
    heard = "" if last is None else f"; last {attempt_text(last)}, {_ago(last.at, now)}"
    yield printable(f"{INDENT}{standing_text(row, now)}{heard}")
    yield printable(f"{INDENT}{row.url}")


def facts(row: NotificationRow, now: datetime) -> Iterator[tuple[str, str]]:
    """Names and values about one notification."""
    yield "notification", row.id
    yield "order", f"{row.order_no}, version {row.version}"
    yield "type", row.type
    yield "made", instant(row.created_at)
    yield "url", printable(row.url)
    yield "stands", standing_text(row, now)


def standing_text(row: NotificationRow, now: datetime) -> str:
    """`undelivered, attempt 3 in 4 min`: where it stands, and what comes next."""
    standing = row.standing
    parts = [row.state.value + _since(row, now)]
    if standing.resending_since is not None:
        parts.append(f"sent again {_ago(standing.resending_since, now)}")
    if standing.is_erased:
        parts.append("erased")
    if standing.is_under_way:
        parts.append(f"attempt {row.attempt} is under way")
    elif row.next_at is not None:
        parts.append(f"attempt {row.attempt} {span((row.next_at - now).total_seconds())}")
    elif standing.is_held and not standing.is_paused:
        parts.append("its turn comes")
    return ", ".join(parts)


def attempt_text(attempt: Attempt) -> str:
    """`503 after 21 ms`."""
    return f"{attempt.status} after {attempt.latency_ms} ms"


def attempt_lines(attempt: Attempt) -> Iterator[str]:
    """One line of the attempt, and its answer below it."""
    by = ", sent again" if attempt.is_manual else ""
    yield printable(f"{INDENT}{attempt.no:>2}  {_milliseconds(attempt.at)}  {attempt_text(attempt)}{by}")
    yield from wrap(printable(attempt.answer), WIDTH, initial_indent=6 * " ", subsequent_indent=6 * " ")


def endpoint_lines(served: ServedEndpoint, now: datetime) -> Iterator[str]:
    """An endpoint, its pause, what waits for it, its deliveries, and its last failure."""
    row = served.row
    yield printable(row.endpoint)
    if row.pause is not None:
        pause = row.pause
        yield printable(f"{INDENT}paused {_ago(pause.paused_at, now)} by {pause.paused_by}: {pause.reason}")
    yield INDENT + "; ".join(_waiting(row, now))
    if served.deliveries:
        yield f"{INDENT}{served.deliveries} deliveries in a day, {served.acknowledged} acknowledged"
    if row.last_failure is not None:
        last = row.last_failure
        text = f"last failure {attempt_text(last)}, {_ago(last.at, now)}: {last.answer}".rstrip(" :")
        yield from wrap(printable(text), WIDTH, initial_indent=INDENT, subsequent_indent=2 * INDENT)


def _waiting(row: EndpointRow, now: datetime) -> Iterator[str]:
    oldest = "" if row.oldest_at is None else f", the oldest of {_ago(row.oldest_at, now)}"
    held = f" ({row.held} waiting)" if row.held else ""
    yield f"{row.undelivered} undelivered{held}{oldest}"
    if row.dead:
        yield f"{row.dead} dead letter{'' if row.dead == 1 else 's'}"


def _since(row: NotificationRow, now: datetime) -> str:
    standing = row.standing
    at = {
        NotificationState.DELIVERED: standing.delivered_at,
        NotificationState.SUPERSEDED: standing.superseded_at,
        NotificationState.DEAD: standing.dead_at,
    }.get(row.state)
    return "" if at is None else f" {_ago(at, now)}"


def _ago(at: datetime, now: datetime) -> str:
    return span(min(-0.0, (at - now).total_seconds()))


def _milliseconds(at: datetime) -> str:
    return instant(at).removesuffix("Z") + f".{at.microsecond // 1000:03}Z"
