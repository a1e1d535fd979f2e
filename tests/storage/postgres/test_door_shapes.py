"""The texts of the door's statement: few parts for what is done often, and a text for every decision."""

import re
from itertools import combinations

import pytest

from storage.postgres.database import Database
from storage.postgres.door.shapes import LOCK_WAIT_MS, SHAPES
from storage.postgres.door.statement import PARTS
from tests.storage.postgres.plans import is_sorted, plan_parts
from tests.storage.postgres.tools import commit_evidence, connected, paid, placed, unpaid


def test_the_last_shape_has_every_part() -> None:
    operations = set(re.findall(r"^-- PART (\w+\.\w+)$", PARTS, re.MULTILINE))
    assert operations - SHAPES[-1].operations == {"orders.locked"}
    for text in (f"{part} AS " for part in re.findall(r"^(\w+) AS ", PARTS, re.MULTILINE)):
        assert text in SHAPES[-1].together


def test_no_shape_hides_a_smaller_one() -> None:
    assert not [(a, b) for a, b in combinations(SHAPES, 2) if a.operations >= b.operations]


async def test_what_an_order_does_as_a_rule_takes_a_statement_of_its_own_parts(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    fetch_text = db.fetch_text

    async def recorded(sql: str, *args: str) -> str:
        sent.append(sql)
        return str(await fetch_text(sql, *args))

    monkeypatch.setattr(db, "fetch_text", recorded)
    await placed(db, "A-1")
    await commit_evidence(db, "A-1", unpaid("A-1"), arm_no=1)
    await commit_evidence(db, "A-1", paid("A-1"))
    written = [re.findall(r"(?:INSERT INTO|(?<!KEY )UPDATE|DELETE FROM) (\w+)", text) for text in sent]
    assert written == [
        ["orders", "payments", "pending", "order_events"],
        ["pending", "observations"],
        ["orders", "payments", "pending", "order_events", "notifications", "callbacks"],
    ]


async def test_what_many_callers_share_waits_for_locks_for_milliseconds(database_url: str) -> None:
    """Whatever its parts, and in its own transaction alone. A decision alone waits as long as any statement."""
    async with connected(database_url) as connection:
        for shape in SHAPES:
            limits = []
            for text in (shape.together, shape.alone):
                async with connection.transaction():
                    await connection.fetchval(text, "{}")
                    limits.append(await connection.fetchval("SHOW lock_timeout"))
            assert limits == [f"{LOCK_WAIT_MS}ms", "0"]
        assert await connection.fetchval("SHOW lock_timeout") == "0"


async def test_orders_are_locked_and_inserted_in_the_order_of_their_numbers(database_url: str) -> None:
    """However the document names them: of two batches with the same orders none waits for the other for ever."""
    async with connected(database_url) as connection:
        for shape in SHAPES:
            parts = await plan_parts(connection, shape.together, "{}")
            for operation, name, kind in (
                ("orders.update", "CTE locked_orders", "LockRows"),
                ("orders.insert", "CTE inserted_orders", "ModifyTable"),
            ):
                assert (operation in shape.operations) == (name in parts)
                if name in parts:
                    assert parts[name]["Node Type"] == kind
                    assert is_sorted(parts[name], "order_no")
