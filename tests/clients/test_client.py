"""Calls of both clients: what is sent, how answers and errors are read."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from nodrop_client import (
    AsyncClient,
    Client,
    NewPayment,
    NodropError,
    NotFound,
    Order,
    OrderConflict,
    OrdersQuery,
    Payer,
    Problem,
    Retries,
    UnreadableAnswer,
)
from nodrop_client.models import OrderStatus, PaidBy
from tests.clients.far_side import KEY, NEW, ORDER, PAID, URL, Both, Far, answered, problem

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
