import asyncio
from pathlib import Path
from signal import SIGKILL

import pytest

from tests.cli.nodrop import Nodrop
from tests.servers import Process

NAMES = ("0001_orders.sql", "0002_inbox_outbox.sql", "0003_accounts_keys.sql", "0004_refunds.sql")


@pytest.fixture
def empty(unmigrated_database_url: str) -> Nodrop:
    return Nodrop({"DATABASE_URL": unmigrated_database_url})


async def test_what_is_missing_is_applied_once_and_listed(empty: Nodrop) -> None:
    first = await empty("migrate")
    assert first.code == 0
    assert first.out.splitlines()[: len(NAMES)] == [f"applied {name}" for name in NAMES]
    second = await empty("migrate")
    assert (second.code, second.out) == (0, "nothing to do\n")


async def test_several_at_once_apply_each_migration_once(empty: Nodrop) -> None:
    ran = await asyncio.gather(*(empty.process("migrate", "--json") for _ in range(3)))
    assert [one.code for one in ran] == [0, 0, 0]
    applied = [name for one in ran for name in one.json["applied"]]
    assert sorted(applied) == sorted(set(applied))
    assert set(NAMES) <= set(applied)


async def test_check_changes_nothing_and_fails_while_something_is_missing(empty: Nodrop) -> None:
    before = await empty("migrate", "--check")
    assert before.code == 1
    assert before.out.splitlines()[: len(NAMES)] == [f"missing {name}" for name in NAMES]
    assert before.err == ""
    assert (await empty("migrate", "--check", "--json")).json["missing"][: len(NAMES)] == list(NAMES)
    await empty("migrate")
    after = await empty("migrate", "--check")
    assert (after.code, after.out) == (0, "nothing is missing\n")


async def test_the_direct_address_wins_where_a_pooler_stands_in_front(empty: Nodrop) -> None:
    direct = empty.env["DATABASE_URL"]
    env = {"DATABASE_URL": "postgres://pooler.invalid:6432/x", "DIRECT_DATABASE_URL": direct}
    assert (await empty("migrate", env=env)).code == 0


async def test_an_address_that_is_none_is_named_by_its_variable(bare: Nodrop) -> None:
    ran = await bare("migrate", env={"DIRECT_DATABASE_URL": "mysql://x", "DATABASE_URL": "postgres://127.0.0.1/x"})
    assert ran.code == 2
    assert ran.line.startswith("DIRECT_DATABASE_URL: set it to postgres://")


async def test_without_an_address_it_says_what_to_set(bare: Nodrop) -> None:
    ran = await bare("migrate")
    assert ran.code == 2
    assert ran.line.startswith("DATABASE_URL is not set: ")


@pytest.mark.parametrize(
    "step",
    [
        "storage.postgres.migrate._lock:after",
        "storage.postgres.migrate._build:before",
        "storage.postgres.migrate._build:after",
    ],
)
async def test_killed_in_the_middle_it_is_carried_on(empty: Nodrop, step: str, tmp_path: Path) -> None:
    """Committed parts stay, the others are done again, and nobody waits for the lock of the dead."""
    arguments = ("cli", "migrate", "--at", step)
    log = tmp_path / "killed.log"
    async with Process("tests.scenarios.kill_at_step", *arguments, env=empty.env, log=log) as process:
        assert await process.wait() == -SIGKILL
    left = (await empty("migrate", "--check", "--json")).json["missing"]
    carried_on = await empty("migrate", "--json")
    assert (carried_on.code, carried_on.json["applied"]) == (0, left)
    assert (await empty("migrate")).out == "nothing to do\n"
