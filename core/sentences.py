"""English sentences of ours that remember what they were made of, so that a page can show them in another language.

A `Sentence` is a `str`: problems, logs, commands and stored texts have its English. Its phrase, the template and the
values, goes beside it to where a person reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Self

import msgspec

from core.money import decimal_text


class Amount(msgspec.Struct, frozen=True, tag=True):
    """Money in minor units. In English the decimal number alone: its currency is a word of the sentence."""

    minor: int
    currency: str

    def __str__(self) -> str:
        return f"{'-' if self.minor < 0 else ''}{decimal_text(abs(self.minor), self.currency)}"


class Term(msgspec.Struct, frozen=True, tag=True):
    """A word of ours, such as a status. `prefix` and the word are the key of its text on the console."""

    prefix: str
    word: str

    def __str__(self) -> str:
        return self.word


class Span(msgspec.Struct, frozen=True, tag=True):
    """A duration."""

    seconds: float

    def __str__(self) -> str:
        """Return `45 s`, `12 min`, `30 h`, `9 days`."""
        for unit, unit_s, until_s in (("s", 1.0, 120.0), ("min", 60.0, 7200.0), ("h", 3600.0, 172_800.0)):
            if self.seconds < until_s:
                return f"{self.seconds / unit_s:.0f} {unit}"
        return f"{self.seconds / 86_400.0:.0f} days"


class Moment(msgspec.Struct, frozen=True, tag=True):
    """An instant, and how the English sentence writes it."""

    at: datetime
    text: str

    def __str__(self) -> str:
        return self.text


class Items(msgspec.Struct, frozen=True, tag=True):
    """A list, with commas between."""

    items: tuple[str | int | Amount | Term | Span | Moment | Items | Phrase, ...]

    def __str__(self) -> str:
        return ", ".join(map(str, self.items))


class Phrase(msgspec.Struct, frozen=True, tag=True):
    """A sentence's English template, with values in its braces. Without values the braces are braces."""

    template: str
    values: Mapping[str, str | int | Amount | Term | Span | Moment | Items | Phrase] = {}

    def __str__(self) -> str:
        return self.template.format_map(self.values) if self.values else self.template


Value = str | int | Amount | Term | Span | Moment | Items | Phrase


class Sentence(str):
    """A sentence in English that remembers its phrase. A value may be a sentence itself.

    To be encoded or stored it is made a plain text by `str()`; `encode_phrase` keeps the rest.
    """

    __slots__ = ("phrase",)
    phrase: Phrase

    def __new__(cls, template: str, /, **values: Value) -> Self:
        phrase = Phrase(template, {name: _inner(value) for name, value in values.items()})
        made = super().__new__(cls, str(phrase))
        made.phrase = phrase
        return made


def money_text(amount: int, currency: str) -> Sentence:
    """Money as a word of another sentence: 88.88 CNY."""
    return Sentence("{amount} {currency}", amount=Amount(amount, currency), currency=currency)


def _inner(value: Value) -> Value:
    return value.phrase if isinstance(value, Sentence) else value


def phrase_of(text: str) -> Phrase:
    """The phrase of a sentence; a plain text is one without values."""
    return text.phrase if isinstance(text, Sentence) else Phrase(str(text))


def encode_phrase(text: str) -> str | None:
    """The phrase as JSON, to be stored beside the text. None: the text alone says all, or it holds broken Unicode."""
    if not isinstance(text, Sentence):
        return None
    try:
        return msgspec.json.encode(text.phrase).decode()
    except UnicodeEncodeError:
        return None


_decoder = msgspec.json.Decoder(Phrase)


def decode_phrase(stored: str | None) -> Phrase | None:
    """A stored phrase. None: there is none, or another release has written it in a form that this one does not know."""
    if not stored:
        return None
    try:
        return _decoder.decode(stored)
    except msgspec.DecodeError:
        return None
