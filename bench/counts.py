"""Statements, writing transactions and Redis commands, counted from outside: by the servers themselves.

Postgres writes every statement to its log while they are counted, which costs it time: nothing is timed meanwhile. What
an idle deployment does in the same time is subtracted.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from bench.report import Figure, figure
from bench.rig import Rig

QUIET_S = 1.0
IDLE_S = 6.0
"""Longer than the gap between two beats of a process."""

RELOAD_S = 0.3
OWN = "/* bench */"
"""Begins the statements of the benchmarks themselves, which are not counted."""

_LOG_ALL = "ALTER SYSTEM SET log_min_duration_statement = 0"
_LOG_AS_BEFORE = "ALTER SYSTEM RESET log_min_duration_statement"
# The next transaction number counts transactions that wrote: each waited for the disk once.
_COMMITS = "/* bench */ SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
_ENTRY = re.compile(r"^[^\t].* LOG:  duration: ([0-9.]+) ms  (parse|bind|execute|statement)[^:]*:\s", re.DOTALL)


class Logged(NamedTuple):
    """A step of a statement in Postgres's log. A prepared one has `bind` and `execute`; it is counted by the latter."""

    step: str
    milliseconds: float
    text: str


class Counts(NamedTuple):
    """`redis_reads` is how often Redis read from a connection: a pipeline, and a script, is one round trip."""

    statements: float
    commits: float
    redis_commands: float
    redis_reads: float

    def minus(self, other: Counts, times: float = 1.0) -> Counts:
        return Counts(*(mine - theirs * times for mine, theirs in zip(self, other, strict=True)))

    def figures(self, n: int) -> tuple[Figure, ...]:
        """Return the counts for each of `n` orders."""
        return (
            figure("statements", self.statements / n, "statements/order", n),
            figure("writing_transactions", self.commits / n, "transactions/order", n),
            figure("redis_commands", self.redis_commands / n, "commands/order", n),
            figure("redis_round_trips", self.redis_reads / n, "reads/order", n),
        )


async def count(rig: Rig, work: Callable[[], Awaitable[int]]) -> tuple[Figure, ...]:
    """Count what `work` needs, which returns the number of its orders."""
    async with statement_log(rig) as log:
        await asyncio.sleep(QUIET_S)
        idle, idle_s, _ = await _spent(rig, log, _idle)
        spent, seconds, n = await _spent(rig, log, work)
    return spent.minus(idle, seconds / idle_s).figures(n)


@asynccontextmanager
async def statement_log(rig: Rig) -> AsyncIterator[Path]:
    """Have Postgres log every statement of every connection; yield the path of its log."""
    await _log_statements(rig, _LOG_ALL)
    try:
        yield rig.stack.postgres.directory / "postgres.log"
    finally:
        await _log_statements(rig, _LOG_AS_BEFORE)


def entries(log: Path, offset: int) -> Iterator[Logged]:
    """Read the steps of statements that were logged behind `offset`, without the benchmark's own."""
    with log.open("rb") as file:
        file.seek(offset)
        text = file.read().decode(errors="replace")
    for entry in re.split(r"\n(?!\t)", text):
        match = _ENTRY.match(entry)
        if match and OWN not in entry:
            yield Logged(match[2], float(match[1]), " ".join(entry[match.end() :].split()))


async def _log_statements(rig: Rig, sql: str) -> None:
    await rig.db.execute(sql)
    await rig.db.execute("SELECT pg_reload_conf()")
    await asyncio.sleep(RELOAD_S)


async def _idle() -> int:
    await asyncio.sleep(IDLE_S)
    return 0


async def _spent(rig: Rig, log: Path, work: Callable[[], Awaitable[int]]) -> tuple[Counts, float, int]:
    offset, before, began = _bytes_of(log), await _counts(rig), time.monotonic()
    n = await work()
    seconds, after = time.monotonic() - began, await _counts(rig)
    statements = sum(each.step in ("execute", "statement") for each in entries(log, offset))
    return after.minus(before)._replace(statements=statements), seconds, n


def _bytes_of(log: Path) -> int:
    return log.stat().st_size


async def _counts(rig: Rig) -> Counts:
    stats = await rig.redis.info("stats")
    commits: int = await rig.db.fetchval(_COMMITS)
    return Counts(0, commits, stats["total_commands_processed"], stats["total_reads_processed"])
