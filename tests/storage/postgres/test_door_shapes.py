"""The texts of the door's statement: few parts for what is done often, and a text for every decision."""

import re
from itertools import combinations

import pytest

from storage.postgres.database import Database
from storage.postgres.door.shapes import SHAPES
from storage.postgres.door.statement import PARTS
from tests.storage.postgres.tools import commit_evidence, paid, placed, unpaid


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
