"""Reservations of calls and reports of their ends, those of many callers in one round trip, with the scripts of this
release and, while processes of the release before run, with theirs too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from redis.asyncio import Redis

from core.admission import CallKind, Urgency, kept_share
from storage.redis.admission import older
from storage.redis.admission.names import calls_key, state_key
from storage.redis.admission.script import KEPT_S, admission_script
from storage.redis.client import Call, Command, Run, round_trip, run_together

URGENCIES = (Urgency.FRESH, Urgency.SCHEDULED, Urgency.REFRESH, Urgency.BACKGROUND, Urgency.STRANGER)
LOGS = {Urgency.FRESH: 1, Urgency.SCHEDULED: 2, Urgency.REFRESH: 3, Urgency.BACKGROUND: 3, Urgency.STRANGER: 1}


class Wanted(NamedTuple):
    """A call that is to be admitted, under a reservation of its own that begins with the number of its log."""

    account: str
    rate: int
    kind: CallKind
    urgency: Urgency
    past_breaker: bool
    reservation: str


class Report(NamedTuple):
    """The end of a call: `script` has the results."""

    account: str
    kind: CallKind
    result: str
    reservation: str


class Refusal(NamedTuple):
    """Why a call is not admitted, and the seconds to wait before the next try."""

    reason: str
    wait_s: float


Item = Wanted | Report


class Reservations:
    """Calls of all processes. A call that never reports its end counts for `FLIGHT_S` and a second."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._generations: dict[str, str] = {}
        self._older_generation = ""

    async def send(self, items: Sequence[Item], *, with_older: bool) -> list[Refusal | None]:
        """Refusals of the calls that are not admitted; None for those that are, and for reports.

        With older processes a call is reserved where those count first, for all processes share that.
        """
        refusals = await self._send_under_older_names(items) if with_older else {}
        rest = [item for item in items if item.reservation not in refusals] if refusals else items
        if rest:
            refused = await self._send(rest)
            if with_older:
                await self._give_back(rest, refused)
            refusals |= refused
        return [refusals.get(item.reservation) if isinstance(item, Wanted) else None for item in items]

    async def learn(self, accounts: Iterable[str]) -> None:
        """Read the generations of accounts that have none here."""
        new = [account for account in accounts if account not in self._generations]
        answers = await self._read([("HMGET", state_key(account), "generation") for account in new])
        for account, (generation,) in zip(new, answers, strict=True):
            if generation is not None:
                self._generations.setdefault(account, _text(generation))

    async def open_breakers(self, accounts: Iterable[str]) -> list[tuple[str, CallKind]]:
        """Breakers of these accounts that are open, or wait for the result of their probe."""
        wanted, fields = list(accounts), [f"until:{kind}" for kind in CallKind]
        (seconds, _), *states = await self._read([("TIME",), *(("HMGET", state_key(name), *fields) for name in wanted)])
        forgotten_ms = (int(seconds) - KEPT_S) * 1000
        return [
            (account, kind)
            for account, state in zip(wanted, states, strict=True)
            for kind, until in zip(CallKind, state, strict=True)
            if until and float(until) >= forgotten_ms
        ]

    async def _read(self, commands: Sequence[Command]) -> list[Any]:
        answers = await round_trip(self._redis, commands) if commands else []
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    async def _send(self, items: Sequence[Item]) -> dict[str, Refusal]:
        """One run for each account."""
        accounts: defaultdict[str, tuple[list[Report], list[Wanted]]] = defaultdict(lambda: ([], []))
        for item in items:
            accounts[item.account][isinstance(item, Wanted)].append(item)  # type: ignore[arg-type]
        runs: list[Run] = []
        if_lost: list[Call] = []
        for account, (reports, calls) in accounts.items():
            keys, generation = [state_key(account), calls_key(account)], self._generations.get(account, "")
            args = _arguments(reports, calls)
            runs.append((admission_script(account), (keys, [generation, 0, *args])))
            # A server that no longer knows the script was restarted or replaced: its log may be incomplete.
            if_lost.append((keys, [generation, int(generation != ""), *args]))
        refusals: dict[str, Refusal] = {}
        answers = await run_together(self._redis, runs, if_unknown=if_lost)
        for (account, (_, calls)), (generation, *outcomes) in zip(accounts.items(), answers, strict=True):
            self._generations[account] = _text(generation)
            for call, reason, wait_ms in zip(calls, outcomes[::2], outcomes[1::2], strict=True):
                if reason:
                    refusals[call.reservation] = Refusal(_text(reason), wait_ms / 1000)
        return refusals

    # -- the release before --------------------------------------------------------------------------------------------

    async def _send_under_older_names(self, items: Sequence[Item]) -> dict[str, Refusal]:
        runs, if_lost = [], []
        for item in items:
            runs.append(self._older_run(item, is_lost=False))
            if_lost.append(self._older_run(item, is_lost=self._older_generation != "")[1])
        refusals: dict[str, Refusal] = {}
        answers = await run_together(self._redis, runs, if_unknown=if_lost)
        for item, answer in zip(items, answers, strict=True):
            if isinstance(item, Wanted):
                reason, wait_ms, generation = answer
                self._older_generation = _text(generation)
                if reason:
                    refusals[item.reservation] = Refusal(_text(reason), wait_ms / 1000)
        return refusals

    def _older_run(self, item: Item, *, is_lost: bool) -> Run:
        if isinstance(item, Report):
            return older.REPORT, older.report_call(item.account, item.kind, item.result, item.reservation)
        flags = (self._older_generation, int(is_lost), int(item.past_breaker))
        return older.ADMIT, older.admit_call(item.account, item.kind, [*_limits(item), item.reservation, *flags])

    async def _give_back(self, items: Sequence[Item], refused: Iterable[str]) -> None:
        back = [item for item in items if isinstance(item, Wanted) and item.reservation in refused]
        calls = [older.report_call(item.account, item.kind, "", item.reservation) for item in back]
        if calls:
            await run_together(self._redis, [(older.REPORT, call) for call in calls])


def _limits(call: Wanted) -> tuple[int, int, int]:
    return URGENCIES.index(call.urgency) + 1, call.rate, kept_share(call.rate)


def _arguments(reports: Sequence[Report], calls: Sequence[Wanted]) -> list[str | int]:
    """Arguments of the script after those of the generation. The first call is behind three of them and the reports."""
    args: list[str | int] = [4 + 3 * len(reports)]
    for report in reports:
        args += report[1:]
    for call in calls:
        args += (call.kind, *_limits(call), int(call.past_breaker), call.reservation)
    return args


def _text(value: bytes) -> str:
    return value.decode("ascii", errors="replace")
