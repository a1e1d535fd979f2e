"""The rate limit and the breaker of every account, shared by all processes through Redis.

The rate is strict in every second, not on average: each account has a log of its calls of the last 1.1 s by Redis's own
clock, and a call is admitted when it fits in, kept shares included. The tenth of a second is for what lies between the
reservation and the call: a reservation that took longer to come back is thrown away.

What Redis forgets (a flush, a restart, a failover) is still true at the channel. So whoever notices bids all processes
wait until the calls that were forgotten are older than a second. Without Redis `LocalAdmission` takes over, and on the
way there and back this process makes no call for as long as the two could add up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import count
from secrets import token_hex
from typing import TypeVar

from redis.asyncio import Redis

from core.admission import Admitted, Urgency, Wait
from core.errors import RedisUnavailable
from storage.redis.admission.local import WINDOW_S, LocalAdmission
from storage.redis.admission.script import ADMIT, LOOK_GAP_S, REPORT, RETURN_S, admit_call, report_call
from storage.redis.client import redis_errors
from storage.redis.link import RedisLink

SLOW_S = 0.1
TRIES_MAX = 3
ASK_TIMEOUT_S = 0.5
ASKING_MAX = 2
"""Of the four connections of a process."""

HELD_S = 0.25
HELD_S_MAX = 0.5
"""A short wait is slept here, unless the call is scheduled: a job must not hold a slot of its worker."""

SPREAD = 0.2
_NOBODY, _NO_LIMIT = "-", 1_000_000  # an account that cannot be, and what it may do: everything

_Answer = TypeVar("_Answer")


class SharedAdmission:
    """Implements `core.admission.Admission`. `processes` is how many share the rate while Redis is down."""

    def __init__(self, redis: Redis, *, processes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._redis = redis
        self._clock = clock
        self._local = LocalAdmission(processes, clock=clock)
        self._link = RedisLink("admission")
        self._quiet_until = 0.0
        self._look_at = 0.0
        self._generation = ""
        self._slots = asyncio.Semaphore(ASKING_MAX)
        self._name = token_hex(6)
        self._numbers = count()

    async def admit(self, account: str, rate_per_s: int, urgency: Urgency) -> Admitted | Wait:
        """As the Protocol says. A wait of up to 0.25 s is slept here, half a second in all, unless it is scheduled."""
        give_up_at = self._clock() + (0.0 if urgency is Urgency.SCHEDULED else HELD_S_MAX)
        while True:
            answer = await self._ask(account, max(1, rate_per_s), urgency)
            if isinstance(answer, Admitted):
                return answer
            if answer.seconds > HELD_S or self._clock() + answer.seconds > give_up_at:
                return answer
            await asyncio.sleep(answer.seconds)

    async def report(self, account: str, *, answered: bool) -> None:
        """As the Protocol says; never raises."""

        async def tell() -> bool:
            with redis_errors():
                async with asyncio.timeout(ASK_TIMEOUT_S):
                    await REPORT.run(self._redis, report_call(account, answered=answered))
            return True

        if not await self._through_redis(tell):
            await self._local.report(account, answered=answered)

    async def _ask(self, account: str, rate: int, urgency: Urgency) -> Admitted | Wait:
        if not self._link.is_up:
            await self._look_for_redis()
        answer: Admitted | Wait | None = self._changing_over()
        answer = answer or await self._through_redis(lambda: self._reserve(account, rate, urgency))
        return answer or self._changing_over() or self._local.try_admit(account, rate, urgency)

    async def _through_redis(self, ask: Callable[[], Awaitable[_Answer]]) -> _Answer | None:
        """What Redis says; None while it is down. Few ask at a time, or waiting for a connection would look like it."""
        async with self._slots:
            if not self._link.is_up:
                return None
            try:
                return await ask()
            except RedisUnavailable as error:
                self._go_local(error)
                return None

    def _changing_over(self) -> Wait | None:
        left_s = self._quiet_until - self._clock()
        return Wait(left_s, "changing_over") if left_s > 0 else None

    async def _reserve(self, account: str, rate: int, urgency: Urgency) -> Admitted | Wait:
        """Ask the log. A reservation that came back late is forgotten in the same breath in which the next is made."""
        forget = ""
        for _ in range(TRIES_MAX):
            number = next(self._numbers)
            reservation = f"{self._name}:{number}"
            asked_at = self._clock()
            reason, wait_s = await self._run(account, rate, urgency, reservation, forget)
            if reason:
                return Wait(wait_s if urgency is Urgency.SCHEDULED else _spread(wait_s, number), reason)
            if self._clock() - asked_at <= SLOW_S:
                return Admitted()
            forget = reservation
        raise RedisUnavailable("reservations take too long to come back")

    async def _run(self, account: str, rate: int, urgency: Urgency, reservation: str, forget: str) -> tuple[str, float]:
        """Why not, and for how long; an empty reason: reserved."""
        call = partial(
            admit_call, account, rate, urgency, reservation=reservation, forget=forget, generation=self._generation
        )
        # A server that does not know the script any more was restarted or is another: the log may be incomplete.
        is_lost = self._generation != ""
        with redis_errors():
            async with asyncio.timeout(ASK_TIMEOUT_S):
                answer = await ADMIT.run(self._redis, call(is_lost=False), if_unknown=call(is_lost=is_lost))
        reason, wait_ms, generation = answer
        self._generation = bytes(generation).decode("ascii", errors="replace")
        return bytes(reason).decode(), int(wait_ms) / 1000

    async def _look_for_redis(self) -> None:
        """Come back when it takes reservations, and quickly: an answer alone may come from a full or read-only one."""
        asked_at = self._clock()
        if asked_at < self._look_at:
            return
        self._look_at = asked_at + LOOK_GAP_S
        try:
            await self._run(_NOBODY, _NO_LIMIT, Urgency.REFRESH, self._name, "")
        except RedisUnavailable:
            return
        if self._clock() - asked_at <= SLOW_S:
            self._link.up()
            self._quiet_until = self._clock() + RETURN_S

    def _go_local(self, error: RedisUnavailable) -> None:
        if self._link.is_up:  # the first of many that fail together
            self._link.lost(error)
            self._quiet_until = self._clock() + WINDOW_S
            self._look_at = self._clock() + LOOK_GAP_S


def _spread(wait_s: float, number: int) -> float:
    """Longer by up to a fifth, by multiples of the golden ratio: those refused together come back apart."""
    return wait_s * (1 + SPREAD * (number * 0.6180339887 % 1))
