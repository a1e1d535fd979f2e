"""The orders of a world: who buys what when, and how. Each is drawn from the seed and its index alone."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

import msgspec

from tests.simulation.channels import CURRENCIES, PROPORTIONS
from tests.simulation.faults import FaultBook

K = TypeVar("K")


class Way(StrEnum):
    """The way a shopper goes on after placing an order."""

    PAYS = "pays"
    RETURNS = "returns"
    WATCHES = "watches"
    PAYS_TWICE = "pays_twice"
    PAYS_LATE = "pays_late"
    LOOKS = "looks"
    LEAVES = "leaves"


WAYS: Mapping[Way, float] = {
    Way.PAYS: 0.36,
    Way.RETURNS: 0.26,
    Way.WATCHES: 0.08,
    Way.PAYS_TWICE: 0.04,
    Way.PAYS_LATE: 0.06,
    Way.LOOKS: 0.10,
    Way.LEAVES: 0.10,
}
"""Shares. The first five pay: `PAYS` closes the browser, `RETURNS` follows the link back, some twice and some late,
`WATCHES` keeps the page open. `PAYS_TWICE` pays at two accounts, `PAYS_LATE` at the order's end. `LOOKS` only opens the
pay page.
"""

SECOND_ACCOUNTS = {"CNY": ("wechatpay", "alipay", "sandbox"), "USD": ("stripe", "paypal"), "JPY": ("stripe", "paypal")}
REFUNDED = 0.03
AMOUNT_MAX = 200_000


class OrderPlan(msgspec.Struct, frozen=True, kw_only=True):
    """An order and its shopper; instants are seconds since the world began, or since the order was placed.

    `second_account` is for the second payment of `PAYS_TWICE`. `refund_after_s` 0: the merchant returns nothing.
    """

    order_no: str
    account: str
    currency: str
    amount: int
    way: Way
    at_s: float
    pays_after_s: float
    expires_in_s: int
    returns_after_s: float = 0.0
    returns_twice: bool = False
    second_account: str = ""
    refund_after_s: float = 0.0
    refund_share: float = 1.0


def plan_of(book: FaultBook, index: int, *, span_s: float, ways: Mapping[Way, float] = WAYS) -> OrderPlan:
    """Return the order of an index, placed within `span_s`."""
    order_no = f"W{book.seed}-{index}"

    def draw(what: str) -> float:
        return book.draw(f"plan {order_no} {what}")

    def between(what: str, low: float, high: float) -> float:
        return low + (high - low) * draw(what)

    account = pick(PROPORTIONS, draw("account"))
    currencies = CURRENCIES[account]
    currency = currencies[int(draw("currency") ** 2 * len(currencies))]
    way = pick(ways, draw("way"))
    expires_in_s = int(between("expires", 300, 1800 if draw("is_short") < 0.8 else 86_400))
    pays_after_s = between("pays", 3.0, min(180.0, expires_in_s * 0.8))
    if way is Way.PAYS_LATE:
        pays_after_s = expires_in_s - between("late", 0.0, 6.0)
    is_late_return = draw("returns_late") < 0.1
    others = [name for name in SECOND_ACCOUNTS.get(currency, ()) if name != account]
    return OrderPlan(
        order_no=order_no,
        account=account,
        currency=currency,
        amount=1 + int(draw("amount") ** 3 * AMOUNT_MAX),
        way=way,
        at_s=span_s * draw("at"),
        pays_after_s=pays_after_s,
        expires_in_s=expires_in_s,
        returns_after_s=between("returns", 0.5, 7200.0 if is_late_return else 8.0),
        returns_twice=draw("returns_twice") < 0.2,
        second_account=others[int(draw("second") * len(others))] if others else account,
        refund_after_s=between("refund_after", 60.0, 20_000.0) if draw("refund") < REFUNDED else 0.0,
        refund_share=1.0 if draw("refund_whole") < 0.6 else draw("refund_share"),
    )


def pick(weights: Mapping[K, float], drawn: float) -> K:
    """Return the key that a number in [0, 1) chooses."""
    left = drawn * sum(weights.values())
    for key, weight in weights.items():
        left -= weight
        if left < 0:
            return key
    return list(weights)[-1]
