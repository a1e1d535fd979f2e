"""A buyer: places orders over HTTP, pays them by the simulator's control API, and requests their callbacks.

A payment's own callback is lost on purpose. The buyer requests another one, because the control API responds to that
request when nodrop has acknowledged the callback: a client knows the end of its order without polling.
"""

from __future__ import annotations

import time
from typing import Self

import msgspec

from bench.rig import ACCOUNT, Rig
from simulator.kit.http_client import exchange, http_client
from simulator.shoppers.shop import OrderRequest, Refused, Shop, ShopOrder

TIMEOUT_S = 30.0
RESPONSE_BYTES_MAX = 4096
_LOST = msgspec.json.encode({"at_fault": {"callback": "lost"}})


class Unexpected(Exception):
    """The system did not do what is measured; the figure would be wrong."""


class Purchase(msgspec.Struct, frozen=True):
    """Times of one order in seconds."""

    placed_s: float
    acknowledged_s: float
    total_s: float


class Buyer:
    """One HTTP client for all orders. Enter it before use."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._shop = Shop(rig.stack.api_url, rig.stack.api_key)
        self._client = http_client()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._shop.__aexit__()
        await self._client.close()

    @property
    def requests(self) -> int:
        """Number of requests for all orders: more than the orders if some were repeated."""
        return self._shop.attempts

    async def place(self, order_no: str) -> ShopOrder:
        """Place an order with an open payment.

        Raises:
            Unexpected: the order was refused.
        """
        placed = await self._shop.place(
            OrderRequest(
                order_no=order_no,
                amount=8888,
                currency="CNY",
                subject="A cup of tea",
                account=ACCOUNT,
                notify_url=self._rig.stack.notify_url,
            )
        )
        if isinstance(placed, Refused):
            raise Unexpected(f"{order_no} was refused: {placed.http_status} {placed.code}")
        return placed

    async def buy(self, order_no: str) -> Purchase:
        """Place an order, pay it, and request its callback until nodrop has acknowledged it."""
        began = time.perf_counter()
        order = await self.place(order_no)
        placed = time.perf_counter()
        number = order.payments[0].out_trade_no
        await self.pay(number)
        paid = time.perf_counter()
        await self.control(number, "callback")
        ended = time.perf_counter()
        return Purchase(placed - began, ended - paid, ended - began)

    async def pay(self, out_trade_no: str) -> None:
        """Pay at the channel; the callback is lost."""
        await self.control(out_trade_no, "pay", _LOST)

    async def control(self, out_trade_no: str, action: str, body: bytes = b"") -> None:
        """Call the control API: `action` is `pay` or `callback`.

        Raises:
            Unexpected: the payment was not paid, or the callback not acknowledged.
        """
        url = f"{self._rig.stack.channel_url}/control/payments/{out_trade_no}/{action}"
        response = await exchange(
            self._client, "POST", url, headers={}, body=body, within_s=TIMEOUT_S, body_bytes_max=RESPONSE_BYTES_MAX
        )
        result = msgspec.json.decode(response.body)
        if result.get("status") != "paid" and not result.get("acknowledged"):
            raise Unexpected(f"{action} of {out_trade_no}: {result}")
