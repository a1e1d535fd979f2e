"""An amount in the reader's way: "¥88.88", "JP¥8,888", "KWD 8.888".

The sign of a currency and the marks of a number stand in the language's file. No two currencies share a sign there, so
an amount is never taken for another currency's.
"""

from __future__ import annotations

from api.pages.texts import Language
from core.money import decimal_text

NO_BREAK_SPACE = "\u00a0"


def shown_amount(amount: int, currency: str, language: Language) -> str:
    """(8888, "CNY") → "¥88.88". A sign or code that ends in a letter stands apart from the number."""
    whole, _, fraction = decimal_text(amount, currency).partition(".")
    grouped = f"{int(whole):,}".replace(",", language.texts["money_group"])
    number = f"{grouped}{language.texts['money_decimal']}{fraction}" if fraction else grouped
    sign = language.signs.get(currency, currency)
    gap = NO_BREAK_SPACE if sign[-1].isalpha() else ""
    pattern = language.texts["money"]
    return pattern.format(sign=sign + gap if pattern.startswith("{sign}{") else sign, number=number)
