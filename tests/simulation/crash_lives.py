"""One world in which order after order lives the same life, and a process is killed at another call of a store each
time, until every call of that life was one at which it was killed.

A call has two points: before the store acts and after it. What lies between two calls changes nothing that lasts, so
these are all points of a life; an exchange with a channel or the merchant is between two of them.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from enum import StrEnum
from itertools import count
from random import Random
from secrets import token_bytes
from typing import TextIO

import msgspec

from simulator.kernel.faults import FaultProfile
from storage.sealing import new_master_key
from tests.simulation import oracle
from tests.simulation.channels import CURRENCIES
from tests.simulation.clock import TIME
from tests.simulation.faults import FaultBook
from tests.simulation.life import Life
from tests.simulation.merchant import Backend
from tests.simulation.network import Network
from tests.simulation.oracle import Found
from tests.simulation.plan import OrderPlan, Way
from tests.simulation.profiles import PROFILES
from tests.simulation.shoppers import Shoppers
from tests.simulation.world import PUBLIC_URL, World, open_world

RESTARTED_S = 2.0
"""Time after which a killed process is started again."""

LOOK_S = 2.0
TRAILING_S = 5.0
"""Time for the calls after the last change of an order: the ends of jobs."""

SETTLED_S = 4 * 3600.0
"""An order that is not settled by then is reported."""

QUIET_S = 900.0
TRIES = 4
AMOUNT = 8888

UPKEEP = frozenset({"run_periodically", "_listen", "listen", "_run_api", "run", "_run_worker", "serve_metrics"})
"""Coroutines of tasks whose calls belong to no order."""

_SETTLED = """
SELECT o.status = $2
   AND NOT EXISTS (SELECT FROM notifications n WHERE n.order_no = o.order_no AND n.delivered_at IS NULL
                      AND n.superseded_at IS NULL AND n.dead_at IS NULL)
   AND NOT EXISTS (SELECT FROM callbacks c JOIN payments p USING (channel_account, out_trade_no)
                    WHERE p.order_no = o.order_no AND c.handled_at IS NULL AND c.dead_at IS NULL)
   AND (SELECT count(*) FROM refunds r WHERE r.order_no = o.order_no AND r.status = 'succeeded') = $3
  FROM orders o WHERE o.order_no = $1"""


class Course(StrEnum):
    """The course of an order's life."""

    CALLBACK = "callback"
    QUERY = "query"
    """No callback comes."""

    CLOSED = "closed"
    """Nobody pays."""

    REFUND = "refund"


class After(StrEnum):
    """What comes after a crash: the process is started again, or another one has the work to do."""

    RESTARTED = "restarted"
    TAKEN_OVER = "taken_over"


class Matrix(msgspec.Struct, frozen=True, kw_only=True):
    """All lives of a world. `points` are those at which a process was killed, `missed` those that came in one life and
    not in the next ones. `pairs` are two crashes in one life, of `pairs_known`. `unsettled`: orders without an end.
    """

    seed: int
    channel: str
    course: Course
    after: After
    points: tuple[str, ...]
    missed: tuple[str, ...]
    pairs: tuple[tuple[str, ...], ...]
    pairs_known: int
    unsettled: tuple[str, ...]
    found: tuple[Found, ...]
    orders: int
    digest: str


class Points(FaultBook):
    """The book of such a world: of all faults only crashes happen, at the wanted points of a life, one after another.

    A point is `api inbox.store before`; the second such call of a life is `api inbox.store #2 before`. They are counted
    anew after a crash. `seen[n]` are those that came after `n` crashes.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed, elapsed=lambda: TIME.seconds)
        self.killed: list[str] = []
        self.seen: tuple[dict[str, None], ...] = ()
        self._wanted: Sequence[str] | None = None
        self._times: Counter[str] = Counter()

    def begin(self, wanted: Sequence[str]) -> None:
        """Kill at these points of the life that begins."""
        self.killed, self._wanted, self._times = [], wanted, Counter()
        self.seen = tuple({} for _ in range(len(wanted) + 1))

    def end(self) -> None:
        self._wanted = None

    def applies(self, name: str, share: float) -> bool:
        if share >= 1.0:
            return True
        if self._wanted is None or share <= 0 or " crash " not in name or _is_upkeep():
            return False
        point, crashes = self._point(name), len(self.killed)
        self.seen[crashes][point] = None
        if self._wanted[crashes : crashes + 1] != [point]:
            return False
        self.killed.append(point)
        self._times.clear()
        return True

    def _point(self, name: str) -> str:
        """The point of an accident's name, `statement api-0.1 #17 inbox.store crash before`."""
        _, label, _, rest = name.split(" ", 3)
        doing, _, moment = rest.rpartition(" crash ")
        call = f"{label.partition('-')[0]} {doing}"
        self._times[call] += moment == "before"
        times = self._times[call]
        return f"{call} #{times} {moment}" if times > 1 else f"{call} {moment}"


def _is_upkeep() -> bool:
    task = asyncio.current_task()
    return task is None or getattr(task.get_coro(), "__name__", "") in UPKEEP


