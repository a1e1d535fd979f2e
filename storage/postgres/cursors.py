"""Opaque places in listings: the time and the key of the last row of a page."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from datetime import datetime
from typing import Annotated

import msgspec

from core.errors import InvalidRequest

_NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII)
_TEXT = re.compile(r"[!-~]{1,255}", re.ASCII)


def is_number(key: str) -> bool:
    """Whether it is the key of a table that numbers its rows."""
    return _NUMBER.fullmatch(key) is not None


def is_text(key: str) -> bool:
    """Whether it may be an id or a number of somebody's: printable ASCII without blanks."""
    return _TEXT.fullmatch(key) is not None


def encode_cursor(at: datetime, key: str) -> str:
    """An opaque place in a listing."""
    return urlsafe_b64encode(msgspec.json.encode([at, key])).decode().rstrip("=")


def decode_cursor(cursor: str | None, is_key: Callable[[str], bool]) -> tuple[datetime | None, str | None]:
    """The place, or nothing without a cursor. `is_key`: whether the listing can have such a key.

    Raises:
        InvalidRequest: the cursor is not one of ours.
    """
    if cursor is None:
        return None, None
    try:
        text = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        at, key = msgspec.json.decode(text, type=tuple[Annotated[datetime, msgspec.Meta(tz=True)], str])
    except (ValueError, msgspec.DecodeError):
        at, key = None, ""
    if at is None or not is_key(key):
        raise InvalidRequest("cursor: use next_cursor of the page before, as it is")
    return at, key


def decode_numbered(cursor: str | None) -> tuple[datetime | None, int | None]:
    """The same where the key is a number. Raises InvalidRequest."""
    at, key = decode_cursor(cursor, is_number)
    return at, None if key is None else int(key)
