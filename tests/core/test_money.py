import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InvalidRequest
from core.money import AMOUNT_MAX, decimal_text, exponent, is_currency, minor_units

CURRENCIES = ("CNY", "USD", "EUR", "JPY", "KRW", "VND", "KWD", "BHD")


@pytest.mark.parametrize(
    ("text", "currency", "amount"),
    [
        ("0", "CNY", 0),
        ("0.01", "CNY", 1),
        ("0.1", "CNY", 10),
        ("88.88", "CNY", 8888),
        ("88.8", "CNY", 8880),
        ("88", "CNY", 8800),
        ("100", "JPY", 100),
        ("0", "JPY", 0),
        ("1.234", "KWD", 1234),
        ("1.2", "KWD", 1200),
        ("1", "KWD", 1000),
        ("99999999999999", "JPY", AMOUNT_MAX - 1),
    ],
)
def test_decimal_text_becomes_minor_units(text: str, currency: str, amount: int) -> None:
    assert minor_units(text, currency) == amount


@pytest.mark.parametrize(
    "text",
    [
        "８８.８８",  # full-width digits: Decimal and int accept them
        "٨٨",
        "8.888E1",
        "1e2",
        "1_0",
        " 1",
        "1 ",
        "1\n",
        "+1",
        "-1",
        "NaN",
        "Infinity",
        "0x10",
        "",
        ".",
        ".5",
        "1.",
        "01",
        "00",
        "1,00",
        "1,000.00",
        "1.0.0",
        "1.2345",
        "999999999999999",
        "9" * 5000,
        "1\0",
        "½",
    ],
)
@pytest.mark.parametrize("currency", ["CNY", "JPY", "KWD"])
def test_a_text_that_is_no_plain_decimal_is_refused(text: str, currency: str) -> None:
    with pytest.raises(InvalidRequest):
        minor_units(text, currency)


@pytest.mark.parametrize(("text", "currency"), [("1.0", "JPY"), ("1.001", "CNY"), ("1.000", "USD"), ("0.001", "EUR")])
def test_more_decimal_places_than_the_currency_has_are_refused(text: str, currency: str) -> None:
    """Zeros too: a channel that writes them may use another unit than we expect."""
    with pytest.raises(InvalidRequest, match=f"^{currency} has [02] decimal places$"):
        minor_units(text, currency)


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [(1, "CNY", "0.01"), (8888, "CNY", "88.88"), (0, "CNY", "0.00"), (100, "JPY", "100"), (5, "KWD", "0.005")],
)
def test_a_decimal_text_has_all_places_of_its_currency(amount: int, currency: str, text: str) -> None:
    assert decimal_text(amount, currency) == text


@pytest.mark.parametrize(("currency", "places"), [("CNY", 2), ("USD", 2), ("JPY", 0), ("KRW", 0), ("KWD", 3)])
def test_each_currency_has_its_decimal_places(currency: str, places: int) -> None:
    assert exponent(currency) == places


@pytest.mark.parametrize("text", ["", "CN", "CNYY", "cny", "ＣＮＹ", "CNY\n", "CN1", "ÄÖÜ"])
def test_a_currency_is_three_upper_case_ascii_letters(text: str) -> None:
    assert is_currency("CNY")
    assert not is_currency(text)


@given(st.integers(0, AMOUNT_MAX - 1), st.sampled_from(CURRENCIES))
def test_an_amount_is_the_same_after_formatting_and_parsing(amount: int, currency: str) -> None:
    assert minor_units(decimal_text(amount, currency), currency) == amount


@given(st.text(alphabet=st.sampled_from("0123456789.,-+eE_ \n０１٣"), max_size=8), st.sampled_from(CURRENCIES))
def test_any_text_is_an_exact_amount_or_refused(text: str, currency: str) -> None:
    """An accepted amount, written again, differs from the text only by trailing zeros."""
    try:
        amount = minor_units(text, currency)
    except InvalidRequest:
        return
    whole, _, fraction = text.partition(".")
    places = exponent(currency)
    assert decimal_text(amount, currency) == (f"{whole}.{fraction:0<{places}}" if places else whole)
