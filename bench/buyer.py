"""The far side's hand: places orders over HTTP, pays them by the simulator's control API, has it call back.

A payment's own callback is lost on purpose and another one asked for, because the control API answers that one when
nodrop has acknowledged it: so a client knows without polling when its order is through.
"""

from __future__ import annotations

import time
from typing import Self

import msgspec

from bench.rig import ACCOUNT, Rig
from simulator.kit.http_client import exchange, http_client
from simulator.shoppers.shop import OrderRequest, Refused, Shop, ShopOrder

TIMEOUT_S = 30.0
ANSWER_BYTES_MAX = 4096
_LOST = msgspec.json.encode({"at_fault": {"callback": "lost"}})


class Unexpected(Exception):
    """The system under measurement did not do what is measured; the figure would be of something else."""


class Purchase(msgspec.Struct, frozen=True):
    """One order on its way through; seconds."""

    placed_s: float
    acknowledged_s: float
    total_s: float


class Buyer:
    """One HTTP client for all who buy. To be entered before use."""

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
        """How many requests the orders took: more than there are orders, if some had to be repeated."""
        return self._shop.attempts

    async def place(self, order_no: str) -> ShopOrder:
        """A new order with a payment to be paid.

        Raises:
            Unexpected: it was refused.
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
        """Place it, pay it, and have the channel call back until nodrop has acknowledged."""
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
        """At the channel; its callback is lost."""
        await self.control(out_trade_no, "pay", _LOST)

    async def control(self, out_trade_no: str, what: str, body: bytes = b"") -> None:
        """`pay` or `callback`.

        Raises:
            Unexpected: it was not paid, or the callback was not acknowledged.
        """
        url = f"{self._rig.stack.channel_url}/control/payments/{out_trade_no}/{what}"
        answer = await exchange(
            self._client, "POST", url, headers={}, body=body, within_s=TIMEOUT_S, body_bytes_max=ANSWER_BYTES_MAX
        )
        told = msgspec.json.decode(answer.body)
        if told.get("status") != "paid" and not told.get("acknowledged"):
            raise Unexpected(f"{what} of {out_trade_no} came to {told}")
