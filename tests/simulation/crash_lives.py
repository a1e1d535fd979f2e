"""One world in which order after order lives the same life, and a process is killed at another point each time, until
each point of that life was one at which it was killed.

A call of a store has two points: before the store acts and after it. What lies between two calls changes nothing that
lasts. The named steps of `tests.simulation.crash_steps` have two points each, too.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, tzinfo
from enum import StrEnum
from itertools import count
from random import Random
from typing import TextIO

import msgspec
from msgspec.structs import replace

from channels.adapters import ADAPTERS
from simulator.kernel.faults import CallKind, FaultProfile
from storage.postgres.statement_requests import add_request
from tests.simulation.accidents import State
from tests.simulation.channels import CURRENCIES, Channels
from tests.simulation.clock import TIME
from tests.simulation.crash_steps import Course, reached, rows_of, wrap_steps
from tests.simulation.faults import FaultBook
from tests.simulation.life import Life
from tests.simulation.merchant import Backend
from tests.simulation.network import Network
from tests.simulation.oracle import Found
from tests.simulation.plan import OrderPlan, Way
from tests.simulation.processes import loop_of_world
from tests.simulation.profiles import PROFILES
from tests.simulation.shoppers import Shoppers
from tests.simulation.world import World

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

UPKEEP_OF_COURSE: Mapping[Course, tuple[str, ...]] = {
    Course.SWEEP: ("pending.claim_overdue",),
    Course.FLUSHED: ("pending.walk", "delay_queue.arm"),
    Course.PARKED: ("parked_callbacks.", "inbox."),
    Course.RECONCILED: ("runs.", "differences.", "statement_requests.", "door."),
}
"""Beginnings of the names of calls that belong to an order although a loop makes them."""

PUT_OFF_S = 900.0
STORED_S = 5.0
"""Time after which a callback's request has ended, whatever the channel does."""

PLACED_S, PAID_S = 8.0, 15.0
"""Times after which an order was placed, and paid, by `_plan`."""

PAYS_AFTER_S = 10.0
DOWN_S = 15.0
NEXT_DAY_S = 36 * 3600.0
DAYS_S = 4 * 86_400.0

_FAULTS: Mapping[Course, FaultProfile] = {
    Course.QUERY: FaultProfile(lost=1.0),
    Course.COMPENSATION: FaultProfile(affected=(CallKind.QUERY, CallKind.CAPTURE), html_error=1.0),
    Course.SWEEP: FaultProfile(lost=1.0),
    Course.FLUSHED: FaultProfile(lost=1.0),
    Course.STOPPED: FaultProfile(lost=1.0),
    Course.RECONCILED: FaultProfile(event_never_generated=1.0),
}

_MAKE_DUE = """
UPDATE pending SET due_at = now() + make_interval(secs => $2), arm_no = arm_no + 1, leased_until = NULL
 WHERE order_no = ANY($1::text[]) AND kind = 'query'"""

_PAID_BY = "SELECT paid_by_out_trade_no FROM orders WHERE order_no = $1"
_IS_STORED = """
SELECT EXISTS (SELECT FROM callbacks c JOIN payments p USING (channel_account, out_trade_no)
                WHERE p.order_no = $1 AND c.handled_at IS NULL)"""

_SETTLED = """
SELECT o.status = $2
   AND NOT EXISTS (SELECT FROM notifications n WHERE n.order_no = o.order_no AND n.delivered_at IS NULL
                      AND n.superseded_at IS NULL AND n.dead_at IS NULL)
   AND NOT EXISTS (SELECT FROM callbacks c JOIN payments p USING (channel_account, out_trade_no)
                    WHERE p.order_no = o.order_no AND c.handled_at IS NULL AND c.dead_at IS NULL)
   AND (SELECT count(*) FROM refunds r WHERE r.order_no = o.order_no AND r.status = 'succeeded') = $3
  FROM orders o WHERE o.order_no = $1"""


class After(StrEnum):
    """The time after a crash: the process is started again, or another one has the work to do."""

    RESTARTED = "restarted"
    TAKEN_OVER = "taken_over"


