"""Cases are listed newest first, page by page, and resolved by a person once."""

import asyncio

import pytest

from core.alerts import CASES_EACH
from core.errors import InvalidRequest
from core.order import CaseReason
from storage.postgres import alert_facts, cases
from storage.postgres.backlog import read_backlog
from storage.postgres.cases import (
    assign_case,
    count_open_cases,
    find_case,
    list_cases,
    resolve_case,
    resolve_cases,
)
from storage.postgres.cursors import encode_cursor
from storage.postgres.database import Database
from storage.postgres.orders import find_now
from tests.storage.postgres.tools import commit_evidence, count, number, paid, placed, rows


async def with_cases(db: Database, orders: int) -> None:
    """A-1, A-2, …: each with a mismatch of its amount."""
    for n in range(1, orders + 1):
        await placed(db, f"A-{n}")
        await commit_evidence(db, f"A-{n}", paid(f"A-{n}", amount=n))


async def test_a_case_says_what_it_is_about(db: Database) -> None:
    await with_cases(db, 1)
    [case], cursor = await list_cases(db)
    assert (case.order_no, case.account, case.out_trade_no) == ("A-1", *number("A-1"))
    assert (case.reason, case.detail) == (CaseReason.AMOUNT_MISMATCH, "0.01 instead of 88.88")
    assert (case.resolved_at, case.resolution, case.by, cursor) == (None, None, None, None)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8])
async def test_pages_hold_every_case_once_newest_first(db: Database, limit: int) -> None:
    """Also those that were opened in the same microsecond."""
    await with_cases(db, 7)
    await db.execute("UPDATE cases SET opened_at = '2026-03-01Z' WHERE id % 2 = 0")
    seen: list[int] = []
    cursor = None
    while True:
        page, cursor = await list_cases(db, cursor=cursor, limit=limit)
        assert len(page) <= limit
        seen += [case.id for case in page]
        if cursor is None:
            break
    expected = await rows(db, "cases", "id", "true ORDER BY opened_at DESC, id DESC")
    assert seen == [row["id"] for row in expected]


async def test_a_case_opened_meanwhile_moves_no_other_to_another_page(db: Database) -> None:
    await with_cases(db, 4)
    first, cursor = await list_cases(db, limit=2)
    await commit_evidence(db, "A-1", paid("A-1", currency="USD"))
    second, _ = await list_cases(db, cursor=cursor, limit=2)
    assert [case.order_no for case in (*first, *second)] == ["A-4", "A-3", "A-2", "A-1"]


async def test_cases_are_found_by_reason_and_order(db: Database) -> None:
    await with_cases(db, 3)
    await commit_evidence(db, "A-2", paid("A-2", currency="USD"))
    by_order, _ = await list_cases(db, order_no="A-2")
    assert {case.reason for case in by_order} == {CaseReason.AMOUNT_MISMATCH, CaseReason.CURRENCY_MISMATCH}
    by_reason, _ = await list_cases(db, reason=CaseReason.CURRENCY_MISMATCH)
    assert [case.order_no for case in by_reason] == ["A-2"]
    assert (await list_cases(db, order_no="A-9"))[0] == []


async def test_a_case_is_resolved_once(db: Database) -> None:
    await with_cases(db, 2)
    [case], _ = await list_cases(db, order_no="A-1")
    assert await resolve_case(db, case.id, resolution="refunded by hand", by="anna")
    assert not await resolve_case(db, case.id, resolution="again", by="bert")
    assert not await resolve_case(db, 10**9, resolution="", by="")
    assert [open_.order_no for open_ in (await list_cases(db))[0]] == ["A-2"]
    [resolved], _ = await list_cases(db, open_only=False, order_no="A-1")
    assert (resolved.resolution, resolved.by) == ("refunded by hand", "anna")
    assert resolved.resolved_at is not None


async def test_all_open_cases_of_an_order_with_one_reason_are_resolved(db: Database) -> None:
    await with_cases(db, 2)
    await commit_evidence(db, "A-1", paid("A-1", currency="USD"))
    resolved = await resolve_cases(db, "A-1", CaseReason.AMOUNT_MISMATCH, resolution="accepted", by="anna")
    assert resolved == 1
    assert await count(db, "cases", "resolved_at IS NULL") == 2


