"""Codes of ours that are stored for people: a later release may have added some.

Such a code is read as it stands: what this release does not know is shown raw, decides nothing and breaks nothing.
Codes that decisions follow are held by constraints of the database instead, and no release writes one of those that
the release before cannot read (`docs/decisions/0034-codes-of-another-release.md`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

_Code = TypeVar("_Code", bound=StrEnum)


def read_code(kind: type[_Code], written: str) -> _Code | str:
    """The code of this name; a name that this release does not know stays a text."""
    try:
        return kind(written)
    except ValueError:
        return written
