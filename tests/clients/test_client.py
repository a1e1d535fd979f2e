"""Calls of both clients over a scripted transport, with an injected clock: retries, errors, reading."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from nodrop_client import (
    AsyncClient,
    Client,
    NewOrder,
    NewPayment,
    NoAnswer,
    NodropError,
    NotDefinite,
    NotFound,
    Order,
    OrderConflict,
    OrdersQuery,
    Payer,
    Problem,
    PublicStatus,
    Retries,
    TooManyRequests,
    Unavailable,
    UnreadableAnswer,
)
from nodrop_client.models import OrderStatus, PaidBy

URL = "https://pay.test"
KEY = "nk_canary"
NEW = NewOrder(order_no="A-1", amount=8888, currency="CNY", subject="Tea", account="main")
ORDER: dict[str, Any] = {
    "order_no": "A-1",
    "status": "paying",
    "public_status": "processing",
    "version": 2,
    "amount": 8888,
    "currency": "CNY",
    "subject": "Tea",
    "order_page": f"{URL}/o/t",
    "created_at": "2026-11-23T04:33:33.120000Z",
    "expires_at": "2026-11-23T05:33:33Z",
    "handed_off_at": None,
    "paid_at": None,
    "closed_at": None,
    "paid_by": None,
    "notify_url": None,
    "return_url": None,
    "metadata": {"cart": "茶 7"},
    "payments": [],
    "refunds": [],
    "disputes": [],
    "live": None,
    "open_cases": [],
}
PAID = ORDER | {"status": "paid", "public_status": "paid", "version": 3}


def answered(body: object, status: int = 200, **headers: str) -> httpx.Response:
    return httpx.Response(status, json=body, headers={name.replace("_", "-"): text for name, text in headers.items()})


def problem(status: int, slug: str, **headers: str) -> httpx.Response:
    body = {
        "type": f"https://pay.test/problems/{slug}",
        "title": "A title.",
        "status": status,
        "detail": "a detail",
        "instance": "urn:nodrop:request:0123",
    }
    return answered(body, status, content_type="application/problem+json", **headers)


class Far:
    """The far side: answers by a script, the last answer for ever. Its clock moves only while somebody sleeps."""

    def __init__(self, *script: httpx.Response | Exception) -> None:
        self.script = list(script)
        self.requests: list[httpx.Request] = []
        self.pauses: list[float] = []
        self.now = 1000.0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(step, Exception):
            raise step
        return httpx.Response(step.status_code, headers=step.headers, content=step.content)

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    async def sleep_async(self, seconds: float) -> None:
        self.sleep(seconds)


class Both:
    """A client whose methods can be called without `await`, whichever it is."""

    def __init__(self, *, is_async: bool) -> None:
        self._is_async = is_async

    def call(self, far: Far, name: str, *arguments: Any, retries: Retries | None = None, **named: Any) -> Any:  # noqa: ANN401 - of any method
        """What the method returned; a list if it iterates."""
        options: dict[str, Any] = {"retries": retries, "clock": lambda: far.now, "chance": lambda: 1.0}
        if not self._is_async:
            http = httpx.Client(transport=httpx.MockTransport(far))
            with Client(URL, KEY, http=http, sleep=far.sleep, **options) as client:
                returned = getattr(client, name)(*arguments, **named)
                return list(returned) if isinstance(returned, Iterator) else returned
        return asyncio.run(self._call(far, name, arguments, named, options))

    async def _call(
        self, far: Far, name: str, arguments: tuple[Any, ...], named: dict[str, Any], options: dict[str, Any]
    ) -> object:
        http = httpx.AsyncClient(transport=httpx.MockTransport(far))
        async with AsyncClient(URL, KEY, http=http, sleep=far.sleep_async, **options) as client:
            returned = getattr(client, name)(*arguments, **named)
            if isinstance(returned, AsyncIterator):
                return [each async for each in returned]
            return await returned


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def both(request: pytest.FixtureRequest) -> Both:
    return Both(is_async=request.param)


# -- reading -----------------------------------------------------------------------------------------------------------


def test_an_order_is_placed_and_read(both: Both) -> None:
    far = Far(answered(ORDER, 201))
    order = both.call(far, "place", replace(NEW, payer=Payer(openid="o_1"), metadata={"cart": "茶 7"}))
    [request] = far.requests
    assert (request.method, str(request.url)) == ("POST", f"{URL}/v1/orders")
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert json.loads(request.content) == {
        "order_no": "A-1",
        "amount": 8888,
        "currency": "CNY",
        "subject": "Tea",
        "account": "main",
        "method": "",
        "metadata": {"cart": "茶 7"},
        "payer": {"openid": "o_1"},
    }
    assert isinstance(order, Order)
    assert (order.status, order.version, order.metadata) == (OrderStatus.PAYING, 2, {"cart": "茶 7"})
    assert order.created_at == datetime(2026, 11, 23, 4, 33, 33, 120_000, UTC)
    assert not order.is_definite
    assert not order.is_paid


def test_fields_and_statuses_of_a_later_service_do_no_harm(both: Both) -> None:
    later = {
        "status": "frozen",
        "public_status": "frozen",
        "new": [1],
        "paid_by": {"account": "a", "out_trade_no": "1"},
    }
    later["paid_by"] |= {"new": 1}  # type: ignore[operator]
    order = both.call(Far(answered(ORDER | later)), "get", "A-1")
    assert order.status == "frozen"
    assert order.paid_by == PaidBy(account="a", out_trade_no="1")
    assert not order.is_definite


@pytest.mark.parametrize(
    "change",
    [
        {"amount": "8888"},
        {"amount": 88.88},
        {"amount": True},
        {"amount": None},
        {"created_at": "2026-11-23T04:33:33"},
        {"created_at": "yesterday"},
        {"status": 1},
        {"payments": {}},
        {"payments": [1]},
        {"metadata": {"cart": 1}},
    ],
)
def test_what_is_of_another_type_is_no_order(both: Both, change: dict[str, object]) -> None:
    with pytest.raises(UnreadableAnswer) as raised:
        both.call(Far(answered(ORDER | change)), "get", "A-1")
    assert str(raised.value).startswith(f"200: Order.{next(iter(change))}")


@pytest.mark.parametrize("content", [b"<html>", b"[]", b"", b"[" * 100_000, json.dumps({"order_no": "A-1"}).encode()])
def test_what_is_no_order_is_not_read_as_one(both: Both, content: bytes) -> None:
    far = Far(httpx.Response(200, content=content))
    with pytest.raises(UnreadableAnswer):
        both.call(far, "place", NEW)
    assert len(far.requests) == 1


def test_all_pages_are_listed(both: Both) -> None:
    pages = [{"orders": [ORDER, ORDER], "next_cursor": "c1"}, {"orders": [PAID], "next_cursor": None}]
    far = Far(*map(answered, pages))
    since = datetime(2026, 11, 23, tzinfo=UTC)
    orders = both.call(far, "orders", OrdersQuery(status="paying", created_after=since, limit=2))
    assert [order.version for order in orders] == [2, 2, 3]
    queries = [dict(request.url.params) for request in far.requests]
    first = {"status": "paying", "created_after": "2026-11-23T00:00:00+00:00", "limit": "2"}
    assert queries == [first, first | {"cursor": "c1"}]


def test_a_time_without_a_zone_is_not_sent(both: Both) -> None:
    far = Far(answered(ORDER))
    with pytest.raises(ValueError, match="zone"):
        both.call(far, "orders", OrdersQuery(created_after=datetime(2026, 11, 23)))  # noqa: DTZ001 - the point
    assert far.requests == []


@pytest.mark.parametrize("order_no", ["", "..", ".", "a/b", "a?b", "a#b", "../v1/cases", "a\n", "é", "a" * 65])
def test_a_number_that_no_order_has_is_no_address(both: Both, order_no: str) -> None:
    far = Far(answered(ORDER))
    for method in ("get", "refresh", "close_order", "timeline"):
        with pytest.raises(ValueError, match="order_no"):
            both.call(far, method, order_no)
    assert far.requests == []


# -- retries -----------------------------------------------------------------------------------------------------------


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


# -- errors ------------------------------------------------------------------------------------------------------------


def test_a_problem_tells_what_is_needed(both: Both) -> None:
    with pytest.raises(OrderConflict) as raised:
        both.call(Far(problem(409, "order_conflict")), "place", NEW)
    error = raised.value
    assert (error.status, error.slug, error.detail, error.trace_id) == (409, "order_conflict", "a detail", "0123")
    assert error.type == "https://pay.test/problems/order_conflict"
    assert str(error) == "409 order_conflict: A title.: a detail: trace 0123"


def test_a_relative_type_is_the_same_problem(both: Both) -> None:
    body = {"type": "/problems/order_conflict"}
    with pytest.raises(OrderConflict):
        both.call(Far(answered(body, 409, content_type="application/problem+json; charset=utf-8")), "place", NEW)


def test_a_new_type_of_problem_is_a_problem(both: Both) -> None:
    with pytest.raises(Problem) as raised:
        both.call(Far(problem(409, "a_new_one")), "place", NEW)
    assert type(raised.value) is Problem
    assert raised.value.slug == "a_new_one"


@pytest.mark.parametrize("content", [b"<html>", b"[]", b"[" * 100_000])
@pytest.mark.parametrize("type_", ["text/html", "application/problem+json"])
def test_a_404_of_a_router_is_not_believed(both: Both, type_: str, content: bytes) -> None:
    with pytest.raises(UnreadableAnswer) as raised:
        both.call(Far(httpx.Response(404, content=content, headers={"content-type": type_})), "get", "A-1")
    assert not isinstance(raised.value, NotFound)
    assert raised.value.status == 404


def test_no_error_shows_the_key_or_the_buyer(both: Both) -> None:
    for failure in (problem(401, "unauthorized"), httpx.ConnectError("x"), httpx.Response(200, content=b"no")):
        with pytest.raises(NodropError) as raised:
            both.call(Far(failure), "place", NEW, retries=Retries(total_s=0))
        assert KEY not in repr(raised.value)
    assert "o_1" not in repr(replace(NEW, payer=Payer(openid="o_1", client_ip="192.0.2.1")))


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("key", ["", f"{KEY}\n", f"{KEY}\r\nx-more: 1", f"{KEY} ", f"{KEY}\0", f"{KEY}é"])
def test_a_key_that_no_header_takes_is_refused_and_not_repeated(kind: Callable[..., object], key: str) -> None:
    """As of a file that ends with a line: httpx would repeat it in the text of its error."""
    with pytest.raises(ValueError, match="API key") as raised:
        kind(URL, key)
    assert KEY not in repr(raised.value)


def test_a_type_that_is_no_address_is_a_problem(both: Both) -> None:
    with pytest.raises(Problem) as raised:
        both.call(Far(answered({"type": "http://["}, 409, content_type="application/problem+json")), "get", "A-1")
    assert (type(raised.value), raised.value.slug) == (Problem, "")


def test_every_request_has_our_time_limit_and_a_given_client_stays_open() -> None:
    far = Far(answered(ORDER))
    with httpx.Client(transport=httpx.MockTransport(far), timeout=None) as http:  # noqa: S113 - the point
        with Client(URL, KEY, http=http) as client:
            client.get("A-1")
        assert not http.is_closed
    assert far.requests[0].extensions["timeout"] == {"connect": 5, "read": 30, "write": 30, "pool": 30}
    with Client(URL, KEY, timeout_s=2) as own:
        pass
    assert own._http.is_closed


@pytest.mark.parametrize("url", ["", "pay.test", "ftp://pay.test", "file:///etc"])
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_an_address_that_is_none_is_refused(kind: Callable[..., object], url: str) -> None:
    with pytest.raises(ValueError, match="begins with"):
        kind(url, KEY)


# -- watching ----------------------------------------------------------------------------------------------------------


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


# -- the other calls ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments", "method", "path"),
    [
        ("get", ("A-1",), "GET", "/v1/orders/A-1"),
        ("refresh", ("A-1",), "POST", "/v1/orders/A-1/refresh"),
        ("close_order", ("A-1",), "POST", "/v1/orders/A-1/close"),
        ("start_payment", ("A-1", NewPayment(account="other")), "POST", "/v1/orders/A-1/payments"),
    ],
)
def test_a_call_goes_to_its_address(both: Both, name: str, arguments: tuple[Any, ...], method: str, path: str) -> None:
    far = Far(answered(ORDER))
    assert both.call(far, name, *arguments).order_no == "A-1"
    [request] = far.requests
    assert (request.method, request.url.path) == (method, path)


def test_cases_and_a_timeline_are_read(both: Both) -> None:
    entry = {"at": "2026-11-23T04:33:33Z", "kind": "placed", "by": "api", "version": 1, "account": None}
    entry |= {"out_trade_no": None, "note": "", "evidence": {"a": [1]}, "api_key": "k"}
    [read] = both.call(Far(answered({"entries": [entry]})), "timeline", "A-1")
    assert (read.kind, read.evidence) == ("placed", {"a": [1]})
    case = {"id": 1, "order_no": "A-1", "account": None, "out_trade_no": None, "reason": "new", "detail": ""}
    case |= {"opened_at": "2026-11-23T04:33:33Z", "resolved_at": None, "resolution": None, "by": None}
    far = Far(answered({"cases": [case], "next_cursor": "c1"}), answered({"cases": [case], "next_cursor": None}))
    assert [one.reason for one in both.call(far, "cases")] == ["new", "new"]
    first = {"open": "true", "limit": "50"}
    assert [dict(request.url.params) for request in far.requests] == [first, first | {"cursor": "c1"}]
