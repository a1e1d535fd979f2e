"""What an adapter verified, for people who want to see it: the exact string, masked, and what it was checked with.

Nothing is recorded unless somebody listens, as `nodrop explain` does; the service itself never does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import msgspec


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """One check of a signature. `what` names the message, `key` the key by its id, `string` the bytes."""

    what: str
    algorithm: str
    key: str
    string: bytes
    is_good: bool


_listening: ContextVar[list[Verified] | None] = ContextVar("listening", default=None)


def note(what: str, *, algorithm: str, key: str, string: bytes, is_good: bool) -> None:
    """Tell of a check, whatever it came to."""
    heard = _listening.get()
    if heard is not None:
        heard.append(Verified(what=what, algorithm=algorithm, key=key, string=string, is_good=is_good))


@contextmanager
def listening() -> Iterator[list[Verified]]:
    """Gives the list to which every check within the block is added."""
    heard: list[Verified] = []
    token = _listening.set(heard)
    try:
        yield heard
    finally:
        _listening.reset(token)
