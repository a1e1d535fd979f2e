"""Limits on refreshes, with a clock that the test sets."""

import pytest

from api.limits import PER_ADDRESS, PER_ORDER, RefreshLimits, Rule, Window
from core.errors import TooManyRequests


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
