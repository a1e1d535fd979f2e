"""The clock of a process beside Postgres's and the channels', with clocks that the test moves."""

import ast
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from core.clocks import FAR_OFF_S
from core.errors import DatabaseUnavailable
from runtime.clock import COMPARE_S, RETRY_S, ROUND_TRIP_S_MAX, SAMPLES, WITNESS_KEPT_S, Clock
from tests.servers import ROOT

NOW = 1_795_000_000.0
NET = "api.channel.test"


class World:
    """The true time, this machine's clock beside it, and a Postgres that answers after a way there and back."""

    def __init__(self) -> None:
        self.now = NOW
        self.skew_s = 0.0
        self.postgres_skew_s = 0.0
        self.ways_s: list[tuple[float, float]] = []
        self.is_down = False
        self.readings = 0

    def wall(self) -> float:
        return self.now + self.skew_s

    def steady(self) -> float:
        return self.now - NOW + 1000.0

    async def fetchval(self, _sql: str) -> float:
        if self.is_down:
            raise DatabaseUnavailable("gone")
        self.readings += 1
        there_s, back_s = self.ways_s.pop(0) if self.ways_s else (0.001, 0.001)
        self.now += there_s
        at = self.now + self.postgres_skew_s
        self.now += back_s
        return at


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def clock(world: World) -> Clock:
    return Clock(wall=world.wall, steady=world.steady)


async def keep(clock: Clock, world: World) -> list[dict[str, Any]]:
    """One turn; its log lines."""
    with capture_logs() as lines:
        await clock.keep(world)  # type: ignore[arg-type]  # it takes fetchval alone
    return [dict(line) for line in lines]


async def test_a_clock_is_used_as_it_is_until_it_is_compared_and_while_it_is_right(clock: Clock, world: World) -> None:
    world.skew_s = 1.9
    assert clock.read() == world.wall()
    await keep(clock, world)
    assert clock.read() == world.wall()
    assert clock.verdict.state == "right"


@pytest.mark.parametrize("skew_s", [600.0, -600.0, 2.5, -2.5])
async def test_a_wrong_clock_is_corrected_and_says_so_once(skew_s: float) -> None:
    world = World()
    world.skew_s = skew_s
    clock = Clock(wall=world.wall, steady=world.steady)
    [line] = await keep(clock, world)
    assert (line["event"], line["state"], line["log_level"]) == ("clock_judged", "corrected", "warning")
    assert line["skew_s"] == pytest.approx(skew_s, abs=0.1)
    world.now += 30.0
    assert clock.read() == pytest.approx(world.now, abs=0.01)
    assert clock.now().timestamp() == pytest.approx(world.now, abs=0.01)
    assert await keep(clock, world) == []

    world.skew_s = 0.0  # somebody has set it right
    [line] = await keep(clock, world)
    assert (line["state"], line["log_level"]) == ("right", "info")
    assert clock.read() == world.wall()


async def test_it_is_compared_by_three_samples_once_a_minute(clock: Clock, world: World) -> None:
    for seconds, readings in ((0.0, SAMPLES), (1.0, SAMPLES), (COMPARE_S, 2 * SAMPLES)):
        world.now += seconds
        await keep(clock, world)
        assert world.readings == readings


async def test_the_round_trip_is_taken_off(clock: Clock, world: World) -> None:
    world.ways_s = [(0.45, 0.45)] * SAMPLES
    await keep(clock, world)
    assert clock.verdict.skew_s == pytest.approx(0.0, abs=0.01)


async def test_one_sample_of_three_that_is_wrong_does_not_count(clock: Clock, world: World) -> None:
    world.ways_s = [(0.0, 0.0), (0.0, 0.9), (0.0, 0.0)]
    await keep(clock, world)
    assert clock.verdict.skew_s == pytest.approx(0.0, abs=0.01)


async def test_a_slow_postgres_or_process_is_no_wrong_clock(clock: Clock, world: World) -> None:
    """A long round trip leaves open when Postgres looked at its clock; it is tried again soon."""
    world.ways_s = [(0.0, 9.0), (0.0, 2 * ROUND_TRIP_S_MAX), (0.0, 9.0)]
    await keep(clock, world)
    assert clock.verdict.state == "not_compared"
    world.now += RETRY_S
    await keep(clock, world)
    assert clock.verdict.state == "right"


async def test_a_clock_that_is_set_forward_is_noticed_at_the_next_turn_also_without_postgres(
    clock: Clock, world: World
) -> None:
    await keep(clock, world)
    world.now += 1.0
    world.skew_s, world.is_down = 600.0, True
    with pytest.raises(DatabaseUnavailable):
        await keep(clock, world)
    assert clock.verdict.state == "corrected"
    assert clock.read() == pytest.approx(world.now, abs=0.01)


