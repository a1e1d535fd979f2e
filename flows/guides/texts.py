"""The texts of the guides: one file for each language, read when the first guide is wanted.

They are written in the Markdown of docs/operations.md: `code`, *emphasis* and [links](#refunds).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import msgspec

from core.errors import ConfigurationError
from core.order import CaseReason

DEFAULT = "en"
FOLDER = Path(__file__).parent

_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_CODE = re.compile(r"`([^`]*)`")


class Guide(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An event and what to do about it: each some sentences of Markdown."""

    what: str
    do: str


class Piece(NamedTuple):
    """A piece of a text. `is_code`: a command, a setting or a word of nodrop's own."""

    text: str
    is_code: bool


@cache
def guides(language: str) -> Mapping[CaseReason, Guide]:
    """The guide of every reason. A language that there is not is English.

    Raises:
        ConfigurationError: a file lacks a reason, or has one that there is not.
    """
    path = FOLDER / f"{language}.toml"
    if re.fullmatch(r"[a-z]{2}", language) is None or not path.is_file():
        path = FOLDER / f"{DEFAULT}.toml"
    try:
        found = msgspec.convert(tomllib.loads(path.read_text("utf-8")), dict[CaseReason, Guide])
    except (ValueError, msgspec.ValidationError) as error:
        raise ConfigurationError(f"guides: {path.name}: {error}") from None
    missing = [reason.value for reason in CaseReason if reason not in found]
    if missing:
        raise ConfigurationError(f"guides: {path.name}: {', '.join(missing)} missing")
    return found


def guide_of(reason: str, language: str = DEFAULT) -> Guide | None:
    """The guide of one reason; None for one that only another version of nodrop knows."""
    known = next((each for each in CaseReason if each == reason), None)
    return None if known is None else guides(language)[known]


def plain(text: str) -> str:
    """The text without Markdown's links and emphasis; code stays marked, for it is typed as it is."""
    return _LINK.sub(r"\1", text).replace("*", "")


def pieces(text: str) -> Iterator[Piece]:
    """The text cut into code and the rest, for a page."""
    for number, part in enumerate(_CODE.split(plain(text))):
        if part:
            yield Piece(part, is_code=number % 2 == 1)
