"""Rule of the shares. The tests of the Redis side check that all processes together follow it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.admission import Urgency, is_within_rate, kept_share

rates = st.integers(1, 200)


@pytest.mark.parametrize(("rate", "share"), [(1, 0), (2, 0), (3, 1), (5, 1), (9, 1), (10, 2), (50, 10), (100, 20)])
def test_each_urgency_with_a_share_keeps_a_fifth_of_the_rate(rate: int, share: int) -> None:
    assert kept_share(rate) == share


def admitted_calls(rate: int, requests: list[Urgency]) -> dict[Urgency, int]:
    calls = dict.fromkeys(Urgency, 0)
    for urgency in requests:
        calls[urgency] += is_within_rate(rate, urgency, calls)
    return calls


@given(rates, st.lists(st.sampled_from(Urgency), max_size=300))
def test_admitted_calls_in_a_second_never_exceed_the_rate(rate: int, requests: list[Urgency]) -> None:
    assert sum(admitted_calls(rate, requests).values()) <= rate


@given(rates, st.lists(st.sampled_from(Urgency), max_size=300), st.sampled_from((Urgency.FRESH, Urgency.SCHEDULED)))
def test_a_kept_share_is_not_used_by_others(rate: int, requests: list[Urgency], urgency: Urgency) -> None:
    """A call within its own share is admitted, also when the others use all the rest. Strangers use the fresh share."""
    calls = admitted_calls(rate, requests)
    strangers = calls[Urgency.STRANGER] if urgency is Urgency.FRESH else 0
    if calls[urgency] + strangers < kept_share(rate):
        assert is_within_rate(rate, urgency, calls)


@pytest.mark.parametrize("urgency", Urgency)
def test_the_first_call_of_a_second_is_always_admitted(urgency: Urgency) -> None:
    assert all(is_within_rate(rate, urgency, {}) for rate in range(1, 100))


def test_refreshes_alone_leave_two_shares_free() -> None:
    assert admitted_calls(50, [Urgency.REFRESH] * 100)[Urgency.REFRESH] == 30
