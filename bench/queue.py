"""Delay queues side by side, with jobs that do nothing: ours, those that others use, and a Lua loop as the bound.

Every run has a Redis of its own without persistence and one worker process. The rounds are interleaved: each runs every
load of every worker once, so that what else the machine does meets all of them.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack
from statistics import quantiles
from types import MappingProxyType

from bench.peers.environment import PEERS, PeerMissing, peer_node, peer_python
from bench.queue_run import Load, Peer, Ran, run_peer
from bench.report import MS, Figure, Result, of_repeats
from bench.sizes import ShowProgress, Sizes

HOW = (
    "one worker process and a private Redis: jobs that are all due before the worker starts; jobs that become due at "
    "2,000 a second; all due over a link with 5 and with 50 ms more a round trip; jobs at 500 a second on a core that "
    "seven other processes keep busy"
)
PACE_PER_S = 2000.0
PACED_PART = 10
"""A tenth of `jobs` is paced: five seconds of the usual size."""

STARVED_PER_S = 500.0
STARVED_PART = 50
SLOW_PART = 50
SLOW_S = MappingProxyType({"slow5": 0.005, "slow50": 0.05})
US = 1e6

_ARQ = "redis.call('ZCARD', '{queue}')"
_STREAM = (
    "(function() local n = 0 for _, g in ipairs(redis.call('XINFO', 'GROUPS', 'taskiq')) do for i = 1, #g, 2 do "
    "if g[i] == 'pending' or g[i] == 'lag' then n = n + (tonumber(g[i + 1]) or 0) end end end return n end)()"
)
_PYTHON = (sys.executable, "-m")


def _peers(python: tuple[str, ...], node: tuple[str, ...]) -> Iterator[Peer]:
    """Ours first. `python` and `node` run those of others; empty: they are not here."""
    for name, share, unfinished in (
        ("lane", 1.0, _ARQ.format(queue="arq:queue:{queries-0}")),
        ("lua_loop", 1.0, _ARQ.format(queue="bench:{loop}:due")),
        ("stock_arq", 0.1, _ARQ.format(queue="arq:queue")),
    ):
        yield Peer(name=name, command=(*_PYTHON, f"bench.noop.{name}"), share=share, unfinished=unfinished)
    for name, unfinished in (
        ("saq", "redis.call('ZCARD', 'saq:bench:incomplete')"),
        ("taskiq", _STREAM),
        ("celery", "redis.call('LLEN', 'celery') + redis.call('HLEN', 'unacked')"),
    ):
        if python:
            yield Peer(name=name, command=(*python, f"bench.peers.queue.{name}"), share=0.1, unfinished=unfinished)
    if node:
        waiting = "redis.call('LLEN', 'bull:bench:wait') + redis.call('LLEN', 'bull:bench:active')"
        yield Peer(name="bullmq", command=node, share=0.3, unfinished=waiting)


NAMES = tuple(each.name for each in _peers(("",), ("",)))
OURS = "lane"
STARVED = ("lane", "stock_arq")
"""A starved run of every worker would take as long as all others together: ours and the one whose format it has."""


async def measure(sizes: Sizes, show_progress: ShowProgress) -> Result:
    """Measure jobs a CPU-second, lateness, and what becomes of jobs when Redis is far or the processor is not there."""
    began = time.monotonic()
    missing: dict[str, str] = {}
    repeats: defaultdict[tuple[str, str], list[Ran]] = defaultdict(list)
    async with AsyncExitStack() as stack:
        peers = [each async for each in _installed(stack, sizes, missing)]
        for turn in range(sizes.repeats):
            for kind, load in _loads(sizes).items():
                for peer in peers:
                    if kind != "starved" or peer.name in STARVED:
                        show_progress(f"round {turn + 1} of {sizes.repeats}: {kind}, {peer.name}")
                        repeats[peer.name, kind].append(await run_peer(peer, _part(load, peer), sizes.limit_s))
    settings: dict[str, str | int | float] = {"rounds": sizes.repeats, "jobs": sizes.jobs}
    return Result(
        benchmark="queue",
        how=HOW,
        settings=settings | {f"without_{name}": why for name, why in missing.items()},
        seconds=round(time.monotonic() - began, 1),
        figures=tuple(_figures(repeats)),
    )


async def _installed(stack: AsyncExitStack, sizes: Sizes, missing: dict[str, str]) -> AsyncIterator[Peer]:
    """The workers that are asked for and can be installed here; the reasons of the others go into `missing`."""
    wanted = sizes.queues or NAMES
    python: tuple[str, ...] = ()
    node: tuple[str, ...] = ()
    if {"saq", "taskiq", "celery"} & set(wanted):
        try:
            python = (str(await stack.enter_async_context(peer_python("queue"))), "-m")
        except PeerMissing as error:
            missing["saq_taskiq_celery"] = str(error)
    if "bullmq" in wanted:
        try:
            folder = await stack.enter_async_context(peer_node(PEERS / "queue" / "bullmq"))
            node = ("node", str(folder / "peer.mjs"))
        except PeerMissing as error:
            missing["bullmq"] = str(error)
    for peer in _peers(python, node):
        if peer.name in wanted:
            yield peer


def _loads(sizes: Sizes) -> dict[str, Load]:
    slow = {name: Load(count=sizes.jobs // SLOW_PART, delay_s=delay_s) for name, delay_s in SLOW_S.items()}
    return {
        "all": Load(count=sizes.jobs),
        "paced": Load(count=sizes.jobs // PACED_PART, per_s=PACE_PER_S),
        **slow,
        "starved": Load(count=sizes.jobs // STARVED_PART, per_s=STARVED_PER_S, starved=True),
    }


def _part(load: Load, peer: Peer) -> Load:
    """The full load has as many jobs as take each worker about as long."""
    is_full = not load.per_s and not load.delay_s
    return Load(count=max(10, round(load.count * peer.share))) if is_full else load


def _figures(repeats: Mapping[tuple[str, str], list[Ran]]) -> Iterator[Figure]:
    for (name, kind), runs in repeats.items():
        n = len(runs[0].late_s)
        if kind == "all":
            yield of_repeats(f"{name}_jobs_per_cpu_s", [_per_cpu_s(ran) for ran in runs], "jobs/CPU s", n)
            yield of_repeats(f"{name}_jobs_per_s", [_per_s(ran) for ran in runs], "jobs/s", n)
            redis = [ran.redis_s / max(1, ran.measured) * US for ran in runs]
            yield of_repeats(f"{name}_redis_cpu", redis, "CPU us/job", n)
            yield of_repeats(f"{name}_enqueued", [ran.enqueued_per_s for ran in runs], "jobs/s", n)
        elif kind in SLOW_S:
            yield of_repeats(f"{name}_{kind}_jobs_per_s", [_per_s(ran) for ran in runs], "jobs/s", n)
            yield of_repeats(f"{name}_{kind}_not_run", [n - ran.runs for ran in runs], "jobs", n)
            yield of_repeats(f"{name}_{kind}_left", [ran.left for ran in runs], "jobs", n)
            yield of_repeats(f"{name}_{kind}_twice", [ran.twice for ran in runs], "jobs", n)
        else:
            for which, cut in (("p50", 49), ("p99", 98)):
                late = [quantiles(ran.late_s, n=100, method="inclusive")[cut] * MS for ran in runs]
                yield of_repeats(f"{name}_{kind}_late_{which}", late, "ms", n)
            yield of_repeats(f"{name}_{kind}_twice", [ran.twice for ran in runs], "jobs", n)
    ours = repeats.get((OURS, "all"), [])
    for (name, kind), runs in repeats.items():
        if kind == "all" and name != OURS and ours and all(ran.measured for ran in runs):
            ratios = [_per_cpu_s(mine) / _per_cpu_s(other) for mine, other in zip(ours, runs, strict=True)]
            yield of_repeats(f"lane_beside_{name}", ratios, "times", len(ratios))


def _per_cpu_s(ran: Ran) -> float:
    return ran.measured / max(ran.worker_s, 0.001)


def _per_s(ran: Ran) -> float:
    return ran.runs / ran.seconds if ran.seconds else 0.0
