"""A gate for the requests of an adapter, and the contexts in which nodrop uses one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from channels.transport import CALLING, Calling
from core.admission import CallKind, Urgency
from core.errors import ChannelNotCalled


class Gate:
    """Admits requests by urgency, up to a number of strangers' ones, and counts them."""

    def __init__(self, strangers_max: int = 1000) -> None:
        self.passed: list[Urgency] = []
        self.kinds: set[CallKind] = set()
        self._strangers_max = strangers_max

    @asynccontextmanager
    async def __call__(self, kind: CallKind, urgency: Urgency) -> AsyncIterator[None]:
        if urgency is Urgency.STRANGER and self.passed.count(urgency) >= self._strangers_max:
            raise ChannelNotCalled("share")
        self.kinds.add(kind)
        self.passed.append(urgency)
        yield


@contextmanager
def of_a_stranger(gate: Gate) -> Iterator[None]:
    """As a callback that nobody has verified yet."""
    token = CALLING.set(Calling(kind=CallKind.VERIFY, urgency=Urgency.STRANGER, gate=gate))
    try:
        yield
    finally:
        CALLING.reset(token)


@contextmanager
def of_a_call(gate: Gate, kind: CallKind) -> Iterator[None]:
    """As a call that was admitted: its first request is covered."""
    token = CALLING.set(Calling(kind=kind, urgency=Urgency.FRESH, gate=gate, is_admitted=True))
    try:
        yield
    finally:
        CALLING.reset(token)