class Matrix(msgspec.Struct, frozen=True, kw_only=True):
    """All lives of a course in a world. `points` are those at which a process was killed, `missed` those that came in
    one life and not in the next ones. `pairs` are two crashes in one life, of `pairs_known`. `unsettled`: orders
    without an end.
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
        self.upkeep: tuple[str, ...] = ()

    def begin(self, wanted: Sequence[str]) -> None:
        """Kill at these points of the life that begins."""
        self.killed, self._wanted, self._times = [], wanted, Counter()
        self.seen = tuple({} for _ in range(len(wanted) + 1))

    def end(self) -> None:
        self._wanted = None

    def applies(self, name: str, share: float) -> bool:
        if share >= 1.0:
            return True
        if self._wanted is None or share <= 0 or " crash " not in name or self._is_upkeep(name):
            return False
        point, crashes = self._point(name), len(self.killed)
        self.seen[crashes][point] = None
        if self._wanted[crashes : crashes + 1] != [point]:
            return False
        self.killed.append(point)
        self._times.clear()
        return True

    def _is_upkeep(self, name: str) -> bool:
        """Whether it belongs to no order: what a loop does, unless the course is about it."""
        kind, _, call = name.split(" ", 2)
        task = asyncio.current_task()
        if task is not None and getattr(task.get_coro(), "__name__", "") not in UPKEEP:
            return False
        process = loop_of_world().current_process()
        if process is not None and process.stopping.is_set():
            return False
        return call.startswith("call_channel ") if kind == "step" else not call.startswith(self.upkeep or (" ",))

    def _point(self, name: str) -> str:
        """The point of an accident's name, `statement api-0.1 inbox.store #3 crash before`."""
        _, label, rest = name.split(" ", 2)
        counted, _, moment = rest.rpartition(" crash ")
        call = f"{label.partition('-')[0]} {counted.rpartition(' #')[0]}"
        self._times[call] += moment == "before"
        times = self._times[call]
        return f"{call} #{times} {moment}" if times > 1 else f"{call} {moment}"


