"""Both clients over a scripted transport, with an injected clock."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import httpx

from nodrop_client import (
    AsyncClient,
    Client,
    NewOrder,
    Retries,
)

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

    def call(
        self,
        far: Far,
        name: str,
        *arguments: Any,
        retries: Retries | None = None,
        limits: Mapping[str, Any] = MappingProxyType({}),
        **named: Any,
    ) -> Any:  # noqa: ANN401 - of any method
        """The result of the method; a list if it iterates. `limits` are options of the client."""
        options: dict[str, Any] = {"retries": retries, "clock": lambda: far.now, "chance": lambda: 1.0, **limits}
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
