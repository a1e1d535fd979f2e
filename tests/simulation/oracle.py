"""The oracle of a world: I1 to I10, from the channels' ledgers, the merchant's effects, the pages and one plain reading
of nodrop's rows.

It imports nothing of the product, so it shares no mistake with it. I1 to I7 are the rules that the demo is checked by.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from statistics import quantiles
from typing import Any

import msgspec

from demo.books import Rows, read_books
from simulator.kernel.snapshot import LedgerSnapshot
from simulator.kernel.traffic import busiest_second
from simulator.merchant.control import Effects
from simulator.oracle.books import Books
from simulator.oracle.invariants import check
from simulator.oracle.work import Limits

OVERDUE_S = 600.0
"""I7: work begins by its job, or after the lease of a process that has ended. Loops that rest are not waited for."""

AHEAD_S = 86_400.0 + 300.0
"""I7: the longest gap of queries, and the margin after the last moment for money."""

LEASE_S = 20.0
RATE_PER_S = 50
"""I8: calls a second that an account is allowed, which is the default of its configuration."""

CLOCKS = timedelta(seconds=1)
"""All clocks of a world are one, up to what texts of times leave out."""

DEFINITE_AFTER_S = 6 * 3600.0
"""An order is paid or closed so long after its end, with the longest gap of its queries between them."""

_PAID = """
SELECT json_agg(json_build_object('out_trade_no', out_trade_no, 'by', by, 'at', at))::text
  FROM (SELECT out_trade_no, min(at) AS at, (array_agg(by ORDER BY at))[1] AS by FROM order_events
         WHERE kind IN ('paid', 'paid_late', 'double_payment') GROUP BY out_trade_no) AS e"""
_OPEN = """
SELECT json_agg(order_no)::text FROM orders
 WHERE status IN ('created', 'paying') AND expires_at < now() - make_interval(secs => $1)"""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A violation: the invariant, the order, and what is there instead of what was expected."""

    invariant: str
    order_no: str
    sentence: str


class Recovered(msgspec.Struct, frozen=True, kw_only=True):
    """A payment that became paid here: by what, and how long after the channel had the money."""

    out_trade_no: str
    by: str
    after_s: float


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known from outside. `calls` are the times of calls to channels, by channel; `pages` the last status
    of each order's page; `denials` sentences about pages that were wrong when they were shown; `log` the lines of all
    processes, in which no text of `secrets` may be.
    """

    ledger: LedgerSnapshot
    effects: Effects
    placed: Sequence[str]
    calls: Mapping[str, Sequence[float]] = {}
    pages: Mapping[str, str] = {}
    denials: Sequence[tuple[str, str]] = ()
    log: Sequence[str] = ()
    secrets: Sequence[str] = ()


async def judge(db: Rows, evidence: Evidence) -> tuple[list[Found], list[Recovered]]:
    """Return all violations at the end of a world, and how its payments became paid."""
    books, now = await read_books(db)
    limits = Limits(overdue_s=OVERDUE_S, ahead_s=AHEAD_S, lease_s=LEASE_S)
    broken = check(evidence.ledger, evidence.effects, books, now=now, limits=limits, placed=evidence.placed)
    found = [Found(invariant=each.invariant, order_no=each.order_no, sentence=each.sentence) for each in broken]
    found += not_definite(await _read(db, _OPEN, DEFINITE_AFTER_S))
    found += bounded_load(evidence.calls)
    found += pages_agree(evidence, books)
    found += secrets_stay(evidence.log, evidence.secrets)
    paid = await _read(db, _PAID)
    found += money_came_first(evidence, books, paid)
    return found, recovered(evidence.ledger, paid)


def not_definite(order_nos: Iterable[str]) -> Iterator[Found]:
    """Report orders that are over and neither paid nor closed."""
    for order_no in order_nos:
        sentence = f"neither paid nor closed {DEFINITE_AFTER_S / 3600:g} hours after its end"
        yield Found(invariant="I7 no stuck work", order_no=order_no, sentence=sentence)


def bounded_load(calls: Mapping[str, Sequence[float]]) -> Iterator[Found]:
    """Check that no second has more calls to a channel than its account's rate."""
    for channel, times in calls.items():
        most = busiest_second(times)
        if most > RATE_PER_S:
            sentence = f"{most} calls to {channel} within one second, {RATE_PER_S} allowed"
            yield Found(invariant="I8 bounded load", order_no="", sentence=sentence)


