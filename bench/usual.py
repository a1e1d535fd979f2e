"""nodrop beside the same service as most teams write it (`bench.peers.usual`), in turns on stacks of their own."""

from __future__ import annotations

import asyncio
import sys
import time
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import Any

from bench.buyer import Buyer, Unexpected
from bench.orders import sell, warm_up
from bench.peers.environment import peer_python
from bench.report import Figure, Result, of_repeats
from bench.rig import MakeStack, open_rig
from bench.sizes import ShowProgress, Sizes
from demo.service import Service
from demo.stack import Stack

HOW = (
    "the orders of the benchmark `orders`, in turns by nodrop and by the usual stack, each turn on new stores of the "
    "same kind, with the same channel and merchant; finished: until all are paid and notified; a ratio is of one turn, "
    "and the median of all turns"
)
CLIENTS = 64
WEB_PROCESSES = 2
TASK_PROCESSES = 2
WARM_UP = 200
"""Enough for every process of both to have begun."""

DATABASE = "usual"
"""Its tables have names that ours have, too."""

_TABLES_S = 60.0
_RATIOS = {"cpu_ours": "nodrop costs this share", "finished_per_s": "nodrop is this many times as fast"}


class UsualStack(Stack):
    """The usual service in place of nodrop's processes, with the same stores, channel and merchant."""

    def __init__(self, python: Path, directory: Path, **options: Any) -> None:
        super().__init__(directory, **options)
        self._python = str(python)

    @property
    def database_url(self) -> str:
        return self.postgres.url(DATABASE)

    async def _prepare_database(self) -> None:
        await asyncio.to_thread(self.postgres.create_database, DATABASE)
        account = await self.open_account("sandbox")
        self.api_key = token_hex(16)
        ((key_id, secret),) = account.credentials["keys"].items()
        self._usual = {
            "USUAL_DATABASE": self.database_url.partition("://")[2],
            "USUAL_REDIS_URL": self.redis.url,
            "USUAL_PUBLIC_URL": self.api_url,
            "USUAL_API_KEY": self.api_key,
            "USUAL_NOTIFY_SECRET": self.notify_secret,
            "USUAL_CHANNEL_URL": account.base_url,
            "USUAL_MERCHANT_ID": account.credentials["merchant_id"],
            "USUAL_KEY_ID": key_id,
            "USUAL_KEY_SECRET": secret,
            "PATH": self.environ["PATH"],
        }
        await self._create_tables()

    async def _create_tables(self) -> None:
        process = await asyncio.create_subprocess_exec(
            self._python, "-m", "bench.peers.usual.models", env=self._usual, stderr=sys.stderr
        )
        async with asyncio.timeout(_TABLES_S):
            if await process.wait() != 0:
                raise Unexpected("the usual stack's tables could not be made")

    async def _start_services(self) -> None:
        self.apis, self.workers = [self._web()], [self._celery()]
        await asyncio.gather(*(service.start() for service in (*self.apis, *self.workers)))

    def _web(self) -> Service:
        port = self.api_url.rpartition(":")[2]
        options = ("--host", "127.0.0.1", "--port", port, "--workers", str(WEB_PROCESSES), "--no-access-log")
        return self._peer("web", "uvicorn", "bench.peers.usual.web:app", *options, health_url=f"{self.api_url}/healthz")

    def _celery(self) -> Service:
        pool = ("--pool", "prefork", "--concurrency", str(TASK_PROCESSES))
        quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat")
        beat = ("--beat", "--schedule", str(self.directory / "beat"))
        return self._peer("celery", "celery", "-A", "bench.peers.usual.tasks", "worker", *pool, *quiet, *beat)

    def _peer(self, name: str, *arguments: str, health_url: str = "") -> Service:
        log = self.directory / f"{name}.log"
        return Service(name, *arguments, env=self._usual, log=log, health_url=health_url, python=self._python)


async def measure(sizes: Sizes, show_progress: ShowProgress) -> Result:
    """Measure both in turns. Raises PeerMissing where the usual stack cannot be installed."""
    began = time.monotonic()
    clients = (sizes.clients or (CLIENTS,))[0]
    turns: dict[str, list[dict[str, Figure]]] = {"nodrop": [], "usual": []}
    async with peer_python("usual") as python:
        stacks: dict[str, MakeStack] = {"nodrop": Stack, "usual": partial(UsualStack, python)}
        for turn in range(1, sizes.repeats + 1):
            for name, make_stack in stacks.items():
                show_progress(f"turn {turn} of {sizes.repeats}: {sizes.orders} orders by {clients} clients, {name}")
                turns[name].append(await _turn(make_stack, sizes, clients))
    return Result(
        benchmark="usual",
        how=HOW,
        settings={"clients": clients, "web_processes": WEB_PROCESSES, "task_processes": TASK_PROCESSES},
        seconds=round(time.monotonic() - began, 1),
        figures=_figures(turns),
    )


async def _turn(make_stack: MakeStack, sizes: Sizes, clients: int) -> dict[str, Figure]:
    async with open_rig(make_stack=make_stack) as rig, Buyer(rig) as buyer:
        await warm_up(rig, buyer, min(WARM_UP, sizes.orders), clients)
        sold = await sell(rig, buyer, sizes.orders, clients, sizes.limit_s)
        return {each.name: each for each in sold}


def _figures(turns: dict[str, list[dict[str, Figure]]]) -> tuple[Figure, ...]:
    """Medians of each, and of the ratios of each turn."""
    out = [
        of_repeats(f"{name}_{each.name}", [figures[each.name].value for figures in done], each.unit, each.n)
        for name, done in turns.items()
        for each in done[0].values()
    ]
    for name, meaning in _RATIOS.items():
        pairs = zip(turns["nodrop"], turns["usual"], strict=True)
        ratios = [ours[name].value / theirs[name].value for ours, theirs in pairs if name in ours]
        if ratios:
            out.append(of_repeats(f"ratio_{name}", ratios, meaning, len(ratios)))
    return tuple(out)
