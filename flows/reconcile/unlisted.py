"""The other direction: what was paid here on the days of a statement, and in no row of it.

A payment at 23:59:59 here may stand in the next day's statement. So one that near to midnight is judged only when the
statements of both days have been read, and a run keeps what it has seen there for the days beside it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, time, timedelta, tzinfo

from msgspec import Struct

from flows.reconcile.statement import Statement
from runtime.accounts import Account
from runtime.resources import Resources
from storage.postgres.reconciliation.differences import PaidHere, find_paid_here
from storage.postgres.reconciliation.runs import Reconciliation, finished_days

EDGE = timedelta(hours=1)
"""How near to midnight that is: far more than clocks and bookings differ by."""

PAGE = 1000
"""Payments looked through by one statement."""

Times = tuple[datetime, datetime]
"""From the first instant until before the second one."""


class Span(Struct, frozen=True, kw_only=True):
    """What a run can judge: payments from `since` until before `until`, unless one of `seen_by` has seen their rows.

    Those of the `edges` are judged by the run over the day beside. `inner` is the part of the day whose rows no other
    run asks for; None: nobody asks for any.
    """

    since: datetime
    until: datetime
    seen_by: tuple[int, ...]
    edges: tuple[Times, ...] = ()
    inner: Times | None = None


async def find_span(resources: Resources, account: Account, run: Reconciliation, statement: Statement) -> Span | None:
    """None: there is nothing to be told yet, for the day was not over when the run began.

    Of a file nobody knows where its day begins and ends; between its first and its last row it is whole.
    """
    if run.day is None:
        first, last = statement.span or (None, None)
        return None if first is None or last is None else Span(since=first, until=last, seen_by=(run.id,))
    zone = account.channel.statement_zone
    start, end = day_bounds(run.day, zone)
    if run.started_at < end:
        return None
    before, after = run.day - timedelta(days=1), run.day + timedelta(days=1)
    finished = await finished_days(resources.db, run.account, (before, after))
    beside = {day: each.id for day, each in finished.items() if each.started_at >= day_bounds(day, zone)[1]}
    since = start - EDGE if before in beside else start + EDGE
    until = end + EDGE if after in beside else end - EDGE
    return Span(
        since=since,
        until=until,
        seen_by=(run.id, *beside.values()),
        edges=((start, since), (until, end)),
        inner=(start + EDGE, end - EDGE),
    )


async def unseen(resources: Resources, account: Account, span: Span, times: Times) -> AsyncIterator[list[PaidHere]]:
    """Payments that were paid here in these times and that no row tells of, some at a time."""
    since, until = times
    after: tuple[datetime, str] | None = (since, "")
    while after is not None:
        found, after = await find_paid_here(
            resources.db, account.config.name, after=after, until=until, run_ids=span.seen_by, limit=PAGE
        )
        if found:
            yield found


def day_bounds(day: date, zone: tzinfo) -> Times:
    """From one midnight of the channel's calendar to the next; 23 or 25 hours where clocks are put forward or back."""
    midnights = (datetime.combine(each, time.min, zone) for each in (day, day + timedelta(days=1)))
    start, end = (midnight.astimezone(UTC) for midnight in midnights)
    return start, end
