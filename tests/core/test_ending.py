"""Marks of certificates and keys that end, and of disputes that are to be answered."""

from datetime import UTC, datetime, timedelta

import pytest

from core.ending import DisputeUrgency, Ending, EndingKind, Mark, dispute_urgency, mark_of, soonest_first

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("left", "mark"),
    [
        (None, Mark.ROTATING),
        (timedelta(seconds=-1), Mark.ENDED),
        (timedelta(), Mark.ENDED),
        (timedelta(seconds=1), Mark.DAY),
        (timedelta(days=1), Mark.DAY),
        (timedelta(days=1, seconds=1), Mark.WEEK),
        (timedelta(days=7), Mark.WEEK),
        (timedelta(days=30), Mark.MONTH),
        (timedelta(days=30, seconds=1), Mark.LATER),
    ],
)
def test_an_end_is_marked_30_7_and_1_days_before(left: timedelta | None, mark: Mark) -> None:
    assert mark_of(None if left is None else NOW + left, NOW) is mark


def ending(name: str, days: int | None) -> Ending:
    ends_at = None if days is None else NOW + timedelta(days=days)
    return Ending(kind=EndingKind.API_KEY, name=name, what="key", ends_at=ends_at, mark=mark_of(ends_at, NOW))


def test_the_soonest_end_comes_first_and_rotations_last() -> None:
    sorted_ = soonest_first([ending("d", None), ending("c", 5), ending("b", 1), ending("a", 5)])
    assert [each.name for each in sorted_] == ["b", "a", "c", "d"]


@pytest.mark.parametrize(
    ("left", "urgency"),
    [
        (None, DisputeUrgency.NONE),
        (timedelta(), DisputeUrgency.OVERDUE),
        (timedelta(hours=24), DisputeUrgency.DAY),
        (timedelta(days=7), DisputeUrgency.WEEK),
        (timedelta(days=8), DisputeUrgency.LATER),
    ],
)
def test_a_dispute_is_as_urgent_as_its_moment_to_answer(left: timedelta | None, urgency: DisputeUrgency) -> None:
    assert dispute_urgency(None if left is None else NOW + left, NOW) is urgency
