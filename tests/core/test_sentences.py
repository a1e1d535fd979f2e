"""Sentences that remember template and values: in English they are plain texts, stored they keep what they are."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from core.act_sentences import SENTENCES
from core.acts import Line, Sum
from core.errors import InvalidRequest, NotFound, TooManyRequests
from core.sentences import (
    Amount,
    Items,
    Moment,
    Phrase,
    Sentence,
    Span,
    Term,
    Value,
    decode_phrase,
    encode_phrase,
    phrase_of,
)

AT = datetime(2026, 11, 23, 4, 33, 33, tzinfo=UTC)

INNER = Sentence("{amount} {currency} there", amount=Amount(8888, "CNY"), currency="CNY")


@pytest.mark.parametrize(
    ("value", "english"),
    [
        ("A-1", "A-1"),
        (1_234_567, "1234567"),
        (Amount(8888, "CNY"), "88.88"),
        (Amount(8888, "JPY"), "8888"),
        (Amount(-5, "KWD"), "-0.005"),
        (Term("reason.", "paid_late"), "paid_late"),
        (Span(90.0), "90 s"),
        (Moment(AT, "04:33 UTC"), "04:33 UTC"),
        (Items(("A-1", Amount(1, "CNY"), Phrase("b"))), "A-1, 0.01, b"),
        (Phrase("paid as {number}", {"number": 7}), "paid as 7"),
        (INNER, "88.88 CNY there"),
    ],
)
def test_every_value_is_a_text_in_english_and_comes_back_from_the_store(value: Value, english: str) -> None:
    sentence = Sentence("of {value}: {{}}", value=value)
    stored = encode_phrase(sentence)
    assert sentence == f"of {english}: {{}}"
    assert stored is not None
    assert decode_phrase(stored) == sentence.phrase
    assert str(sentence.phrase) == sentence


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"), (7200, "2 h"), (777_600, "9 days")],
)
def test_a_duration_in_words(seconds: float, text: str) -> None:
    assert str(Span(seconds)) == text


def test_braces_of_a_plain_text_are_braces() -> None:
    assert phrase_of("{not} a word") == Phrase("{not} a word")
    assert str(phrase_of("{not} a word")) == "{not} a word"
    assert Sentence("{not} a word") == "{not} a word"


def test_values_with_braces_stay_values() -> None:
    assert Sentence("of {name}", name="{name}") == "of {name}"


def test_a_plain_text_needs_no_phrase_in_the_store() -> None:
    assert encode_phrase("late") is None
    assert phrase_of(INNER) is INNER.phrase


def test_broken_unicode_leaves_the_text_alone() -> None:
    assert encode_phrase(Sentence("of {name}", name="\ud800")) is None


@pytest.mark.parametrize("stored", [None, "", "x", '{"type":"Phrase","template":1}', '{"type":"Newer","template":"a"}'])
def test_what_another_release_has_stored_is_no_phrase(stored: str | None) -> None:
    assert decode_phrase(stored) is None


def test_the_detail_of_a_fault_is_a_plain_text_beside_its_sentence() -> None:
    fault = InvalidRequest(Sentence("at most {max} characters", max=500))
    assert (str(fault), fault.detail, type(fault.detail)) == ("at most 500 characters", "at most 500 characters", str)
    assert phrase_of(fault.sentence) == Phrase("at most {max} characters", {"max": 500})
    assert msgspec.json.encode({"detail": fault.detail}) == b'{"detail":"at most 500 characters"}'
    assert (NotFound().sentence, NotFound("order A-1").sentence) == ("", "order A-1")
    assert TooManyRequests(Sentence("{count} too many", count=2)).detail == "2 too many"


def test_a_line_of_an_act_can_stand_in_a_sentence() -> None:
    line = Line("refund.too_much", {"left": Sum(100, "CNY")})
    assert line.sentence == line.text
    assert line.sentence.phrase == Phrase(SENTENCES["refund.too_much"], {"left": "1.00 CNY"})
