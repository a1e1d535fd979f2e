"""The state of accounts in Redis: generations, open breakers, calls that count. Raises RedisUnavailable as its callers
map it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from redis.asyncio import Redis

from core.admission import CallKind
from storage.redis.admission.items import LOGS
from storage.redis.admission.names import calls_key, state_key
from storage.redis.admission.script import COUNTED_S, KEPT_S, SPAN
from storage.redis.client import Command, run_together


async def generations_of(redis: Redis, accounts: Sequence[str]) -> dict[str, str]:
    """The generations of those accounts that have one."""
    states = await run_together(redis, [], [("HMGET", state_key(account), "generation") for account in accounts])
    read = zip(accounts, states, strict=True)
    return {account: str(value, "ascii", "replace") for account, (value,) in read if value is not None}


async def open_breakers_of(redis: Redis, accounts: Iterable[str]) -> list[tuple[str, CallKind]]:
    """Breakers of these accounts that are open, or wait for the result of their probe."""
    names, fields = list(accounts), [f"until:{kind}" for kind in CallKind]
    states: list[Any]
    commands = [("HMGET", state_key(name), *fields) for name in names]
    (seconds, _), *states = await run_together(redis, [], [("TIME",), *commands])
    forgotten_ms = (int(seconds) - KEPT_S) * 1000
    return [
        (account, kind)
        for account, state in zip(names, states, strict=True)
        for kind, until in zip(CallKind, state, strict=True)
        if until and float(until) >= forgotten_ms
    ]


async def calls_in_use_of(redis: Redis, accounts: Sequence[str]) -> dict[str, int]:
    """The calls of each account that count against its rate now."""
    [(seconds, microseconds)] = await run_together(redis, [], [("TIME",)])
    counted_ms = int(seconds) * 1000 + int(microseconds) // 1000 - round(COUNTED_S * 1000)
    logs = sorted(set(LOGS.values()))
    ranges = [(log * SPAN + counted_ms, f"({(log + 1) * SPAN}") for log in logs]
    commands: list[Command] = [
        ("ZCOUNT", calls_key(account), low, high) for account in accounts for low, high in ranges
    ]
    counts = await run_together(redis, [], commands) if commands else []
    return {account: sum(counts[number * len(logs) :][: len(logs)]) for number, account in enumerate(accounts)}