@pytest.mark.parametrize(
    "cursor",
    ["", "x", "AAAA", "\0", "é", "支付", "W10", "bnVsbA", "eyJhIjoxfQ", "x" * 300],
)
async def test_a_cursor_that_is_not_ours_is_refused(db: Database, cursor: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^cursor: "):
        await list_cases(db, cursor=cursor)


@pytest.mark.parametrize("key", ["", "A-1", "-1", "1.5", "１", "9" * 19, "9" * 5000, "1\0", "1; --"])
async def test_a_cursor_of_another_listing_is_refused(db: Database, key: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^cursor: "):
        await list_cases(db, cursor=encode_cursor(await find_now(db), key))


async def test_the_inbox_has_open_cases_oldest_first_page_by_page(db: Database) -> None:
    await with_cases(db, 5)
    await db.execute("UPDATE cases SET opened_at = '2026-03-01Z' WHERE id % 2 = 0")
    [resolved], _ = await list_cases(db, order_no="A-3")
    await resolve_case(db, resolved.id, resolution="seen", by="anna")
    seen: list[int] = []
    cursor = None
    while True:
        page, cursor = await list_cases(db, oldest_first=True, cursor=cursor, limit=2)
        seen += [case.id for case in page]
        if cursor is None:
            break
    expected = await rows(db, "cases", "id", "resolved_at IS NULL ORDER BY opened_at, id")
    assert seen == [row["id"] for row in expected]
    assert len(seen) == 4


async def test_the_inbox_is_chosen_by_reason_age_and_operator(db: Database) -> None:
    await with_cases(db, 3)
    await commit_evidence(db, "A-2", paid("A-2", currency="USD"))
    [first], _ = await list_cases(db, oldest_first=True, limit=1)
    assert await assign_case(db, first.id, "anna", version=first.version) is not None
    assert [case.order_no for case in (await list_cases(db, oldest_first=True, assignee="anna"))[0]] == ["A-1"]
    assert len((await list_cases(db, oldest_first=True, unassigned_only=True))[0]) == 3
    of_currency, _ = await list_cases(db, oldest_first=True, reason=CaseReason.CURRENCY_MISMATCH)
    assert [case.order_no for case in of_currency] == ["A-2"]
    assert (await list_cases(db, oldest_first=True, opened_before=first.opened_at))[0] == []
    counts = {each.reason: each for each in await count_open_cases(db, mine="anna")}
    mismatch = counts[CaseReason.AMOUNT_MISMATCH]
    assert (mismatch.open, mismatch.unassigned, mismatch.mine, mismatch.oldest_at) == (3, 2, 1, first.opened_at)
    assert (counts[CaseReason.CURRENCY_MISMATCH].open, counts[CaseReason.CURRENCY_MISMATCH].mine) == (1, 0)


async def test_of_two_operators_who_take_a_case_one_has_it(db: Database) -> None:
    await with_cases(db, 1)
    [case], _ = await list_cases(db, oldest_first=True)
    taken = await asyncio.gather(
        *(assign_case(db, case.id, name, version=case.version) for name in ("anna", "bert", "carl"))
    )
    [winner] = [each for each in taken if each is not None]
    found = await find_case(db, case.id)
    assert found == winner
    assert (winner.version, winner.assigned_at is not None) == (case.version + 1, True)
    assert not await resolve_case(db, case.id, resolution="seen", by="x", version=case.version)
    assert await resolve_case(db, case.id, resolution="seen", by=str(winner.assignee), version=winner.version)
    assert await assign_case(db, case.id, "anna", version=winner.version + 1) is None
    assert await find_case(db, 10**9) is None


async def test_a_case_is_given_back(db: Database) -> None:
    await with_cases(db, 1)
    [case], _ = await list_cases(db, oldest_first=True)
    taken = await assign_case(db, case.id, "anna", version=case.version)
    assert taken is not None
    back = await assign_case(db, case.id, None, version=taken.version)
    assert back is not None
    assert (back.assignee, back.assigned_at) == (None, None)


async def many_of_one_reason_and_one_of_another(db: Database) -> None:
    await db.execute(
        "INSERT INTO cases (order_no, reason, opened_at)"
        " SELECT 'B-' || i, 'paid_late', now() - make_interval(mins => i) FROM generate_series(1, 5000) AS i"
    )
    await db.execute("INSERT INTO cases (order_no, reason) VALUES ('A-1', 'disputed')")
    await db.execute("VACUUM ANALYZE cases")


@pytest.mark.parametrize("oldest_first", [True, False])
async def test_a_rare_reason_is_not_looked_for_among_all_open_cases(db: Database, *, oldest_first: bool) -> None:
    await many_of_one_reason_and_one_of_another(db)
    sql = cases._list(is_of_order=False, open_only=True, oldest_first=oldest_first, has_reason=True)
    values = (None, None, "disputed", None, False, None, 51)
    plan = "\n".join(row[0] for row in await db.fetch(f"EXPLAIN {sql}", *values))
    assert "using cases_open_by_reason" in plan
    assert "Sort" not in plan
    [case], cursor = await list_cases(db, oldest_first=oldest_first, reason=CaseReason.DISPUTED)
    assert (case.order_no, cursor) == ("A-1", None)
    of_many, seen = None, list[str | None]()
    while of_many is not None or not seen:
        page, of_many = await list_cases(
            db, oldest_first=oldest_first, reason=CaseReason.PAID_LATE, cursor=of_many, limit=1700
        )
        seen += [case.order_no for case in page]
    assert seen == [f"B-{i}" for i in (range(5000, 0, -1) if oldest_first else range(1, 5001))]


async def test_a_look_reads_the_oldest_of_each_reason_and_counts_the_others(db: Database) -> None:
    await many_of_one_reason_and_one_of_another(db)
    facts = await alert_facts.read_stored_facts(db)
    named = [(case.order_no, case.of_reason) for case in facts.cases]
    assert sorted(named[:-1]) == sorted((f"B-{i}", 5000) for i in range(5000, 5000 - CASES_EACH, -1))
    assert named[-1] == ("A-1", 1)
    plan = "\n".join(row[0] for row in await db.fetch(f"EXPLAIN {alert_facts._FACTS}"))
    assert "cases_open_by_time" not in plan
    assert (await read_backlog(db)).cases == {"paid_late": 5000, "disputed": 1}
