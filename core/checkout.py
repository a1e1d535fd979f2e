"""A checkout's payer, and what a channel's checkouts are like: how they end, and for whom they are."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec


class Payer(msgspec.Struct, frozen=True, kw_only=True):
    """Details of the payer that some methods need."""

    openid: str | None = None
    client_ip: str | None = None


NO_PAYER = Payer()
"""Nothing is known of the payer."""


class CheckoutRules(msgspec.Struct, frozen=True, kw_only=True):
    """Properties of a channel's checkouts.

    `needs_capture`: money moves only on our capture, so a payment that is given up takes none.
    `renews`: another creation under the same number, with identical terms, gives a fresh checkout.
    `exists_once_created`: creation makes the payment there, so that a *missing* after the checkout's end is definite.
    `payer_fields`: method → the field of `Payer` that it needs. Its checkout belongs to that payer alone.
    `currency`: the only one that it takes; empty: it takes others too.
    """

    needs_capture: bool = False
    renews: bool = False
    exists_once_created: bool = False
    payer_fields: Mapping[str, str] = MappingProxyType({})
    currency: str = ""

    def payer_of(self, method: str, payer: Payer) -> Payer:
        """The part of the payer that the checkout of this method belongs to. Nothing else is kept."""
        field = self.payer_fields.get(method)
        return NO_PAYER if field is None else Payer(**{field: getattr(payer, field)})
