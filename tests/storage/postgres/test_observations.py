"""Observations are kept in one table a day, made ahead and dropped whole."""

import asyncio
from contextlib import suppress
from datetime import date, datetime, timedelta

import pytest

from core.errors import DatabaseUnavailable
from storage.postgres.database import Database
from storage.postgres.observations import DAYS_AHEAD, keep_partitions
from storage.postgres.orders import find_now
from tests.storage.postgres.tools import commit_evidence, connected, count, opened, placed, unpaid


async def partitions(db: Database) -> list[str]:
    found = await db.fetch(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = 'observations'::regclass ORDER BY 1"
    )
    return [row["name"] for row in found]


async def today(db: Database) -> date:
    return (await find_now(db)).date()


def named(day: date) -> str:
    return f"observations_{day:%Y%m%d}"


async def old_partition(db: Database, days_ago: int) -> str:
    day = await today(db) - timedelta(days=days_ago)
    await db.execute(
        f"""CREATE TABLE {named(day)} PARTITION OF observations
            FOR VALUES FROM ('{day}T00:00:00Z') TO ('{day + timedelta(days=1)}T00:00:00Z')"""
    )
    return named(day)


async def test_partitions_are_made_ahead_once(db: Database) -> None:
    day = await today(db)
    assert await keep_partitions(db, keep_days=90) == (DAYS_AHEAD + 1, 0)
    expected = [named(day + timedelta(days=ahead)) for ahead in range(DAYS_AHEAD + 1)]
    assert await partitions(db) == [*expected, "observations_default"]
    assert await keep_partitions(db, keep_days=90) == (0, 0)


async def test_what_is_seen_goes_into_the_partition_of_its_day(db: Database) -> None:
    await keep_partitions(db, keep_days=90)
    await placed(db)
    await commit_evidence(db, "A-1", unpaid())
    assert await count(db, named(await today(db))) == await count(db, "observations") == 1
    assert await count(db, "observations_default") == 0


async def test_what_is_seen_before_its_partition_is_there_is_kept_all_the_same(db: Database) -> None:
    """In the default one; its day has no other then, the days after have."""
    await placed(db)
    await commit_evidence(db, "A-1", unpaid())
    assert await keep_partitions(db, keep_days=90) == (DAYS_AHEAD, 0)
    await commit_evidence(db, "A-1", unpaid())
    assert await count(db, "observations_default") == await count(db, "observations") == 2


async def test_the_default_partition_is_emptied_into_those_of_its_days(db: Database) -> None:
    """Except today's, which still receives rows. Days that are too old are dropped with their rows."""
    day = await today(db)
    await placed(db)
    await commit_evidence(db, "A-1", unpaid())
    for days in (-2, 1, 2, 91):
        for hour in ("00:00:00.000000", "23:59:59.999999"):
            at = datetime.fromisoformat(f"{day - timedelta(days=days)}T{hour}+00:00")
            await db.execute("INSERT INTO observations (order_no, at, kind, by) VALUES ('A-1', $1, 'k', 'b')", at)
    assert await count(db, "observations_default") == 9
    assert await keep_partitions(db, keep_days=90) == (DAYS_AHEAD + 3, 1)
    for days in (-2, 1, 2):
        assert await count(db, named(day - timedelta(days=days))) == 2
    assert await count(db, "observations_default") == 1
    assert await count(db, "observations") == 7
    assert await keep_partitions(db, keep_days=90) == (0, 0)
    indexes = "SELECT count(*) FROM pg_indexes WHERE tablename = $1"
    assert await db.fetchval(indexes, named(day - timedelta(days=1))) == 1


async def test_a_day_is_moved_whole_or_not_at_all(db: Database, database_url: str) -> None:
    """A reader of the default partition keeps it from being attached: the next turn moves it."""
    yesterday = await today(db) - timedelta(days=1)
    at = datetime.fromisoformat(f"{yesterday}T12:00:00+00:00")
    await db.execute("INSERT INTO observations (order_no, at, kind, by) VALUES ('A-1', $1, 'k', 'b')", at)
    async with connected(database_url) as reader, reader.transaction():
        await reader.execute("LOCK TABLE observations_default IN ACCESS SHARE MODE")
        with pytest.raises(DatabaseUnavailable):
            await keep_partitions(db, keep_days=90)
        assert await count(db, "observations_default") == await count(db, "observations") == 1
    await keep_partitions(db, keep_days=90)
    assert await count(db, named(yesterday)) == await count(db, "observations") == 1


async def test_old_partitions_are_dropped_and_no_others(db: Database) -> None:
    old, older, kept = [await old_partition(db, days) for days in (91, 400, 90)]
    assert (await keep_partitions(db, keep_days=90))[1] == 2
    left = await partitions(db)
    assert kept in left
    assert not {old, older} & set(left)


async def test_many_processes_keep_them_at_once(database_url: str) -> None:
    """All of them do so at their start."""
    async with opened(database_url) as one, opened(database_url) as two, opened(database_url) as three:
        for days in (100, 101):
            await old_partition(one, days)
        kept = await asyncio.gather(*(keep_until_free([one, two, three][n % 3]) for n in range(6)))
        assert len(await partitions(one)) == DAYS_AHEAD + 2
        assert sum(made for made, _ in kept) <= DAYS_AHEAD + 1


async def keep_until_free(db: Database) -> tuple[int, int]:
    """Turns until one is not given up: on a busy machine six of them wait for each other for longer than 2 s."""
    while True:
        with suppress(DatabaseUnavailable):
            return await keep_partitions(db, keep_days=90)


async def test_upkeep_does_not_wait_for_a_reader_of_hours(db: Database, database_url: str) -> None:
    """A dump of the database holds its lock till its end. Who waits behind it would hold up every order."""
    await placed(db)
    async with connected(database_url) as dump, dump.transaction():
        await dump.execute("LOCK TABLE observations IN ACCESS SHARE MODE")
        keeping = asyncio.create_task(keep_partitions(db, keep_days=90))
        await asyncio.wait_for(commit_evidence(db, "A-1", unpaid()), 30.0)
        with pytest.raises(DatabaseUnavailable):
            await asyncio.wait_for(keeping, 60)
    assert await keep_partitions(db, keep_days=90) != (0, 0)
