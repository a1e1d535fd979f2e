"""QR codes of the order page."""

import pytest

from api.pages.qr import svg


def test_a_code_is_an_inline_picture_without_script_or_style() -> None:
    drawn = svg("weixin://wxpay/bizpayurl?pr=abcdefg", "Scan & pay")
    assert drawn.startswith("<svg")
    assert drawn.endswith("</svg>")
    assert "<title>Scan &amp; pay</title>" in drawn
    assert "style" not in drawn
    assert "<script" not in drawn


@pytest.mark.parametrize("text", ["x" * 2332, "", "\ud800"])
def test_a_text_that_no_code_holds_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"Data too large|empty|surrogates"):
        svg(text, "too long")
