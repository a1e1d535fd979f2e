"""Failures of the parts of a deployment: what happens to a world when one is due, and its end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType

from tests.simulation.accidents import State
from tests.simulation.processes import Process
from tests.simulation.profiles import Part, Planned
from tests.simulation.world import World

Failure = Callable[[World, Planned], Awaitable[None]]
"""Returns when the part is well again, or once the failure has happened."""


def heal(world: World) -> None:
    """Let every part be well from now on. Processes that have ended stay so."""
    world.postgres.be(State.UP)
    world.postgres.be_read_only(False)
    world.redis.be(State.UP)
    world.redis.be_read_only(False)
    world.redis.be_full(False)
    for accidents in (world.postgres.accidents, world.redis.accidents):
        accidents.cut_share = accidents.crash_share = 0.0
    for process in world.processes.values():
        process.skew_s = 0.0
    world.rest.trouble()


def _lasting(begin: Callable[[World], None], end: Callable[[World], None]) -> Failure:
    async def fail(world: World, planned: Planned) -> None:
        begin(world)
        await asyncio.sleep(planned.until_s - planned.at_s)
        end(world)

    return fail


def _at_once(act: Callable[[World, Planned], None]) -> Failure:
    async def fail(world: World, planned: Planned) -> None:
        act(world, planned)

    return fail


def _postgres_is(state: State) -> Failure:
    return _lasting(lambda world: world.postgres.be(state), lambda world: world.postgres.be(State.UP))


def _redis_is(state: State) -> Failure:
    return _lasting(lambda world: world.redis.be(state), lambda world: world.redis.be(State.UP))


def _of_process(kind: str, act: Callable[[Process, Planned], None]) -> Failure:
    """The failure of a living process, which the seed chooses; of none, if there is none."""

    def fail(world: World, planned: Planned) -> None:
        living = [each for name, each in sorted(world.processes.items()) if name.startswith(kind) and not each.is_dead]
        if living:
            act(living[int(planned.drawn * len(living))], planned)

    return _at_once(fail)


def _jump(process: Process, planned: Planned) -> None:
    is_ahead = 1000 * planned.drawn % 1 < 0.5  # whichever process it is
    process.skew_s = (planned.until_s - planned.at_s) * (1 if is_ahead else -1)


FAILURES: Mapping[Part, Failure] = MappingProxyType(
    {
        Part.POSTGRES_REFUSES: _postgres_is(State.REFUSING),
        Part.POSTGRES_FREEZES: _postgres_is(State.FROZEN),
        Part.POSTGRES_READ_ONLY: _lasting(
            lambda world: world.postgres.be_read_only(True), lambda world: world.postgres.be_read_only(False)
        ),
        Part.POSTGRES_RESTARTS: _at_once(lambda world, _: world.postgres.restart()),
        Part.POSTGRES_TERMINATES: _at_once(lambda world, _: world.postgres.cut_all()),
        Part.REDIS_REFUSES: _redis_is(State.REFUSING),
        Part.REDIS_FREEZES: _redis_is(State.FROZEN),
        Part.REDIS_READ_ONLY: _lasting(
            lambda world: world.redis.be_read_only(True), lambda world: world.redis.be_read_only(False)
        ),
        Part.REDIS_FULL: _lasting(lambda world: world.redis.be_full(True), lambda world: world.redis.be_full(False)),
        Part.REDIS_FLUSHED: _at_once(lambda world, _: world.redis.flush()),
        Part.REDIS_RESTARTS: _at_once(lambda world, planned: world.redis.restart(is_empty=planned.drawn < 0.5)),
        Part.API_CRASHES: _of_process("api", lambda process, _: process.crash()),
        Part.WORKER_CRASHES: _of_process("worker", lambda process, _: process.crash()),
        Part.WORKER_STOPS: _of_process("worker", lambda process, _: process.terminate()),
        Part.CLOCK_JUMPS: _of_process("", _jump),
    }
)
"""By part. Links fail in the network, by `tests.simulation.profiles.blackouts`."""
