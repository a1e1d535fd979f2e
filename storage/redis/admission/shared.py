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
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from itertools import count
from math import inf
from secrets import token_hex
from typing import NamedTuple, TypeVar

from redis.asyncio import Redis

from core.admission import FLIGHT_S, OF_JOBS, Admitted, CallKind, Urgency, Wait, kept_share
from core.errors import RedisUnavailable
from storage.redis.admission.local import LOCAL, WINDOW_S, LocalAdmission
from storage.redis.admission.names import Names, names_of, older_names_of
from storage.redis.admission.script import ENDED, PROBE_GAP_S, REPORT, RETURN_S, admit_script
from storage.redis.client import Call, Patience, RedisLink, redis_errors

SLOW_S = 0.1
SLOW_MAX = 3
"""So many reservations in a row that Redis took longer for count as its being down."""

REDIS_TIMEOUT_S = 0.5
CONCURRENT_MAX = 2
"""Connections used at once, of the four of a process."""

HELD_S = 0.25
HELD_S_MAX = 0.5
"""Wait up to this long here, unless the call is a job's: a job must not hold a slot of its worker."""

SPREAD = 0.2
_URGENCIES = (Urgency.FRESH, Urgency.SCHEDULED, Urgency.REFRESH, Urgency.BACKGROUND, Urgency.STRANGER)

_Result = TypeVar("_Result")


class _Wanted(NamedTuple):
    """A call that is to be admitted."""

    account: str
    rate: int
    kind: CallKind
    urgency: Urgency
    past_breaker: bool


