"""Callers that share calls: each gets its own result or error, none is lost, none is served twice."""

import asyncio
from collections import Counter
from collections.abc import Hashable, Sequence
from contextvars import ContextVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.gathering import Gathering

PATIENCE_S = 60.0
TURNS = 20
"""Turns of the event loop, in which everything happens that can happen without an answer of the store."""


class AwayError(Exception):
    """The store is away: nobody's own error."""


class FullError(Exception):
    """Too many callers wait."""


class PoisonError(Exception):
    """An item that the store refuses, and every call that it is in."""


class Store:
    """A store that answers each call with the items times ten, once it is told to."""

    def __init__(self, poisoned: frozenset[int] = frozenset(), conflicting: frozenset[int] = frozenset()) -> None:
        self.calls: list[list[int]] = []
        self.done: list[int] = []
        self.may_answer = asyncio.Event()
        self.is_away = False
        self._poisoned = poisoned
        self._conflicting = conflicting

    async def send(self, items: Sequence[int]) -> list[int | Exception]:
        self.calls.append(list(items))
        await self.may_answer.wait()
        if self.is_away:
            raise AwayError
        if not self._poisoned.isdisjoint(items):
            raise PoisonError
        self.done += [item for item in items if item not in self._conflicting]
        return [ValueError(item) if item in self._conflicting else item * 10 for item in items]


class Bounded(Gathering[int, int]):
    """A gathering that loses a caller fails a test, and does not hang it."""

    async def add(self, item: int) -> int:
        async with asyncio.timeout(PATIENCE_S):
            return await super().add(item)


def gathering_of(
    store: Store, *, lanes: int = 1, batch_max: int = 100, waiting_max: int = 100, modulus: int = 0
) -> Gathering[int, int]:
    def key(item: int) -> Hashable | None:
        return item % modulus if modulus else None

    return Bounded(
        store.send,
        is_shared=lambda error: isinstance(error, AwayError),
        full=FullError,
        key=key,
        lanes=lanes,
        batch_max=batch_max,
        waiting_max=waiting_max,
    )


async def turn() -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)


async def test_a_lone_caller_goes_at_once() -> None:
    store = Store()
    store.may_answer.set()
    gathering = gathering_of(store)
    assert await gathering.add(1) == 10
    assert await gathering.add(2) == 20
    assert store.calls == [[1], [2]]


async def test_a_caller_that_comes_as_the_lane_becomes_free_is_not_lost() -> None:
    """It comes in the turn of the loop in which the lane finds nothing to do: an await there would lose it."""
    store = Store()
    store.may_answer.set()
    gathering = gathering_of(store)
    for pause in range(TURNS):
        first = gathering.put(1)
        for _ in range(pause):
            await asyncio.sleep(0)
        second = gathering.put(2)
        for _ in range(2):
            await turn()
        assert (first.done(), second.done()) == (True, True), pause
        assert (await first, await second) == (10, 20)


async def test_callers_that_wait_go_together() -> None:
    store = Store()
    gathering = gathering_of(store, batch_max=3)
    callers = [asyncio.create_task(gathering.add(1))]
    await turn()
    callers += [asyncio.create_task(gathering.add(item)) for item in (2, 3, 4, 5)]
    await turn()
    assert store.calls == [[1]]
    store.may_answer.set()
    assert await asyncio.gather(*callers) == [10, 20, 30, 40, 50]
    assert store.calls == [[1], [2, 3, 4], [5]]


async def test_callers_of_one_turn_after_another_go_together() -> None:
    """As those of a busy process, whose loop takes long for a turn: none of them has waited for a call to end."""
    store = Store()
    store.may_answer.set()
    gathering = gathering_of(store, batch_max=5)
    callers = []
    for item in range(7):
        callers.append(asyncio.create_task(gathering.add(item)))
        await asyncio.sleep(0)
    assert await asyncio.gather(*callers) == [item * 10 for item in range(7)]
    assert store.calls == [[0, 1, 2, 3, 4], [5, 6]]


