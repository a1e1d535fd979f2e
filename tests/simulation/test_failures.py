"""Failures of parts: each part has one, and processes and stores fail as the schedule says."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from tests.simulation.accidents import State
from tests.simulation.clock import TIME
from tests.simulation.events import Events
from tests.simulation.failures import FAILURES
from tests.simulation.in_world import in_world, never, new_process
from tests.simulation.profiles import Part, Planned
from tests.simulation.world import World

OF_LINKS = {Part.LINKS_CUT, Part.LINKS_SILENT}


@contextmanager
def new_world() -> Iterator[World]:
    """A world without a database."""
    world = World(1, {"DATABASE_URL": "postgresql://127.0.0.1/none"}, Events(), never)
    try:
        yield world
    finally:
        world.postgres.close()


def planned(part: Part, *, lasts_s: float = 0.0, drawn: float = 0.0) -> Planned:
    return Planned(name=str(part), part=part, at_s=10.0, until_s=10.0 + lasts_s, drawn=drawn)


async def fail(world: World, part: Part, *, lasts_s: float = 0.0, drawn: float = 0.0) -> None:
    await FAILURES[part](world, planned(part, lasts_s=lasts_s, drawn=drawn))


def test_every_part_but_the_links_has_a_failure() -> None:
    assert set(FAILURES) == set(Part) - OF_LINKS


def test_store_fails_for_its_time_and_is_well_again() -> None:
    async def main() -> None:
        with new_world() as world:
            frozen = asyncio.ensure_future(fail(world, Part.POSTGRES_FREEZES, lasts_s=60.0))
            refusing = asyncio.ensure_future(fail(world, Part.REDIS_REFUSES, lasts_s=90.0))
            await asyncio.sleep(59.0)
            assert (world.postgres.state, world.redis.state) == (State.FROZEN, State.REFUSING)
            await frozen
            assert (world.postgres.state, world.redis.state, TIME.seconds) == (State.UP, State.REFUSING, 60.0)
            await refusing
            assert (world.redis.state, TIME.seconds) == (State.UP, 90.0)

    in_world(main)


def test_the_seed_chooses_the_living_process_that_fails() -> None:
    async def main() -> None:
        with new_world() as world:
            world.processes = {name: new_process(name) for name in ("api-0", "worker-0", "worker-1")}
            await fail(world, Part.WORKER_CRASHES, drawn=0.9)
            assert [name for name, each in world.processes.items() if each.is_dead] == ["worker-1"]
            await fail(world, Part.WORKER_CRASHES, drawn=0.9)
            assert [name for name, each in world.processes.items() if not each.is_dead] == ["api-0"]
            await fail(world, Part.WORKER_CRASHES, drawn=0.9)
            await fail(world, Part.CLOCK_JUMPS, lasts_s=90.0, drawn=0.9)
            assert abs(world.processes["api-0"].skew_s) == 90.0

    in_world(main)
