"""Silent callbacks: which last payments make an account silent, given its past."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.silence import (
    CHANCE_MAX,
    LAST_MAX,
    NEW_SHARE,
    PAST_MIN,
    SHARE_MAX,
    SHARE_MIN,
    Heard,
    LastPayments,
    chance_of,
    expected_share,
    judge_silence,
)

NOW = datetime(2026, 11, 27, 18, tzinfo=UTC)
WELL = [Heard(payments=100, heard=99)]
LOSSY = [Heard(payments=100, heard=80)]


def last(pattern: str) -> LastPayments:
    """`..x`: the newest first, a minute apart; a dot was heard, an x was not."""
    paid_at = tuple(NOW - timedelta(minutes=number) for number in range(len(pattern)))
    return LastPayments(account="main", paid_at=paid_at, is_heard=tuple(mark == "." for mark in pattern))


@pytest.mark.parametrize(
    ("pattern", "past", "is_silent"),
    [
        # nothing to judge, or too little
        ("", WELL, False),
        ("xxxx", WELL, False),
        # all is well, and single losses
        ("..........", WELL, False),
        ("x.........", WELL, False),
        ("xx..x.....", WELL, False),
        ("xxxx......", WELL, False),
        ("x....", WELL, False),
        # it stopped
        ("xxxxx", WELL, True),
        ("xxxxxx....", WELL, True),
        ("xxxxxxxxxx", WELL, True),
        # it came back
        ("....xxxxxx", WELL, True),
        (".....xxxxx", WELL, False),
        # an account that loses a fifth as a rule
        ("xxx.x.....", LOSSY, False),
        ("xxxxxxx...", LOSSY, False),
        ("xxxxxxxx.x", LOSSY, True),
        # new, and never heard
        ("xxxxx", [], True),
        ("xxxx.", [], False),
        ("xxxxxxxxxx", [Heard(payments=500, heard=0)], True),
        ("xxxxx", [Heard(payments=500, heard=0)], False),
    ],
)
def test_an_account_is_silent_when_its_last_payments_say_so(
    pattern: str, past: Sequence[Heard], *, is_silent: bool
) -> None:
    silent = judge_silence(last(pattern), past)
    assert (silent is not None) is is_silent
    if silent is not None:
        assert (silent.account, silent.payments, silent.heard) == ("main", len(pattern), pattern.count("."))


@pytest.mark.parametrize(("pattern", "minutes"), [("xxxxxx....", 5), ("xxxxx", 4), ("....xxxxxx", 0)])
def test_it_is_silent_since_the_oldest_payment_in_a_row_without_a_callback(pattern: str, minutes: int) -> None:
    silent = judge_silence(last(pattern), WELL)
    assert silent is not None
    assert silent.since == NOW - timedelta(minutes=minutes)


KNOWN_AFTER = 4
"""Minutes until a payment that no callback told of is found: the queries come 1 and 4 minutes apart."""


def seen_at(minute: int, silent_from: int) -> LastPayments:
    """The last payments of an account with one a minute, as they are known and can be judged in this minute."""
    judged = [at for at in range(minute) if at + 2 <= minute and (at < silent_from or at + KNOWN_AFTER <= minute)]
    newest = judged[: -LAST_MAX - 1 : -1]
    paid_at = tuple(NOW + timedelta(minutes=at) for at in newest)
    return LastPayments(account="main", paid_at=paid_at, is_heard=tuple(at < silent_from for at in newest))


@pytest.mark.parametrize("past", [WELL, []], ids=["well", "new"])
def test_an_account_with_a_payment_a_minute_is_called_out_within_ten_minutes(past: Sequence[Heard]) -> None:
    silent_from = 30
    assert all(judge_silence(seen_at(minute, silent_from), past) is None for minute in range(silent_from + 1))
    first = next(minute for minute in range(silent_from, 60) if judge_silence(seen_at(minute, silent_from), past))
    assert first - silent_from <= 10
    assert all(judge_silence(seen_at(minute, silent_from), past) for minute in range(first, 300))


@pytest.mark.parametrize(
    ("past", "share"),
    [
        ([], NEW_SHARE),
        ([Heard(payments=PAST_MIN - 1, heard=0)], NEW_SHARE),
        ([Heard(payments=PAST_MIN, heard=0)], SHARE_MIN),
        ([Heard(payments=100, heard=100)], SHARE_MAX),
        # a silence of weeks does not make it normal
        ([Heard(payments=100, heard=95), *[Heard(payments=100, heard=0)] * 20], 0.95),
    ],
)
def test_the_best_day_is_what_is_expected(past: Sequence[Heard], share: float) -> None:
    assert expected_share(past) == share


@given(st.integers(0, 10), st.integers(0, 10), st.floats(0.01, 0.99))
def test_the_chance_is_that_of_so_many_or_fewer(one: int, two: int, share: float) -> None:
    heard, payments = sorted((one, two))
    chance = chance_of(heard, payments, share)
    above = sum(comb(payments, n) * share**n * (1 - share) ** (payments - n) for n in range(heard + 1, payments + 1))
    assert chance + above == pytest.approx(1)


@given(st.lists(st.booleans(), max_size=10), st.floats(SHARE_MIN, SHARE_MAX))
def test_nobody_is_called_out_for_what_happens_by_chance(is_heard: list[bool], share: float) -> None:
    """Of ten thousand accounts at which all is as ever, at most one is called out at a time."""
    judged = LastPayments(account="a", paid_at=(NOW,) * len(is_heard), is_heard=tuple(is_heard))
    past = [Heard(payments=10_000, heard=round(share * 10_000))]
    if judge_silence(judged, past) is not None:
        assert chance_of(sum(is_heard), len(is_heard), expected_share(past)) < CHANCE_MAX