@pytest.mark.parametrize("modulus", [0, 4])
async def test_every_caller_has_an_answer_once_the_store_has_answered(modulus: int) -> None:
    """Whatever becomes of the others: one is poisoned, one conflicts, one is cancelled, and some have one key."""
    store = Store(poisoned=frozenset({3}), conflicting=frozenset({5}))
    gathering = gathering_of(store, batch_max=5, modulus=modulus)
    callers = [asyncio.create_task(gathering.add(item)) for item in range(12)]
    await turn()
    callers[1].cancel()
    store.may_answer.set()
    for _ in callers:
        await turn()
    assert [item for item, caller in enumerate(callers) if not caller.done()] == []
    results = await asyncio.gather(*callers, return_exceptions=True)
    strange = {item: type(result) for item, result in enumerate(results) if result != item * 10}
    assert strange == {1: asyncio.CancelledError, 3: PoisonError, 5: ValueError}
    assert sorted(store.done) == [0, 1, 2, 4, 6, 7, 8, 9, 10, 11]


async def test_as_many_calls_are_under_way_as_there_are_lanes() -> None:
    store = Store()
    gathering = gathering_of(store, lanes=2)
    callers = []
    for item in (1, 2, 3):
        callers.append(asyncio.create_task(gathering.add(item)))
        await turn()
    assert store.calls == [[1], [2]]
    store.may_answer.set()
    assert await asyncio.gather(*callers) == [10, 20, 30]


async def test_one_item_of_a_key_is_under_way_at_a_time() -> None:
    """Neither in the same call nor in another lane. Others overtake it."""
    store = Store()
    gathering = gathering_of(store, lanes=2, modulus=10)
    callers = [asyncio.create_task(gathering.add(item)) for item in (1, 11, 2)]
    await turn()
    callers += [asyncio.create_task(gathering.add(item)) for item in (12, 3)]
    await turn()
    assert store.calls == [[1, 2], [3]]
    store.may_answer.set()
    assert await asyncio.gather(*callers) == [10, 110, 20, 120, 30]
    assert store.calls[2:] == [[11, 12]]


async def test_a_poisoned_item_fails_alone() -> None:
    store = Store(poisoned=frozenset({3}), conflicting=frozenset({5}))
    store.may_answer.set()
    gathering = gathering_of(store)
    results = await asyncio.gather(*(gathering.add(item) for item in range(1, 7)), return_exceptions=True)
    assert [result if isinstance(result, int) else type(result) for result in results] == [
        10,
        20,
        PoisonError,
        40,
        ValueError,
        60,
    ]
    assert sorted(store.done) == [1, 2, 4, 6]


async def test_a_store_that_is_away_is_the_error_of_all_and_is_called_once() -> None:
    store = Store()
    store.is_away = True
    store.may_answer.set()
    gathering = gathering_of(store)
    results = await asyncio.gather(*(gathering.add(item) for item in range(4)), return_exceptions=True)
    assert [type(result) for result in results] == [AwayError] * 4
    assert store.calls == [[0, 1, 2, 3]]
    store.is_away = False
    assert await gathering.add(7) == 70


async def test_a_caller_that_is_cancelled_while_it_waits_takes_its_item_back() -> None:
    store = Store()
    gathering = gathering_of(store)
    callers = [asyncio.create_task(gathering.add(item)) for item in (1, 2, 3)]
    await turn()
    late = asyncio.create_task(gathering.add(4))
    await turn()
    late.cancel()
    callers.pop(1).cancel()
    store.may_answer.set()
    assert await asyncio.gather(*callers) == [10, 30]
    assert await gathering.add(5) == 50
    assert store.calls == [[1, 2, 3], [5]]


