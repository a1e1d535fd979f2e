"""One call shared by all waiters, also when waiters are cancelled or the call fails."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from channels.kit.single_flight import SingleFlight


class Call:
    """A call that ends when the test says so."""

    def __init__(self) -> None:
        self.started = 0
        self.result: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def __call__(self) -> str:
        self.started += 1
        return await self.result


@contextmanager
def unhandled_errors() -> Iterator[list[str]]:
    """Messages of the errors that the event loop reports because nothing else handles them."""
    loop = asyncio.get_running_loop()
    messages: list[str] = []
    previous = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: messages.append(context["message"]))
    yield messages
    loop.set_exception_handler(previous)


async def start(*waiters: asyncio.Task[str]) -> None:
    """Let each waiter run until it waits for the call."""
    await asyncio.wait(waiters, timeout=0)


def waiters_of(flight: SingleFlight[str, str], call: Call, count: int, key: str = "k") -> list[asyncio.Task[str]]:
    return [asyncio.create_task(flight.run(key, call)) for _ in range(count)]


async def test_a_hundred_callers_share_one_call() -> None:
    call, flight = Call(), SingleFlight[str, str]()
    waiters = waiters_of(flight, call, 100)
    await start(*waiters)
    assert (call.started, len(flight)) == (1, 1)
    call.result.set_result("value")
    assert await asyncio.gather(*waiters) == ["value"] * 100
    assert len(flight) == 0


async def test_different_keys_do_not_share() -> None:
    call, flight = Call(), SingleFlight[str, str]()
    waiters = waiters_of(flight, call, 1, "a") + waiters_of(flight, call, 1, "b")
    await start(*waiters)
    assert (call.started, len(flight)) == (2, 2)
    call.result.set_result("value")
    await asyncio.gather(*waiters)


async def test_a_finished_call_is_not_kept() -> None:
    call, flight = Call(), SingleFlight[str, str]()
    call.result.set_result("value")
    assert [await flight.run("k", call), await flight.run("k", call)] == ["value", "value"]
    assert call.started == 2


async def test_a_cancelled_waiter_leaves_the_call_to_the_others() -> None:
    call, flight = Call(), SingleFlight[str, str]()
    first, second = waiters_of(flight, call, 2)
    await start(first, second)
    first.cancel()
    await asyncio.wait([first])
    call.result.set_result("value")
    assert (first.cancelled(), await second) == (True, "value")


async def test_every_waiter_gets_the_error_and_the_next_caller_a_new_call() -> None:
    call, flight = Call(), SingleFlight[str, str]()
    waiters = waiters_of(flight, call, 2)
    await start(*waiters)
    call.result.set_exception(ConnectionError("first"))
    assert [str(error) for error in await asyncio.gather(*waiters, return_exceptions=True)] == ["first", "first"]
    with pytest.raises(ConnectionError):
        await flight.run("k", call)
    assert call.started == 2


async def test_an_error_without_any_waiter_left_is_not_reported_as_unretrieved() -> None:
    call, flight = Call(), SingleFlight[str, str]()
    (waiter,) = waiters_of(flight, call, 1)
    await start(waiter)
    waiter.cancel()
    await asyncio.wait([waiter])
    del waiter  # its traceback holds the call's task, which reports when it is collected
    gc.collect()  # what earlier tests have left reports here
    with unhandled_errors() as messages:
        call.result.set_exception(ConnectionError("nobody waits"))
        for _ in range(3):  # the call, its task's callbacks, and one more
            await asyncio.sleep(0)
        gc.collect()
    assert (len(flight), messages) == (0, [])
