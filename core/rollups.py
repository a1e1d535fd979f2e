"""Roll-ups: figures of a span of time that add up, how they are merged and read, and which buckets are to be computed.

A roll-up is a mapping from a key to a whole number. Every figure is a sum, so an hour is the sum of its five minutes
and a deployment is the sum of its accounts. A duration is kept as a histogram, whose slots add up too.

Keys, by scope:

    all        placed, closed
    account    paid, late, double, paid_amount:CUR, by:SOURCE, paid_s:SLOT, repaired_s:SLOT,
               expected, unheard, unheard_amount:CUR,
               callbacks, callbacks_paid, callbacks_dead, callback_copies, callbacks_refused,
               calls, calls_unanswered, call_s:SLOT, held:rate, held:breaker, held:other
    endpoint   delivered, first_try, attempts, dead, delivered_s:SLOT, tries, tries_failed, try_s:SLOT
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import IntEnum, StrEnum
from itertools import accumulate
from types import MappingProxyType
from typing import NamedTuple

Figures = Mapping[str, int]
"""Sums by key; a key that is not there is 0."""


COUNTED = frozenset(
    ("calls", "calls_unanswered", "call_s", "held", "callbacks_refused", "tries", "tries_failed", "try_s")
)
"""The keys, before their colon, of what processes count and no table has."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Scope(StrEnum):
    """The kind of what a roll-up is of. `all`: the deployment, for what belongs to no account."""

    ALL = "all"
    ACCOUNT = "account"
    ENDPOINT = "endpoint"


class Step(IntEnum):
    """Length of a bucket in seconds. Buckets begin at whole multiples of it, in UTC."""

    MINUTES = 300
    HOUR = 3_600
    DAY = 86_400


KEEP_S: Mapping[Step, int] = MappingProxyType(
    {Step.MINUTES: 50 * Step.HOUR, Step.HOUR: 100 * Step.DAY, Step.DAY: 800 * Step.DAY}
)
"""Age at which buckets are deleted: those of five minutes two hours after the last moment at which they are read."""

COMPUTED_S = 48 * Step.HOUR
"""Age of the oldest bucket of five minutes that is computed: from the begin of its hour on, so that no hour is a part.
"""

FILLED_DAYS = 98
"""Days back in which an hour that was never computed, or not after its end, is filled from the tables: hours are kept
longer, so the day that they are summed into is whole."""

FINER: Mapping[Step, Step] = MappingProxyType({Step.HOUR: Step.MINUTES, Step.DAY: Step.HOUR})
"""The buckets that one of this length is the sum of."""

SPAN_BOUNDS_S: Sequence[float] = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1_800, 3_600, 14_400, 86_400)
"""Bounds of the slots of `paid_s`, `repaired_s` and `delivered_s`: a channel's times are to the second."""

CALL_BOUNDS_S: Sequence[float] = (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10)
"""Bounds of the slots of `call_s` and `try_s`."""

LATE_S = 60
"""A bucket is computed again so long after its end, when the last of its statements have been committed."""

HEARD_S = 600
"""A callback that came later than this after its payment was paid here would have come too late to count as heard."""

SETTLED_S = HEARD_S + LATE_S
"""A bucket is computed for the last time so long after its end."""

TALLIES_MAX = 5_000
"""Different keys that a process counts; new endpoints that come later count as one, which has no name."""


class Span(NamedTuple):
    """A span of time that a person chooses: so many buckets of one length, the current one among them."""

    name: str
    step: Step
    size: int

    def since(self, now: datetime) -> datetime:
        """The begin of its first bucket."""
        return bucket_of(now, self.step) - timedelta(seconds=self.step * (self.size - 1))

    def buckets(self, now: datetime) -> list[datetime]:
        """The begin of each of its buckets, oldest first."""
        since = self.since(now)
        return [since + timedelta(seconds=self.step * number) for number in range(self.size)]


SPANS: Mapping[str, Span] = MappingProxyType(
    {
        span.name: span
        for span in (
            Span("1h", Step.MINUTES, 12),
            Span("24h", Step.HOUR, 24),
            Span("7d", Step.HOUR, 168),
            Span("30d", Step.DAY, 30),
            Span("90d", Step.DAY, 90),
        )
    }
)


def bucket_of(at: datetime, step: Step) -> datetime:
    """The begin of the bucket that an instant falls into."""
    return EPOCH + (at - EPOCH) // timedelta(seconds=step) * timedelta(seconds=step)