async def test_without_postgres_a_process_begins_with_its_own_clock(clock: Clock, world: World) -> None:
    world.is_down = True
    with capture_logs() as lines:
        await clock.begin(world)  # type: ignore[arg-type]
    assert [line["event"] for line in lines] == ["clock_not_compared"]
    assert clock.read() == world.wall()


async def test_more_than_an_hour_off_is_an_error(clock: Clock, world: World) -> None:
    world.skew_s = FAR_OFF_S + 1
    [line] = await keep(clock, world)
    assert (line["state"], line["log_level"]) == ("far_off", "error")
    assert clock.verdict.is_far_off


async def test_a_postgres_that_channels_contradict_corrects_nothing(clock: Clock, world: World) -> None:
    """Its clock is wrong, ours and the channel's are right."""
    world.postgres_skew_s = -600.0
    await keep(clock, world)
    assert clock.read() == pytest.approx(world.now - 600.0, abs=0.01)
    assert str(clock.verdict.state) == "corrected"
    with capture_logs() as lines:
        clock.witness(NET, world.now)
    assert [(line["event"], line["log_level"]) for line in lines] == [
        ("clock_contradicted", "error"),
        ("clock_judged", "error"),
    ]
    assert clock.verdict.state == "contradicted"
    assert clock.read() == world.wall()
    world.now += 3600.0  # what the channel said is carried on
    await keep(clock, world)
    assert clock.verdict.state == "contradicted"


async def test_a_channel_that_was_heard_before_postgres_counts(clock: Clock, world: World) -> None:
    world.postgres_skew_s = -600.0
    clock.witness(NET, world.now)
    assert clock.read() == world.wall()
    await keep(clock, world)
    assert clock.verdict.state == "contradicted"


async def test_a_channel_that_was_not_heard_for_a_day_is_no_witness_any_more(clock: Clock, world: World) -> None:
    world.postgres_skew_s = -600.0
    clock.witness(NET, world.now)
    for seconds, state in ((WITNESS_KEPT_S - 1.0, "contradicted"), (2.0, "corrected")):
        world.now += seconds
        await keep(clock, world)
        assert clock.verdict.state == state


async def test_a_channel_that_agrees_with_postgres_lets_it_correct(clock: Clock, world: World) -> None:
    world.skew_s = 600.0
    await keep(clock, world)
    clock.witness(NET, world.now)
    assert clock.read() == pytest.approx(world.now, abs=0.01)


async def test_what_is_fresh_by_either_clock_is_fresh_while_nobody_can_tell_which_is_right(
    clock: Clock, world: World
) -> None:
    world.skew_s = 600.0
    await keep(clock, world)
    assert other_time(clock) is None
    world.skew_s = FAR_OFF_S + 60.0
    await keep(clock, world)
    assert (clock.read(), other_time(clock)) == pytest.approx((world.now, world.wall()), abs=0.1)


def other_time(clock: Clock) -> float | None:
    return None if clock.read_other is None else clock.read_other()


# -- the one clock -----------------------------------------------------------------------------------------------------

WALL_CLOCKS = {"datetime.now", "datetime.utcnow", "datetime.today", "date.today", "time.time", "time.time_ns",
               "time.gmtime", "time.localtime", "time.ctime", "time.strftime"}  # fmt: skip
READERS = {
    "runtime/clock.py": "the clock",
    "channels/transport.py": "without a clock: tools of the command line",
    "runtime/logs.py": "the time of a log line",
    "storage/redis/delay_queue.py": "shown by arq, never compared",
}


def test_nothing_else_reads_the_wall_clock() -> None:
    assert set(wall_clock_readers()) == set(READERS)


def wall_clock_readers() -> Iterator[str]:
    """Files of the processes with an expression like `datetime.now`, called or passed on."""
    for room in ("api", "channels", "core", "flows", "runtime", "storage", "worker"):
        for file in sorted((ROOT / room).rglob("*.py")):
            tree = ast.parse(file.read_text())
            names = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
            imported = {
                f"{node.module}.{alias.name}"
                for node in ast.walk(tree)
                if isinstance(node, ast.ImportFrom)
                for alias in node.names
            }
            if WALL_CLOCKS & (names | imported):
                yield file.relative_to(ROOT).as_posix()


async def test_the_time_of_postgres_is_carried_on_from_the_last_comparison(clock: Clock, world: World) -> None:
    """Also while this process's own clock is right or was set, and Postgres is away."""
    assert clock.of_postgres() is None
    world.postgres_skew_s = -1.5
    await keep(clock, world)
    world.now += 30.0
    world.skew_s = 600.0
    at = clock.of_postgres()
    assert at is not None
    assert at.timestamp() == pytest.approx(world.now - 1.5, abs=0.01)
