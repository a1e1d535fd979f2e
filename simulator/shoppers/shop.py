"""A shop that uses nodrop: a client of the public API that retries until the result is definite."""

from __future__ import annotations

import asyncio
from typing import Self, TypeVar
from urllib.parse import quote, urljoin

import msgspec

from simulator.kit.asgi import BadBody, decode
from simulator.kit.http_client import NoResponse, exchange, http_client

ATTEMPTS_MAX = 12
"""With gaps of 0.1, 0.2, 0.4 … 2 s about 17 s: longer than the restart of a killed process."""

GAP_FIRST_S = 0.1
GAP_MAX_S = 2.0
TIMEOUT_S = 30.0
RESPONSE_BYTES_MAX = 1024 * 1024

T = TypeVar("T")


class OrderRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of POST /v1/orders; `amount` is in minor units."""

    order_no: str
    amount: int
    currency: str
    subject: str
    account: str
    notify_url: str
    method: str | None = None
    expires_in_s: int | None = None
    return_url: str | None = None
    metadata: dict[str, str] | None = None


class Checkout(msgspec.Struct, frozen=True):
    """Checkout of a payment: for `redirect` a URL, for `qr` the text of the code."""

    kind: str
    value: str = ""


class ShopPayment(msgspec.Struct, frozen=True, kw_only=True):
    """A payment in the API's response."""

    out_trade_no: str
    account: str = ""
    status: str = ""
    checkout: Checkout | None = None

    @property
    def pay_url(self) -> str | None:
        """URL to which the buyer is sent, or text of the code; None until the channel has created the payment."""
        if self.checkout is None or self.checkout.kind not in ("redirect", "qr"):
            return None
        return self.checkout.value or None


class ShopOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An order in the API's response; fields that are not needed are ignored."""

    order_no: str
    status: str
    version: int
    amount: int
    currency: str
    order_page: str
    payments: tuple[ShopPayment, ...] = ()


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """A definite refusal, or no definite result within the attempts: then `http_status` is the last one, or 0."""

    http_status: int
    code: str
    is_definite: bool


class _Problem(msgspec.Struct, frozen=True):
    """Problem of RFC 9457: the last part of the type's URL names it."""

    type: str = ""


class Shop:
    """A client of the API. `attempts` counts all its requests. Enter it before use."""

    def __init__(self, base_url: str, api_key: str) -> None:
        self.attempts = 0
        self._base_url = base_url
        self._headers = {"authorization": f"Bearer {api_key}", "content-type": "application/json"}
        self._client = http_client()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def place(self, order: OrderRequest) -> ShopOrder | Refused:
        """Place the order; retry under the same number until the result is definite and payable."""
        return await self._until_definite("/v1/orders", msgspec.json.encode(order))

    async def add_payment(self, order_no: str, account: str) -> ShopOrder | Refused:
        """Add a payment at an account; 409 `payment_unclear` while an earlier one may be paid."""
        path = f"/v1/orders/{quote(order_no, safe='')}/payments"
        return await self._until_definite(path, msgspec.json.encode({"account": account}))

    async def _until_definite(self, path: str, body: bytes) -> ShopOrder | Refused:
        refused = Refused(http_status=0, code="no_answer", is_definite=False)
        for attempt in range(ATTEMPTS_MAX):
            if attempt:
                await asyncio.sleep(min(GAP_MAX_S, GAP_FIRST_S * 2 ** (attempt - 1)))
            status, content = await self._post(path, body)
            if status in (200, 201):
                order = _read(content, ShopOrder)
                if order is not None and any(payment.pay_url for payment in order.payments):
                    return order
                refused = Refused(http_status=status, code="no_checkout", is_definite=False)
            else:
                refused = Refused(http_status=status, code=_code(content), is_definite=_is_definite(status))
            if refused.is_definite:
                break
        return refused

    async def _post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Return status and body; status 0 without a whole response."""
        self.attempts += 1
        url = urljoin(self._base_url, path)
        try:
            content = await exchange(
                self._client,
                "POST",
                url,
                headers=self._headers,
                body=body,
                within_s=TIMEOUT_S,
                body_bytes_max=RESPONSE_BYTES_MAX,
            )
        except NoResponse:
            return 0, b""
        return content.status, content.body


def _is_definite(status: int) -> bool:
    """Return whether the status is definite: 4xx, except 408 and 429."""
    return 400 <= status < 500 and status not in (408, 429)  # noqa: PLR2004 - the class of the caller's faults


def _code(content: bytes) -> str:
    problem = _read(content, _Problem)
    return problem.type.rpartition("/")[2] if problem is not None else ""


def _read(content: bytes, type_: type[T]) -> T | None:
    try:
        return decode(content, type_)
    except BadBody:
        return None
