"""Plan of a run: number and kinds of shoppers, and the order of each, by seed and index only."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

import msgspec

from simulator.kernel.faults import draw
from simulator.shoppers.shop import OrderRequest


class Kind(StrEnum):
    """Kinds of shoppers."""

    PAYS_AT_ONCE = "pays_at_once"
    WALKS_AWAY = "walks_away"
    PAYS_LATE = "pays_late"
    PAYS_TWICE = "pays_twice"
    COMES_BACK = "comes_back"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Number and kinds of shoppers, and their orders; amounts are in minor units.

    `currencies` are those of an account; an account that is not named takes `currency` only. A late shopper pays
    `late_margin_s` before the order expires; a returning one watches the page for at most `watch_s`.
    """

    shoppers: int
    accounts: tuple[str, ...]
    notify_url: str
    return_url: str | None = None
    seed: int = 0
    weights: Mapping[Kind, float] = msgspec.field(default_factory=lambda: dict.fromkeys(Kind, 1.0))
    currency: str = "CNY"
    currencies: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    amount_min: int = 1
    amount_max: int = 100_000
    expires_in_s: int = 900
    late_margin_s: float = 1.0
    watch_s: float = 5.0
    order_prefix: str = "shop"

    def takes(self, account: str) -> tuple[str, ...]:
        """Return the currencies of an account."""
        return self.currencies.get(account, (self.currency,))


def order_of(plan: Plan, index: int) -> OrderRequest:
    """Return the order of a shopper: the same in every run of the plan."""
    number = f"{plan.order_prefix}-{plan.seed}-{index}"
    span = plan.amount_max - plan.amount_min + 1
    account = plan.accounts[int(draw(plan.seed, "account", number) * len(plan.accounts))]
    currencies = plan.takes(account)
    return OrderRequest(
        order_no=number,
        amount=plan.amount_min + int(draw(plan.seed, "amount", number) * span),
        currency=currencies[int(draw(plan.seed, "currency", number) * len(currencies))],
        subject=f"Order {index + 1}",
        account=account,
        notify_url=plan.notify_url,
        return_url=plan.return_url,
        expires_in_s=plan.expires_in_s,
    )


def kind_of(plan: Plan, index: int) -> Kind:
    """Return the kind of a shopper, by the plan's weights."""
    left = draw(plan.seed, "kind", str(index)) * sum(plan.weights.values())
    for kind, weight in plan.weights.items():
        left -= weight
        if left < 0:
            return kind
    return list(plan.weights)[-1]
