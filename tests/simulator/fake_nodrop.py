"""A minimal public API for shoppers: it creates payments at the channel, and queries it for every page.

With it the shoppers are tested without nodrop.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from simulator.kit.asgi import HTML, Reply, Request, Response, Route, json_response
from tests.simulator.sandbox_client import SandboxClient

Problem = tuple[int, str]


class FakeNodrop:
    """Orders in a dictionary. `fault` can replace a response, `shown_status` the status of a page."""

    url = ""

    def begin(self, channel: SandboxClient) -> None:
        """Start without orders and faults."""
        self.orders: dict[str, dict[str, Any]] = {}
        self.numbers: dict[str, list[str]] = {}
        self.page_requests: list[str] = []
        self.keys: list[str] = []
        self.fault: Callable[[str], Problem | None] = lambda _: None
        self.shown_status: Callable[[str], str] = lambda status: status
        self._channel = channel

    def routes(self) -> list[Route]:
        return [
            Route("POST", "/v1/orders", self._place),
            Route("POST", "/v1/orders/{order_no}/payments", self._add),
            Route("GET", "/o/{order_no}", self._page),
            Route("GET", "/o/{order_no}/status", self._status),
            Route("POST", "/o/{order_no}/refresh", self._status),
            Route("GET", "/o/{order_no}/return", self._return),
        ]

    async def _place(self, request: Request) -> Reply:
        self.keys.append(request.headers.get("authorization", ""))
        body = msgspec.json.decode(request.body)
        known = self.orders.setdefault(body["order_no"], body)
        if known != body:
            return problem(409, "order_conflict")
        return self._faulty("place") or await self._order_response(body["order_no"], f"{body['order_no']}_p1")

    async def _add(self, request: Request) -> Reply:
        order_no = request.params["order_no"]
        return self._faulty("add") or await self._order_response(order_no, f"{order_no}_p2")

    async def _order_response(self, order_no: str, number: str) -> Reply:
        order, numbers = self.orders[order_no], self.numbers.setdefault(order_no, [])
        back = f"{self.url}/o/{order_no}/return"
        created = await self._channel.create(number, amount=order["amount"], return_url=back)
        if number not in numbers:
            numbers.append(number)
        checkout = {"kind": "redirect", "value": created.json()["pay_url"]}
        shown = {"out_trade_no": number, "account": "main", "status": "open", "checkout": checkout}
        others = [{"out_trade_no": other, "checkout": None} for other in numbers if other != number]
        return json_response(
            {
                "order_no": order_no,
                "status": "paying",
                "version": 2,
                "amount": order["amount"],
                "currency": order["currency"],
                "order_page": f"{self.url}/o/{order_no}?token=abc",
                "payments": [*others, shown],
            },
            201,
        )

    async def _page(self, request: Request) -> Reply:
        self.page_requests.append(f"page {request.query}")
        return Response(body=b"<!doctype html><title>Order</title>", content_type=HTML)

    async def _status(self, request: Request) -> Reply:
        self.page_requests.append(f"{request.target.rpartition('/')[2]} {request.method}")
        numbers = self.numbers[request.params["order_no"]]
        statuses = {(await self._channel.query(number)).json()["status"] for number in numbers}
        return json_response({"status": self.shown_status("paid" if "paid" in statuses else "processing")})

    async def _return(self, request: Request) -> Reply:
        self.page_requests.append("return")
        return Response(status=303, headers=(("location", f"/o/{request.params['order_no']}?token=abc"),))

    def _faulty(self, operation: str) -> Response | None:
        spoilt = self.fault(operation)
        return None if spoilt is None else problem(*spoilt)


def problem(status: int, slug: str) -> Response:
    body = {"type": f"https://nodrop.example/problems/{slug}", "title": "…", "status": status}
    return Response(status=status, body=msgspec.json.encode(body), content_type="application/problem+json")
