"""Texts as a reader may see them: nothing of a payer for a viewer, and every number that people search by."""

import pytest

from core.operators import Role
from core.sight import NARROW, WHOLE, sight_of

PERSONAL = (
    "ann.lee+tea@mail.example.org",
    "13812345678",
    "138 1234 5678",
    "138-1234-5678",
    "+34 612 34 56 78",
    "+8613812345678",
    "2088102177891234",
    "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o",
    "11010519491231002X",
    "张三@公司.example",
)
NUMBERS = (
    "2026-1123-0001",
    "018f3a5b6c7d0123456789abcdef",
    "2026112322001478901234567890",
    "4200002026202611230123456789",
    "r018f3a5b6c7d0123456789abcdef",
    "r2_018f3a5b6c7d0123456789abcdef",
    "pi_3MtwBwLkdIwHu7ix28a3tqPa",
    "88.88 CNY instead of 88.87",
    "2026-11-23T04:30:00Z",
    "203.0.113.0/24",
    "kim: looked at it",
    "order-2026-1123-000000000001",
    "A pot of tea",
)


@pytest.mark.parametrize("text", PERSONAL)
def test_a_viewer_sees_no_payer_in_any_text(text: str) -> None:
    for around in ("{}", "buyer {}, wants it back", "({})", "id={};", "“{}”"):
        shown = NARROW.text(around.format(text))
        assert text not in shown
        assert "***" in shown
    assert WHOLE.text(text) == text


@pytest.mark.parametrize("text", NUMBERS)
def test_numbers_that_people_search_by_stay(text: str) -> None:
    assert NARROW.text(text) == text


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://shop.example/hook", "https://shop.example/hook"),
        ("https://shop.example/hook?token=s3cret&x=1", "https://shop.example/hook?***"),
        ("https://shop.example/hook#s3cret", "https://shop.example/hook?***"),
        ("https://ann:s3cret@shop.example:8443/a/b", "https://shop.example:8443/a/b"),
        ("https://shop.example?s3cret", "https://shop.example?***"),
        ("https://shop.example/u/ann@mail.example/hook", "https://shop.example/u/***/hook"),
        ("not an address of ann@mail.example", "not an address of ***"),
        ("", ""),
    ],
)
def test_a_viewer_sees_no_token_of_an_address(url: str, shown: str) -> None:
    assert NARROW.url(url) == shown
    assert WHOLE.url(url) == url


def test_a_viewer_sees_that_there_is_metadata_and_an_answer_and_not_what() -> None:
    assert NARROW.metadata({"openid": "s3cret", "ann@mail.example": "x"}) == {"openid": "***", "***": "***"}
    assert WHOLE.metadata({"openid": "s3cret"}) == {"openid": "s3cret"}
    assert (NARROW.answer("no such user Ann"), NARROW.answer(""), WHOLE.answer("Ann")) == ("***", "", "Ann")


def test_operators_and_admins_see_all() -> None:
    assert {role: sight_of(role).is_whole for role in Role} == {
        Role.VIEWER: False,
        Role.OPERATOR: True,
        Role.ADMIN: True,
    }
