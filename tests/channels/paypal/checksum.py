"""Another body with the CRC-32 of a given one: what anybody can make who has seen one genuine delivery of PayPal."""

from __future__ import annotations

import zlib

import msgspec

_FILLER = 64
"""Characters that are 0 or 1; each moves the checksum in a way of its own, and 32 independent ones reach any value."""


def with_checksum_of(genuine: bytes, event: dict[str, object]) -> bytes:
    """The event as JSON, with a member `summary` that gives it the CRC-32 of the genuine body."""
    body = msgspec.json.encode(event | {"summary": "0" * _FILLER})
    start = body.rindex(b"0" * _FILLER)
    before = zlib.crc32(body)
    moves = [before ^ zlib.crc32(_flipped(body, start + index)) for index in range(_FILLER)]
    for index in _chosen(moves, before ^ zlib.crc32(genuine)):
        body = _flipped(body, start + index)
    assert zlib.crc32(body) == zlib.crc32(genuine)
    return body


def _flipped(body: bytes, at: int) -> bytes:
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]


def _chosen(moves: list[int], wanted: int) -> list[int]:
    """Indices of the moves whose exclusive or is `wanted`: Gaussian elimination over single bits."""
    basis: dict[int, tuple[int, int]] = {}  # by its highest bit: a value, and the set of moves that make it
    for index, move in enumerate(moves):
        value, chosen = _reduced(basis, move, 1 << index)
        if value:
            basis[value.bit_length()] = (value, chosen)
    rest, chosen = _reduced(basis, wanted, 0)
    assert rest == 0, "64 moves of a checksum of 32 bits reach every value"
    return [index for index in range(len(moves)) if chosen >> index & 1]


def _reduced(basis: dict[int, tuple[int, int]], value: int, chosen: int) -> tuple[int, int]:
    for bit in range(value.bit_length(), 0, -1):
        if value >> (bit - 1) & 1 and bit in basis:
            value, chosen = value ^ basis[bit][0], chosen ^ basis[bit][1]
    return value, chosen
