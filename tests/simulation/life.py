"""The life of one world: its processes, orders and faults from the first second to the oracle's judgement.

orders are placed │ faults go on │ all goes well, and what is open is settled │ the oracle
0 ─────────────── span_s ──── quiet_s ────────────────────────────────────── end_s
"""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from secrets import token_bytes
from typing import Any

from core.account import AccountConfig
from core.settings import read_settings
from simulator.merchant.control import Effects
from storage.postgres.accounts import put_account
from storage.postgres.api_keys import create_api_key
from storage.postgres.database import Database
from storage.sealing import Sealer, new_master_key
from tests.simulation import keys, oracle
from tests.simulation.channels import PORTS, Channels, Opened
from tests.simulation.clock import REAL_MONOTONIC, TIME
from tests.simulation.faults import FaultBook
from tests.simulation.merchant import Backend
from tests.simulation.nets import NODROP, Net, switch_off
from tests.simulation.network import Network, Server
from tests.simulation.oracle import Evidence
from tests.simulation.outcome import Outcome
from tests.simulation.plan import plan_of
from tests.simulation.postgres import State as PostgresState
from tests.simulation.processes import Process
from tests.simulation.profiles import Part, Planned, Profile, blackouts, profile_of, schedule
from tests.simulation.redis import State as RedisState
from tests.simulation.shoppers import Shoppers
from tests.simulation.world import PUBLIC_URL, World, open_world

API_PORT = 8000
SECONDS_PER_ORDER = 0.5
SPAN_MIN_S = 600.0
SETTLED_S = 54 * 3600.0
"""The quiet time: two nights' statements are reconciled, and the longest gap of queries has passed many times."""

SETTLING_S = 3600.0
"""From then on little is expected, and the loops of the processes run hourly."""

RESTARTS_S = (0.5, 20.0)


