"""The merchant of a world: a backend that places orders and refunds over the API, as a careful one does, and an order
service that receives notifications.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

import msgspec

from simulator.kit.asgi import App, BadBody, decode
from simulator.kit.http_client import NoResponse
from simulator.merchant import control
from simulator.merchant.control import Effects
from simulator.merchant.notifications import Merchant
from simulator.shoppers.shop import OrderRequest, ShopOrder
from tests.simulation.network import HOST, Network, Server
from tests.simulation.plan import OrderPlan

PORT = 9100
NOTIFY_URL = f"http://{HOST}:{PORT}/notifications"

TIMEOUT_S = 30.0
RESPONSE_BYTES_MAX = 1 << 20
GAPS_S = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
"""Gaps between attempts to place an order: a backend that gives up after two minutes. The buyer has left by then."""

REFUND_GAP_S = 60.0
END_GAP_S = 2.0
ATTEMPTS_MAX = 2_000
"""A refund is requested until there is a definite response: for more than a day."""


class Backend:
    """The merchant's programs. `placed` are the orders of responses that have them, by number."""

    def __init__(
        self, network: Network, *, now: Callable[[], datetime], api_url: str, api_key: str, secrets: tuple[str, ...]
    ) -> None:
        self.api_key = api_key
        self.service = Merchant(secrets=secrets, seed=network.book.seed, now=now)
        self.placed: dict[str, ShopOrder] = {}
        self._network = network
        self._api_url = api_url
        self._headers = {"authorization": f"Bearer {api_key}", "content-type": "application/json"}
        network.serve(PORT, Server("merchant", app=App(control.routes(self.service), now=now)))

    def effects(self) -> Effects:
        """Return what the notifications brought about."""
        service = self.service
        return Effects(effects=tuple(service.effects.values()), violations=tuple(service.violations))

    async def place(self, plan: OrderPlan) -> ShopOrder | None:
        """Place the order under its number again and again, until it can be paid, is refused, or the buyer has left."""
        order = OrderRequest(
            order_no=plan.order_no,
            amount=plan.amount,
            currency=plan.currency,
            subject=plan.order_no,
            account=plan.account,
            notify_url=NOTIFY_URL,
            expires_in_s=plan.expires_in_s,
        )
        return await self._until_payable("/v1/orders", plan.order_no, msgspec.json.encode(order))

    async def add_payment(self, plan: OrderPlan, account: str) -> ShopOrder | None:
        """Start a payment at another account."""
        path = f"/v1/orders/{plan.order_no}/payments"
        return await self._until_payable(path, plan.order_no, msgspec.json.encode({"account": account}))

    async def refund(self, plan: OrderPlan, out_trade_no: str) -> None:
        """Request a refund under one key until there is a definite response."""
        amount = max(1, int(plan.amount * plan.refund_share))
        fields = {"out_trade_no": out_trade_no, "key": f"back-{plan.order_no}", "reason": "returned", "amount": amount}
        body, path = msgspec.json.encode(fields), f"/v1/orders/{plan.order_no}/refunds"
        await self._until_definite(path, plan.order_no, body, REFUND_GAP_S)

    async def end(self, order_no: str) -> None:
        """End an order that nobody has paid, until there is a definite response."""
        await self._until_definite(f"/v1/orders/{order_no}/close", order_no, b"", END_GAP_S)

    async def _until_definite(self, path: str, order_no: str, body: bytes, gap_s: float) -> None:
        for _ in range(ATTEMPTS_MAX):
            status, _ = await self._post(path, order_no, body)
            if 200 <= status < 300 or is_definite(status):
                return
            await asyncio.sleep(gap_s)

    async def _until_payable(self, path: str, order_no: str, body: bytes) -> ShopOrder | None:
        latest: ShopOrder | None = None
        for gap_s in (*GAPS_S, None):
            status, content = await self._post(path, order_no, body)
            if status in (200, 201):
                latest = _read(content) or latest
                if latest is not None:
                    self.placed[order_no] = latest
                if latest is not None and any(payment.pay_url for payment in latest.payments):
                    return latest
            elif is_definite(status):
                return latest
            if gap_s is not None:
                await asyncio.sleep(gap_s)
        return latest

    async def _post(self, path: str, order_no: str, body: bytes) -> tuple[int, bytes]:
        """Return status and body; status 0 without a whole response."""
        client = self._network.client("merchant", f"{path.rpartition('/')[2]} {order_no}")
        try:
            response = await client.exchange(
                "POST",
                f"{self._api_url}{path}",
                headers=self._headers,
                within_s=TIMEOUT_S,
                body_bytes_max=RESPONSE_BYTES_MAX,
                body=body,
            )
        except NoResponse:
            return 0, b""
        return response.status, response.body


def is_definite(status: int) -> bool:
    """Return whether the status is a refusal for good: 4xx, except 408, 409 (an act under way) and 429."""
    return 400 <= status < 500 and status not in (408, 409, 429)


def _read(content: bytes) -> ShopOrder | None:
    try:
        return decode(content, ShopOrder)
    except BadBody:
        return None
