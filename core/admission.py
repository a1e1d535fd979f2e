"""Who may call a channel now: what is asked of an account's rate limit and circuit breaker, and what they answer.

Implemented in `storage.redis.admission.shared` over Redis, shared by all processes; handed by the entry points to
`flows`, which asks before every call of a channel.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Protocol

import msgspec


class Urgency(StrEnum):
    """Who wants to call the channel. Shares of an account's rate are kept for fresh and for scheduled calls."""

    FRESH = "fresh"
    SCHEDULED = "scheduled"
    REFRESH = "refresh"


WITH_SHARES = (Urgency.FRESH, Urgency.SCHEDULED)


class Admitted(msgspec.Struct, frozen=True):
    """Call now; what comes of it is to be told to `Admission.report`."""


class Wait(msgspec.Struct, frozen=True):
    """Do not call before `seconds` have passed: the rate is used up or the breaker is open. No attempt is used."""

    seconds: float
    reason: str


class Admission(Protocol):
    """The account's rate limit and circuit breaker, shared by all processes; reserved before the channel is asked."""

    async def admit(self, account: str, rate_per_s: int, urgency: Urgency) -> Admitted | Wait:
        """Reserve one call in this very second. Never raises: without Redis each process has its part of the rate."""
        ...

    async def report(self, account: str, *, answered: bool) -> None:
        """Tell the breaker whether the channel answered (a refusal is an answer; a time-out or a 5xx is none)."""
        ...


RATE_WITH_SHARES_MIN = 3

# The breaker of an account opens after so many unanswered calls in a row within so many seconds, first for 5, then 10,
# 20, 40 and 60 s. Then one call probes whether the channel answers again; if nothing is heard of it, another may.
UNANSWERED_MAX = 10
UNANSWERED_WITHIN_S = 60.0
OPEN_S = 5.0
OPEN_S_MAX = 60.0
PROBE_S = 20.0


def kept_share(rate_per_s: int) -> int:
    """How many calls of every second are kept for fresh calls, and as many for scheduled ones: a fifth of the rate.

    So neither starves, whatever the others do. Below three calls a second nothing is kept: with two shares of one call
    each there would be no call left that everybody may make, and of one call a second there is nothing to divide.
    """
    return max(1, rate_per_s // 5) if rate_per_s >= RATE_WITH_SHARES_MIN else 0


def is_within_rate(rate_per_s: int, urgency: Urgency, made: Mapping[Urgency, int]) -> bool:
    """Whether one more call fits beside the calls `made` in the last second, without touching what is kept for others.

    What is kept for an urgency and not yet used up counts as used by it. So as long as every call was admitted by this
    rule, an urgency that has not used up its own share is always admitted.
    """
    share = kept_share(rate_per_s)
    kept = sum(max(0, share - made.get(other, 0)) for other in WITH_SHARES if other is not urgency)
    return sum(made.values()) + kept < rate_per_s
