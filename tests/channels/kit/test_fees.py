"""Fees as channels write them in statements: signs, and more decimals than the currency has."""

import pytest

from channels.kit.fees import read_fee


@pytest.mark.parametrize(
    ("text", "currency", "fee"),
    [
        ("0.53", "CNY", 53),
        ("0.53000", "CNY", 53),
        ("-0.06000", "CNY", -6),
        ("0.00499", "CNY", 0),
        ("0.00500", "CNY", 1),
        ("-0.00500", "CNY", -1),
        ("0.995", "CNY", 100),
        ("3", "CNY", 300),
        ("3.5", "JPY", 4),
        ("1.2345", "KWD", 1235),
    ],
)
def test_a_fee_is_rounded_to_a_minor_unit(text: str, currency: str, fee: int) -> None:
    assert read_fee(text, currency) == fee


@pytest.mark.parametrize("text", ["", "-", "1,00", "1e3", "１", "+1", " 1", "1.", ".5", "01", "1.123456789", "None"])
def test_what_is_no_number_is_no_fee(text: str) -> None:
    assert read_fee(text, "CNY") is None
