"""The wall clock of a process, and the only place that reads one: compared with Postgres's every minute, corrected
while it is wrong, with the channels' own times as a third witness. Durations are measured by other clocks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from statistics import median

import structlog

from core.clocks import CONTRADICT_S, CORRECT_S, ClockVerdict, judge_clock
from core.errors import DatabaseUnavailable
from storage.postgres.database import Database, answering_within

CHECK_S = 1.0
"""Interval at which the clock is looked at: one that was set forward or back is noticed so soon."""

COMPARE_S = 60.0
RETRY_S = 5.0
SAMPLES = 3
ROUND_TRIP_S_MAX = 1.0
"""A longer round trip says nothing: the time in between may be half of it off."""

COMPARISON_TIMEOUT_S = 3.0
WITNESS_KEPT_S = 86_400.0
"""The steady clock that a channel's time is carried on with is wrong by less than ten seconds after a day."""

_NOW = "SELECT extract(epoch FROM clock_timestamp())::float8"

log = structlog.get_logger()


def steady_time() -> float:
    """Seconds since the machine started, sleep included where the system counts it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Clock:
    """`read()` is the time in Unix seconds: the system's own function while the clock is right.

    `read_other` is set while nobody can tell which of two clocks is right: what is fresh by either is fresh then.
    `is_far_off`: no jobs may be taken.
    """

    def __init__(self, *, wall: Callable[[], float] = time.time, steady: Callable[[], float] = steady_time) -> None:
        self.read = wall
        self.read_other: Callable[[], float] | None = None
        self.is_far_off = False
        self.verdict = ClockVerdict()
        self._wall = wall
        self._steady = steady
        # All three are times at the beginning of the steady clock.
        self._own_base = wall() - steady()
        self._postgres_base: float | None = None
        self._channel_bases: dict[str, tuple[float, float]] = {}
        self._compare_at = 0.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.read(), UTC)

    def of_postgres(self) -> datetime | None:
        """Postgres's time without asking it: as it was last compared, and carried on since. None: it was not yet."""
        return None if self._postgres_base is None else datetime.fromtimestamp(self._postgres_time(), UTC)

    async def begin(self, db: Database) -> None:
        """Compare it before the first work. Without Postgres the process starts all the same."""
        try:
            await self.keep(db)
        except DatabaseUnavailable as error:
            log.warning("clock_not_compared", reason=type(error).__name__)

    async def keep(self, db: Database) -> None:
        """Compare it with Postgres's if a minute has passed or it was set. Call it every `CHECK_S` seconds.

        Raises:
            DatabaseUnavailable: it could not be compared; what was known still counts.
        """
        own_base = self._wall() - self._steady()
        was_set = abs(own_base - self._own_base) > CORRECT_S
        try:
            if was_set or self._steady() >= self._compare_at:
                self._own_base = own_base
                self._compare_at = self._steady() + RETRY_S
                await self._compare(db)
        finally:
            self._judge()

    def witness(self, host: str, at: float) -> None:
        """A channel's response from this host says that it is `at` now."""
        now = self._steady()
        self._channel_bases[host] = (at - now, now)
        if self._postgres_base is not None and abs(at - self._postgres_time()) > CONTRADICT_S:
            log.error("clock_contradicted", host=host, skew_s=round(at - self._postgres_time(), 1))
        self._judge()

    async def _compare(self, db: Database) -> None:
        bases = []
        async with answering_within(COMPARISON_TIMEOUT_S):
            for _ in range(SAMPLES):
                sent_at = self._steady()
                at = await db.fetchval(_NOW)
                received_at = self._steady()
                if received_at - sent_at <= ROUND_TRIP_S_MAX:
                    bases.append(at - (sent_at + received_at) / 2)
        if len(bases) == SAMPLES:
            self._postgres_base = median(bases)
            self._compare_at = self._steady() + COMPARE_S

    def _postgres_time(self) -> float:
        assert self._postgres_base is not None, "only a compared clock is corrected"
        return self._postgres_base + self._steady()

    def _judge(self) -> None:
        before, postgres, now = self.verdict, self._postgres_base, self._steady()
        recent = [base for base, at in self._channel_bases.values() if now - at <= WITNESS_KEPT_S]
        if postgres is None:
            return
        self.verdict = verdict = judge_clock(self._wall() - postgres - now, [base - postgres for base in recent])
        self.is_far_off = verdict.is_far_off
        self.read, other = (
            (self._postgres_time, self._wall) if verdict.is_corrected else (self._wall, self._postgres_time)
        )
        self.read_other = other if verdict.is_far_off or verdict.is_contradicted else None
        if verdict.state != before.state:
            _report(verdict)


def _report(verdict: ClockVerdict) -> None:
    write = {"right": log.info, "corrected": log.warning}.get(verdict.state, log.error)
    write("clock_judged", state=verdict.state, skew_s=round(verdict.skew_s or 0.0, 1))
