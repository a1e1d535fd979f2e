"""What an adapter verified, for people who want to see it: the exact string, masked, and what it was checked with.

Nothing is recorded unless somebody listens, as `nodrop explain` does; the service itself never does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import msgspec


class SignatureCheck(msgspec.Struct, frozen=True, kw_only=True):
    """One check of a signature. `what` names the message, `key` the key by its id, `string` the bytes."""

    what: str
    algorithm: str
    key: str
    string: bytes
    is_good: bool


_recording: ContextVar[list[SignatureCheck] | None] = ContextVar("listening", default=None)


def record_check(what: str, *, algorithm: str, key: str, string: bytes, is_good: bool) -> None:
    """Tell of a check, whatever it came to."""
    checks = _recording.get()
    if checks is not None:
        checks.append(SignatureCheck(what=what, algorithm=algorithm, key=key, string=string, is_good=is_good))


@contextmanager
def recorded_checks() -> Iterator[list[SignatureCheck]]:
    """Gives the list to which every check within the block is added."""
    checks: list[SignatureCheck] = []
    token = _recording.set(checks)
    try:
        yield checks
    finally:
        _recording.reset(token)
