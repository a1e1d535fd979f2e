"""Rate limit and breakers of every account, shared by all processes through Redis.

The rate is strict in every second, not on average: each account has a log of its calls by Redis's own clock. A call
counts from its reservation until a second after its end, so that it counts at the moment at which it arrives at the
channel, however late the process, the network or the channel is. It is admitted if it fits, kept shares included.

Calls that Redis forgot (a flush, a restart, a failover) still count at the channel. So the process that notices makes
all processes wait until the forgotten calls are older than a second. Without Redis `LocalAdmission` takes over; at each
change between the two this process makes no call as long as their calls could add up.

While processes of the release before run, each call is reserved and reported under their names too, so all processes
together stay within the rate.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from itertools import count
from math import inf
from secrets import token_hex
from typing import TypeVar

from redis.asyncio import Redis

from core.admission import FLIGHT_S, OF_JOBS, Admitted, CallKind, Urgency, Wait, kept_share
from core.errors import RedisUnavailable
from storage.gathering import Gathering
from storage.redis.admission.items import LOGS, NUMBERS_OF, Item, Refusal, Report, Wanted
from storage.redis.admission.local import LOCAL, WINDOW_S, LocalAdmission
from storage.redis.admission.names import keys_of
from storage.redis.admission.older import older_names
from storage.redis.admission.reading import calls_in_use_of, generations_of, open_breakers_of
from storage.redis.admission.script import ENDED, PROBE_GAP_S, RETURN_S, admission_script
from storage.redis.client import Call, Patience, RedisLink, Run, gathering, redis_errors, run_together

SLOW_S = 0.1
SLOW_MAX = 3
"""So many round trips with reservations in a row that Redis took longer for count as its being down."""

REDIS_TIMEOUT_S = 0.5
WAITING_MAX = 10_000

HELD_S = 0.25
HELD_S_MAX = 0.5
"""Wait up to this long here, unless the call is a job's: a job must not hold a slot of its worker."""

SPREAD = 0.2

_Result = TypeVar("_Result")


