"""The rule of the shares; that all processes together keep to it is tested where it is implemented, over Redis."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.admission import WITH_SHARES, Urgency, is_within_rate, kept_share

rates = st.integers(1, 200)


@pytest.mark.parametrize(("rate", "share"), [(1, 0), (2, 0), (3, 1), (5, 1), (9, 1), (10, 2), (50, 10), (100, 20)])
def test_a_fifth_is_kept_for_each_where_there_is_anything_to_divide(rate: int, share: int) -> None:
    assert kept_share(rate) == share


def admitted(rate: int, wishes: list[Urgency]) -> dict[Urgency, int]:
    made = dict.fromkeys(Urgency, 0)
    for urgency in wishes:
        made[urgency] += is_within_rate(rate, urgency, made)
    return made


@given(rates, st.lists(st.sampled_from(Urgency), max_size=300))
def test_no_second_sees_more_calls_than_the_rate(rate: int, wishes: list[Urgency]) -> None:
    assert sum(admitted(rate, wishes).values()) <= rate


@given(rates, st.lists(st.sampled_from(Urgency), max_size=300), st.sampled_from(WITH_SHARES))
def test_nobody_uses_up_what_is_kept_for_others(rate: int, wishes: list[Urgency], late: Urgency) -> None:
    """Whoever has not used up its own share is admitted, whatever the others did."""
    made = admitted(rate, wishes)
    if made[late] < kept_share(rate):
        assert is_within_rate(rate, late, made)


@pytest.mark.parametrize("urgency", Urgency)
def test_the_first_call_of_a_second_is_always_admitted(urgency: Urgency) -> None:
    assert all(is_within_rate(rate, urgency, {}) for rate in range(1, 100))


def test_refreshes_alone_leave_two_shares_free() -> None:
    assert admitted(50, [Urgency.REFRESH] * 100)[Urgency.REFRESH] == 30
