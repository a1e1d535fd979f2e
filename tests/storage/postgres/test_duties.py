"""Duties: one process at a time, until its end, its lease's end, or its own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from core.settings import Settings
from storage.postgres import duties, processes
from storage.postgres.database import Database
from storage.postgres.duties import LeasedDuty

INTERVAL_S = 600.0
LEASE_S = 3600.0


@pytest.fixture
async def two(database_url: str) -> AsyncIterator[tuple[Database, Database]]:
    """Two processes that beat."""
    async with AsyncExitStack() as stack:
        opened = []
        for name in ("a", "b"):
            db = Database.from_settings(Settings(database_url=database_url))
            await db.open()
            stack.push_async_callback(db.close)
            await processes.beat(db, name)
            db.process = name
            opened.append(db)
        yield opened[0], opened[1]


async def claimed(db: Database, *, interval_s: float = INTERVAL_S) -> LeasedDuty | None:
    return await duties.claim(db, "work", interval_s=interval_s, lease_s=LEASE_S)


async def pass_time(db: Database, seconds: float) -> None:
    moved = ", ".join(f"{column} = {column} - make_interval(secs => $1)" for column in ("due_at", "leased_until"))
    await db.execute(f"UPDATE duties SET {moved}", seconds)  # noqa: S608 - ours


@pytest.mark.parametrize("is_new", [True, False], ids=["new", "known"])
async def test_one_of_two_at_once_has_it(two: tuple[Database, Database], is_new: bool) -> None:
    end = "DELETE FROM duties" if is_new else "UPDATE duties SET leased_at = NULL, leased_until = NULL, due_at = now()"
    for _ in range(20):
        leases = await asyncio.gather(*(claimed(db) for db in two))
        assert sum(lease is not None for lease in leases) == 1
        await two[0].execute(end)


async def test_it_is_due_again_after_its_interval(two: tuple[Database, Database]) -> None:
    a, b = two
    leased = await claimed(a)
    assert leased is not None
    await duties.reschedule(a, "work", leased, delay_s=INTERVAL_S)
    assert (await claimed(a), await claimed(b)) == (None, None)
    await pass_time(a, INTERVAL_S)
    leased = await claimed(b)
    assert leased is not None
    assert leased.left_by is None, "it was ended"


async def test_what_a_process_that_is_gone_has_left_is_free_at_once(two: tuple[Database, Database]) -> None:
    a, b = two
    assert await claimed(a) is not None
    assert await claimed(b) is None
    await processes.forget(b, ["a"])
    leased = await claimed(b)
    assert leased is not None
    assert leased.left_by == "a"


async def test_one_that_was_only_slow_ends_nothing_of_its_successor(two: tuple[Database, Database]) -> None:
    a, b = two
    slow = await claimed(a)
    assert slow is not None
    await processes.forget(b, ["a"])
    assert await claimed(b) is not None
    await processes.beat(a, "a")
    await duties.reschedule(a, "work", slow, delay_s=0.0)
    assert await claimed(a) is None, "the other one has it, and lives"


async def test_a_process_that_does_not_beat_gets_none(two: tuple[Database, Database]) -> None:
    """Nobody would notice its end."""
    a, b = two
    await processes.forget(b, ["a"])
    assert await claimed(a) is None
    a.process = None
    assert await claimed(a) is None
    assert await claimed(b) is not None


async def test_a_process_takes_what_it_has_already(two: tuple[Database, Database]) -> None:
    """The answer to its claim, or to the end of its run, was lost."""
    a, _ = two
    first = await claimed(a)
    assert first is not None
    again = await claimed(a)
    assert again is not None
    assert again.left_by == "a"
    assert again.leased_at > first.leased_at


async def test_the_lease_of_a_run_that_hangs_ends(two: tuple[Database, Database]) -> None:
    a, b = two
    assert await claimed(a) is not None
    await pass_time(a, LEASE_S - 1.0)
    assert await claimed(b) is None
    await pass_time(a, 1.0)
    assert await claimed(b) is not None


async def test_a_shorter_interval_is_in_force_at_once(two: tuple[Database, Database]) -> None:
    """Also after the clock of Postgres was set back."""
    a, b = two
    leased = await claimed(a)
    assert leased is not None
    await duties.reschedule(a, "work", leased, delay_s=INTERVAL_S)
    assert await claimed(b, interval_s=60.0) is not None


async def test_a_look_writes_nothing(two: tuple[Database, Database]) -> None:
    """Every worker looks every five seconds."""
    a, b = two
    assert await claimed(a) is not None
    xid = "SELECT pg_current_wal_insert_lsn()::text, (SELECT xmax::text FROM duties)"
    before = tuple((await a.fetch(xid))[0])
    assert await claimed(b) is None
    assert tuple((await a.fetch(xid))[0]) == before