def money_came_first(evidence: Evidence, books: Books, paid: Iterable[Mapping[str, Any]]) -> Iterator[Found]:
    """Check that nothing became paid here, and no merchant was notified, before the channel had the money."""
    there = {
        payment.out_trade_no: payment.paid_at for payment in evidence.ledger.payments if payment.paid_at is not None
    }
    orders = {row.out_trade_no: row.order_no for row in books.payments}
    first: dict[str, datetime] = {}
    for number, paid_at in there.items():
        order_no = orders.get(number, "")
        first[order_no] = min(paid_at, first.get(order_no, paid_at))
    for row in paid:
        money_at = there.get(row["out_trade_no"])
        if money_at is not None and datetime.fromisoformat(row["at"]) < money_at - CLOCKS:
            sentence = f"{row['out_trade_no']} became paid here before the channel had the money"
            yield Found(invariant="I2 no false paid", order_no=orders.get(row["out_trade_no"], ""), sentence=sentence)
    for effect in evidence.effects.effects:
        if effect.order_no in first and effect.at < first[effect.order_no] - CLOCKS:
            sentence = "the merchant was notified before the channel had the money"
            yield Found(invariant="I2 no false paid", order_no=effect.order_no, sentence=sentence)


def pages_agree(evidence: Evidence, books: Books) -> Iterator[Found]:
    """Check that no page denied a payment when it was shown, and that each shows its order's state in the end."""
    for order_no, sentence in evidence.denials:
        yield Found(invariant="I9 pages agree", order_no=order_no, sentence=sentence)
    shown_when = {
        "paid": {"paid", "refunded", "review", "disputed"},
        "closed": {"closed", "review", "refunded", "going_back"},
    }
    for order in books.orders:
        status = evidence.pages.get(order.order_no)
        if status is not None and status not in shown_when.get(order.status, {status}):
            sentence = f"the order is {order.status}, and its page shows {status or 'nothing'}"
            yield Found(invariant="I9 pages agree", order_no=order.order_no, sentence=sentence)


def secrets_stay(log: Iterable[str], secrets: Sequence[str]) -> Iterator[Found]:
    """Check that no line of a log holds a secret."""
    for line in log:
        for number, secret in enumerate(secrets):
            if secret in line:
                sentence = f"secret {number} is in a line of the log: {line.replace(secret, '…')[:120]}"
                yield Found(invariant="I10 secrets stay", order_no="", sentence=sentence)


def recovered(ledger: LedgerSnapshot, paid: Iterable[Mapping[str, Any]]) -> list[Recovered]:
    """Return how each payment of the ledger became paid here."""
    there = {payment.out_trade_no: payment.paid_at for payment in ledger.payments if payment.paid_at is not None}
    found = []
    for row in paid:
        paid_at = there.get(row["out_trade_no"])
        if paid_at is not None:
            after_s = (datetime.fromisoformat(row["at"]) - paid_at).total_seconds()
            found.append(Recovered(out_trade_no=row["out_trade_no"], by=row["by"], after_s=max(0.0, after_s)))
    return found


async def _read(db: Rows, sql: str, *args: object) -> list[Any]:
    row = await db.fetchrow(sql, *args)
    return [] if row is None or row[0] is None else msgspec.json.decode(row[0], type=list[Any])


# -- figures -----------------------------------------------------------------------------------------------------------


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds from paid at the channel to paid here."""

    n: int
    p50_s: float
    p99_s: float
    max_s: float


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of one world. `paid`: payments with money at the channel, `paid_orders`: orders with such a payment.
    `lost` and `false`: orders with a violation of I1, and of I2.
    """

    orders: int
    paid: int
    paid_orders: int = 0
    lost: int
    false: int
    by: dict[str, int]
    times: Times
    by_channel: dict[str, Times]
    calls: dict[str, int]
    calls_per_order: float
    views: int


def figures(evidence: Evidence, found: Sequence[Found], ways: Sequence[Recovered], *, views: int) -> Figures:
    """Return the figures of a world."""
    accounts = {payment.out_trade_no: payment.account for payment in evidence.ledger.payments}
    by_account: defaultdict[str, list[float]] = defaultdict(list)
    for way in ways:
        by_account[accounts[way.out_trade_no]].append(way.after_s)
    broken: defaultdict[str, set[str]] = defaultdict(set)
    for each in found:
        broken[each.invariant[:2]].add(each.order_no)
    calls = {channel: len(times) for channel, times in sorted(evidence.calls.items())}
    return Figures(
        orders=len(evidence.placed),
        paid=sum(payment.status.was_paid for payment in evidence.ledger.payments),
        paid_orders=len({payment.subject for payment in evidence.ledger.payments if payment.status.was_paid}),
        lost=len(broken["I1"]),
        false=len(broken["I2"]),
        by=dict(sorted(Counter(way.by for way in ways).items())),
        times=_times([way.after_s for way in ways]),
        by_channel={name: _times(seconds) for name, seconds in sorted(by_account.items())},
        calls=calls,
        calls_per_order=round(sum(calls.values()) / max(1, len(evidence.placed)), 2),
        views=views,
    )


def _times(seconds: Sequence[float]) -> Times:
    return Times(
        n=len(seconds),
        p50_s=quantile(seconds, 50),
        p99_s=quantile(seconds, 99),
        max_s=round(max(seconds, default=0.0), 2),
    )


def quantile(values: Sequence[float], percent: int) -> float:
    """Return the percentile of the values."""
    if len(values) < 2:
        return round(sum(values), 2)
    return round(quantiles(values, n=100, method="inclusive")[percent - 1], 2)
