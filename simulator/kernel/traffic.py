"""Arrivals of calls, and the rate limit over them. Bounded: the oldest arrivals are deleted and counted."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from typing import NamedTuple

ARRIVALS_MAX = 300_000
NUMBERS_COUNTED_MAX = 400_000
"""Twice the ledger: every payment is queried and closed."""


class Arrival(NamedTuple):
    """A call that arrived, whatever its result. `at` is in Unix seconds, on a clock that never jumps."""

    at: float
    merchant_id: str
    kind: str
    number: str


class Traffic:
    """Arrivals of one channel process."""

    def __init__(self, arrivals_max: int = ARRIVALS_MAX) -> None:
        self.counters: Counter[str] = Counter()
        self.forgotten = 0
        self._arrivals: deque[Arrival] = deque(maxlen=arrivals_max)
        self._admitted: dict[str, deque[float]] = {}
        self._nth: dict[str, int] = {}

    def add(self, arrival: Arrival) -> None:
        """Record a call; delete the oldest beyond the limit."""
        if len(self._arrivals) == self._arrivals.maxlen:
            self.forgotten += 1
        self._arrivals.append(arrival)

    def since(self, at: float) -> list[Arrival]:
        """Return the arrivals from that instant on, oldest first."""
        return [arrival for arrival in self._arrivals if arrival.at >= at]

    def admits(self, merchant_id: str, limit_per_s: int, at: float) -> bool:
        """Return whether the last second admitted fewer calls than the limit (0: none); refused calls do not count."""
        admitted = self._admitted.setdefault(merchant_id, deque())
        while admitted and admitted[0] <= at - 1.0:
            admitted.popleft()
        if limit_per_s and len(admitted) >= limit_per_s:
            return False
        admitted.append(at)
        return True

    def nth(self, kind: str, number: str) -> int:
        """Count calls of this kind with this number, from 1."""
        name = f"{kind}\x1f{number}"
        self._nth[name] = count = self._nth.get(name, 0) + 1
        if len(self._nth) > NUMBERS_COUNTED_MAX:
            del self._nth[next(iter(self._nth))]
        return count


def busiest_second(times: Iterable[float]) -> int:
    """Return the largest number of arrivals in any half-open window of one second."""
    window: deque[float] = deque()
    most = 0
    for at in sorted(times):
        window.append(at)
        while window[0] <= at - 1.0:
            window.popleft()
        most = max(most, len(window))
    return most
