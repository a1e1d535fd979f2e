"""Parameters of the paths of /v1. What nothing can have is not found, and no statement is sent about it."""

from __future__ import annotations

from datetime import date

from api.http.request import Request
from core.errors import NotFound
from core.order import ORDER_NO


def order_no_in(request: Request) -> str:
    """The order's number. Raises NotFound."""
    order_no = request.params["order_no"]
    if ORDER_NO.fullmatch(order_no) is None:
        raise NotFound("no such order")
    return order_no


def day_in(request: Request) -> tuple[str, date]:
    """Account and day. Raises NotFound."""
    try:
        return request.params["account"], date.fromisoformat(request.params["day"])
    except ValueError:
        raise NotFound("no such day: write it as 2026-11-23") from None
