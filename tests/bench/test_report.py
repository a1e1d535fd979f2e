import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bench.loops import closed_loop, open_loop, wait_until
from bench.machine import Machine, describe, loop_ms
from bench.report import Report, Result, figure, latencies, lines, of_repeats

MACHINE = Machine(
    cores=2,
    cpu="Some CPU",
    memory_mib=1024,
    system="Linux",
    file_system="ext4",
    synced_write_ms=0.5,
    load_before=0.1,
    python="3.11.2",
    libraries={},
    servers={"postgres": "postgres 18", "redis": "redis 8"},
    commit="0123456789ab",
)


def spin(seconds: float) -> None:
    """Block the event loop."""
    ends_at = time.perf_counter() + seconds
    while time.perf_counter() < ends_at:
        pass


def test_figure_has_four_significant_digits() -> None:
    assert figure("rate", 12345.678, "orders/s", 10).value == 12350.0
    assert figure("share", 0.000123456, "share", 10).value == 0.0001235


def test_repeats_are_kept_beside_their_median() -> None:
    result = of_repeats("notice", [0.9, 0.1, 0.5], "s", 100)
    assert (result.value, result.repeats, result.n) == (0.5, (0.9, 0.1, 0.5), 100)


def test_latencies_are_in_milliseconds() -> None:
    result = {each.name: each.value for each in latencies("place", [number / 1000 for number in range(1, 102)])}
    assert result == {"place_p50": 51.0, "place_p99": 100.0, "place_max": 101.0}


@pytest.mark.parametrize(("seconds", "count"), [([], 0), ([0.25], 3)])
def test_latencies_of_few_are_what_they_are(seconds: list[float], count: int) -> None:
    result = latencies("place", seconds)
    assert [each.value for each in result] == [250.0] * count


def test_table_shows_value_unit_and_count() -> None:
    figures = (figure("orders_per_s", 1234.5, "orders/s", 7), of_repeats("notice", [0.5, 0.25, 1.0], "s", 3))
    result = Result(benchmark="orders", how="by hand", settings={}, seconds=1.5, figures=figures)
    report = Report(
        command="python -m bench",
        began_at=datetime.now(UTC),
        seconds=2.0,
        machine=MACHINE,
        loop_ms=(4.0, 5.5, 4.5),
        results=(result,),
    )
    shown = "\n".join(lines(report))
    assert "python -m bench    2.0 s" in shown
    assert "commit 0123456789ab" in shown
    assert "a fixed loop took 4.0 … 5.5 CPU ms" in shown
    assert "orders_per_s  1,234 orders/s  n=7" in shown
    assert "from 0.25 to 1" in shown


def test_machine_is_described_without_its_paths(tmp_path: Path) -> None:
    machine = describe(tmp_path)
    assert machine.cores >= 1
    assert machine.synced_write_ms > 0
    assert loop_ms() > 0
    assert "PostgreSQL" in machine.servers["postgres"]
    assert machine.libraries["asyncpg"]
    assert "/" not in "".join((*machine.servers.values(), machine.commit, machine.system))
    assert not list(tmp_path.iterdir())


async def test_closed_loop_does_every_number_once_with_so_many_at_a_time() -> None:
    running = most = 0

    async def work(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return number

    assert sorted(await closed_loop(work, 50, 4, 10.0)) == list(range(50))
    assert most == 4


async def test_closed_loop_ends_in_time_and_keeps_what_was_done() -> None:
    async def work(number: int) -> int:
        spin(0.001)
        return number

    done = await closed_loop(work, 1_000_000, 2, 0.05)
    assert 0 < len(done) < 1_000_000


async def test_open_loop_counts_the_time_from_when_an_arrival_was_due() -> None:
    """A slow response that blocks the sender delays all arrivals that are due meanwhile."""

    async def work(number: int) -> None:
        if number == 0:
            spin(0.2)

    times = await open_loop(work, 10, per_s=100.0)
    assert len(times) == 10
    assert sum(seconds > 0.05 for seconds in times) >= 9


async def test_waiting_ends_when_the_time_is_over() -> None:
    async def never() -> bool:
        return False

    assert not await wait_until(never, 0.0, 0.0)
