"""Payments and refunds that are known here on the day of a statement and stand in no row of it.

A payment at 23:59:59 here may stand in the next day's statement. So a payment close to midnight is judged only when the
statements of both days have been read, and a run keeps the rows near midnight for the days beside it. A refund is
looked for one day either side: channels book it when it was requested, when it was paid out, or a day later.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, time, timedelta, tzinfo

from msgspec import Struct

from core.reconciliation import CASES, Difference, Finding
from core.sentences import Amount, Moment, Sentence
from flows.reconcile.statement import Statement
from runtime.accounts import Account
from runtime.resources import Resources
from storage.postgres.reconciliation.candidates import UnlistedRefund, find_unlisted_refunds
from storage.postgres.reconciliation.differences import UnlistedPayment, find_unlisted_payments
from storage.postgres.reconciliation.runs import Reconciliation, finished_days

EDGE = timedelta(hours=1)
"""Distance from midnight that counts as close: far more than clocks and bookings differ by."""

DAY = timedelta(days=1)

FIRST_DAY = date(1998, 12, 1)
"""No channel is older than PayPal; and the first days that Python knows begin in no zone east of Greenwich."""

PAGE = 1000
"""Payments read by one SQL statement."""

Times = tuple[datetime, datetime]
"""From the first instant until before the second one."""


class Span(Struct, frozen=True, kw_only=True):
    """The time in which a run judges payments: from `since` until before `until`, by the rows that `seen_by` have read.

    Payments of the `edges` are judged by the run of the day beside. `inner` is the part of the day whose rows no other
    run needs; None: no other run needs any.
    """

    since: datetime
    until: datetime
    seen_by: tuple[int, ...]
    edges: tuple[Times, ...] = ()
    inner: Times | None = None


async def find_span(resources: Resources, account: Account, run: Reconciliation, statement: Statement) -> Span | None:
    """The span of a run; None if nothing can be judged yet, because the day was not over when the run began.

    A file does not say where its day begins and ends; it is complete between its first and its last row.
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


async def find_unlisted(
    resources: Resources, account: Account, span: Span, times: Times
) -> AsyncIterator[list[UnlistedPayment]]:
    """Payments that were paid here in these times and stand in no row, in batches."""
    since, until = times
    after: tuple[datetime, str] | None = (since, "")
    while after is not None:
        found, after = await find_unlisted_payments(
            resources.db, account.config.name, after=after, until=until, run_ids=span.seen_by, limit=PAGE
        )
        if found:
            yield found


class RefundDay(Struct, frozen=True, kw_only=True):
    """A day whose refunds are looked for in the statements that `seen_by` have read.

    `is_over`: the statement of the day after it has been read, so that no other one can contain them.
    """

    times: Times
    seen_by: tuple[int, ...]
    is_over: bool
    day_before_read: bool


async def find_refund_days(
    resources: Resources, account: Account, run: Reconciliation, statement: Statement
) -> list[RefundDay]:
    """The days whose refunds this run judges: the day before its own, its own one, and the day after.

    A file is complete between its first and its last refund.
    """
    if run.day is None:
        first, last = statement.refund_span or (None, None)
        if first is None or last is None or last - first < 2 * DAY:
            return []
        times = (first + DAY, last - DAY)
        return [RefundDay(times=times, seen_by=(run.id,), is_over=True, day_before_read=True)]
    zone = account.channel.statement_zone
    near = [run.day + number * DAY for number in range(-2, 3)]
    finished = await finished_days(resources.db, run.account, near)
    read = {day: each.id for day, each in finished.items() if each.started_at >= day_bounds(day, zone)[1]}
    if run.started_at < day_bounds(run.day, zone)[1]:
        return []
    read[run.day] = run.id
    return [
        RefundDay(
            times=day_bounds(day, zone),
            seen_by=tuple(read[each] for each in (day - DAY, day, day + DAY) if each in read),
            is_over=day + DAY in read,
            day_before_read=day - DAY in read,
        )
        for day in near[1:-1]
        if day in read and (day <= run.day or day + DAY in read)
    ]


async def find_refunds_without_row(resources: Resources, account: Account, day: RefundDay) -> list[UnlistedRefund]:
    """Refunds of ours that succeeded on this day and stand in no statement, at most a page of them."""
    return await find_unlisted_refunds(
        resources.db,
        account.config.name,
        day.times,
        run_ids=day.seen_by,
        day_before_read=day.day_before_read,
        limit=PAGE,
    )


def unlisted_refund(refund: UnlistedRefund) -> Difference:
    """The difference that a refund without a row is."""
    return Difference(
        kind=Finding.REFUND_HERE_ONLY,
        row_no=0,
        order_no=refund.order_no,
        out_trade_no=refund.out_trade_no,
        detail=Sentence(
            "{refund_no} of {amount} {currency} refunded here at {at}, no row there",
            refund_no=refund.refund_no,
            amount=Amount(refund.amount, refund.currency),
            currency=refund.currency,
            at=_moment(refund.settled_at),
        ),
        case=CASES[Finding.REFUND_HERE_ONLY],
    )


def unlisted_payment(paid: UnlistedPayment) -> Difference:
    """The difference that a payment without a row is."""
    return Difference(
        kind=Finding.PAID_HERE_ONLY,
        row_no=0,
        order_no=paid.order_no,
        out_trade_no=paid.out_trade_no,
        channel_transaction_id=paid.channel_transaction_id,
        detail=Sentence(
            "{amount} {currency} paid here at {at}, no row there",
            amount=Amount(paid.amount, paid.currency),
            currency=paid.currency,
            at=_moment(paid.paid_at),
        ),
        case=CASES[Finding.PAID_HERE_ONLY],
    )


def _moment(at: datetime) -> Moment:
    return Moment(at, at.isoformat(timespec="seconds"))


def day_bounds(day: date, zone: tzinfo) -> Times:
    """Midnight to midnight of the channel's calendar; 23 or 25 hours where clocks change."""
    midnights = (datetime.combine(each, time.min, zone) for each in (day, day + timedelta(days=1)))
    start, end = (midnight.astimezone(UTC) for midnight in midnights)
    return start, end
