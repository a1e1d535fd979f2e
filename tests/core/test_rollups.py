"""Roll-ups: which buckets are due, sums that merge, and quantiles of histograms."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.rollups import (
    COMPUTED_S,
    FILLED_DAYS,
    KEEP_S,
    LATE_S,
    SETTLED_S,
    SPAN_BOUNDS_S,
    SPANS,
    Span,
    Step,
    Tally,
    batch_of,
    bucket_of,
    by_word,
    due_buckets,
    filled_since,
    first_of_minutes,
    histogram,
    hours_to_fill,
    merged,
    new_counts,
    quantile,
    slot_of,
    stale,
)

NOW = datetime(2026, 11, 27, 18, 3, 20, tzinfo=UTC)
CURRENT = datetime(2026, 11, 27, 18, 0, tzinfo=UTC)
BUCKETS = COMPUTED_S // Step.MINUTES + 1
"""Those of 48 hours, and the current one: NOW is in the first five minutes of an hour."""

HOUR = timedelta(hours=1)
LONG_AGO = NOW - timedelta(days=400)


def ago(buckets: int) -> datetime:
    return CURRENT - timedelta(seconds=Step.MINUTES * buckets)


def all_computed(at: datetime = NOW) -> dict[datetime, datetime]:
    return dict.fromkeys([ago(number) for number in range(BUCKETS)], at)


@pytest.mark.parametrize(
    ("step", "begin"),
    [
        (Step.MINUTES, CURRENT),
        (Step.HOUR, datetime(2026, 11, 27, 18, tzinfo=UTC)),
        (Step.DAY, datetime(2026, 11, 27, tzinfo=UTC)),
    ],
)
def test_a_bucket_begins_at_a_whole_multiple_of_its_length(step: Step, begin: datetime) -> None:
    assert bucket_of(NOW, step) == begin
    assert bucket_of(begin, step) == begin
    assert bucket_of(begin - timedelta(microseconds=1), step) == begin - timedelta(seconds=step)


def test_without_a_computed_bucket_all_of_two_days_are_due_the_newest_first() -> None:
    due = due_buckets({}, NOW, first_at=LONG_AGO)
    assert due == [ago(number) for number in range(BUCKETS)]


def test_the_current_bucket_is_always_due_and_a_settled_one_never() -> None:
    assert due_buckets(all_computed(), NOW, first_at=LONG_AGO) == [CURRENT]


@pytest.mark.parametrize(
    ("computed_after_end", "now_after_end", "is_due"),
    [
        (-1, LATE_S - 1, False),
        (-1, LATE_S, True),
        (LATE_S - 1, LATE_S, True),
        (LATE_S, LATE_S + 1, False),
        (LATE_S, SETTLED_S - 1, False),
        (LATE_S, SETTLED_S, True),
        (SETTLED_S - 1, SETTLED_S, True),
        (SETTLED_S, SETTLED_S + 1, False),
        (SETTLED_S, 40 * Step.HOUR, False),
    ],
)
def test_a_bucket_is_computed_after_its_late_rows_and_after_its_last_callbacks(
    computed_after_end: int, now_after_end: int, *, is_due: bool
) -> None:
    end = ago(0)
    now = end + timedelta(seconds=now_after_end)
    computed = {bucket_of(now, Step.MINUTES) - timedelta(seconds=Step.MINUTES * n): now for n in range(BUCKETS)}
    computed[ago(1)] = end + timedelta(seconds=computed_after_end)
    assert (ago(1) in due_buckets(computed, now, first_at=LONG_AGO)) is is_due


@pytest.mark.parametrize("minute", [0, 3, 59])
def test_the_five_minutes_that_are_computed_are_whole_hours_that_are_kept(minute: int) -> None:
    """A sum of a part of an hour would take the place of the whole."""
    now = NOW.replace(minute=minute)
    oldest = due_buckets({}, now, first_at=LONG_AGO)[-1]
    assert oldest == first_of_minutes(now) == bucket_of(oldest, Step.HOUR)
    assert now - oldest < timedelta(seconds=KEEP_S[Step.MINUTES])


@pytest.mark.parametrize(
    ("first_at", "count"), [(NOW, 1), (NOW + HOUR, 1), (CURRENT, 1), (CURRENT - timedelta(seconds=1), 13)]
)
def test_hours_before_the_first_row_are_not_computed(first_at: datetime, count: int) -> None:
    """A new database has one bucket, and not two days of them."""
    assert due_buckets({}, NOW, first_at=first_at) == [ago(number) for number in range(count)]


@pytest.mark.parametrize("size", range(13, 60))
def test_a_batch_has_no_part_of_an_hour_that_goes_on_behind_it(size: int) -> None:
    due = due_buckets({}, NOW, first_at=LONG_AGO)
    while due:
        batch = batch_of(due, size)
        assert 0 < len(batch) <= size
        assert batch == due[: len(batch)]
        due = due[len(batch) :]
        assert not due or bucket_of(due[0], Step.HOUR) != bucket_of(batch[-1], Step.HOUR)
    assert batch_of([], size) == []


# -- what nobody has computed ------------------------------------------------------------------------------------------


def test_an_hour_that_was_never_computed_or_not_after_its_end_is_filled_the_newest_first() -> None:
    first = first_of_minutes(NOW)
    since = first - 5 * HOUR
    settled = timedelta(seconds=Step.HOUR + SETTLED_S)
    computed = {
        first - HOUR: NOW,
        first - 2 * HOUR: first - 2 * HOUR + settled - timedelta(seconds=1),  # the worker ended in it
        first - 3 * HOUR: first - 3 * HOUR + settled,
    }
    assert hours_to_fill(computed, since, NOW) == [first - 2 * HOUR, first - 4 * HOUR, since]
    assert hours_to_fill({}, first, NOW) == hours_to_fill({}, NOW, NOW) == []


@pytest.mark.parametrize(
    ("first_order", "kept_days", "days"),
    [
        (NOW - timedelta(days=500), 180, FILLED_DAYS),
        (NOW - timedelta(days=500), 30, 29),
        (NOW - timedelta(days=500), 1, 0),
        (NOW - timedelta(days=3, hours=5), 180, 3),
        (NOW, 180, 0),
        (None, 180, 0),
    ],
)
def test_whole_days_are_filled_as_far_back_as_there_are_orders_and_all_is_kept(
    first_order: datetime | None, kept_days: int, days: int
) -> None:
    since = filled_since(NOW, first_order, kept_days=kept_days)
    assert since == bucket_of(NOW, Step.DAY) - timedelta(days=days)
    assert NOW - since < timedelta(seconds=KEEP_S[Step.HOUR]), "a day is summed from hours that are all kept"


def test_what_was_summed_up_before_one_of_its_parts_was_computed_is_summed_up_again() -> None:
    hour = bucket_of(NOW, Step.HOUR)
    minutes = {hour - n * HOUR + timedelta(minutes=5 * m): NOW + timedelta(minutes=m) for n in range(4) for m in (0, 1)}
    newest = NOW + timedelta(minutes=1)
    hours = {hour: newest, hour - HOUR: newest - timedelta(microseconds=1), hour - 2 * HOUR: newest + HOUR}
    assert stale(minutes, hours, Step.HOUR) == [hour - 3 * HOUR, hour - HOUR]
    assert stale({}, hours, Step.HOUR) == []


@pytest.mark.parametrize("span", SPANS.values(), ids=SPANS)
def test_a_span_is_kept_as_long_as_it_is_shown(span: Span) -> None:
    assert NOW - span.since(NOW) < timedelta(seconds=KEEP_S[span.step])
    buckets = span.buckets(NOW)
    assert (len(buckets), buckets[0], buckets[-1]) == (span.size, span.since(NOW), bucket_of(NOW, span.step))


figures = st.dictionaries(st.sampled_from(["paid", "by:query", "by:callback", "paid_s:3"]), st.integers(0, 10**12))


@given(st.lists(figures))
def test_merged_figures_are_the_sums(several: Sequence[dict[str, int]]) -> None:
    total = merged(several)
    assert all(total.get(key, 0) == sum(each.get(key, 0) for each in several) for key in ("paid", "by:query"))
    assert merged([merged(several[:2]), merged(several[2:])]) == total


def test_words_of_a_key_come_with_the_largest_first() -> None:
    of = {"by:query": 2, "by:callback": 5, "by:close": 2, "byte": 7, "paid": 9}
    assert list(by_word(of, "by").items()) == [("callback", 5), ("close", 2), ("query", 2)]


# -- durations ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "slot"), [(0.0, 0), (0.99, 0), (1.0, 1), (1.99, 1), (2.0, 2), (86_399.0, 12), (86_400.0, 13), (1e9, 13)]
)
def test_a_duration_falls_into_the_slot_whose_bounds_hold_it(seconds: float, slot: int) -> None:
    assert slot_of(seconds, SPAN_BOUNDS_S) == slot


def test_a_histogram_has_one_slot_more_than_bounds() -> None:
    assert histogram({"s:0": 1, "s:2": 3, "t:1": 9}, "s", (1.0, 2.0)) == (1, 0, 3)


@pytest.mark.parametrize(
    ("counts", "share", "seconds"),
    [
        ((0, 0, 0), 0.5, None),
        ((4, 0, 0), 0.5, 0.5),
        ((4, 0, 0), 0.0, 0.0),
        ((0, 4, 0), 0.5, 2.5),
        ((2, 2, 0), 0.5, 1.0),
        ((2, 2, 0), 0.75, 2.5),
        ((1, 0, 1), 0.99, 4.0),
        ((0, 0, 5), 0.5, 4.0),
    ],
)
def test_a_quantile_lies_within_its_slot(counts: Sequence[int], share: float, seconds: float | None) -> None:
    assert quantile(counts, (1.0, 4.0), share) == seconds


@given(st.lists(st.floats(0, 200_000), min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.99]))
def test_a_quantile_of_merged_histograms_is_in_the_slot_of_the_true_one(durations: list[float], share: float) -> None:
    halves = (durations[::2], durations[1::2])
    of = [merged({f"s:{slot_of(each, SPAN_BOUNDS_S)}": 1} for each in half) for half in halves]
    counts = histogram(merged(of), "s", SPAN_BOUNDS_S)
    assert sum(counts) == len(durations)
    estimate = quantile(counts, SPAN_BOUNDS_S, share)
    true = sorted(durations)[max(0, -(-int(share * 1000) * len(durations) // 1000) - 1)]
    assert estimate is not None
    low = (0.0, *SPAN_BOUNDS_S)[slot_of(true, SPAN_BOUNDS_S)]
    high = (*SPAN_BOUNDS_S, SPAN_BOUNDS_S[-1])[slot_of(true, SPAN_BOUNDS_S)]
    assert low <= estimate <= high


# -- what a process counts ---------------------------------------------------------------------------------------------


def test_only_what_has_grown_is_written() -> None:
    calls, held, sent = (
        Tally("account", "a", "calls"),
        Tally("account", "a", "held:rate"),
        Tally("endpoint", "u", "tries"),
    )
    before = {calls: 2, sent: 1}
    assert new_counts({calls: 5, held: 1, sent: 1}, before) == [("account", "a", {"calls": 3, "held:rate": 1})]
    assert new_counts(before, before) == []
