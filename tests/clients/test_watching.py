"""An order is read until it is definite, also through outages."""

import httpx
import pytest

from nodrop_client import (
    NotDefinite,
    NotFound,
    PublicStatus,
    Retries,
    UnreadableAnswer,
)
from tests.clients.far_side import NEW, ORDER, PAID, Both, Far, answered, problem


def test_an_order_is_watched_until_it_is_definite(both: Both) -> None:
    unchanged = httpx.Response(304)
    far = Far(answered(ORDER, etag='"2-a"'), unchanged, unchanged, unchanged, answered(PAID, etag='"3-b"'))
    order = both.call(far, "watch", "A-1", timeout_s=600)
    assert order.is_paid
    known = [request.headers.get("if-none-match", "") for request in far.requests]
    assert known == ["", '"2-a"', '"2-a"', '"2-a"', '"2-a"']
    assert far.pauses == [1, 2, 4, 8]


def test_a_change_makes_the_pauses_short_again(both: Both) -> None:
    first, second = (answered(ORDER | {"version": version}, etag=f'"{version}"') for version in (2, 3))
    far = Far(first, httpx.Response(304), httpx.Response(304), second, answered(PAID | {"version": 4}))
    both.call(far, "watch", "A-1", timeout_s=600)
    assert far.pauses == [1, 2, 4, 1]


def test_pauses_grow_without_entity_tags_too(both: Both) -> None:
    far = Far(*[answered(ORDER)] * 4, answered(PAID))
    both.call(far, "watch", "A-1", timeout_s=600)
    assert far.pauses == [1, 2, 4, 8]


def test_an_answer_to_a_case_is_seen_within_a_version(both: Both) -> None:
    review = PAID | {"status": "closed", "public_status": "review"}
    far = Far(answered(review, etag='"3-a"'), answered(review | {"public_status": "closed"}, etag='"3-b"'))
    assert both.call(far, "watch", "A-1", timeout_s=600).public_status == "closed"


def test_an_older_answer_is_not_taken_for_news(both: Both) -> None:
    """As from a copy of the service that lags."""
    older = answered(PAID | {"version": 1})
    far = Far(answered(ORDER), older, httpx.ConnectError("x"))
    with pytest.raises(NotDefinite) as raised:
        both.call(far, "watch", "A-1", timeout_s=60)
    assert raised.value.order is not None
    assert raised.value.order.version == 2


def test_a_body_that_cannot_be_unpacked_is_unreadable(both: Both) -> None:
    far = Far(httpx.DecodingError("canary"))
    with pytest.raises(UnreadableAnswer):
        both.call(far, "place", NEW)
    assert len(far.requests) == 1


def test_an_outage_ends_no_watch(both: Both) -> None:
    outage: list[httpx.Response | Exception] = [
        httpx.ConnectError("x"),
        problem(503, "unavailable", retry_after="15"),
        httpx.Response(502),
    ]
    far = Far(*outage, answered(PAID))
    assert both.call(far, "watch", "A-1", timeout_s=600, retries=Retries(total_s=0)).is_paid
    assert far.pauses == [1, 16, 4]


@pytest.mark.parametrize("page", [httpx.Response(404, text="no such host"), httpx.Response(200, text="<html>")])
def test_a_page_of_a_router_ends_no_watch(both: Both, page: httpx.Response) -> None:
    """As during a deploy. If nothing else ever comes, it is the cause that is shown."""
    assert both.call(Far(answered(ORDER), page, answered(PAID)), "watch", "A-1", timeout_s=600).is_paid
    with pytest.raises(NotDefinite) as raised:
        both.call(Far(page), "watch", "A-1", timeout_s=30)
    assert isinstance(raised.value.__cause__, UnreadableAnswer)


def test_a_watch_ends_with_the_time_and_what_it_knows(both: Both) -> None:
    far = Far(answered(ORDER, etag='"2"'), httpx.Response(304))
    with pytest.raises(NotDefinite) as raised:
        both.call(far, "watch", "A-1", timeout_s=100)
    assert raised.value.order is not None
    assert raised.value.order.version == 2
    assert far.now == 1100
    assert max(far.pauses) == 15


def test_a_watch_that_read_nothing_says_so(both: Both) -> None:
    with pytest.raises(NotDefinite, match="could not be read") as raised:
        both.call(Far(httpx.ConnectError("x")), "watch", "A-1", timeout_s=30)
    assert raised.value.order is None


def test_an_unknown_order_is_not_watched(both: Both) -> None:
    far = Far(problem(404, "not_found"))
    with pytest.raises(NotFound):
        both.call(far, "watch", "A-1", timeout_s=600)
    assert len(far.requests) == 1


@pytest.mark.parametrize(
    ("status", "public_status", "is_definite"),
    [
        ("paid", PublicStatus.PAID, True),
        ("paid", PublicStatus.DISPUTED, True),
        ("closed", PublicStatus.CLOSED, True),
        ("closed", PublicStatus.REFUNDED, True),
        ("closed", PublicStatus.REVIEW, False),
        ("paying", PublicStatus.REFUNDED, False),
        ("paying", PublicStatus.PROCESSING, False),
        ("created", PublicStatus.CREATED, False),
    ],
)
def test_definite_is_an_order_that_has_ended(both: Both, status: str, public_status: str, *, is_definite: bool) -> None:
    order = both.call(Far(answered(ORDER | {"status": status, "public_status": public_status})), "get", "A-1")
    assert order.is_definite is is_definite
