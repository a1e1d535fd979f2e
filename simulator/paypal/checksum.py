"""A body with a wanted CRC-32. PayPal signs no more, so whoever has seen one delivery can write others."""

from __future__ import annotations

import zlib
from functools import reduce

import msgspec

DIGITS = 96
"""Digits that are 0 or 1. Each changes the checksum independently of the others, and 32 would rarely be enough."""


def with_checksum(body: bytes, wanted: int) -> bytes:
    """Return the JSON object with one more member, `summary`, whose digits give it the wanted CRC-32."""
    head = body.removesuffix(b"}") + b',"summary":"'
    plain = zlib.crc32(head + b"0" * DIGITS + b'"}')
    steps: list[tuple[int, int]] = []  # what a set of digits changes, reduced by those before; the set
    for digit in range(DIGITS):
        changed = zlib.crc32(head + b"0" * digit + b"1" + b"0" * (DIGITS - digit - 1) + b'"}')
        step = _reduced((changed ^ plain, 1 << digit), steps)
        if step[0]:
            steps.append(step)
    left, digits = _reduced((wanted ^ plain, 0), steps)
    assert left == 0, "so many digits reach every checksum"
    text = "".join("1" if digits >> digit & 1 else "0" for digit in range(DIGITS))
    forged = head + text.encode() + b'"}'
    assert msgspec.json.decode(forged)["summary"] == text
    return forged


def _reduced(step: tuple[int, int], by: list[tuple[int, int]]) -> tuple[int, int]:
    """Return the step without the highest bits of the earlier ones."""
    return reduce(lambda one, other: min(one, (one[0] ^ other[0], one[1] ^ other[1])), by, step)
