"""Rate limit and breakers of one process on its own, while Redis is not available.

Every process takes its part of an account's rate, so that all of them together stay within it. If the rate is lower
than the number of processes, each makes one call per several seconds and the rate is kept on average: processes that
cannot communicate may call in the same second.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable
from itertools import count
from math import ceil

from core.admission import (
    FLIGHT_S,
    FRESH_IDLE_S,
    OPEN_S,
    OPEN_S_MAX,
    PARTS,
    PROBE_S,
    UNANSWERED_MAX,
    UNANSWERED_WITHIN_S,
    Admitted,
    CallKind,
    Urgency,
    Wait,
    is_within_rate,
)

WINDOW_S = 1.1
"""A second, and 100 ms because two calls may arrive closer together than they were admitted."""


LOCAL = "local:"
"""Beginning of the reservations that are made here."""


class LocalAdmission:
    """Implements `core.admission.Admission` for one of `processes` processes."""

    def __init__(self, processes: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._processes = processes
        self._clock = clock
        self._accounts: dict[str, _Account] = {}
        self._numbers = count()

    async def admit(
        self, account: str, rate_per_s: int, kind: CallKind, urgency: Urgency, *, past_breaker: bool = False
    ) -> Admitted | Wait:
        return self.try_admit(account, rate_per_s, kind, urgency, past_breaker=past_breaker)

    async def report(self, account: str, kind: CallKind, *, answered: bool | None, reservation: str = "") -> None:
        self.end(account, reservation, was_called=answered is not None)
        if answered is None:
            return
        if answered:
            self._account(account).breakers.pop(kind, None)
        else:
            self._account(account).breakers[kind].unanswered(self._clock())

    async def end_request(self, account: str, reservation: str) -> None:
        self.end(account, reservation, was_called=True)

    async def open_breakers(self, accounts: Iterable[str]) -> list[tuple[str, CallKind]]:
        return [
            (name, kind)
            for name in accounts
            for kind, breaker in self._account(name).breakers.items()
            if not breaker.is_closed
        ]

    async def calls_in_use(self, accounts: Iterable[str]) -> dict[str, int]:
        now = self._clock()
        return {name: self._account(name).calls_in_use(now) for name in accounts}

    def count_with_older(self, *, are_there: bool) -> None:
        """Implement the Protocol: `processes` are those of both releases."""

    async def learn(self, accounts: Iterable[str]) -> None:
        """Implement the Protocol: nothing is shared here."""

    def try_admit(
        self, account: str, rate_per_s: int, kind: CallKind, urgency: Urgency, *, past_breaker: bool = False
    ) -> Admitted | Wait:
        """Reserve one call now, or return the time to wait before the next try."""
        now = self._clock()
        state = self._account(account)
        breaker = state.breakers[kind]
        if not past_breaker and (open_s := breaker.wait_s(now)) > 0:
            return Wait(open_s, "breaker")
        part = _part(rate_per_s, self._processes)
        if (full_s := state.wait_s(now, urgency, *part)) > 0:
            return Wait(full_s, "rate")
        reservation = f"{LOCAL}{next(self._numbers)}"
        state.admitted(reservation, now, urgency, *part)
        breaker.admitted(now)
        return Admitted(reservation)

    def end(self, account: str, reservation: str, *, was_called: bool) -> None:
        """Note the end of a call that was admitted here; of any other there is nothing to note."""
        self._account(account).end(reservation, self._clock() if was_called else None)

    def _account(self, name: str) -> _Account:
        return self._accounts.setdefault(name, _Account())


def _part(rate_per_s: int, processes: int) -> tuple[int, float]:
    """Return the calls that one process may make, and within how many seconds."""
    if rate_per_s >= processes:
        return rate_per_s // processes, WINDOW_S
    return 1, WINDOW_S * ceil(processes / max(1, rate_per_s))


class _Account:
    """Calls of this process to one account that still count, and a breaker for each kind of them."""

    def __init__(self) -> None:
        self._calls: dict[str, tuple[float, Urgency]] = {}  # with the end, or the latest that is waited for
        self._next_at: dict[Urgency, float] = {}
        self._fresh_until = 0.0
        self.breakers: defaultdict[CallKind, Breaker] = defaultdict(Breaker)

    def wait_s(self, now: float, urgency: Urgency, rate: int, window_s: float) -> float:
        """Return 0 if one more call fits, else the time until the oldest leaves the window."""
        self._calls = {number: call for number, call in self._calls.items() if call[0] > now - window_s}
        if urgency in (Urgency.FRESH, Urgency.STRANGER):
            self._fresh_until = now + FRESH_IDLE_S
        if (next_at := self._next_at.get(urgency, now)) > now:
            return next_at - now
        made = Counter(by for _, by in self._calls.values())
        if is_within_rate(rate, urgency, made, is_fresh_idle=now >= self._fresh_until):
            return 0.0
        return min((end for end, _ in self._calls.values() if end < now), default=now) + window_s - now

    def admitted(self, reservation: str, now: float, urgency: Urgency, rate: int, window_s: float) -> None:
        """Note that a call is made."""
        self._calls[reservation] = now + FLIGHT_S, urgency
        if urgency in PARTS:
            self._next_at[urgency] = now + PARTS[urgency] * window_s / rate

    def calls_in_use(self, now: float) -> int:
        """Return the number of calls that are under way, or ended less than a second ago."""
        return sum(end > now - WINDOW_S for end, _ in self._calls.values())

    def end(self, reservation: str, at: float | None) -> None:
        """Note the end of a call; None: it was not made."""
        call = self._calls.pop(reservation, None)
        if call is not None and at is not None:
            self._calls[reservation] = at, call[1]


class Breaker:
    """Closed, open until a time, or half open: then one call probes. After an answer a new breaker replaces it."""

    def __init__(self) -> None:
        self._unanswered: deque[float] = deque(maxlen=UNANSWERED_MAX)
        self._open_until: float | None = None
        self._open_s = OPEN_S
        self._probe_until = 0.0

    @property
    def is_closed(self) -> bool:
        return self._open_until is None

    def wait_s(self, now: float) -> float:
        """Return the seconds until a call may be made; 0 for now."""
        if self._open_until is None:
            return 0.0
        if now < self._open_until:
            return self._open_until - now
        return min(max(0.0, self._probe_until - now), OPEN_S)

    def admitted(self, now: float) -> None:
        """Note that a call is made; if the breaker is half open it is the probe."""
        if self._open_until is not None and now >= self._open_until:
            self._probe_until = now + PROBE_S

    def unanswered(self, now: float) -> None:
        """Note an unanswered call. While the breaker is open, calls made before it opened do not count."""
        if self._open_until is None:
            self._unanswered.append(now)
            if len(self._unanswered) == UNANSWERED_MAX and now - self._unanswered[0] <= UNANSWERED_WITHIN_S:
                self._open_until = now + self._open_s
        elif now >= self._open_until:
            self._open_s = min(2 * self._open_s, OPEN_S_MAX)
            self._open_until, self._probe_until = now + self._open_s, 0.0