class SharedAdmission:
    """Implements `core.admission.Admission`. `processes` share the rate while Redis is down.

    `has_older`: processes of the release before may run, until `count_with_older` says more.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        processes: int,
        has_older: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = redis
        self._older = older_names(redis)
        self._generations: dict[str, str] = {}
        self._gathering: Gathering[Item, Refusal | None] = gathering(self._send, waiting_max=WAITING_MAX)
        self._clock = clock
        self._local = LocalAdmission(processes, clock=clock)
        self._link = RedisLink("admission")
        self._quiet_until = 0.0
        self._probe_at = 0.0
        self._older_until = inf if has_older else 0.0
        self._has_seen_older = False
        self._slow_count = 0
        self._name = token_hex(6)
        self._numbers = count()

    async def admit(
        self, account: str, rate_per_s: int, kind: CallKind, urgency: Urgency, *, past_breaker: bool = False
    ) -> Admitted | Wait:
        """Implement the Protocol. A wait of up to 0.25 s, 0.5 s in all, happens here unless the call is scheduled."""
        give_up_at = self._clock() + (0.0 if urgency in OF_JOBS else HELD_S_MAX)
        while True:
            result = await self._try_admit(account, max(1, rate_per_s), kind, urgency, past_breaker=past_breaker)
            if isinstance(result, Admitted):
                return result
            if result.seconds > HELD_S or self._clock() + result.seconds > give_up_at:
                return result
            await asyncio.sleep(result.seconds)

    async def report(self, account: str, kind: CallKind, *, answered: bool | None, reservation: str = "") -> None:
        """Implement the Protocol; never raises."""
        if reservation.startswith(LOCAL):
            self._local.end(account, reservation, was_called=answered is not None)
            reservation = ""
        try:
            await self._gathering.add(
                Report(account, kind, "" if answered is None else str(int(answered)), reservation)
            )
        except RedisUnavailable:
            await self._local.report(account, kind, answered=answered)

    async def end_request(self, account: str, reservation: str) -> None:
        """Implement the Protocol; never raises."""
        if reservation.startswith(LOCAL):
            await self._local.end_request(account, reservation)
        else:
            with suppress(RedisUnavailable):
                await self._gathering.add(Report(account, CallKind.QUERY, ENDED, reservation))

    async def open_breakers(self, accounts: Iterable[str]) -> list[tuple[str, CallKind]]:
        """Implement the Protocol; without Redis these are the breakers of this process."""
        wanted = list(accounts)
        through_redis = await self._through_redis(lambda: open_breakers_of(self._redis, wanted))
        return await self._local.open_breakers(wanted) if through_redis is None else through_redis

    async def calls_in_use(self, accounts: Iterable[str]) -> dict[str, int]:
        """Implement the Protocol; without Redis these are the calls of this process."""
        wanted = list(accounts)
        through_redis = await self._through_redis(lambda: calls_in_use_of(self._redis, wanted))
        return await self._local.calls_in_use(wanted) if through_redis is None else through_redis

    def count_with_older(self, *, are_there: bool) -> None:
        """Implement the Protocol. Calls of the last of them, should it have been killed, count on for a time."""
        if are_there:
            self._has_seen_older, self._older_until = True, inf
        elif self._older_until == inf:
            self._older_until = self._clock() + (FLIGHT_S + WINDOW_S if self._has_seen_older else 0.0)

    async def learn(self, accounts: Iterable[str]) -> None:
        """Implement the Protocol: a generation that has changed shows that Redis has forgotten calls."""
        new = [account for account in accounts if account not in self._generations]
        if new:
            generations = await self._through_redis(lambda: generations_of(self._redis, new))
            self._generations = (generations or {}) | self._generations

    async def _try_admit(
        self, account: str, rate: int, kind: CallKind, urgency: Urgency, *, past_breaker: bool
    ) -> Admitted | Wait:
        if not self._link.is_up:
            await self._probe_redis()
        if wait := self._changing_over():
            return wait
        number = next(self._numbers)
        reservation = f"{LOGS[urgency]}:{self._name}:{number}"
        try:
            limits = (NUMBERS_OF[urgency], rate, kept_share(rate))
            refusal = await self._gathering.add(Wanted(account, kind, limits, past_breaker, reservation))
        except RedisUnavailable as error:
            self._go_local(error)  # unless this process has noticed it already
            return self._changing_over() or self._local.try_admit(
                account, rate, kind, urgency, past_breaker=past_breaker
            )
        if refusal is None:
            return Admitted(reservation)
        return Wait(refusal.wait_s if urgency in OF_JOBS else _spread(refusal.wait_s, number), refusal.reason)

    async def _send(self, items: Sequence[Item]) -> list[Refusal | None]:
        """Reservations and reports of all callers that wait. Those that wait while Redis goes down fail at once."""
        if not self._link.is_up:
            raise RedisUnavailable("Redis is down")
        try:
            with redis_errors():
                async with Patience(REDIS_TIMEOUT_S) as patience:
                    is_older_there = self._clock() < self._older_until
                    refusals = await (self._reserve_with_older(items) if is_older_there else self._reserve(items))
            if any(isinstance(item, Wanted) for item in items):
                self._judge_speed(patience.waited_s)
        except RedisUnavailable as error:
            self._go_local(error)
            raise
        return [refusals.get(item.reservation) if isinstance(item, Wanted) else None for item in items]

    async def _reserve(self, items: Sequence[Item]) -> dict[str, Refusal]:
        """Send reports and calls with one run for each account; return the calls that are not admitted, by reservation.
        One that never reports its end counts for `FLIGHT_S` and a second.
        """
        accounts: defaultdict[str, tuple[list[Report], list[Wanted]]] = defaultdict(lambda: ([], []))
        for item in items:
            accounts[item.account][isinstance(item, Wanted)].append(item)  # type: ignore[arg-type]
        runs: list[Run] = []
        if_lost: list[Call] = []
        for account, (reports, calls) in accounts.items():
            keys, generation, args = keys_of(account), self._generations.get(account, ""), _arguments(reports, calls)
            runs.append((admission_script(account), (keys, [generation, 0, *args])))
            # A server that no longer knows the script may have been restarted or replaced, and its log incomplete.
            if_lost.append((keys, [generation, int(generation != ""), *args]))
        refusals: dict[str, Refusal] = {}
        answers = await run_together(self._redis, runs, if_unknown=if_lost)
        for (account, (_, calls)), (generation, *outcomes) in zip(accounts.items(), answers, strict=True):
            self._generations[account] = str(generation, "ascii", "replace")
            for call, reason, wait_ms in zip(calls, outcomes[::2], outcomes[1::2], strict=True):
                if reason:
                    refusals[call.reservation] = Refusal(str(reason, "ascii"), wait_ms / 1000)
        return refusals

    async def _reserve_with_older(self, items: Sequence[Item]) -> dict[str, Refusal]:
        refusals: dict[str, Refusal] = {}
        for number, reserve in enumerate((*(names.reserve for names in self._older), self._reserve)):
            refused = await reserve(items) if items else {}
            for names in self._older[:number]:
                await names.give_back(items, refused)
            items = [item for item in items if item.reservation not in refused]
            refusals |= refused
        return refusals

    def _judge_speed(self, waited_s: float) -> None:
        self._slow_count = self._slow_count + 1 if waited_s > SLOW_S else 0
        if self._slow_count >= SLOW_MAX:
            self._slow_count = 0
            raise RedisUnavailable("reservations take too long")

    async def _through_redis(self, read: Callable[[], Awaitable[_Result]]) -> _Result | None:
        """Return the result of `read`, None while Redis is down."""
        if not self._link.is_up:
            return None
        try:
            with redis_errors():
                async with Patience(REDIS_TIMEOUT_S):
                    return await read()
        except RedisUnavailable as error:
            self._go_local(error)
            return None

    def _changing_over(self) -> Wait | None:
        left_s = self._quiet_until - self._clock()
        return Wait(left_s, "changing_over") if left_s > 0 else None

    async def _probe_redis(self) -> None:
        """Return to Redis when it takes reservations quickly: a full or read-only one answers too."""
        sent_at = self._clock()
        if sent_at < self._probe_at:
            return
        self._probe_at = sent_at + PROBE_GAP_S
        try:
            with redis_errors():
                async with Patience(REDIS_TIMEOUT_S) as patience:
                    await self._reserve([_probe(self._name)])
        except RedisUnavailable:
            return
        if patience.waited_s <= SLOW_S:
            self._link.up()
            self._quiet_until = self._clock() + RETURN_S

    def _go_local(self, error: RedisUnavailable) -> None:
        if self._link.is_up:  # the first of many that fail together
            self._link.lost(error)
            self._quiet_until = self._clock() + WINDOW_S
            self._probe_at = self._clock() + PROBE_GAP_S


def _probe(name: str) -> Wanted:
    """A reservation that limits no call: no account has this name."""
    limits = (NUMBERS_OF[Urgency.REFRESH], 1_000_000, 0)
    return Wanted("-", CallKind.QUERY, limits, past_breaker=True, reservation=f"{LOGS[Urgency.REFRESH]}:{name}")


def _arguments(reports: Sequence[Report], calls: Sequence[Wanted]) -> list[str | int]:
    """Arguments of the script after those of the generation. The first call is behind three of them and the reports."""
    args: list[str | int] = [4 + 3 * len(reports)]
    for report in reports:
        args += report[1:]
    for call in calls:
        args += (call.kind, *call.limits, int(call.past_breaker), call.reservation)
    return args


def _spread(wait_s: float, number: int) -> float:
    """Lengthen by up to a fifth, by multiples of the golden ratio: calls refused together return at different times."""
    return wait_s * (1 + SPREAD * (number * 0.6180339887 % 1))