class Life:
    """One world and all that is in it."""

    def __init__(
        self,
        seed: int,
        orders: int,
        profile: Profile,
        only: Collection[str] | None,
        *,
        settled_s: float = SETTLED_S,
        net: Net = NODROP,
    ) -> None:
        self.seed = seed
        self.profile = profile
        self.net = net
        self.book = FaultBook(seed, only, elapsed=lambda: TIME.seconds)
        self.network = Network(self.book)
        self.span_s = max(SPAN_MIN_S, orders * SECONDS_PER_ORDER)
        self.quiet_s = self.span_s + profile.lasts_s
        self.end_s = self.quiet_s + settled_s
        self.plans = [plan_of(self.book, index, span_s=self.span_s) for index in range(orders)]
        self.planned = list(schedule(profile, self.book, self.quiet_s))
        self._picked = 0

    async def live(self, database_url: str, events: Path | None = None) -> Outcome:
        """Live it, from the first second to the last. All its events are written to the file `events`."""
        began, cpu = REAL_MONOTONIC(), time.process_time()
        switch_off(self.net)
        notify_secret = "whsec_" + b64encode(token_bytes(32)).decode()
        environ = {"NODROP_MASTER_KEYS": new_master_key("first"), "NOTIFY_SECRETS": notify_secret}
        async with open_world(
            self.seed, database_url=database_url, environ=environ, network=self.network, applies=self.book.applies
        ) as world:
            self._fill(world)
            channels, api_key = await self._set_up(world)
            backend = Backend(
                self.network, now=world.now, api_url=PUBLIC_URL, api_key=api_key, secrets=(notify_secret,)
            )
            shoppers = Shoppers(self.network, channels, backend, now=world.now)
            async with channels.simulation:
                for plan in self.plans:
                    shoppers.start(plan)
                await self._pass(world, channels)
                evidence = await self._evidence(world, channels, backend, shoppers)
                database = await self._database(world)
                found, ways = await oracle.judge(database, evidence)
                await database.close()
            if events is not None:
                events.write_text("\n".join(world.events.lines))
            return Outcome(
                seed=self.seed,
                profile=self.profile.name,
                net=self.net.name,
                orders=len(self.plans),
                found=tuple(found),
                figures=oracle.figures(evidence, found, ways, views=shoppers.views),
                faults=tuple(self.book.list()) if found else (),
                after_s=tuple(sorted(round(way.after_s, 2) for way in ways)),
                digest=world.events.digest,
                cpu_s=round(time.process_time() - cpu, 2),
                real_s=round(REAL_MONOTONIC() - began, 2),
                virtual_s=TIME.seconds,
                statements=world.postgres.statements,
                commands=world.redis.commands,
                stories=self._stories(world, {each.order_no for each in found if each.order_no}),
            )

    # -- the beginning -------------------------------------------------------------------------------------------------

    def _fill(self, world: World) -> None:
        """Let the product's address lead to its web processes, one after another."""

        def pick() -> Process | None:
            serving = [each for name, each in world.processes.items() if name.startswith("api") and each.app]
            self._picked += 1
            return serving[self._picked % len(serving)] if serving else None

        self.network.serve(API_PORT, Server("api", pick=pick))

    async def _set_up(self, world: World) -> tuple[Channels, str]:
        """Open accounts at all channels, and make an API key."""
        keys.install()
        channels = Channels(self.network, now=world.now, api_url=PUBLIC_URL)
        database = await self._database(world)
        sealer = Sealer.from_setting(world.environ["NODROP_MASTER_KEYS"])
        for channel in PORTS:
            await put_account(database, sealer, _config(channels.open_account(channel), self.net))
        _, api_key = await create_api_key(database, "merchant")
        await database.close()
        return channels, api_key

    async def _database(self, world: World) -> Database:
        database = Database.from_settings(read_settings(world.environ))
        await database.open()
        return database

    # -- its time ------------------------------------------------------------------------------------------------------

    async def _pass(self, world: World, channels: Channels) -> None:
        """Let the world's time pass: with its faults, then without."""
        self.network.set_faults(dict(self.profile.links), blackouts(self.profile, self.planned, self.quiet_s))
        self.network.crash_share = self.profile.exchange_crash
        channels.set_faults(self.profile.channel)
        for accidents in (world.postgres.accidents, world.redis.accidents):
            accidents.cut_share, accidents.crash_share = self.profile.store_cut, self.profile.store_crash
        names = [f"api-{n}" for n in range(self.profile.apis)] + [f"worker-{n}" for n in range(self.profile.workers)]
        tasks = [self.network.spawn(self._keep(world, name)) for name in names]
        tasks += [self.network.spawn(self._fail(world, each)) for each in self.planned if each.part in _ACTS]
        await asyncio.sleep(self.quiet_s)
        self.network.end_faults()
        channels.end_faults()
        self._heal(world)
        await asyncio.sleep(min(SETTLING_S, self.end_s - self.quiet_s))
        world.rest.deepen()
        await asyncio.sleep(self.end_s - TIME.seconds)
        for task in tasks:
            task.cancel()

    async def _keep(self, world: World, name: str) -> None:
        """Start a process, and again whenever it has ended, as a platform does."""
        kind, count = name.partition("-")[0], 0
        while True:
            process = await world.start(kind, name)
            await asyncio.shield(process.ended)
            count += 1
            await asyncio.sleep(self.book.between(f"restart {name} {count}", *RESTARTS_S))

    async def _fail(self, world: World, planned: Planned) -> None:
        """Let a part fail at its instant, and be well again."""
        await asyncio.sleep(planned.at_s)
        if self.book.stands(planned.name):
            await _ACTS[planned.part](world, planned)

    def _heal(self, world: World) -> None:
        world.postgres.be(PostgresState.UP)
        world.postgres.be_read_only(False)
        world.redis.be(RedisState.UP)
        world.redis.be_read_only(False)
        world.redis.be_full(False)
        for accidents in (world.postgres.accidents, world.redis.accidents):
            accidents.cut_share = accidents.crash_share = 0.0
        for process in world.processes.values():
            process.skew_s = 0.0
        world.rest.trouble()

    # -- the end -------------------------------------------------------------------------------------------------------

    async def _evidence(self, world: World, channels: Channels, backend: Backend, shoppers: Shoppers) -> Evidence:
        pages = {order_no: await shoppers.final_status(order_no) for order_no in sorted(backend.placed)}
        effects: Effects = backend.effects()
        calls: dict[str, list[float]] = defaultdict(list)
        for channel in PORTS:
            calls[channel] = self.network.sent.get(f"product>{channel}", [])
        secrets = [world.environ["NOTIFY_SECRETS"], backend.api_key, *_texts(channels.opened)]
        return Evidence(
            ledger=channels.ledger(),
            effects=effects,
            placed=sorted(backend.placed),
            calls=calls,
            pages=pages,
            denials=[(view.order_no, view.sentence) for view in shoppers.wrong_views],
            log=world.events.lines,
            secrets=secrets,
        )

    def _stories(self, world: World, order_nos: set[str]) -> dict[str, tuple[str, ...]]:
        """Return the lines about an order, or about the numbers of its payments."""
        names = self.book.names
        stories = {}
        for order_no in sorted(order_nos)[:STORIES_MAX]:
            texts = (order_no, *names.numbers(order_no))
            lines = (line for line in world.events.lines if any(text in line for text in texts))
            stories[order_no] = tuple(lines)[:STORY_LINES_MAX]
        return stories


NEVER_TRUSTED = ("paypal",)
"""Channels whose signature covers too little: their callbacks are confirmed by a query with every net."""

STORIES_MAX = 5
STORY_LINES_MAX = 200


