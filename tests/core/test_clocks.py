"""The clock that is believed: this process's, Postgres's, or the channels'."""

import pytest

from core.clocks import ClockVerdict, judge_clock


@pytest.mark.parametrize(
    ("skew_s", "channels", "state", "is_corrected"),
    [
        (None, [], "not_compared", False),
        (None, [90.0], "contradicted", False),
        (0.0, [], "right", False),
        (2.0, [], "right", False),
        (-2.0, [60.0], "right", False),
        (2.1, [], "corrected", True),
        (-600.0, [], "corrected", True),
        (600.0, [0.4, -1.0], "corrected", True),
        # Postgres is the one that is wrong: this process agrees with the channels.
        (600.0, [600.0], "contradicted", False),
        (0.0, [61.0], "contradicted", False),
        (0.0, [-61.0], "contradicted", False),
        # One channel beside another is one of four clocks.
        (600.0, [0.0, 600.0], "corrected", True),
        (600.0, [0.0, 600.0, 601.0], "contradicted", False),
        (3600.0, [], "corrected", True),
        (3601.0, [], "far_off", True),
        (-86_400.0, [0.0], "far_off", True),
        (3601.0, [3601.0], "far_off", False),
    ],
)
def test_a_clock_is_judged_by_postgres_and_by_the_channels(
    skew_s: float | None, channels: list[float], state: str, *, is_corrected: bool
) -> None:
    verdict = judge_clock(skew_s, channels)
    assert (verdict.state, verdict.is_corrected) == (state, is_corrected)


def test_a_clock_that_was_not_compared_is_used_as_it_is() -> None:
    assert (ClockVerdict().state, ClockVerdict().is_corrected, ClockVerdict().is_far_off) == (
        "not_compared",
        False,
        False,
    )
