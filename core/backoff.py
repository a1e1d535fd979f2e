"""The next try: n² units after attempt n, for queries, compensation, notifications and refunds alike.

    attempt                     1   2   3   4  …   16      beyond
    gap before it (minutes)     1   4   9  16  …  256      1440 (once a day)

Sixteen attempts span 1 + 4 + … + 256 = 1,496 minutes = 24 h 56 min: the window in which WeChat Pay and Alipay resend
their own callbacks. A payment that its channel calls payable goes on at the last of these gaps (256 minutes), and every
12 hours once it is a week old. Attempts at or below 0 are the optional early queries of methods that have no callback.
"""

from __future__ import annotations

from hashlib import blake2b

import msgspec

DAY_UNITS = 1440
WEEK_UNITS = 7 * DAY_UNITS
HALF_DAY_UNITS = DAY_UNITS // 2


class NextTry(msgspec.Struct, frozen=True, kw_only=True):
    """The next try: `attempt`, in `delay_s` seconds.

    `is_exhausted`: the n² attempts are used up without an answer. Then a callback and a notification are given up; a
    payment and a refund go on once a day beside an open case.
    """

    attempt: int
    delay_s: float
    is_exhausted: bool


class Backoff(msgspec.Struct, frozen=True, kw_only=True):
    """Gaps between attempts.

    `unit_s` is the length of one unit in seconds (60 in production), `attempts_max` how many n² attempts there are,
    `jitter` the largest share (0 to 0.1) by which a gap is lengthened, `early_s` extra first gaps in seconds.
    """

    unit_s: float = 60.0
    attempts_max: int = 16
    jitter: float = 0.0
    early_s: tuple[float, ...] = ()

    @property
    def first_attempt(self) -> int:
        """1, or lower by the number of early queries: with two of them −1, 0, 1, 2, …"""
        return 1 - len(self.early_s)

    def is_exhausted(self, attempt: int) -> bool:
        """Whether `attempt` comes after the last n² attempt. Giving up is not evidence: the work goes on once a day."""
        return attempt > self.attempts_max

    def next_try(self, attempt: int, key: str, *, wait_s: float | None = None) -> NextTry:
        """The try that follows `attempt`: the next attempt, n² units later.

        `wait_s`: nothing was tried (the rate is used up, the breaker is open, another process holds the lease), so the
        same attempt follows after so many seconds. `key` is as in `gap_s`.
        """
        if wait_s is not None:
            return NextTry(attempt=attempt, delay_s=wait_s, is_exhausted=False)
        following = attempt + 1
        return NextTry(attempt=following, delay_s=self.gap_s(following, key), is_exhausted=self.is_exhausted(following))

    def next_while_payable(self, attempt: int, key: str, age_s: float) -> NextTry:
        """The try that follows `attempt` of a payment that can verifiably still be paid and is `age_s` old.

        After the n² attempts it goes on at the last of their gaps, and twice a day after a week: it is not given up.
        """
        following = self.next_try(attempt, key)
        if not following.is_exhausted:
            return following
        is_old = age_s >= WEEK_UNITS * self.unit_s
        units = HALF_DAY_UNITS if is_old else min(self.attempts_max**2, HALF_DAY_UNITS)
        return NextTry(attempt=attempt + 1, delay_s=self._jittered_s(units, attempt + 1, key), is_exhausted=False)

    @property
    def day_s(self) -> float:
        """Seconds of a day, in the units of these gaps."""
        return DAY_UNITS * self.unit_s

    def gap_s(self, attempt: int, key: str = "") -> float:
        """Seconds between the attempt before and `attempt`: 60, 240, 540, 960 … with the default unit.

        `key` is the number (out_trade_no, notification id) from which the jitter is derived, so that a gap is the same
        whoever computes it, and many orders placed together do not stay together.
        """
        if attempt < 1:
            # The account's early queries may have been taken away while a payment was at one of them.
            return (self.early_s or (self.unit_s,))[max(0, attempt - self.first_attempt)]
        units = DAY_UNITS if self.is_exhausted(attempt) else attempt * attempt
        return self._jittered_s(units, attempt, key)

    def _jittered_s(self, units: int, attempt: int, key: str) -> float:
        return units * self.unit_s * (1.0 + self.jitter * _fraction(f"{key}:{attempt}"))


def _fraction(key: str) -> float:
    """A number in [0, 1) that is always the same for a key."""
    return int.from_bytes(blake2b(key.encode(), digest_size=6).digest()) / 2**48
