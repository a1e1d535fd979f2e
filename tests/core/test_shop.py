import random

import pytest

from core.errors import ConfigurationError
from core.shop import check_look, contrast, text_color

CONTRAST_MIN = 4.5
"""The least contrast of a text of normal size with the colour behind it (WCAG 2.2, AA)."""


@pytest.mark.parametrize(
    "contact",
    ["", "mailto:help@shop.example", "tel:+34910000000", "https://shop.example/help?a=1#top", "https://shop.example"],
)
@pytest.mark.parametrize(("name", "color"), [("", ""), ("Tea & Co", "#0d7A5f"), ("茶" * 60, "#000000")])
def test_a_look_that_can_be_shown_is_taken(name: str, color: str, contact: str) -> None:
    check_look(name, color, contact)


@pytest.mark.parametrize(
    ("look", "variable"),
    [
        (("x" * 61, "", ""), "SHOP_NAME"),
        (("a\nb", "", ""), "SHOP_NAME"),
        (("a\u202eb", "", ""), "SHOP_NAME"),
        (("", "green", ""), "SHOP_COLOR"),
        (("", "#0d7a5", ""), "SHOP_COLOR"),
        (("", "#0d7a5f;}", ""), "SHOP_COLOR"),
        (("", "#0d7a5f\n", ""), "SHOP_COLOR"),
        (("", "", "javascript:alert(1)"), "SHOP_CONTACT"),
        (("", "", "http://shop.example"), "SHOP_CONTACT"),
        (("", "", "https://shop.example@evil.example/"), "SHOP_CONTACT"),
        (("", "", "https://shop.example\\@evil.example/"), "SHOP_CONTACT"),
        (("", "", 'https://shop.example/"><script>'), "SHOP_CONTACT"),
        (("", "", "help@shop.example"), "SHOP_CONTACT"),
        (("", "", "mailto:a@b.example?bcc=c@d.example"), "SHOP_CONTACT"),
        (("", "", "tel:911;ext=1"), "SHOP_CONTACT"),
        (("", "", "https://[half"), "SHOP_CONTACT"),
    ],
)
def test_a_look_that_cannot_be_shown_names_its_variable(look: tuple[str, str, str], variable: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_look(*look)
    assert caught.value.detail.startswith(f"{variable}: set it to ")


def test_the_text_on_a_colour_can_always_be_read() -> None:
    numbers = random.Random(7)
    colors = [f"#{numbers.randrange(1 << 24):06x}" for _ in range(2000)] + [
        f"#{grey:02x}{grey:02x}{grey:02x}" for grey in range(256)
    ]
    assert min(contrast(color, text_color(color)) for color in colors) >= CONTRAST_MIN


def test_contrast_is_that_of_wcag() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#ffffff", "#767676") == pytest.approx(4.54, abs=0.01)
    assert (text_color("#ffd400"), text_color("#0d3a7a")) == ("#000000", "#ffffff")