def due_buckets(computed: Mapping[datetime, datetime], now: datetime, *, first_at: datetime) -> list[datetime]:
    """The buckets of five minutes that are to be computed, newest first. `computed`: when each was computed last.

    The current one is always due; any other until it was computed after its last late row and after its last callback.
    `first_at`: the oldest row that they are made of. Hours before it are empty, and are not computed.
    """
    current = bucket_of(now, Step.MINUTES)
    step = timedelta(seconds=Step.MINUTES)
    first = max(first_of_minutes(now), bucket_of(first_at, Step.HOUR))
    starts = (current - number * step for number in range(max(0, (current - first) // step) + 1))
    return [start for start in starts if start == current or _is_due(computed.get(start), start + step, now)]


def first_of_minutes(now: datetime) -> datetime:
    """The begin of the oldest bucket of five minutes that is computed, which is that of its hour."""
    return bucket_of(now - timedelta(seconds=COMPUTED_S), Step.HOUR)


def batch_of(due: Sequence[datetime], size: int) -> list[datetime]:
    """The first `size` of the buckets that are due, newest first, and no part of an hour: all that is due of it is
    summed into it at once. `size` is more than the buckets of an hour.
    """
    batch = list(due[:size])
    if len(due) <= size:
        return batch
    split = bucket_of(due[size], Step.HOUR)
    return [start for start in batch if bucket_of(start, Step.HOUR) != split] or batch


def filled_since(now: datetime, first_order_at: datetime | None, *, kept_days: int) -> datetime:
    """The begin of the first day that is filled. `kept_days`: rows of the tables may be deleted after so many. Before
    the first order there is nothing to fill.
    """
    today = bucket_of(now, Step.DAY)
    since = today - timedelta(days=max(0, min(FILLED_DAYS, kept_days - 1)))
    return max(since, today if first_order_at is None else bucket_of(first_order_at, Step.DAY))


def _is_due(computed_at: datetime | None, end: datetime, now: datetime) -> bool:
    if computed_at is None:
        return True
    return any(computed_at < end + timedelta(seconds=after) <= now for after in (LATE_S, SETTLED_S))


def hours_to_fill(computed: Mapping[datetime, datetime], since: datetime, now: datetime) -> list[datetime]:
    """Hours from `since` on that have no five minutes any more and were never computed, or not after the last of their
    callbacks: the newest first. `computed`: when each hour was computed last.
    """
    hour, first = timedelta(seconds=Step.HOUR), first_of_minutes(now)
    starts = (first - number * hour for number in range(1, max(0, (first - since) // hour) + 1))
    settled = hour + timedelta(seconds=SETTLED_S)
    return [start for start in starts if start not in computed or computed[start] < start + settled]


def stale(finer: Mapping[datetime, datetime], computed: Mapping[datetime, datetime], step: Step) -> list[datetime]:
    """The longer buckets in which a shorter one was computed after they were: they are to be summed up again. Whoever
    died between the two is made good for.
    """
    newest: dict[datetime, datetime] = {}
    for start, computed_at in finer.items():
        longer = bucket_of(start, step)
        newest[longer] = max(computed_at, newest.get(longer, computed_at))
    return sorted(start for start, at in newest.items() if start not in computed or computed[start] < at)


def merged(several: Iterable[Figures]) -> dict[str, int]:
    """The sum of several roll-ups."""
    total: dict[str, int] = {}
    for figures in several:
        for key, value in figures.items():
            total[key] = total.get(key, 0) + value
    return total


def by_word(figures: Figures, key: str) -> dict[str, int]:
    """The figures whose key is `key:word`, by the word, the largest first."""
    words = {name[len(key) + 1 :]: value for name, value in figures.items() if name.startswith(f"{key}:")}
    return dict(sorted(words.items(), key=lambda word: (-word[1], word[0])))


# -- durations ---------------------------------------------------------------------------------------------------------


def slot_of(seconds: float, bounds: Sequence[float]) -> int:
    """The number of bounds that are not above it: Postgres's `width_bucket` gives the same."""
    return bisect_right(bounds, seconds)


def histogram(figures: Figures, key: str, bounds: Sequence[float]) -> tuple[int, ...]:
    """The counts of all slots, one more than there are bounds."""
    return tuple(figures.get(f"{key}:{slot}", 0) for slot in range(len(bounds) + 1))


def quantile(counts: Sequence[int], bounds: Sequence[float], share: float) -> float | None:
    """Seconds below which this share of the durations lies, as if those of a slot were spread evenly over it.

    None: there are none. In the last slot, which has no end, it is the last bound: "at least so long".
    """
    total = sum(counts)
    if not total:
        return None
    wanted = share * total
    ends = list(accumulate(counts))
    slot = next(slot for slot, end in enumerate(ends) if end >= wanted and counts[slot])
    if slot == len(bounds):
        return float(bounds[-1])
    low = bounds[slot - 1] if slot else 0.0
    return low + (bounds[slot] - low) * max(0.0, wanted - (ends[slot] - counts[slot])) / counts[slot]


# -- what a process counts ---------------------------------------------------------------------------------------------


class Tally(NamedTuple):
    """Key of a count of this process."""

    scope: str
    name: str
    key: str


def new_counts(totals: Mapping[Tally, int], written: Mapping[Tally, int]) -> list[tuple[str, str, dict[str, int]]]:
    """The counts since the last writing, by scope and name."""
    grown: dict[tuple[str, str], dict[str, int]] = {}
    for tally, total in totals.items():
        if count := total - written.get(tally, 0):
            grown.setdefault((tally.scope, tally.name), {})[tally.key] = count
    return [(scope, name, figures) for (scope, name), figures in grown.items()]
