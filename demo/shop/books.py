"""The books of the shop: sales, the newest version that nodrop notified of each, and goods that were sent.

They are in memory, for all data of `nodrop up` is deleted at its end. A real shop keeps them in its database, and
records the version and its effect in one transaction: here one function without `await` is that.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import msgspec

SALES_MAX = 1_000
"""Limit of the sales that are kept; the oldest is deleted."""


class NotifiedOrder(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a notification's `data` that the shop reads."""

    order_no: str
    version: int
    status: str
    amount: int
    currency: str


class Notification(msgspec.Struct, frozen=True, kw_only=True):
    type: str
    data: NotifiedOrder


@dataclass
class Sale:
    """One order of the shop. `order_page` is empty until nodrop takes the order, and `refusal` unless it refuses it."""

    order_no: str
    subject: str
    amount: int
    currency: str
    account: str
    created_at: datetime
    order_page: str = ""
    refusal: str = ""
    status: str = "placing"
    version: int = 0
    paid_by: str = ""
    shipped_at: datetime | None = None
    needs_person: bool = False

    @property
    def is_open(self) -> bool:
        """Whether the pages are worth reading again: something may still change."""
        return not (self.refusal or self.shipped_at or self.needs_person or self.status == "closed")


class Books:
    """All sales by order number, newest last."""

    def __init__(self) -> None:
        self._sales: dict[str, Sale] = {}

    def add(self, sale: Sale) -> None:
        self._sales[sale.order_no] = sale
        if len(self._sales) > SALES_MAX:
            del self._sales[next(iter(self._sales))]

    def find(self, order_no: str) -> Sale | None:
        return self._sales.get(order_no)

    def newest_first(self) -> list[Sale]:
        return list(reversed(self._sales.values()))

    def take(self, notification: Notification, now: datetime) -> bool:
        """Process a verified notification, and ship once. Return False if the order is unknown or another one.

        There is one notification for each version, so a version that is not newer was repeated or overtaken: it changes
        nothing. Goods are sent on `order.paid` alone: where another type is the first that says paid, as of a dispute
        or a refund that came faster, a person looks at the order.
        """
        order = notification.data
        sale = self.find(order.order_no)
        if sale is None or (order.amount, order.currency) != (sale.amount, sale.currency):
            return False
        if order.version <= sale.version:
            return True
        became_paid = order.status == "paid" != sale.status
        sale.version, sale.status = order.version, order.status
        if became_paid and notification.type == "order.paid":
            sale.shipped_at = sale.shipped_at or now
        elif became_paid:
            sale.needs_person = True
        return True
