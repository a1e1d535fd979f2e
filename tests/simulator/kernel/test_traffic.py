"""The rate limit of a channel over explicit times."""

import pytest

from simulator.kernel.traffic import Traffic

LIMIT = 2


@pytest.mark.parametrize(
    ("times", "admitted"),
    [
        ((0.0, 0.5, 0.9), (True, True, False)),
        ((0.0, 0.5, 1.0), (True, True, True)),
        ((0.9, 0.95, 1.1, 1.85, 1.95), (True, True, False, False, True)),
    ],
    ids=["third call in a second", "a second after the first call", "window across two seconds"],
)
def test_a_call_is_admitted_if_the_last_second_has_room(times: tuple[float, ...], admitted: tuple[bool, ...]) -> None:
    traffic = Traffic()
    assert tuple(traffic.admits("m-main", LIMIT, at) for at in times) == admitted


def test_each_merchant_has_a_limit_of_its_own() -> None:
    traffic = Traffic()
    assert [traffic.admits(merchant, 1, 0.0) for merchant in ("m-main", "m-other", "m-main")] == [True, True, False]


def test_limit_0_admits_every_call() -> None:
    traffic = Traffic()
    assert all(traffic.admits("m-main", 0, 0.0) for _ in range(100))