class CrashLives(Life):
    """See the module."""

    def __init__(self, seed: int, channel: str, course: Course, after: After) -> None:
        super().__init__(seed, 0, PROFILES["calm"], None)
        self.points = Points(seed)
        self.book = self.points
        self.network = Network(self.book)
        self._channel = channel
        self._course = course
        self._after = after
        self._numbers = count()
        self._unsettled: list[str] = []
        self._missed: list[str] = []
        self._may_restart = asyncio.Event()

    async def play(self, database_url: str, *, points_max: int, pairs: int, events: TextIO | None = None) -> Matrix:
        """Play lives until each point was one, at most so many; then so many pairs of points, drawn by the seed."""
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
            channels.set_faults(FaultProfile(lost=1.0 if self._course is Course.QUERY else 0.0))
            async with channels.simulation, self._processes(world):
                later = await self._each_point(world, shoppers, points_max)
                known = [(first, second) for first, seconds in later.items() for second in seconds]
                drawn = Random(self.seed).sample(known, min(pairs, len(known)))
                double = [await self._live_once(world, shoppers, pair) for pair in drawn]
                await asyncio.sleep(QUIET_S)
                evidence = await self._evidence(world, channels, backend, shoppers)
                database = await self._database(world)
                found, _ = await oracle.judge(database, evidence)
                await database.close()
            if events is not None:
                events.write("\n".join(world.events.lines))
                events.flush()
            return Matrix(
                seed=self.seed,
                channel=self._channel,
                course=self._course,
                after=self._after,
                points=tuple(later),
                missed=tuple(self._missed),
                pairs=tuple(tuple(killed) for killed in double),
                pairs_known=len(known),
                unsettled=tuple(self._unsettled),
                found=tuple(found),
                orders=next(self._numbers),
                digest=world.events.digest,
            )

    async def _each_point(self, world: World, shoppers: Shoppers, points_max: int) -> dict[str, list[str]]:
        """One life for each point that came in a life before its crash; return the points that came after it.

        Who is faster is another one in each life, so a point may not come again: it is tried some times.
        """
        await self._live_once(world, shoppers, ())
        left, later, tries = dict(self.points.seen[0]), dict[str, list[str]](), Counter[str]()
        while left and len(later) < points_max:
            point = next(iter(left))
            del left[point]
            killed = await self._live_once(world, shoppers, [point])
            left |= {each: None for each in self.points.seen[0] if each not in later and tries[each] < TRIES}
            if killed:
                later[point] = list(self.points.seen[1])
                left.pop(point, None)
                continue
            tries[point] += 1
            if tries[point] < TRIES:
                left[point] = None
        self._missed = [point for point in tries if point not in later]
        return later

    async def _live_once(self, world: World, shoppers: Shoppers, wanted: Sequence[str]) -> list[str]:
        """Let an order live, and a process die at these points; return what it was doing then."""
        order_no = f"C{self.seed}-{next(self._numbers)}"
        plan = OrderPlan(
            order_no=order_no,
            account=self._channel,
            currency=CURRENCIES[self._channel][0],
            amount=AMOUNT,
            way=Way.LOOKS if self._course is Course.CLOSED else Way.PAYS,
            at_s=0.0,
            pays_after_s=10.0,
            expires_in_s=300,
            refund_after_s=30.0 if self._course is Course.REFUND else 0.0,
        )
        for accidents in (world.postgres.accidents, world.redis.accidents):
            accidents.crash_share = 1.0
        self.points.begin(list(wanted))
        shoppers.start(plan)
        if not await self._settles(world, order_no):
            self._unsettled.append(f"{order_no} after {', '.join(self.points.killed)}")
        await asyncio.sleep(TRAILING_S)
        self.points.end()
        for accidents in (world.postgres.accidents, world.redis.accidents):
            accidents.crash_share = 0.0
        self._may_restart.set()
        await asyncio.sleep(RESTARTED_S + TRAILING_S)
        self._may_restart.clear()
        return self.points.killed

    async def _settles(self, world: World, order_no: str) -> bool:
        """Wait until the order has come to its end; False: it does not."""
        status = "closed" if self._course is Course.CLOSED else "paid"
        refunds = int(self._course is Course.REFUND)
        for _ in range(round(SETTLED_S / LOOK_S)):
            if world.postgres.run("fetchval", _SETTLED, order_no, status, refunds):
                return True
            await asyncio.sleep(LOOK_S)
        return False

    @asynccontextmanager
    async def _processes(self, world: World) -> AsyncIterator[None]:
        """Keep the processes: one of each kind that is started again, or two of each that wait for that."""
        each = 1 if self._after is After.RESTARTED else 2
        names = [f"{kind}-{number}" for kind in ("api", "worker") for number in range(each)]
        keepers = [self.network.spawn(self._keep(world, name)) for name in names]
        await asyncio.sleep(1.0)
        yield
        for keeper in keepers:
            keeper.cancel()

    async def _keep(self, world: World, name: str) -> None:
        while True:
            process = await world.start(name.partition("-")[0], name)
            await asyncio.shield(process.ended)
            if self._after is After.TAKEN_OVER:
                await self._may_restart.wait()
            await asyncio.sleep(RESTARTED_S)
