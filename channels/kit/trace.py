"""Record of the signature checks of an adapter: the exact string and the key, for `nodrop explain`.

Nothing is recorded outside of `recorded_checks`; the service itself never uses it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import msgspec


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
