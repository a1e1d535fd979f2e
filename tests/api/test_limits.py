"""Limits on refreshes and guesses, with a clock that the test sets."""

from contextlib import ExitStack, suppress

import pytest

from api.limits import GUESSES_PER_MINUTE, PER_ADDRESS, PER_ORDER, Guesses, RefreshLimits, Rule, StartLimits, Window
from core.errors import NotFound, TooManyRequests


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def refuses(limits: RefreshLimits, order_no: str, address: str) -> float | None:
    try:
        limits.take(order_no, address)
    except TooManyRequests as refused:
        return refused.retry_after_s
    return None


def test_an_order_is_refreshed_once_in_three_seconds() -> None:
    clock = Clock()
    limits = RefreshLimits(clock)
    assert refuses(limits, "A", "1.1.1.1") is None
    clock.now += 1
    assert refuses(limits, "A", "2.2.2.2") == pytest.approx(2.0)
    assert limits.wait_s("A") == pytest.approx(2.0)
    assert refuses(limits, "B", "2.2.2.2") is None
    clock.now += 2
    assert refuses(limits, "A", "2.2.2.2") is None


def test_an_order_is_refreshed_ten_times_a_minute() -> None:
    clock = Clock()
    limits = RefreshLimits(clock)
    for _ in range(10):
        assert refuses(limits, "A", "1.1.1.1") is None
        clock.now += 3
    assert refuses(limits, "A", "1.1.1.1") == pytest.approx(30.0)
    clock.now += 30
    assert refuses(limits, "A", "1.1.1.1") is None


def test_an_address_refreshes_sixty_times_a_minute() -> None:
    clock = Clock()
    limits = RefreshLimits(clock)
    for number in range(60):
        assert refuses(limits, f"A{number}", "1.1.1.1") is None
    assert refuses(limits, "B", "1.1.1.1") == pytest.approx(60.0)
    assert refuses(limits, "B", "2.2.2.2") is None, "a refused refresh was not counted for its order"


def test_a_return_is_counted_apart_from_the_button() -> None:
    limits = RefreshLimits(Clock())
    limits.take("A", "1.1.1.1")
    assert limits.take_return("A", "1.1.1.1")
    assert not limits.take_return("A", "1.1.1.1")


def test_a_carriers_customers_share_an_address_and_all_of_them_pay() -> None:
    clock = Clock()
    starts = StartLimits(clock)
    for number in range(3000):
        assert starts.take(f"A{number}", "1.1.1.1"), number
        clock.now += 0.6
    assert sum(starts.take(f"B{number}", "1.1.1.1") for number in range(1000)) < 120, "and nobody floods"


def test_memory_is_bounded_and_the_longest_idle_is_forgotten_first() -> None:
    window = Window((Rule(1, 60.0),), keys_max=100)
    for number in range(1000):
        window.take(str(number), float(number) / 1000)
    assert len(window) == 100
    assert window.wait_s("999", 1.0) > 0
    assert window.wait_s("0", 1.0) == 0


def test_the_rules_are_those_of_the_documentation() -> None:
    assert (Rule(1, 3.0), Rule(10, 60.0)) == PER_ORDER
    assert (Rule(60, 60.0),) == PER_ADDRESS


def guess(guesses: Guesses, address: str = "1.1.1.1", *, finds: bool = False) -> float:
    """Seconds until the next guess; 0 when this one was made."""
    try:
        with suppress(NotFound), guesses.look_up(address):
            _look_up(finds=finds)
    except TooManyRequests as refused:
        return refused.retry_after_s
    return 0.0


def _look_up(*, finds: bool) -> None:
    if not finds:
        raise NotFound


def test_an_address_guesses_three_hundred_times_a_minute() -> None:
    clock = Clock()
    guesses = Guesses(clock)
    assert [guess(guesses) for _ in range(GUESSES_PER_MINUTE)] == [0.0] * GUESSES_PER_MINUTE
    assert guess(guesses) == pytest.approx(0.2)
    assert guess(guesses, finds=True) == pytest.approx(0.2), "whether it would find one is not told"
    assert guess(guesses, "2.2.2.2") == 0.0
    clock.now += 1
    assert [guess(guesses) for _ in range(6)] == [0.0] * 5 + [pytest.approx(0.2)]


def test_a_look_up_that_finds_its_order_is_not_counted() -> None:
    guesses = Guesses(Clock())
    for _ in range(2 * GUESSES_PER_MINUTE):
        assert guess(guesses, finds=True) == 0.0
    assert len(guesses) == 0
    assert [guess(guesses) for _ in range(GUESSES_PER_MINUTE + 1)][-1] > 0


def test_guesses_under_way_count() -> None:
    guesses = Guesses(Clock())
    with ExitStack() as under_way:
        for _ in range(GUESSES_PER_MINUTE):
            under_way.enter_context(guesses.look_up("1.1.1.1"))
        assert guess(guesses) > 0
    assert guess(guesses) == 0.0


def test_addresses_that_guess_are_remembered_in_bounded_memory() -> None:
    guesses = Guesses(Clock(), keys_max=100)
    for number in range(1000):
        guess(guesses, str(number))
    assert len(guesses) == 100
