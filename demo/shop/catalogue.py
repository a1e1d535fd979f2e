"""Products and ways to pay of the example shop."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

NAME_CHARACTERS_MAX = 40


class Product(NamedTuple):
    """`prices` in minor units by currency. `picture`: paths of an SVG of 48 × 48."""

    name: str
    prices: Mapping[str, int]
    picture: str


class Way(NamedTuple):
    """A channel to pay at: the name of its account at nodrop, and the currency of an order that begins there."""

    account: str
    name: str
    currency: str


PRODUCTS: Mapping[str, Product] = MappingProxyType(
    {
        "tea": Product(
            "Longjing tea, 100 g",
            {"CNY": 8888, "USD": 1290},
            '<path d="M24 42C10 36 8 20 24 6c16 14 14 30 0 36Z"/><path d="M24 42V20m0 14 7-7m-7 1-7-7"/>',
        ),
        "pot": Product(
            "Clay teapot",
            {"CNY": 26800, "USD": 3900},
            '<path d="M12 22h22c0 10-3 17-11 17S12 32 12 22Z"/><circle cx="23" cy="15" r="2"/>'
            '<path d="M34 25c8-2 9 8-2 9M12 26c-4 0-5-6-9-7M17 22c1-5 11-5 12 0"/>',
        ),
        "cups": Product(
            "Two cups",
            {"CNY": 5600, "USD": 820},
            '<path d="M4 16h17c0 9-2 15-8 15S4 25 4 16Z"/><path d="M25 24h19c0 9-3 15-9 15s-10-6-10-15Z"/>'
            '<path d="M11 11c-2-2 2-3 0-5m22 13c-2-2 2-3 0-5"/>',
        ),
    }
)

WAYS: tuple[Way, ...] = (
    Way("wechatpay", "WeChat Pay", "CNY"),
    Way("alipay", "Alipay", "CNY"),
    Way("stripe", "Stripe", "USD"),
    Way("paypal", "PayPal", "USD"),
    Way("sandbox", "Sandbox", "CNY"),
)


def find_way(account: str) -> Way | None:
    return next((way for way in WAYS if way.account == account), None)


def subject_of(product: Product, recipient: str) -> str:
    """Return what the buyer reads at the channel: ("Two cups", "Ada") → "Two cups for Ada".

    nodrop refuses control characters, so they become spaces.
    """
    printable = "".join(each if each.isprintable() else " " for each in recipient)
    name = " ".join(printable.split())[:NAME_CHARACTERS_MAX]
    return f"{product.name} for {name}" if name else product.name


def price_text(amount: int, currency: str) -> str:
    """(8888, "CNY") → "¥88.88". Both currencies have two decimal places."""
    return f"{'¥' if currency == 'CNY' else '$'}{amount // 100}.{amount % 100:02d}"
