"""Signed messages: the record of the checks of a signature, for `nodrop explain`, and the JSON of a verified body.

Nothing is recorded outside of `recorded_checks`; the service itself never uses it. Two parsers may read a repeated key
differently, so a body with one is rejected.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import msgspec

from core.errors import ChannelUnreadable

_T = TypeVar("_T")


class SignatureCheck(msgspec.Struct, frozen=True, kw_only=True):
    """One check of a signature. `message` is the kind of message, `key` the key's id, `string` the signed bytes."""

    message: str
    algorithm: str
    key: str
    string: bytes
    is_good: bool


_recording: ContextVar[list[SignatureCheck] | None] = ContextVar("listening", default=None)


def record_check(message: str, *, algorithm: str, key: str, string: bytes, is_good: bool) -> None:
    """Record a check and its result."""
    checks = _recording.get()
    if checks is not None:
        checks.append(SignatureCheck(message=message, algorithm=algorithm, key=key, string=string, is_good=is_good))


@contextmanager
def recorded_checks() -> Iterator[list[SignatureCheck]]:
    """Yield the list to which every check within the block is added."""
    checks: list[SignatureCheck] = []
    token = _recording.set(checks)
    try:
        yield checks
    finally:
        _recording.reset(token)


def read_json(body: bytes, type_: type[_T]) -> _T:
    """Return the body as `type_`.

    Raises:
        ChannelUnreadable: not JSON, not UTF-8, of another shape, nested too deep, or with a repeated key.
    """
    try:
        value = msgspec.json.decode(body, type=type_)
        _STRICT.decode(body.decode())
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise ChannelUnreadable("body") from None
    return value


def _refuse_repeats(pairs: list[tuple[str, object]]) -> None:
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("repeated key")


_STRICT = json.JSONDecoder(object_pairs_hook=_refuse_repeats)
