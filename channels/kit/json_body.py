"""Parse a JSON body whose origin is verified.

Two parsers may read a repeated key differently, so a body with one is rejected.
"""

from __future__ import annotations

import json
from typing import TypeVar

import msgspec

from core.errors import ChannelUnreadable

_T = TypeVar("_T")


def read_json(body: bytes, type_: type[_T]) -> _T:
    """Return the body as `type_`.

    Raises:
        ChannelUnreadable: not JSON, not UTF-8, of another shape, nested too deep, or with a repeated key.
    """
    try:
        value = msgspec.json.decode(body, type=type_)
        json.loads(body, object_pairs_hook=_refuse_repeats)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise ChannelUnreadable("body") from None
    return value


def _refuse_repeats(pairs: list[tuple[str, object]]) -> None:
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("repeated key")
