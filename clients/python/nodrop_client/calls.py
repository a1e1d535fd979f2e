"""Calls of the API as values: what is sent, and how the answer is read. Nothing is sent here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Generic, NamedTuple, TypeVar

from nodrop_client.codec import Mismatch, decode, encode, plain
from nodrop_client.errors import UnreadableAnswer, error_of
from nodrop_client.models import (
    CasePage,
    CasesQuery,
    NewOrder,
    NewPayment,
    Order,
    OrderPage,
    OrdersQuery,
    Timeline,
)

T = TypeVar("T")

_ORDER_NO = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.\-]{0,63}", re.ASCII)
_JSON = {"content-type": "application/json"}


class Answer(NamedTuple):
    """A whole response; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Call(Generic[T]):
    """One request, and the type of its answer. Each is safe to send again."""

    method: str
    path: str
    kind: type[T]
    content: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)

    def read(self, answer: Answer) -> T:
        """Return the answer.

        Raises:
            Problem: the service said no.
            UnreadableAnswer: the answer is not the service's.
        """
        if not HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES:
            raise error_of(*answer)
        try:
            return decode(self.kind, answer.content)
        except Mismatch as error:
            raise UnreadableAnswer(str(error), status=answer.status) from None


def place(order: NewOrder) -> Call[Order]:
    return Call(method="POST", path="/v1/orders", kind=Order, content=encode(order), headers=_JSON)


def get(order_no: str, etag: str = "") -> Call[Order]:
    headers = {"if-none-match": etag} if etag else {}
    return Call(method="GET", path=_order_path(order_no), kind=Order, headers=headers)


def list_orders(query: OrdersQuery) -> Call[OrderPage]:
    return Call(method="GET", path="/v1/orders", kind=OrderPage, query=_parameters(query))


def start_payment(order_no: str, payment: NewPayment) -> Call[Order]:
    path = f"{_order_path(order_no)}/payments"
    return Call(method="POST", path=path, kind=Order, content=encode(payment), headers=_JSON)


def refresh(order_no: str) -> Call[Order]:
    return Call(method="POST", path=f"{_order_path(order_no)}/refresh", kind=Order)


def close(order_no: str) -> Call[Order]:
    return Call(method="POST", path=f"{_order_path(order_no)}/close", kind=Order)


def timeline(order_no: str) -> Call[Timeline]:
    return Call(method="GET", path=f"{_order_path(order_no)}/timeline", kind=Timeline)


def list_cases(query: CasesQuery) -> Call[CasePage]:
    return Call(method="GET", path="/v1/cases", kind=CasePage, query=_parameters(query))


def _order_path(order_no: str) -> str:
    """The address of an order. A number that no order can have must not become another address."""
    if _ORDER_NO.fullmatch(order_no) is None:
        raise ValueError("an order_no has 1 to 64 letters, digits, _ . - and begins with a letter or a digit")
    return f"/v1/orders/{order_no}"


def _parameters(query: OrdersQuery | CasesQuery) -> dict[str, str]:
    values: dict[str, object] = plain(query)
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in values.items()}
