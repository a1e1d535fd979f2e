"""Calls of the shop's backend: nodrop's API with the key, and the control of the simulated channels.

A real shop has only the first. A call without a definite result is no refusal: the order is placed again under the same
number.
"""

from __future__ import annotations

from typing import Any, Self
from urllib.parse import quote

import httpx
import msgspec

from demo.service import NO_TLS, NoCookies
from demo.shop.books import Sale
from demo.shop.catalogue import WAYS

TIMEOUT_S = 15.0
EXPIRES_IN_S = 900


class TimelineEntry(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of an entry of the order's timeline that the shop shows."""

    at: str
    kind: str
    by: str
    version: int | None
    note: str


class Placed(msgspec.Struct, frozen=True, kw_only=True):
    order_page: str


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    reason: str


class Backend:
    """Clients with connections of their own. Enter it before use."""

    def __init__(self, *, api_url: str, api_key: str, channel_url: str, shop_url: str) -> None:
        self._shop_url = shop_url
        self._api = _client(api_url, {"authorization": f"Bearer {api_key}"})
        self._channel = _client(channel_url, {})

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._api.aclose()
        await self._channel.aclose()

    async def place(self, sale: Sale) -> Placed | Refused | None:
        """Place the order; None: no definite result, send it again."""
        order = {
            "order_no": sale.order_no,
            "amount": sale.amount,
            "currency": sale.currency,
            "subject": sale.subject,
            "account": sale.account,
            "accounts": [way.account for way in WAYS if way.currency == sale.currency],
            "expires_in_s": EXPIRES_IN_S,
            "notify_url": f"{self._shop_url}/notifications",
            "return_url": f"{self._shop_url}/orders/{sale.order_no}",
        }
        try:
            response = await self._api.post("/v1/orders", json=order)
        except httpx.HTTPError:
            return None
        if response.is_success:
            return Placed(order_page=response.json()["order_page"])
        if response.status_code in (408, 429) or response.is_server_error:
            return None
        return Refused(reason=str(response.json().get("detail", "")) or f"status {response.status_code}")

    async def timeline(self, order_no: str) -> list[TimelineEntry]:
        """Return what nodrop recorded about the order; nothing if it does not answer."""
        try:
            response = await self._api.get(f"/v1/orders/{quote(order_no, safe='')}/timeline")
            response.raise_for_status()
        except httpx.HTTPError:
            return []
        return msgspec.convert(response.json()["entries"], list[TimelineEntry])

    async def codes(self, order_no: str) -> list[str]:
        """Return the texts of the order's codes that can be scanned now; nothing if nodrop does not answer."""
        try:
            response = await self._api.get(f"/v1/orders/{quote(order_no, safe='')}")
            response.raise_for_status()
        except httpx.HTTPError:
            return []
        rows = [row["checkout"] for row in response.json()["payments"] if row["status"] == "open" and row["checkout"]]
        return [checkout["value"] for checkout in rows if checkout["kind"] == "qr"]

    async def are_callbacks_lost(self) -> bool | None:
        """Return whether the simulated channels lose all callbacks; None if they do not answer."""
        try:
            profile = await self._faults()
        except httpx.HTTPError:
            return None
        return bool(profile["lost"] == 1)

    async def lose_callbacks(self, *, lost: bool) -> None:
        """Have the simulated channels lose all callbacks or none; their other faults stay."""
        response = await self._channel.put("/control/faults", json=await self._faults() | {"lost": float(lost)})
        response.raise_for_status()

    async def _faults(self) -> dict[str, Any]:
        response = await self._channel.get("/control/faults")
        response.raise_for_status()
        profile: dict[str, Any] = response.json()
        return profile


def _client(base_url: str, headers: dict[str, str]) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=base_url, headers=headers, trust_env=False, verify=NO_TLS, cookies=NoCookies(), timeout=TIMEOUT_S
    )
