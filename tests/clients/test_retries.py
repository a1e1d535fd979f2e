"""Calls that are sent again, and those that are not."""

import httpx
import pytest

from nodrop_client import (
    NoAnswer,
    NodropError,
    Retries,
    TooManyRequests,
    Unavailable,
)
from tests.clients.far_side import NEW, ORDER, Both, Far, answered, problem


@pytest.mark.parametrize(
    "failure",
    [
        httpx.ReadTimeout("canary"),
        httpx.ConnectError("canary"),
        httpx.RemoteProtocolError("canary"),
        httpx.Response(502, text="bad gateway"),
        httpx.Response(504),
        problem(503, "channel_unavailable"),
        problem(503, "unavailable"),
        problem(503, "a_new_one"),
        problem(500, "internal_error"),
        problem(429, "too_many_requests"),
        httpx.Response(429),
    ],
    ids=repr,
)
def test_what_may_have_happened_is_sent_again_unchanged(both: Both, failure: httpx.Response | Exception) -> None:
    far = Far(failure, failure, answered(ORDER))
    assert both.call(far, "place", NEW).order_no == "A-1"
    assert len({(request.method, str(request.url), request.content) for request in far.requests}) == 1
    assert far.pauses == [0.5, 1.0]


@pytest.mark.parametrize(
    "failure",
    [
        problem(400, "invalid_request"),
        problem(401, "unauthorized"),
        problem(404, "not_found"),
        problem(409, "order_conflict"),
        problem(422, "payment_refused"),
        problem(418, "a_new_one"),
        httpx.Response(404, text="no such host"),
        httpx.Response(301, headers={"location": "https://elsewhere.test"}),
        httpx.Response(304),
    ],
    ids=repr,
)
def test_what_is_definite_is_raised_at_once(both: Both, failure: httpx.Response) -> None:
    far = Far(failure)
    with pytest.raises(NodropError):
        both.call(far, "place", NEW)
    assert (len(far.requests), far.pauses) == (1, [])


def test_pauses_double_up_to_a_limit_and_end_with_the_time(both: Both) -> None:
    far = Far(httpx.ReadTimeout("canary"))
    with pytest.raises(NoAnswer):
        both.call(far, "place", NEW)
    assert far.pauses == [0.5, 1, 2, 4, 8, 8, 8, 8, 8, 8]
    assert far.now <= 1060


def test_retry_after_is_waited_for(both: Both) -> None:
    far = Far(problem(429, "too_many_requests", retry_after="7"), answered(ORDER))
    both.call(far, "place", NEW)
    assert far.pauses == [7.5]


def test_a_retry_after_beyond_the_time_is_not_waited_for(both: Both) -> None:
    far = Far(problem(503, "unavailable", retry_after="61"))
    with pytest.raises(Unavailable) as raised:
        both.call(far, "place", NEW)
    assert (raised.value.retry_after_s, far.pauses) == (61, [])


@pytest.mark.parametrize("text", ["Wed, 21 Oct 2026 07:28:00 GMT", "-1", "1.5", "²", "9" * 400, ""])
def test_a_retry_after_that_cannot_be_used_is_ignored(both: Both, text: str) -> None:
    far = Far(httpx.Response(429, headers=[(b"retry-after", text.encode())]), answered(ORDER))
    both.call(far, "place", NEW)
    assert far.pauses == [0.5]


def test_without_time_a_call_is_sent_once(both: Both) -> None:
    far = Far(problem(429, "too_many_requests"))
    with pytest.raises(TooManyRequests):
        both.call(far, "place", NEW, retries=Retries(total_s=0))
    assert len(far.requests) == 1


@pytest.mark.parametrize("attempt", [1, 2, 5, 1000])
def test_chance_shortens_a_pause_to_a_half_at_most(attempt: int) -> None:
    longest = Retries().pause_s(attempt, None, 1.0)
    assert longest / 2 == Retries().pause_s(attempt, None, 0.0)
    assert Retries().pause_s(attempt, 30, 0.0) == 30
