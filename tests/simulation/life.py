"""The life of one world: its processes, orders and faults from the first second to the oracle's judgement.

orders are placed │ faults go on │ all goes well, and what is open is settled │ the oracle
0 ─────────────── span_s ──── quiet_s ────────────────────────────────────── end_s
"""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from secrets import token_bytes
from typing import Any, NamedTuple

from core.account import AccountConfig
from core.settings import read_settings
from storage.postgres.accounts import put_account
from storage.postgres.api_keys import create_api_key
from storage.postgres.database import Database
from storage.sealing import Sealer, new_master_key
from tests.simulation import keys, oracle
from tests.simulation.channels import PORTS, Channels, Opened
from tests.simulation.clock import REAL_MONOTONIC, TIME
from tests.simulation.failures import FAILURES, heal
from tests.simulation.faults import FaultBook
from tests.simulation.merchant import Backend
from tests.simulation.nets import NODROP, Net, switch_off
from tests.simulation.network import Network, Server
from tests.simulation.oracle import Evidence, Found, Recovered
from tests.simulation.outcome import Outcome
from tests.simulation.plan import plan_of
from tests.simulation.processes import Process
from tests.simulation.profiles import Planned, Profile, blackouts, schedule
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


class Scene(NamedTuple):
    """A world and all that is around it."""

    world: World
    channels: Channels
    backend: Backend
    shoppers: Shoppers


class Verdict(NamedTuple):
    """The oracle's judgement, and what it rests on."""

    evidence: Evidence
    found: list[Found]
    ways: list[Recovered]


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
        async with self._open(database_url) as scene:
            async with scene.channels.simulation:
                for plan in self.plans:
                    scene.shoppers.start(plan)
                await self._pass(scene)
                verdict = await self._judge(scene)
            world, found, ways = scene.world, verdict.found, verdict.ways
            if events is not None:
                events.write_text("\n".join(world.events.lines))
            return Outcome(
                seed=self.seed,
                profile=self.profile.name,
                net=self.net.name,
                orders=len(self.plans),
                found=tuple(found),
                figures=oracle.figures(verdict.evidence, found, ways, views=scene.shoppers.views),
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

    @asynccontextmanager
    async def _open(self, database_url: str, **settings: str) -> AsyncIterator[Scene]:
        """Open the world and all that is around it; no process is started. `settings`: of all processes."""
        notify_secret = "whsec_" + b64encode(token_bytes(32)).decode()
        environ = {"NODROP_MASTER_KEYS": new_master_key("first"), "NOTIFY_SECRETS": notify_secret, **settings}
        async with open_world(
            self.seed, database_url=database_url, environ=environ, network=self.network, applies=self.book.applies
        ) as world:
            self._fill(world)
            channels, api_key = await self._set_up(world)
            backend = Backend(
                self.network, now=world.now, api_url=PUBLIC_URL, api_key=api_key, secrets=(notify_secret,)
            )
            yield Scene(world, channels, backend, Shoppers(self.network, channels, backend, now=world.now))

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

    async def _pass(self, scene: Scene) -> None:
        """Let the world's time pass: with its faults, then without."""
        world, channels = scene.world, scene.channels
        self.network.set_faults(dict(self.profile.links), blackouts(self.planned))
        self.network.crash_share = self.profile.exchange_crash
        channels.set_faults(self.profile.channel)
        for accidents in (world.postgres.accidents, world.redis.accidents):
            accidents.cut_share, accidents.crash_share = self.profile.store_cut, self.profile.store_crash
        names = [f"api-{n}" for n in range(self.profile.apis)] + [f"worker-{n}" for n in range(self.profile.workers)]
        tasks = [self.network.spawn(self._keep(world, name)) for name in names]
        tasks += [self.network.spawn(self._fail(world, each)) for each in self.planned if each.part in FAILURES]
        await asyncio.sleep(self.quiet_s)
        self.network.end_faults()
        channels.end_faults()
        heal(world)
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
            await FAILURES[planned.part](world, planned)

    # -- the end -------------------------------------------------------------------------------------------------------

    async def _judge(self, scene: Scene) -> Verdict:
        """Let the oracle judge the world as it is now."""
        evidence = await self._evidence(scene)
        database = await self._database(scene.world)
        found, ways = await oracle.judge(database, evidence)
        await database.close()
        return Verdict(evidence, found, ways)

    async def _evidence(self, scene: Scene) -> Evidence:
        world, channels, backend, shoppers = scene
        pages = {order_no: await shoppers.final_status(order_no) for order_no in sorted(backend.placed)}
        secrets = [world.environ["NOTIFY_SECRETS"], backend.api_key, *_texts(channels.opened)]
        return Evidence(
            ledger=channels.ledger(),
            effects=backend.effects(),
            placed=sorted(backend.placed),
            calls={channel: self.network.sent.get(f"product>{channel}", []) for channel in PORTS},
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
