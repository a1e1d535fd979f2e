"""Acts of operators, before they are done: what one would do in sentences and figures, and the reason that it needs.

A sentence is a key of `SENTENCES` and its figures, so that the console can say it in another language. Nothing here
decides about an act: `core.lifecycle` does, and again when the act is done.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from core.act_sentences import SENTENCES
from core.errors import InvalidRequest
from core.money import decimal_text
from core.sentences import Sentence, Term

REASON_MAX = 500
"""Characters of a reason: a sentence or two for those who read it later."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class Sum(msgspec.Struct, frozen=True):
    """An amount of money in minor units, as a figure of a sentence."""

    amount: int
    currency: str

    def __str__(self) -> str:
        return f"{decimal_text(self.amount, self.currency)} {self.currency}"


Figure = str | int | Sum | Term


class Line(msgspec.Struct, frozen=True):
    """One sentence about an act: its key in `SENTENCES`, and its figures by name."""

    key: str
    figures: Mapping[str, Figure] = {}

    @property
    def text(self) -> str:
        """The sentence in English."""
        return SENTENCES[self.key].format_map(self.figures)

    @property
    def sentence(self) -> Sentence:
        """The same as a part of another sentence."""
        values = {name: each if isinstance(each, int | Term) else str(each) for name, each in self.figures.items()}
        return Sentence(SENTENCES[self.key], **values)


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """Effects of an act as things stand. `refusal`: why it cannot be done; None: it can.

    `version` is the version of the order that it was computed on; None: the act is about no order.
    """

    lines: tuple[Line, ...]
    warnings: tuple[Line, ...] = ()
    refusal: Line | None = None
    version: int | None = None

    @property
    def is_possible(self) -> bool:
        return self.refusal is None


def check_reason(text: str) -> str:
    """The reason of an act, without space around it.

    Raises:
        InvalidRequest: it is empty, too long, or has control characters.
    """
    reason = text.strip()
    if not reason:
        raise InvalidRequest("reason: say in a few words why; others read it later")
    if len(reason) > REASON_MAX:
        raise InvalidRequest(Sentence("reason: at most {max} characters", max=REASON_MAX))
    if _CONTROL.search(reason):
        raise InvalidRequest("reason: one line, without control characters")
    return reason