def _config(opened: Opened, net: Net) -> AccountConfig:
    return AccountConfig(
        name=opened.name,
        channel=opened.channel,
        base_url=opened.base_url,
        credentials=opened.credentials,
        trust_callback=not net.inbox and opened.channel not in NEVER_TRUSTED,
    )


def _texts(opened: Collection[Opened]) -> list[str]:
    """Return the secret texts of credentials: what is long enough to be found by itself."""
    found: list[str] = []

    def walk(value: Any) -> None:
        if isinstance(value, str) and len(value) >= 32 and not value.startswith("-----BEGIN PUB"):
            found.append(value)
        elif isinstance(value, dict):
            for each in value.values():
                walk(each)
        elif isinstance(value, list):
            for each in value:
                walk(each)

    for each in opened:
        walk(each.credentials)
    return found


# -- failures of parts -------------------------------------------------------------------------------------------------


async def _postgres(world: World, planned: Planned, state: PostgresState) -> None:
    world.postgres.be(state)
    await asyncio.sleep(planned.until_s - planned.at_s)
    world.postgres.be(PostgresState.UP)


async def _postgres_refuses(world: World, planned: Planned) -> None:
    await _postgres(world, planned, PostgresState.REFUSING)


async def _postgres_freezes(world: World, planned: Planned) -> None:
    await _postgres(world, planned, PostgresState.FROZEN)


async def _postgres_read_only(world: World, planned: Planned) -> None:
    world.postgres.be_read_only(True)
    await asyncio.sleep(planned.until_s - planned.at_s)
    world.postgres.be_read_only(False)


async def _postgres_restarts(world: World, _: Planned) -> None:
    world.postgres.restart()


async def _postgres_terminates(world: World, _: Planned) -> None:
    world.postgres.cut_all()


async def _redis(world: World, planned: Planned, state: RedisState) -> None:
    world.redis.be(state)
    await asyncio.sleep(planned.until_s - planned.at_s)
    world.redis.be(RedisState.UP)


async def _redis_refuses(world: World, planned: Planned) -> None:
    await _redis(world, planned, RedisState.REFUSING)


async def _redis_freezes(world: World, planned: Planned) -> None:
    await _redis(world, planned, RedisState.FROZEN)


async def _redis_read_only(world: World, planned: Planned) -> None:
    world.redis.be_read_only(True)
    await asyncio.sleep(planned.until_s - planned.at_s)
    world.redis.be_read_only(False)


async def _redis_full(world: World, planned: Planned) -> None:
    world.redis.be_full(True)
    await asyncio.sleep(planned.until_s - planned.at_s)
    world.redis.be_full(False)


async def _redis_flushed(world: World, _: Planned) -> None:
    world.redis.flush()


async def _redis_restarts(world: World, planned: Planned) -> None:
    world.redis.restart(is_empty=planned.drawn < 0.5)


def _one_of(world: World, kind: str, drawn: float) -> Process | None:
    living = [each for name, each in sorted(world.processes.items()) if name.startswith(kind) and not each.is_dead]
    return living[int(drawn * len(living))] if living else None


async def _api_crashes(world: World, planned: Planned) -> None:
    process = _one_of(world, "api", planned.drawn)
    if process is not None:
        process.crash()


async def _worker_crashes(world: World, planned: Planned) -> None:
    process = _one_of(world, "worker", planned.drawn)
    if process is not None:
        process.crash()


async def _worker_stops(world: World, planned: Planned) -> None:
    process = _one_of(world, "worker", planned.drawn)
    if process is not None:
        process.terminate()


async def _clock_jumps(world: World, planned: Planned) -> None:
    process = _one_of(world, "", planned.drawn)
    if process is not None:
        is_ahead = 1000 * planned.drawn % 1 < 0.5  # whichever process it is
        process.skew_s = (planned.until_s - planned.at_s) * (1 if is_ahead else -1)


_ACTS: dict[Part, Callable[[World, Planned], Awaitable[None]]] = {
    Part.POSTGRES_REFUSES: _postgres_refuses,
    Part.POSTGRES_FREEZES: _postgres_freezes,
    Part.POSTGRES_READ_ONLY: _postgres_read_only,
    Part.POSTGRES_RESTARTS: _postgres_restarts,
    Part.POSTGRES_TERMINATES: _postgres_terminates,
    Part.REDIS_REFUSES: _redis_refuses,
    Part.REDIS_FREEZES: _redis_freezes,
    Part.REDIS_READ_ONLY: _redis_read_only,
    Part.REDIS_FULL: _redis_full,
    Part.REDIS_FLUSHED: _redis_flushed,
    Part.REDIS_RESTARTS: _redis_restarts,
    Part.API_CRASHES: _api_crashes,
    Part.WORKER_CRASHES: _worker_crashes,
    Part.WORKER_STOPS: _worker_stops,
    Part.CLOCK_JUMPS: _clock_jumps,
}


__all__ = ["Life", "Outcome", "profile_of"]
