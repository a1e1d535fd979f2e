"""Cells of CSV files that people open in a spreadsheet. Texts of strangers must not become formulas there."""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""Characters with which a spreadsheet takes a cell for a formula, full-width ones too.

https://owasp.org/www-community/attacks/CSV_Injection
"""

_INVISIBLE = re.compile(r"\A[\s\x00-\x1f\x7f-\xa0\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]+")
"""Characters in front of a formula that nobody sees, and that a spreadsheet may drop."""


def safe_cell(value: object) -> str:
    """The cell of a value. A text that a spreadsheet would run begins with an apostrophe; numbers stay numbers."""
    if value is None:
        return ""
    text = str(value)
    if isinstance(value, int | Decimal) or text[:1].isalnum():  # a letter or a digit begins no formula
        return text
    is_formula = text.startswith(_FORMULA) or _INVISIBLE.sub("", text).startswith(_FORMULA)
    return f"'{text}" if is_formula else text


def csv_line(values: Iterable[object]) -> str:
    """One line of RFC 4180, with its end. Every text is quoted: no comma, quote or line break in it ends the cell."""
    return ",".join([_quoted(value) for value in values]) + "\r\n"


def _quoted(value: object) -> str:
    if value.__class__ is str and value[:1].isalnum() and '"' not in value:  # most are
        return f'"{value}"'
    if value is None:
        return ""
    if isinstance(value, int | Decimal):
        return str(value)
    cell = safe_cell(value).replace('"', '""')
    return f'"{cell}"'
