"""Fees in statements. Nothing is decided by them, so one that cannot be read is none, and its row still counts."""

from __future__ import annotations

import re

from core.money import exponent

_FEE = re.compile(r"(-?)(0|[1-9][0-9]{0,13})(?:\.([0-9]{1,8}))?", re.ASCII)


def read_fee(text: str, currency: str) -> int | None:
    """Minor units of a decimal text with a sign: ("-0.53000", "CNY") → -53. Channels write more places than the
    currency has; what is less than a minor unit is rounded, half away from zero. None: it is no such text.
    """
    match = _FEE.fullmatch(text)
    if match is None:
        return None
    places = exponent(currency)
    fraction = (match[3] or "").ljust(places + 1, "0")
    units = int(match[2] + fraction[:places]) + (fraction[places] >= "5")
    return -units if match[1] else units
