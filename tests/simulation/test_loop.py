"""The loop of a world: time jumps, dead processes stand, and order depends on nothing but the code."""

import asyncio
import signal
import time

import pytest

from storage.gathering import Gathering
from tests.simulation.clock import TIME
from tests.simulation.in_world import in_world, new_process
from tests.simulation.loop import ADDRESS_OF_NAMES, NothingLeft
from tests.simulation.processes import Crashed, Process, loop_of_world


def test_a_day_takes_no_time_and_timers_come_in_their_order() -> None:
    seen: list[tuple[str, float]] = []

    async def sleep(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        seen.append((name, TIME.seconds))

    async def main() -> None:
        await asyncio.gather(sleep("day", 86_400.0), sleep("first", 0.25), sleep("second", 0.25))

    began = time.monotonic()
    in_world(main)
    assert seen == [("first", 0.25), ("second", 0.25), ("day", 86_400.0)]
    assert time.monotonic() - began < 60.0


def test_time_stands_while_code_runs() -> None:
    async def main() -> float:
        for _ in range(1000):
            await asyncio.sleep(0)
        return loop_of_world().time()

    assert in_world(main) == 0.0


def test_what_waits_for_nothing_ends_the_world() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(NothingLeft):
        in_world(main)


def test_many_cancelled_timers_change_nothing() -> None:
    async def main() -> list[float]:
        seen: list[float] = []
        loop = asyncio.get_running_loop()
        for number in range(1000):
            handle = loop.call_later(number / 10, seen.append, number)
            if number % 100:
                handle.cancel()
        await asyncio.sleep(200.0)
        return seen

    assert in_world(main) == [100 * number for number in range(10)]


def test_sets_of_tasks_are_in_the_order_in_which_they_were_made() -> None:
    async def main() -> list[int]:
        tasks = [asyncio.ensure_future(asyncio.sleep(1.0, number)) for number in range(7)]
        finished, _ = await asyncio.wait(set(tasks))
        return [task.result() for task in sorted(finished, key=hash)]

    assert in_world(main) == list(range(7))


async def _after_crash(process: Process) -> None:
    process.crash()
    await asyncio.sleep(3600.0)


def test_a_killed_process_runs_no_finally_and_no_timer() -> None:
    seen: list[str] = []

    async def work() -> None:
        asyncio.get_running_loop().call_later(5.0, seen.append, "timer")
        try:
            await asyncio.sleep(5.0)
            seen.append("after the sleep")
        finally:
            seen.append("finally")

    async def main() -> None:
        process = new_process()
        process.spawn(work())
        await asyncio.sleep(1.0)
        await _after_crash(process)
        assert seen == []

    in_world(main)


def test_what_a_process_began_in_an_empty_context_dies_with_it() -> None:
    """The lanes of `storage.gathering` run in one."""
    seen: list[list[str]] = []

    async def send(items: list[str]) -> list[str]:
        await asyncio.sleep(2.0)
        seen.append(items)
        return items

    async def work() -> None:
        gathering: Gathering[str, str] = Gathering(send, is_shared=lambda _: False, full=RuntimeError)
        await gathering.add("one")
        await gathering.add("two")

    async def main() -> None:
        process = new_process()
        process.spawn(work())
        await asyncio.sleep(3.0)
        await _after_crash(process)
        assert seen == [["one"]]

    in_world(main)


def test_the_one_who_asks_a_process_hears_of_its_end() -> None:
    async def main() -> str:
        process = new_process()
        asking = asyncio.ensure_future(process.serve(asyncio.sleep(10.0, "answer")))
        await asyncio.sleep(1.0)
        process.crash()
        with pytest.raises(Crashed):
            await asking
        with pytest.raises(Crashed):
            await process.serve(asyncio.sleep(10.0, "answer"))
        other = new_process()
        return await other.serve(asyncio.sleep(10.0, "answer"))

    assert in_world(main) == "answer"


def test_signals_threads_and_names_are_the_worlds() -> None:
    seen: list[str] = []

    async def work() -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, seen.append, "sigterm")
        assert await asyncio.to_thread(lambda: "thread") == "thread"
        assert [row[4][0] for row in await loop.getaddrinfo("127.0.0.1", 80)] == ["127.0.0.1"]
        assert [row[4][0] for row in await loop.getaddrinfo("shop.example", 443)] == [ADDRESS_OF_NAMES]
        with pytest.raises(ConnectionRefusedError):
            await loop.create_connection(asyncio.Protocol, "127.0.0.1", 80)
        await asyncio.sleep(60.0)

    async def main() -> None:
        process = new_process()
        task = process.spawn(work())
        await asyncio.sleep(1.0)
        assert not task.done(), task
        process.terminate()

    in_world(main)
    assert seen == ["sigterm"]
