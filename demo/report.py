"""Report of a run of the demo: figures read from outside, and their text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from statistics import quantiles

import msgspec

from core.settings import read_settings
from demo.books import read_books
from demo.open_work import OpenWork
from demo.stack import Stack
from simulator.kernel.deliveries import SentAs
from simulator.kernel.snapshot import LedgerSnapshot
from simulator.kernel.traffic import Arrival
from simulator.merchant.control import Effects
from simulator.oracle.invariants import check
from simulator.oracle.violations import Invariant, Violation
from simulator.oracle.work import Limits, bounded_loads
from simulator.shoppers.visits import Visit
from storage.postgres.database import Database

OVERDUE_S = 40.0
"""I7: due work starts within a lease (20 s, of a killed worker that moved money) and one sweep."""

SHOWN_MAX = 20
"""Broken invariants, and rows that are still open, of which the text shows so many."""

CONFIRMED_BY = {
    "callback": ("callback",),
    "compensation": ("compensation",),
    "query": ("query", "close"),
    "page": ("refresh",),
    "sweep": ("sweep",),
    "another attempt": ("api",),
    "undelivered list": ("undelivered",),
    "reconciliation": ("reconciliation",),
}
_PAID_EVENTS = "SELECT order_no, by, at FROM order_events WHERE kind IN ('paid', 'paid_late', 'double_payment')"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of a run. `repair_p50_s`, `repair_p99_s`: seconds from paid at the channel to paid here."""

    seed: int
    placed: int
    paid_at_channel: int
    repaired_by: dict[str, int]
    repair_p50_s: float
    repair_p99_s: float
    callback_only_lost: int
    lost: int
    false: int
    closed: int
    cases: dict[str, int]
    untrue_pages: int
    channel_calls: int
    busiest_second: int
    duration_s: float
    chaos: tuple[str, ...]
    violations: tuple[Violation, ...]
    still_open: tuple[OpenWork, ...] = ()

    @property
    def is_good(self) -> bool:
        return not self.violations and not self.still_open and self.lost == self.false == self.untrue_pages == 0


async def gather(
    stack: Stack,
    db: Database,
    visits: Sequence[Visit],
    *,
    seed: int,
    chaos: Sequence[str],
    duration_s: float,
    still_open: tuple[OpenWork, ...] = (),
) -> Report:
    """Read the ledger, the merchant's effects and our rows, and check every invariant.

    `still_open` are the rows that are open after the quiet time: their orders are not definite.
    """
    ledger = msgspec.convert(await stack.control("GET", "channel", "/control/ledger"), LedgerSnapshot, strict=False)
    effects = msgspec.convert(await stack.control("GET", "merchant", "/control/effects"), Effects, strict=False)
    arrivals = await stack.control("GET", "channel", "/control/arrivals")
    books, now = await read_books(db)
    placed = [visit.order_no for visit in visits if visit.placed]
    violations = check(ledger, effects, books, now=now, limits=_limits(stack), placed=placed)
    calls = msgspec.convert(arrivals["arrivals"], list[Arrival])
    violations += bounded_loads(calls, limits_per_s={}, limit_per_s=stack.rate_per_s)
    events = [(row["order_no"], row["by"], row["at"]) for row in await db.fetch(_PAID_EVENTS)]
    times = _repair_times(ledger, await _paid_at(db))
    broken = Counter(violation.invariant for violation in violations)
    return Report(
        seed=seed,
        placed=len(books.orders),
        paid_at_channel=sum(payment.status.was_paid for payment in ledger.payments),
        repaired_by=_count_by_source(events),
        repair_p50_s=_quantile(times, 50),
        repair_p99_s=_quantile(times, 99),
        callback_only_lost=_callback_only_lost(ledger),
        lost=broken[Invariant.I1],
        false=broken[Invariant.I2],
        closed=sum(order.status == "closed" for order in books.orders),
        cases=dict(sorted(Counter(case.reason for case in books.cases).items())),
        untrue_pages=sum(len(visit.wrong_views) for visit in visits),
        channel_calls=len(calls),
        busiest_second=arrivals["busiest_second"],
        duration_s=round(duration_s, 1),
        chaos=tuple(chaos),
        violations=tuple(violations),
        still_open=still_open,
    )


def lines(report: Report) -> list[str]:
    """The report for a person, without colours."""
    load = f"{report.channel_calls} channel calls, at most {report.busiest_second} in any second"
    out = [
        "",
        f"The demo ran {report.placed} orders in {report.duration_s:.0f} s, seed {report.seed}: {load}.",
        "",
        f"paid at the channel        {report.paid_at_channel:>6}",
    ]
    out += [f"  confirmed by {name:<18} {count:>4}" for name, count in report.repaired_by.items() if count]
    out += [
        f"closed unpaid              {report.closed:>6}",
        f"open cases                 {sum(report.cases.values()):>6}    "
        + ", ".join(f"{reason} {count}" for reason, count in report.cases.items()),
        f"payments without callback  {report.callback_only_lost:>6}    paid, and no genuine callback arrived",
        f"pages with a wrong status  {report.untrue_pages:>6}    unpaid, failed or closed shown after the payment",
        f"from paid at the channel to paid here: p50 {report.repair_p50_s:.2f} s, p99 {report.repair_p99_s:.2f} s",
        "",
        *(
            f"BROKEN {broken.invariant}: {broken.order_no} {broken.sentence}"
            for broken in report.violations[:SHOWN_MAX]
        ),
        *(f"STILL OPEN {row.sentence}" for row in report.still_open[:SHOWN_MAX]),
        f"not definite {len(report.still_open)}",
        f"lost {report.lost}",
        f"false {report.false}",
    ]
    return out


def _limits(stack: Stack) -> Limits:
    """The limits of work: after its attempts are used up a row is due a day later, in the run's own time."""
    settings = read_settings(stack.environ)
    ahead_s = settings.backoff().day_s + settings.payable_margin_s
    return Limits(overdue_s=OVERDUE_S, ahead_s=ahead_s, lease_s=settings.lease_s)


def _count_by_source(events: Sequence[tuple[str, str, datetime]]) -> dict[str, int]:
    counts = Counter(by for _, by, _ in events)
    return {name: sum(counts[by] for by in sources) for name, sources in CONFIRMED_BY.items()}


async def _paid_at(db: Database) -> dict[str, datetime]:
    sql = """SELECT out_trade_no, min(at) AS at FROM order_events
              WHERE kind IN ('paid', 'paid_late', 'double_payment') GROUP BY out_trade_no"""
    return {row["out_trade_no"]: row["at"] for row in await db.fetch(sql)}


def _repair_times(ledger: LedgerSnapshot, known_at: dict[str, datetime]) -> list[float]:
    return [
        max(0.0, (known_at[payment.out_trade_no] - payment.paid_at).total_seconds())
        for payment in ledger.payments
        if payment.paid_at is not None and payment.out_trade_no in known_at
    ]


def _callback_only_lost(ledger: LedgerSnapshot) -> int:
    """Paid payments without a genuine callback: a shop that waits for callbacks would lose them."""
    called_back = {
        (callback.merchant_id, callback.out_trade_no)
        for callback in ledger.acknowledged
        if callback.sent_as is SentAs.GENUINE
    }
    paid = [payment for payment in ledger.payments if payment.status.was_paid]
    return sum((payment.merchant_id, payment.out_trade_no) not in called_back for payment in paid)


def _quantile(values: Sequence[float], percent: int) -> float:
    if len(values) < 2:  # noqa: PLR2004 - quantiles need two
        return sum(values)
    return quantiles(values, n=100, method="inclusive")[percent - 1]
