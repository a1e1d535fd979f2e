"""Admission of calls to a channel: the rule of an account's rate limit, the numbers of its breakers, their interface.

`storage.redis.admission.shared` implements it over Redis for all processes together. `flows` reserves each call of a
channel through it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import cache
from types import MappingProxyType
from typing import Protocol

import msgspec


class Urgency(StrEnum):
    """Kind of a call. Shares of an account's rate are kept for fresh and for scheduled calls.

    background: queries of payments that are merely unpaid for long; together they use at most a fifth of the rate.
    stranger: requests because of a message that nobody has verified yet, which anybody can send. They use the share of
    fresh calls, and at most half of it.
    """

    FRESH = "fresh"
    SCHEDULED = "scheduled"
    REFRESH = "refresh"
    BACKGROUND = "background"
    STRANGER = "stranger"


class CallKind(StrEnum):
    """The purpose of a call. Each kind has a breaker of its own: while queries fail, creations go on."""

    CREATE = "create"
    QUERY = "query"
    CAPTURE = "capture"
    CLOSE = "close"
    REFUND = "refund"
    QUERY_REFUND = "query_refund"
    STATEMENT = "statement"
    UNDELIVERED = "undelivered"
    DISPUTE = "dispute"
    VERIFY = "verify"
    """Keys, certificates and tokens outside of another call, and the verification of a callback by its channel."""


OF_JOBS = (Urgency.SCHEDULED, Urgency.BACKGROUND)
"""Nobody waits for these: a call that is not admitted is due again later."""

PARTS: Mapping[Urgency, int] = MappingProxyType({Urgency.BACKGROUND: 5, Urgency.STRANGER: 10})
"""These calls use one part of so many of an account's rate, by the time between two of them."""


class Admitted(msgspec.Struct, frozen=True):
    """Call now, and report the result with the `reservation` to `Admission.report`.

    The call counts from here until a second after that report: it arrives at the channel at some moment between.
    """

    reservation: str = ""


class Wait(msgspec.Struct, frozen=True):
    """Do not call before `seconds` have passed: the rate is used up or the kind's breaker is open. Uses no attempt."""

    seconds: float
    reason: str


class Admission(Protocol):
    """Rate limit and circuit breakers of an account, shared by all processes. Reserve first, then call the channel."""

    async def admit(
        self, account: str, rate_per_s: int, kind: CallKind, urgency: Urgency, *, past_breaker: bool = False
    ) -> Admitted | Wait:
        """Reserve one call. Never raises: without Redis each process has its part of the rate.

        `past_breaker`: an open breaker does not hold this call back; the rate does.
        """
        ...

    async def report(self, account: str, kind: CallKind, *, answered: bool | None, reservation: str = "") -> None:
        """Report the end of a call, and to the breaker whether the channel answered. A refusal is an answer; a time-out
        or a 5xx is none. None: the channel was not called, and the reservation is given back.
        """
        ...

    async def end_request(self, account: str, reservation: str) -> None:
        """Report the end of a request whose call goes on; the breaker hears of the whole call. Never raises."""
        ...

    async def open_breakers(self, accounts: Iterable[str]) -> list[tuple[str, CallKind]]:
        """Breakers of these accounts that are open, or wait for the result of their probe. Never raises."""
        ...

    async def calls_in_use(self, accounts: Iterable[str]) -> dict[str, int]:
        """Number of calls of each of these accounts that count against its rate now. Never raises."""
        ...

    def count_with_older(self, *, are_there: bool) -> None:
        """Whether processes of the release before run: calls count where those count theirs, too."""
        ...

    async def learn(self, accounts: Iterable[str]) -> None:
        """Get to know accounts before their first call, so that it notices when calls of theirs were forgotten. Never
        raises.
        """
        ...


RATE_WITH_SHARES_MIN = 3

# A breaker opens after so many unanswered calls in a row within so many seconds, first for 5, then 10,
# 20, 40 and 60 s. Then one call probes whether the channel answers again; if it never reports, another may.
UNANSWERED_MAX = 10
UNANSWERED_WITHIN_S = 60.0
OPEN_S = 5.0
OPEN_S_MAX = 60.0
PROBE_S = 20.0

FLIGHT_S = 5.0
"""A call whose end nobody reports has arrived after so long: its process was killed, or its channel hangs."""

FRESH_IDLE_S = 10.0
"""The share of fresh calls is kept so long after the last one; then it is lent to scheduled calls until the next."""


@cache  # of few different rates, for every call of a channel
def kept_share(rate_per_s: int) -> int:
    """Number of calls per second kept for fresh calls, and the same number for scheduled calls: a fifth of the rate.

    So neither starves. Below three calls per second nothing is kept: two shares of one call would leave no call for
    refreshes.
    """
    return max(1, rate_per_s // 5) if rate_per_s >= RATE_WITH_SHARES_MIN else 0


def is_within_rate(
    rate_per_s: int, urgency: Urgency, made: Mapping[Urgency, int], *, is_fresh_idle: bool = False
) -> bool:
    """Whether one more call fits beside the calls `made` that still count, without using shares kept for others.

    The unused part of a kept share counts as used. So as long as every call was admitted by this rule, an urgency that
    has not used up its own share is always admitted. Only a backlog of scheduled calls uses the share of fresh ones,
    while there are none (`is_fresh_idle`): the first one then waits for the next call that ends.
    """
    share, fresh = kept_share(rate_per_s), made.get(Urgency.FRESH, 0) + made.get(Urgency.STRANGER, 0)
    keeps_fresh = urgency not in (Urgency.FRESH, Urgency.STRANGER)
    kept = 0 if not keeps_fresh or (is_fresh_idle and urgency is Urgency.SCHEDULED) else max(0, share - fresh)
    if urgency is not Urgency.SCHEDULED:
        kept += max(0, share - made.get(Urgency.SCHEDULED, 0))
    return sum(made.values()) + kept < rate_per_s