async def test_too_many_that_wait_are_refused() -> None:
    store = Store()
    gathering = gathering_of(store, waiting_max=2)
    callers = [asyncio.create_task(gathering.add(1))]
    await turn()
    callers += [asyncio.create_task(gathering.add(item)) for item in (2, 3)]
    await turn()
    with pytest.raises(FullError):
        await gathering.add(4)
    store.may_answer.set()
    assert await asyncio.gather(*callers) == [10, 20, 30]


async def test_the_end_of_a_lane_is_the_end_of_its_callers() -> None:
    """The loop ends: they are cancelled, rather than to wait for ever; and another lane may begin."""
    store = Store()
    gathering = gathering_of(store)
    before = asyncio.all_tasks()
    caller = asyncio.create_task(gathering.add(1))
    await turn()
    waiting = asyncio.create_task(gathering.add(2))
    await turn()
    [lane] = asyncio.all_tasks() - before - {caller, waiting}
    lane.cancel()
    results = await asyncio.gather(caller, waiting, return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError] * 2
    store.may_answer.set()
    assert await gathering.add(3) == 30


async def test_a_key_is_free_again_after_a_call_that_ended_in_a_bug() -> None:
    """Too few results are one. Its callers get an error, and those who come with the same key are served."""
    results: list[list[int]] = [[], [10]]

    async def send(_: Sequence[int]) -> list[int]:
        return results.pop(0)

    gathering: Gathering[int, int] = Gathering(send, is_shared=lambda _: False, full=FullError, key=lambda _: "key")
    first = gathering.put(1)
    await turn()
    assert first.done()
    with pytest.raises(ValueError, match="shorter"):
        await first
    second = gathering.put(1)
    await turn()
    assert second.done()
    assert await second == 10


async def test_a_call_runs_in_no_callers_context() -> None:
    """Else the log lines and the API key of one caller would be those of all."""
    caller_name: ContextVar[str] = ContextVar("caller_name", default="nobody")
    seen: list[str] = []

    async def send(items: Sequence[int]) -> list[int]:
        seen.append(caller_name.get())
        return list(items)

    gathering: Gathering[int, int] = Gathering(send, is_shared=lambda _: False, full=FullError)
    caller_name.set("somebody")
    assert await gathering.add(1) == 1
    assert seen == ["nobody"]


@given(
    callers=st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=40),
    poisoned=st.frozensets(st.integers(0, 39), max_size=5),
    conflicting=st.frozensets(st.integers(0, 39), max_size=5),
    lanes=st.integers(1, 3),
    batch_max=st.integers(1, 8),
    modulus=st.integers(0, 6),
)
def test_every_caller_gets_its_own_outcome(
    callers: list[tuple[int, bool]],
    poisoned: frozenset[int],
    conflicting: frozenset[int],
    lanes: int,
    batch_max: int,
    modulus: int,
) -> None:
    """Callers come after some turns of the loop, and some are cancelled then; the store answers when it likes."""
    asyncio.run(_check_outcomes(callers, Store(poisoned, conflicting), (lanes, batch_max, modulus)))


async def _check_outcomes(callers: list[tuple[int, bool]], store: Store, sizes: tuple[int, int, int]) -> None:
    lanes, batch_max, modulus = sizes
    gathering = gathering_of(store, lanes=lanes, batch_max=batch_max, modulus=modulus)
    tasks = []
    for item, (turns, is_cancelled) in enumerate(callers):
        tasks.append(asyncio.create_task(gathering.add(item)))
        for _ in range(turns):
            await asyncio.sleep(0)
        if is_cancelled:
            tasks[-1].cancel()
        if turns == 0:
            store.may_answer.set()
    store.may_answer.set()
    async with asyncio.timeout(PATIENCE_S):
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for item, result in enumerate(results):
        match result:
            case PoisonError():
                assert item in store._poisoned
            case ValueError():
                assert item in store._conflicting
            case asyncio.CancelledError():
                assert callers[item][1]
            case _:
                assert result == item * 10
    assert max(Counter(store.done).values(), default=1) == 1
    assert all(len(call) <= batch_max for call in store.calls)