_PROBE = _Wanted("-", 1_000_000, CallKind.QUERY, Urgency.REFRESH, past_breaker=True)  # no account has this name


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
        self._clock = clock
        self._local = LocalAdmission(processes, clock=clock)
        self._link = RedisLink("admission")
        self._quiet_until = 0.0
        self._probe_at = 0.0
        self._older_until = inf if has_older else 0.0
        self._has_seen_older = False
        self._generations: dict[str, str] = {}
        self._slots = asyncio.Semaphore(CONCURRENT_MAX)
        self._slow_count = 0
        self._name = token_hex(6)
        self._numbers = count()

    async def admit(
        self, account: str, rate_per_s: int, kind: CallKind, urgency: Urgency, *, past_breaker: bool = False
    ) -> Admitted | Wait:
        """Implement the Protocol. A wait of up to 0.25 s, 0.5 s in all, happens here unless the call is scheduled."""
        wanted = _Wanted(account, max(1, rate_per_s), kind, urgency, past_breaker)
        give_up_at = self._clock() + (0.0 if urgency in OF_JOBS else HELD_S_MAX)
        while True:
            result = await self._try_admit(wanted)
            if isinstance(result, Admitted):
                return result
            if result.seconds > HELD_S or self._clock() + result.seconds > give_up_at:
                return result
            await asyncio.sleep(result.seconds)

    async def report(self, account: str, kind: CallKind, *, answered: bool | None, reservation: str = "") -> None:
        """Implement the Protocol; never raises."""
        if reservation.startswith(LOCAL):
            self._local.end(account, reservation, was_called=answered is not None)
        result = "" if answered is None else str(int(answered))
        if not await self._send_report(account, kind, reservation, result):
            await self._local.report(account, kind, answered=answered)

    async def end_request(self, account: str, reservation: str) -> None:
        """Implement the Protocol; never raises."""
        if reservation.startswith(LOCAL):
            await self._local.end_request(account, reservation)
        else:
            await self._send_report(account, CallKind.QUERY, reservation, ENDED)

    async def open_breakers(self, accounts: Iterable[str]) -> list[tuple[str, CallKind]]:
        """Implement the Protocol; without Redis these are the breakers of this process."""
        wanted = [(account, kind) for account in accounts for kind in CallKind]

        async def read() -> list[tuple[str, CallKind]]:
            with redis_errors():
                async with Patience(REDIS_TIMEOUT_S), self._redis.pipeline(transaction=False) as pipe:
                    for account, kind in wanted:
                        pipe.exists(*names_of(account).of(f"breaker:{kind}"))
                    found = await pipe.execute()
            return [breaker for breaker, is_there in zip(wanted, found, strict=True) if is_there]

        through_redis = await self._through_redis(read)
        return await self._local.open_breakers(accounts) if through_redis is None else through_redis

    def count_with_older(self, *, are_there: bool) -> None:
        """Implement the Protocol. Calls of the last of them, should it have been killed, count on for a time."""
        if are_there:
            self._has_seen_older, self._older_until = True, inf
        elif self._older_until == inf:
            self._older_until = self._clock() + (FLIGHT_S + WINDOW_S if self._has_seen_older else 0.0)

    async def learn(self, accounts: Iterable[str]) -> None:
        """Implement the Protocol: a generation that has changed shows that Redis has forgotten calls."""
        keys = [key for name in accounts if (key := names_of(name).generation) not in self._generations]

        async def read() -> list[bytes | None]:
            with redis_errors():
                async with Patience(REDIS_TIMEOUT_S), self._redis.pipeline(transaction=False) as pipe:
                    for key in keys:
                        pipe.get(key)
                    return list(await pipe.execute())

        generations = await self._through_redis(read) if keys else None
        for key, generation in zip(keys, generations or (), strict=False):
            if generation is not None:
                self._generations.setdefault(key, generation.decode("ascii", errors="replace"))

    def _names(self, account: str) -> list[Names]:
        """Where a call is counted: under the older names first, for all processes share those."""
        own = names_of(account)
        return [older_names_of(account), own] if self._clock() < self._older_until else [own]

    async def _send_report(self, account: str, kind: CallKind, reservation: str, result: str) -> bool:
        """Whether Redis has it."""

        async def send() -> bool:
            with redis_errors():
                async with Patience(REDIS_TIMEOUT_S):
                    calls = [_report_call(names, kind, reservation, result) for names in self._names(account)]
                    await REPORT.run_all(self._redis, calls)
            return True

        return await self._through_redis(send) is not None

    async def _try_admit(self, wanted: _Wanted) -> Admitted | Wait:
        if not self._link.is_up:
            await self._probe_redis()
        result: Admitted | Wait | None = self._changing_over()
        result = result or await self._through_redis(lambda: self._reserve(wanted))
        return result or self._changing_over() or self._local.try_admit(*wanted[:4], past_breaker=wanted.past_breaker)

    async def _through_redis(self, send: Callable[[], Awaitable[_Result]]) -> _Result | None:
        """Return the result of `send`, None while Redis is down.

        Few run at a time: a wait for a connection of the pool would look like a slow Redis.
        """
        async with self._slots:
            if not self._link.is_up:
                return None
            try:
                return await send()
            except RedisUnavailable as error:
                self._go_local(error)
                return None

    def _changing_over(self) -> Wait | None:
        left_s = self._quiet_until - self._clock()
        return Wait(left_s, "changing_over") if left_s > 0 else None

    async def _reserve(self, wanted: _Wanted) -> Admitted | Wait:
        """Reserve a call in the log. One that never reports its end counts for `FLIGHT_S` longer."""
        number = next(self._numbers)
        reservation = f"{self._name}:{number}"
        names = self._names(wanted.account)
        for tried, each in enumerate(names):
            reason, wait_s, waited_s = await self._run(each, wanted, reservation)
            self._slow_count = self._slow_count + 1 if waited_s > SLOW_S else 0
            if self._slow_count >= SLOW_MAX:
                self._slow_count = 0
                raise RedisUnavailable("reservations take too long")
            if reason:
                await self._give_back(names[:tried], wanted.kind, reservation)
                return Wait(wait_s if wanted.urgency in OF_JOBS else _spread(wait_s, number), reason)
        return Admitted(reservation)

    async def _give_back(self, names: Sequence[Names], kind: CallKind, reservation: str) -> None:
        if names:
            with redis_errors():
                async with Patience(REDIS_TIMEOUT_S):
                    await REPORT.run_all(self._redis, [_report_call(each, kind, reservation, "") for each in names])

    async def _run(self, names: Names, wanted: _Wanted, reservation: str) -> tuple[str, float, float]:
        """Return the reason for a refusal or '', the seconds to wait, and the seconds that Redis took."""
        generation = self._generations.get(names.generation, "")
        call = partial(_admit_call, names, wanted, reservation=reservation, generation=generation)
        # A server that no longer knows the script was restarted or replaced: the log may be incomplete.
        is_lost = generation != ""
        script = admit_script(names.memory)
        with redis_errors():
            async with Patience(REDIS_TIMEOUT_S) as patience:
                result = await script.run(self._redis, call(is_lost=False), if_unknown=call(is_lost=is_lost))
        reason, wait_ms, generation = result
        self._generations[names.generation] = bytes(generation).decode("ascii", errors="replace")
        return bytes(reason).decode(), int(wait_ms) / 1000, patience.waited_s

    async def _probe_redis(self) -> None:
        """Return to Redis when it takes reservations quickly: a full or read-only one answers too."""
        sent_at = self._clock()
        if sent_at < self._probe_at:
            return
        self._probe_at = sent_at + PROBE_GAP_S
        try:
            _, _, waited_s = await self._run(names_of(_PROBE.account), _PROBE, self._name)
        except RedisUnavailable:
            return
        if waited_s <= SLOW_S:
            self._link.up()
            self._quiet_until = self._clock() + RETURN_S

    def _go_local(self, error: RedisUnavailable) -> None:
        if self._link.is_up:  # the first of many that fail together
            self._link.lost(error)
            self._quiet_until = self._clock() + WINDOW_S
            self._probe_at = self._clock() + PROBE_GAP_S


def _spread(wait_s: float, number: int) -> float:
    """Lengthen by up to a fifth, by multiples of the golden ratio: calls refused together return at different times."""
    return wait_s * (1 + SPREAD * (number * 0.6180339887 % 1))


def _admit_call(names: Names, wanted: _Wanted, *, reservation: str, generation: str, is_lost: bool) -> Call:
    """Keys and arguments of `admit_script`. `generation`: the last seen, or ''."""
    of_kind = (f"breaker:{wanted.kind}", f"line:{wanted.kind}")
    keys = names.of(*of_kind, *_URGENCIES[:4], "queue", "asked", Urgency.STRANGER)
    urgency_number = _URGENCIES.index(wanted.urgency) + 1
    limits = (urgency_number, wanted.rate, kept_share(wanted.rate))
    flags = (int(is_lost), int(wanted.past_breaker))
    return [names.generation, names.quiet, *keys], [*limits, reservation, generation, *flags]


def _report_call(names: Names, kind: CallKind, reservation: str, result: str) -> Call:
    """Keys and arguments of `REPORT`."""
    of_kind = (f"breaker:{kind}", f"unanswered:{kind}")
    return names.of(*of_kind, Urgency.FRESH, Urgency.SCHEDULED, Urgency.REFRESH), [result, reservation]
