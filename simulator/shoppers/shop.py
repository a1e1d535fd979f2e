"""A shop that lets nodrop keep its payments: a client of the public API, as patient as a shop has to be."""

from __future__ import annotations

import asyncio
from typing import Self, TypeVar
from urllib.parse import quote, urljoin

import msgspec

from simulator.kit.asgi import BadBody, decode
from simulator.kit.http_client import NoAnswer, exchange, http_client

ATTEMPTS_MAX = 12
"""With gaps of 0.1, 0.2, 0.4 … 2 s about 17 s: longer than a process takes to come back after it was killed."""

GAP_FIRST_S = 0.1
GAP_MAX_S = 2.0
TIMEOUT_S = 30.0
ANSWER_BYTES_MAX = 1024 * 1024

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
    """What the buyer needs to pay: for `redirect` an address, for `qr` what the code says."""

    kind: str
    value: str = ""


class ShopPayment(msgspec.Struct, frozen=True, kw_only=True):
    """One payment as the API tells it."""

    out_trade_no: str
    account: str = ""
    status: str = ""
    checkout: Checkout | None = None

    @property
    def pay_url(self) -> str | None:
        """Where the buyer is sent or what the code to scan says, once the channel has told."""
        if self.checkout is None or self.checkout.kind not in ("redirect", "qr"):
            return None
        return self.checkout.value or None


class ShopOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An order as the API tells it; there may be more in it."""

    order_no: str
    status: str
    version: int
    amount: int
    currency: str
    order_page: str
    payments: tuple[ShopPayment, ...] = ()


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """A definite no, or no definite answer within the attempts: then `http_status` is the last one, or 0."""

    http_status: int
    code: str
    is_definite: bool


class _Problem(msgspec.Struct, frozen=True):
    """RFC 9457: the last part of the type's address names the problem."""

    type: str = ""


class Shop:
    """`attempts` counts all requests so far. To be entered before use."""

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
        """Places the order, again and again under the same number until the answer is definite and payable."""
        return await self._until_definite("/v1/orders", msgspec.json.encode(order))

    async def add_payment(self, order_no: str, account: str) -> ShopOrder | Refused:
        """Another attempt to pay at another account; 409 `payment_unclear` while an earlier one may have the money."""
        path = f"/v1/orders/{quote(order_no, safe='')}/payments"
        return await self._until_definite(path, msgspec.json.encode({"account": account}))

    async def _until_definite(self, path: str, body: bytes) -> ShopOrder | Refused:
        refused = Refused(http_status=0, code="no_answer", is_definite=False)
        for attempt in range(ATTEMPTS_MAX):
            if attempt:
                await asyncio.sleep(min(GAP_MAX_S, GAP_FIRST_S * 2 ** (attempt - 1)))
            status, answer = await self._post(path, body)
            if status in (200, 201):
                order = _read(answer, ShopOrder)
                if order is not None and any(payment.pay_url for payment in order.payments):
                    return order
                refused = Refused(http_status=status, code="no_checkout", is_definite=False)
            else:
                refused = Refused(http_status=status, code=_code(answer), is_definite=_is_definite(status))
            if refused.is_definite:
                break
        return refused

    async def _post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and body, or 0 when there was no whole answer."""
        self.attempts += 1
        url = urljoin(self._base_url, path)
        try:
            answer = await exchange(
                self._client,
                "POST",
                url,
                headers=self._headers,
                body=body,
                within_s=TIMEOUT_S,
                body_bytes_max=ANSWER_BYTES_MAX,
            )
        except NoAnswer:
            return 0, b""
        return answer.status, answer.body


def _is_definite(status: int) -> bool:
    """4xx is definite, but for 408 and 429, which ask for patience."""
    return 400 <= status < 500 and status not in (408, 429)  # noqa: PLR2004 - the class of the caller's faults


def _code(answer: bytes) -> str:
    problem = _read(answer, _Problem)
    return problem.type.rpartition("/")[2] if problem is not None else ""


def _read(answer: bytes, type_: type[T]) -> T | None:
    try:
        return decode(answer, type_)
    except BadBody:
        return None
