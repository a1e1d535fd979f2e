from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.backoff import Backoff

MINUTE = 60.0
keys = st.text(max_size=40)
backoffs = st.builds(
    Backoff,
    unit_s=st.floats(0.01, 3600.0),
    attempts_max=st.integers(1, 100),
    jitter=st.floats(0.0, 0.1),
    early_s=st.lists(st.floats(0.1, 59.0), max_size=4).map(tuple),
)


def test_gaps_are_1_4_9_16_minutes() -> None:
    assert [Backoff().gap_s(attempt) / MINUTE for attempt in range(1, 8)] == [1, 4, 9, 16, 25, 36, 49]


def test_sixteen_attempts_span_24_hours_56_minutes() -> None:
    """WeChat Pay and Alipay resend their callbacks during this time."""
    backoff = Backoff()
    attempts = [attempt for attempt in range(1, 100) if not backoff.is_exhausted(attempt)]
    assert len(attempts) == 16
    assert timedelta(seconds=sum(map(backoff.gap_s, attempts))) == timedelta(hours=24, minutes=56)


@pytest.mark.parametrize("attempt", [17, 18, 1000])
def test_attempts_after_the_last_one_are_daily(attempt: int) -> None:
    assert Backoff().is_exhausted(attempt)
    assert timedelta(seconds=Backoff().gap_s(attempt)) == timedelta(days=1)


def test_unit_and_limit_are_settings() -> None:
    backoff = Backoff(unit_s=0.5, attempts_max=3)
    assert [backoff.gap_s(attempt) for attempt in range(1, 6)] == [0.5, 2.0, 4.5, 720.0, 720.0]
    assert [attempt for attempt in range(1, 6) if backoff.is_exhausted(attempt)] == [4, 5]


def test_early_queries_come_before_the_first_attempt() -> None:
    backoff = Backoff(early_s=(5.0, 20.0))
    attempts = range(backoff.first_attempt, 4)
    assert list(attempts) == [-1, 0, 1, 2, 3]
    assert [backoff.gap_s(attempt) for attempt in attempts] == [5.0, 20.0, 60.0, 240.0, 540.0]
    assert not any(map(backoff.is_exhausted, attempts))


def test_without_early_queries_the_first_attempt_is_1() -> None:
    assert Backoff().first_attempt == 1


@pytest.mark.parametrize("attempt", [-3, -1, 0])
@pytest.mark.parametrize("early_s", [(), (5.0,), (5.0, 20.0)])
def test_an_early_attempt_stays_valid_without_its_setting(attempt: int, early_s: tuple[float, ...]) -> None:
    """An account may lose its early queries while its payments are pending; their rows continue."""
    assert 0 < Backoff(early_s=early_s).gap_s(attempt) <= MINUTE


@given(backoffs, st.integers(-5, 200), keys)
def test_a_gap_is_positive_and_deterministic(backoff: Backoff, attempt: int, key: str) -> None:
    assert backoff.gap_s(attempt, key) == backoff.gap_s(attempt, key) > 0


@given(backoffs, st.integers(1, 200), keys)
def test_jitter_lengthens_a_gap_by_at_most_its_share(backoff: Backoff, attempt: int, key: str) -> None:
    exact = Backoff(unit_s=backoff.unit_s, attempts_max=backoff.attempts_max)
    rounding = 1e-12
    assert 1.0 - rounding <= backoff.gap_s(attempt, key) / exact.gap_s(attempt) <= 1.0 + backoff.jitter + rounding


@given(backoffs, keys)
def test_gaps_grow_until_the_attempts_are_used_up(backoff: Backoff, key: str) -> None:
    """Ten per cent of jitter never changes the order of n²: 1.1 × 16² < 17²."""
    last = min(backoff.attempts_max, 16)
    gaps = [backoff.gap_s(attempt, key) for attempt in range(1, last + 1)]
    assert gaps == sorted(gaps)


def test_jitter_spreads_payments_placed_at_the_same_time() -> None:
    backoff = Backoff(jitter=0.1)
    shares = sorted(backoff.gap_s(1, f"n-{number}") / MINUTE - 1.0 for number in range(1000))
    assert len(set(shares)) == 1000
    assert shares[0] < 0.002
    assert shares[-1] > 0.098
    assert 0.045 < shares[500] < 0.055


def test_without_jitter_a_gap_is_exact() -> None:
    assert {Backoff().gap_s(2, f"n-{number}") for number in range(100)} == {240.0}


@given(backoffs, st.integers(-3, 40), keys)
def test_the_next_try_is_the_next_attempt_after_its_gap(backoff: Backoff, attempt: int, key: str) -> None:
    next_try = backoff.next_try(attempt, key)
    assert next_try.attempt == attempt + 1
    assert next_try.delay_s == backoff.gap_s(attempt + 1, key)
    assert next_try.is_exhausted is (attempt >= backoff.attempts_max)


@given(backoffs, st.integers(-3, 400), keys, st.floats(0.0, 1e9))
def test_a_payable_payment_is_asked_at_least_twice_a_day_for_ever(
    backoff: Backoff, attempt: int, key: str, age_s: float
) -> None:
    next_try = backoff.next_while_payable(attempt, key, age_s)
    assert (next_try.attempt, next_try.is_exhausted) == (attempt + 1, False)
    if attempt >= backoff.attempts_max:
        assert next_try.delay_s <= backoff.day_s / 2 * (1.0 + backoff.jitter)
    else:
        assert next_try == backoff.next_try(attempt, key)


@given(backoffs, st.integers(-3, 40), st.floats(0.0, 3600.0), keys)
def test_waiting_uses_no_attempt_and_never_exhausts_them(
    backoff: Backoff, attempt: int, wait_s: float, key: str
) -> None:
    next_try = backoff.next_try(attempt, key, wait_s=wait_s)
    assert (next_try.attempt, next_try.delay_s, next_try.is_exhausted) == (attempt, wait_s, False)
