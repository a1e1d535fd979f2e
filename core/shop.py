"""The shop's look on its order pages, as its settings have it: a colour with a legible text on it, and an address.

Ratios of contrast are those of WCAG 2.2, https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio.
"""

from __future__ import annotations

import re

from core.errors import ConfigurationError

NAME_MAX = 60
BLACK, WHITE = "#000000", "#ffffff"

_COLOR = re.compile(r"#[0-9a-fA-F]{6}", re.ASCII)
_CONTACT = re.compile(
    r"tel:\+?[0-9][0-9\-.()]{2,30}"
    r"|mailto:[0-9A-Za-z.!#$%*+/=^_`{|}~\-]{1,64}@[0-9A-Za-z.\-]{1,190}"
    r"|https://[0-9A-Za-z.\-]{1,253}(?::[0-9]{1,5})?(?:[/?#][!#-;=?-\[\]_a-z~]{0,500})?",
    re.ASCII,
)
"""An address without a user or a backslash before its path, which programs read in different ways."""


def check_look(name: str, color: str, contact: str) -> None:
    """Check the texts of these settings; empty ones are not set.

    Raises:
        ConfigurationError: names the variable and a correct value.
    """
    if len(name) > NAME_MAX or not name.isprintable():
        raise ConfigurationError(f"SHOP_NAME: set it to a name of at most {NAME_MAX} letters")
    if color and _COLOR.fullmatch(color) is None:
        raise ConfigurationError("SHOP_COLOR: set it to a colour like #0d7a5f")
    if contact and _CONTACT.fullmatch(contact) is None:
        raise ConfigurationError(
            "SHOP_CONTACT: set it to an address like mailto:help@shop.example, tel:+34910000000 or"
            " https://shop.example/help"
        )


def contrast(one: str, other: str) -> float:
    """The ratio of contrast of two colours, from 1 to 21: ("#000000", "#ffffff") → 21."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def text_color(color: str) -> str:
    """Black or white, whichever is easier to read on this colour. One of them has a contrast of at least 4.58; a text
    of normal size needs 4.5 (WCAG 2.2, AA).
    """
    return max(WHITE, BLACK, key=lambda text: contrast(color, text))


def _luminance(color: str) -> float:
    red, green, blue = (_linear(int(color[start : start + 2], 16) / 255) for start in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _linear(channel: float) -> float:
    return channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4  # noqa: PLR2004 - sRGB
