"""Work and load: I7 compares the rows that are due with what is unresolved, I8 the calls at channels with the rates."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta

import msgspec

from simulator.kernel.traffic import Arrival, busiest_second
from simulator.oracle.books import Books, DueRow, PaymentRef
from simulator.oracle.violations import Invariant, Violation

READING_S = 5.0
"""A row may be leased or scheduled between the instant of the rows and their reading, on a busy machine."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of work, in seconds. `overdue_s`: how long due work may wait for a process. `ahead_s`: how far ahead the
    next attempt may be, from now or from the moment that its row waits for. `lease_s`: the longest lease.
    """

    overdue_s: float
    ahead_s: float
    lease_s: float


def no_stuck_work(books: Books, *, now: datetime, limits: Limits) -> Iterator[Violation]:
    """Check that no row has been due for too long without a lease, and none is due or leased in the far future."""
    for row in books.due:
        wrong = _stuck_reason(row, now, limits)
        if wrong is not None:
            yield Violation(invariant=Invariant.I7, order_no=row.order_no, sentence=f"{row.table} {wrong}")


def open_work_has_rows(books: Books) -> Iterator[Violation]:
    """Check that every open order has the row of its deadline, and every open payment the row of its next query."""
    pending = {row.ref for row in books.due if row.ref is not None}
    for order in books.orders:
        if order.status in ("created", "paying") and PaymentRef("", order.order_no) not in pending:
            sentence = f"the order is {order.status}, and no row ends it at its deadline"
            yield Violation(invariant=Invariant.I7, order_no=order.order_no, sentence=sentence)
    for payment in books.payments:
        if payment.status == "open" and payment.ref not in pending:
            sentence = f"{payment.account}/{payment.out_trade_no} is open, and no row queries it"
            yield Violation(invariant=Invariant.I7, order_no=payment.order_no, sentence=sentence)


def bounded_load(arrivals: Iterable[float], *, limit_per_s: int, account: str = "") -> Iterator[Violation]:
    """Check that no window of one second has more calls of an account than its rate."""
    most = busiest_second(arrivals)
    if most > limit_per_s:
        sentence = f"{most} calls within one second, {limit_per_s} allowed {account}".rstrip()
        yield Violation(invariant=Invariant.I8, order_no="", sentence=sentence)


def bounded_loads(
    arrivals: Iterable[Arrival], *, limits_per_s: Mapping[str, int], limit_per_s: int, window_s: float = 1.0
) -> Iterator[Violation]:
    """Check the calls of each account by itself; `limit_per_s` is the rate of an account that `limits_per_s` lacks.

    `window_s` shorter than a second: calls that a busy machine delays fall together.
    """
    times: defaultdict[str, list[float]] = defaultdict(list)
    for call in arrivals:
        times[call.merchant_id].append(call.at / window_s)
    for account, calls in times.items():
        yield from bounded_load(calls, limit_per_s=limits_per_s.get(account, limit_per_s), account=account)


def _stuck_reason(row: DueRow, now: datetime, limits: Limits) -> str | None:
    """Return why this row is not worked on as it should be, or None."""
    if row.leased_until is not None and row.leased_until > now + timedelta(seconds=limits.lease_s + READING_S):
        return f"is leased for {(row.leased_until - now).total_seconds():.0f} s more, {limits.lease_s:.0f} at most"
    waits_until = now if row.waits_until is None else max(now, row.waits_until)
    if row.due_at > waits_until + timedelta(seconds=limits.ahead_s + READING_S):
        ahead_s = (row.due_at - waits_until).total_seconds()
        return f"is due {ahead_s:.0f} s after what it waits for, {limits.ahead_s:.0f} at most"
    held_until = row.due_at if row.leased_until is None else max(row.due_at, row.leased_until)
    if held_until < now - timedelta(seconds=limits.overdue_s):
        return f"has been due for {(now - held_until).total_seconds():.0f} s"
    return None
