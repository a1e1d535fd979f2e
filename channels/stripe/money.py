"""Amounts as Stripe counts them: the minor units of ISO 4217, but for the currencies below.

https://docs.stripe.com/currencies, "Minor units in API amounts" and "Special cases". HUF and TWD are special for
payouts only; a charge takes both of their decimals.
"""

from __future__ import annotations

from core.errors import ChannelUnreadable, InvalidRequest
from core.money import AMOUNT_MAX, exponent
from core.sentences import Sentence

_TWO_PLACES_OF_ZEROS = frozenset({"ISK", "UGX"})
"""No decimals any more; Stripe kept two, which are always 00. UGX stands in Stripe's zero-decimal list as well: the
special case is the newer of the two and says what to send (500 for 5 UGX)."""

_NO_PLACES = frozenset({"MGA"})
"""ISO 4217 gives the ariary two decimals, Stripe none."""

_THREE = 3
_STEP_OF_THREE_PLACES = 10
"""The last digit of three is 0, for the sake of Stripe's partners."""


def to_stripe(amount: int, currency: str) -> int:
    """Our minor units as Stripe's: (8888, "CNY") → 8888, (5, "ISK") → 500, (500, "MGA") → 5.

    Raises:
        InvalidRequest: Stripe has no number for this amount.
    """
    if currency in _TWO_PLACES_OF_ZEROS:
        return amount * 100
    if currency in _NO_PLACES:
        if amount % 100:
            raise InvalidRequest(Sentence("stripe takes {currency} without decimals", currency=currency))
        return amount // 100
    if exponent(currency) == _THREE and amount % _STEP_OF_THREE_PLACES:
        fault = Sentence("stripe takes {currency} with two decimals: the third must be 0", currency=currency)
        raise InvalidRequest(fault)
    return amount


def from_stripe(amount: int, currency: str) -> int:
    """The inverse.

    Raises:
        ChannelUnreadable: we have no number for this amount.
    """
    if currency in _TWO_PLACES_OF_ZEROS:
        if amount % 100:
            raise ChannelUnreadable("amount")
        return amount // 100
    minor = amount * 100 if currency in _NO_PLACES else amount
    if minor > AMOUNT_MAX:
        raise ChannelUnreadable("amount")
    return minor