class CrashLives(Life):
    """See the module."""

    def __init__(self, seed: int, channel: str, after: After, *, only_steps: bool = False) -> None:
        """`only_steps`: the points are the named steps of a course, and no other calls."""
        super().__init__(seed, 0, PROFILES["calm"], None)
        self.points = Points(seed)
        self.book = self.points
        self.network = Network(self.book)
        self._channel = channel
        self._course = Course.CALLBACK
        self._after = after
        self._is_only_steps = only_steps
        self._numbers = count()
        self._unsettled: list[str] = []
        self._may_restart = asyncio.Event()
        self._is_to_stop = False
        self._channels: Channels
        self._backend: Backend

    async def play(
        self, database_url: str, courses: Sequence[Course], *, points_max: int, pairs: int, events: TextIO | None = None
    ) -> list[Matrix]:
        """Play one course after another: lives until each point was one, at most so many; then so many pairs of points,
        drawn by the seed. All are judged at the end.
        """
        wrap_steps(self._may_die)
        async with self._open(database_url, RECONCILE_AT="off") as scene:
            world, shoppers = scene.world, scene.shoppers
            self._channels, self._backend = scene.channels, scene.backend
            async with scene.channels.simulation, self._processes(world):
                played = [await self._play_course(world, shoppers, course, points_max, pairs) for course in courses]
                found = (await self._judge(scene)).found
            if events is not None:
                events.write("\n".join(world.events.lines))
                events.flush()
        return [
            replace(each, found=tuple(one for one in found if _course_in(one.order_no, courses) is each.course))
            for each in played
        ]

    async def _play_course(
        self, world: World, shoppers: Shoppers, course: Course, points_max: int, pairs: int
    ) -> Matrix:
        """All lives of a course, and a quiet time. Nothing is judged yet."""
        self._course, self._numbers, self._unsettled = course, count(), []
        self.points.upkeep = UPKEEP_OF_COURSE.get(course, ())
        later, missed = await self._each_point(world, shoppers, points_max)
        known = [(first, second) for first, seconds in later.items() for second in seconds if self._is_wanted(second)]
        drawn = Random(self.seed).sample(known, min(pairs, len(known)))
        double = [await self._live_once(world, shoppers, pair) for pair in drawn]
        await asyncio.sleep(QUIET_S)
        return Matrix(
            seed=self.seed,
            channel=self._channel,
            course=course,
            after=self._after,
            points=tuple(later),
            missed=tuple(missed),
            pairs=tuple(tuple(killed) for killed in double),
            pairs_known=len(known),
            unsettled=tuple(self._unsettled),
            found=(),
            orders=next(self._numbers),
            digest=world.events.digest,
        )

    async def _each_point(
        self, world: World, shoppers: Shoppers, points_max: int
    ) -> tuple[dict[str, list[str]], list[str]]:
        """One life for each point that came in a life before its crash; return the points that came after it, and those
        that did not come again.

        Who is faster is another one in each life, so a point may not come again: it is tried some times.
        """
        await self._live_once(world, shoppers, ())
        left = {point: None for point in self.points.seen[0] if self._is_wanted(point)}
        later, tries = dict[str, list[str]](), Counter[str]()
        while left and len(later) < points_max:
            point = next(iter(left))
            del left[point]
            killed = await self._live_once(world, shoppers, [point])
            came = (each for each in self.points.seen[0] if each not in later and tries[each] < TRIES)
            left |= {each: None for each in came if self._is_wanted(each)}
            if killed:
                later[point] = list(self.points.seen[1])
                left.pop(point, None)
                continue
            tries[point] += 1
            if tries[point] < TRIES:
                left[point] = None
        return later, [point for point in tries if point not in later]

    def _is_wanted(self, point: str) -> bool:
        is_only_steps = self._is_only_steps or self._course is Course.RECONCILED
        return not is_only_steps or any(reached(row, [point]) for row in rows_of(self._course))

    def _may_die(self, step: str, moment: str) -> bool:
        """Whether the process that runs dies at this step. The first query may stop its worker."""
        process = loop_of_world().current_process()
        assert process is not None, "steps belong to processes"
        name = f"{process.name_of_call('step', step)} crash {moment}"
        if self._is_to_stop and (process.kind, step, moment) == ("worker", "ask", "before"):
            self._is_to_stop = False
            process.terminate()
        return self.points.applies(name, 0.5)

    # -- one life ------------------------------------------------------------------------------------------------------

    async def _live_once(self, world: World, shoppers: Shoppers, wanted: Sequence[str]) -> list[str]:
        """Let an order live, and a process die at these points; return those at which one died."""
        order_no = f"{self._course}-{self.seed}-{next(self._numbers)}"
        order_nos = [order_no, *(f"{order_no}{end}" for end in "bc" if self._course is Course.SWEEP)]
        for accidents in (world.postgres.accidents, world.redis.accidents):
            accidents.crash_share = 1.0
        self._channels.set_faults(_FAULTS.get(self._course, FaultProfile()))
        await self._begin(world, shoppers, order_nos, wanted)
        if not await self._settle(world, order_nos):
            self._unsettled.append(f"{order_no} after {', '.join(self.points.killed)}")
        await asyncio.sleep(TRAILING_S)
        self.points.end()
        for accidents in (world.postgres.accidents, world.redis.accidents):
            accidents.crash_share = 0.0
        self._may_restart.set()
        await asyncio.sleep(RESTARTED_S + TRAILING_S)
        self._may_restart.clear()
        return self.points.killed

    def _plan(self, order_no: str) -> OrderPlan:
        return OrderPlan(
            order_no=order_no,
            account=self._channel,
            currency=CURRENCIES[self._channel][0],
            amount=AMOUNT,
            way=Way.LOOKS if self._course in _UNPAID else Way.PAYS,
            at_s=0.0,
            pays_after_s=PAYS_AFTER_S,
            expires_in_s=_EXPIRES_IN_S.get(self._course, EXPIRES_IN_S),
        )

    async def _begin(self, world: World, shoppers: Shoppers, order_nos: list[str], wanted: Sequence[str]) -> None:
        """Place the orders, and bring them to where the points begin."""
        if self._course not in _PUT_OFF:
            self._is_to_stop = self._course is Course.STOPPED
            self.points.begin(wanted)
        for order_no in order_nos:
            shoppers.start(self._plan(order_no))
        match self._course:
            case Course.ENDED:
                await asyncio.sleep(PAID_S)
                await self._backend.end(order_nos[0])
            case Course.REFUND:
                await self._until(world, _PAID_BY, order_nos[0])
                number = world.postgres.run("fetchval", _PAID_BY, order_nos[0])
                self.network.spawn(self._backend.refund(self._plan(order_nos[0]), number))
            case Course.COMPENSATION:
                await self._until(world, _IS_STORED, order_nos[0])
                await asyncio.sleep(STORED_S)
                self._make_due(world, order_nos, PUT_OFF_S)
                self._channels.set_faults(FaultProfile())
                self.points.begin(wanted)
            case Course.SWEEP:
                await asyncio.sleep(PAID_S)
                self._make_due(world, order_nos, -60.0)
                world.rest.trouble()
                self.points.begin(wanted)
            case Course.FLUSHED:
                await asyncio.sleep(PAID_S)
                self.points.begin(wanted)
                world.redis.flush()
            case Course.PARKED:
                await asyncio.sleep(PLACED_S)
                self._make_due(world, order_nos, PUT_OFF_S)
                self.points.begin(wanted)
                world.postgres.be(State.REFUSING)
                await asyncio.sleep(DOWN_S)
                world.postgres.be(State.UP)
            case Course.RECONCILED:
                await asyncio.sleep(PAID_S)
                self._make_due(world, order_nos, DAYS_S)
                self._take_approved(world, order_nos[0])
                day = datetime.fromtimestamp(world.now().timestamp(), _zone_of(self._channel)).date()
                world.rest.deepen()
                await asyncio.sleep(NEXT_DAY_S)
                database = await self._database(world)
                await add_request(database, self._channel, day, dry_run=False, digest=None, by="operator")
                await database.close()
                self.points.begin(wanted)
                world.rest.trouble()

    def _take_approved(self, world: World, order_no: str) -> None:
        """Let a channel that takes money only when it is captured have it, and its answer be lost."""
        simulation = self._channels.simulation
        number = world.postgres.run("fetchval", "SELECT out_trade_no FROM payments WHERE order_no = $1", order_no)
        for key in simulation.find_keys(number):
            simulation.ledger.pay(key, simulation.now())

    def _make_due(self, world: World, order_nos: list[str], after_s: float) -> None:
        world.postgres.run("execute", _MAKE_DUE, order_nos, after_s)

    async def _until(self, world: World, sql: str, order_no: str) -> None:
        """Wait until a value is there, or true."""
        async with asyncio.timeout(SETTLED_S):
            while not world.postgres.run("fetchval", sql, order_no):  # noqa: ASYNC110 - no process of ours knows
                await asyncio.sleep(LOOK_S)

    async def _settle(self, world: World, order_nos: list[str]) -> bool:
        """Wait until the orders have come to their ends; False: they do not."""
        status = "closed" if self._course in _UNPAID else "paid"
        refunds = int(self._course is Course.REFUND)
        for _ in range(round(SETTLED_S / LOOK_S)):
            if all(world.postgres.run("fetchval", _SETTLED, each, status, refunds) for each in order_nos):
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


_PUT_OFF = (Course.COMPENSATION, Course.SWEEP, Course.FLUSHED, Course.PARKED, Course.RECONCILED)
"""Courses whose points begin in the middle of a life."""

_UNPAID = (Course.CLOSED, Course.ENDED)
EXPIRES_IN_S = 1800
_EXPIRES_IN_S = {Course.CLOSED: 300, Course.RECONCILED: round(DAYS_S)}


def _course_in(order_no: str, courses: Sequence[Course]) -> Course:
    """Return the course of an order; what belongs to no order is counted with the first one."""
    return next((course for course in courses if order_no.startswith(f"{course}-")), courses[0])


def _zone_of(channel: str) -> tzinfo:
    zone: tzinfo = ADAPTERS[channel].open.statement_zone  # type: ignore[attr-defined]  # a class
    return zone
