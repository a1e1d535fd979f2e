"""Sentences about acts, and the reason that every act needs."""

import re
from string import Formatter

import pytest

from core.act_sentences import SENTENCES
from core.acts import REASON_MAX, Line, Preview, Sum, check_reason
from core.errors import InvalidRequest, NotPossible, PreviewOutdated

KEY = re.compile(r"[a-z_]+\.[a-z_]+")


@pytest.mark.parametrize("key", sorted(SENTENCES))
def test_a_sentence_ends_and_has_a_key_of_two_parts(key: str) -> None:
    assert KEY.fullmatch(key)
    figures = {name for _, name, _, _ in Formatter().parse(SENTENCES[key]) if name}
    text = Line(key, dict.fromkeys(figures, "x")).text
    assert text[-1] in ".:x", text
    assert "{" not in text


def test_a_sum_is_written_with_all_its_places() -> None:
    assert str(Sum(8888, "CNY")) == "88.88 CNY"
    assert str(Sum(500, "JPY")) == "500 JPY"
    left = Line("refund.too_much", {"left": Sum(1, "CNY")})
    assert left.text == "So much is not left: 0.01 CNY can still go back."


def test_a_preview_is_possible_unless_something_refuses_it() -> None:
    assert Preview(lines=()).is_possible
    assert not Preview(lines=(), refusal=Line("close.is_paid")).is_possible


def test_a_refused_act_says_why() -> None:
    refused = NotPossible(Line("close.is_paid"))
    assert (refused.detail, refused.line.key) == ("The order is paid.", "close.is_paid")
    preview = Preview(lines=(), version=4)
    assert PreviewOutdated(preview).preview is preview


@pytest.mark.parametrize("text", ["x", " one cup was broken ", "茶杯破了", "x" * REASON_MAX])
def test_a_reason_is_a_sentence_without_space_around_it(text: str) -> None:
    assert check_reason(text) == text.strip()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "say in a few words why"),
        (" \t ", "say in a few words why"),
        ("x" * (REASON_MAX + 1), "at most 500 characters"),
        ("two\nlines", "one line"),
        ("bell\x07", "one line"),
        ("a\u2028b", "one line"),
    ],
)
def test_what_is_no_reason_is_refused(text: str, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        check_reason(text)
