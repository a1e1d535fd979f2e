"""Closings: the money of a day by its bounds, the run that counts, open and resolved differences, and sign-offs."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from core.closing import DayMoney, Sums
from core.dispute import DisputeKind, DisputeState
from core.evidence import Disputed, Source
from core.lifecycle import on_dispute
from core.order import CaseReason
from core.reconciliation import CASES, Difference, Finding
from storage.postgres.cases import list_cases, resolve_case
from storage.postgres.closings import (
    find_closing,
    insert_sign_off,
    list_closings,
    list_sign_offs,
    put_closing,
    read_money,
)
from storage.postgres.database import Database
from storage.postgres.disputes import list_disputes
from storage.postgres.reconciliation.differences import add_differences, find_cases_of, open_cases
from storage.postgres.reconciliation.runs import begin, claim_day, fail, finish, save
from tests.storage.postgres.plans import wide_plans
from tests.storage.postgres.tools import commit_evidence, moved, number, paid, placed

DAY = date(2026, 11, 22)
SINCE = datetime(2026, 11, 21, 16, tzinfo=UTC)
UNTIL = SINCE + timedelta(days=1)
SHA = b"s" * 32


async def paid_at(db: Database, order_no: str, at: datetime) -> None:
    await placed(db, order_no)
    await commit_evidence(db, order_no, paid(order_no, at=at))


async def ran(db: Database, *found: Difference, ends: str = "finished", sums: dict[str, Sums] | None = None) -> int:
    """A run over the day with these differences, each with its case."""
    claimed = await claim_day(db, "alipay", DAY, dry_run=False, lease_s=20.0)
    assert claimed is not None
    run = await begin(db, claimed, SHA, 3)
    await add_differences(db, run.id, found)
    await open_cases(db, "alipay", found)
    counts = {kind.value: sum(each.kind is kind for each in found) for kind in Finding}
    await save(db, run, 4, counts, sums or {})
    if ends == "finished":
        await finish(db, run, counts)
    elif ends == "failed":
        await fail(db, run, "no answer", 60.0)
    return run.id


def difference(kind: Finding = Finding.AMOUNT, order_no: str | None = "A-1", **more: Any) -> Difference:
    fields: dict[str, Any] = {
        "kind": kind,
        "row_no": 1,
        "detail": "1 there, 2 here",
        "order_no": order_no,
        "out_trade_no": f"alipay-{order_no}",
        "case": CASES.get(kind),
    }
    return Difference(**fields | more)


async def test_a_day_has_what_was_paid_from_its_midnight_until_the_next(db: Database) -> None:
    for order_no, at in {
        "before": SINCE - timedelta(microseconds=1),
        "first": SINCE,
        "last": UNTIL - timedelta(microseconds=1),
        "after": UNTIL,
    }.items():
        await paid_at(db, order_no, at)
    money, disputes = await read_money(db, "alipay", SINCE, UNTIL)
    assert money == {"CNY": DayMoney(payments=2, paid=2 * 8888)}
    assert disputes == []
    assert await read_money(db, "wechat", SINCE, UNTIL) == ({}, [])


async def test_a_day_has_the_disputes_that_began_on_it(db: Database) -> None:
    await paid_at(db, "A-1", SINCE)
    evidence = Disputed(
        channel_account="alipay",
        out_trade_no="alipay-A-1",
        dispute_id="d-1",
        dispute_kind=DisputeKind.CLAIM,
        state=DisputeState.OPEN,
        disputed_amount=100,
        disputed_currency="CNY",
        changed_at=UNTIL,
    )
    await moved(db, "A-1", lambda state: on_dispute(state, number("A-1"), evidence, Source.CALLBACK))
    assert (await read_money(db, "alipay", SINCE, UNTIL))[1] == []
    _, [dispute] = await read_money(db, "alipay", UNTIL, UNTIL + timedelta(days=1))
    assert (dispute.dispute_id, dispute.amount) == ("d-1", 100)


async def test_closings_are_listed_newest_first_page_by_page(db: Database) -> None:
    for account in ("alipay", "wechat"):
        for number_of_day in range(3):
            await put_closing(db, account, DAY + timedelta(days=number_of_day), {})
    seen: list[tuple[date, str]] = []
    while page := await list_closings(db, before=seen[-1] if seen else None, limit=2):
        seen += [(row.day, row.account) for row in page]
    assert seen == sorted(seen, reverse=True)
    assert len(seen) == 6
    of_account = await list_closings(db, account="wechat", before=(DAY + timedelta(days=2), ""), limit=9)
    assert [(row.account, row.day) for row in of_account] == [
        ("wechat", DAY + timedelta(days=1)),
        ("wechat", DAY),
    ]


async def test_the_newest_run_is_shown_and_the_finished_one_counts(db: Database) -> None:
    await put_closing(db, "alipay", DAY, {"CNY": DayMoney(paid=5)})
    [listed] = await list_closings(db, account="alipay", limit=2)
    assert (listed.latest, listed.whole, listed.there, listed.here) == (None, None, {}, {"CNY": DayMoney(paid=5)})
    finished = await ran(db, sums={"CNY": Sums(payments=1, paid=5, fees=1)})
    failed = await ran(db, ends="failed")
    row = await find_closing(db, "alipay", DAY)
    assert row.latest is not None
    assert row.whole is not None
    assert (row.latest.id, row.latest.status, row.latest.last_error) == (failed, "failed", "no answer")
    assert row.whole.id == finished
    assert row.there == {"CNY": Sums(payments=1, paid=5, fees=1)}
    before = await find_closing(db, "alipay", DAY - timedelta(days=1))
    assert (before.latest, before.here, before.sign_off) == (None, {}, None), "a day that is not kept is one"


@pytest.mark.parametrize(
    "found",
    [
        difference(),
        difference(Finding.MALFORMED, order_no=None, out_trade_no=""),
        difference(Finding.UNCLAIMED, order_no=None, out_trade_no="t-9"),
        difference(Finding.REFUND),
    ],
    ids=lambda each: each.kind,
)
async def test_a_difference_is_open_until_its_case_is_resolved(db: Database, found: Difference) -> None:
    await put_closing(db, "alipay", DAY, {})
    await ran(db, found)
    [row] = await list_closings(db, limit=1)
    assert row.whole is not None
    assert (row.open_differences, row.whole.differences) == (1, 1)
    [case], _ = await list_cases(db)
    assert await resolve_case(db, case.id, resolution="seen", by="alice")
    [row] = await list_closings(db, limit=1)
    assert row.open_differences == 0


async def test_a_payment_that_the_door_has_doubted_is_open_while_that_case_is(db: Database) -> None:
    await put_closing(db, "alipay", DAY, {})
    await placed(db)
    await commit_evidence(db, "A-1", paid(amount=1))
    await ran(db, difference(Finding.PAID_THERE_ONLY))
    [row] = await list_closings(db, limit=1)
    assert row.open_differences == 1
    [case], _ = await list_cases(db)
    await resolve_case(db, case.id, resolution="agreed", by="alice")
    [row] = await list_closings(db, limit=1)
    assert row.open_differences == 0


async def test_the_newest_sign_off_counts_and_none_is_changed(db: Database) -> None:
    await put_closing(db, "alipay", DAY, {})
    for by in ("alice", "bob"):
        await insert_sign_off(db, "alipay", DAY, by=by, note="all right", figures={"": {"differences": 0}})
    row = await find_closing(db, "alipay", DAY)
    assert row.sign_off is not None
    assert (row.sign_off.by, row.sign_off.figures) == ("bob", {"": {"differences": 0}})
    assert [each.by for each in await list_sign_offs(db, "alipay", DAY)] == ["bob", "alice"]
    for statement in ("UPDATE sign_offs SET note = 'x'", "DELETE FROM sign_offs"):
        with pytest.raises(asyncpg.CheckViolationError):
            await db.execute(statement)


@pytest.mark.usefixtures("new_sessions")  # whose plans are looked at
async def test_lists_of_an_operator_look_rows_up_by_their_indexes(db: Database) -> None:
    """The money of a day, the days, their runs, differences and cases: none of it reads a table that grows."""
    await put_closing(db, "alipay", DAY, {})
    await paid_at(db, "A-1", SINCE)
    await ran(db, difference())
    await read_money(db, "alipay", SINCE, UNTIL)
    await list_closings(db, limit=5)
    await list_closings(db, account="alipay", limit=5)
    await find_cases_of(db, "alipay", [difference()])
    await list_cases(db, oldest_first=True, reason=CaseReason.DISPUTED)
    await list_disputes(db)
    await list_disputes(db, state=DisputeState.WON)
    wide = {
        statement: parts
        for statement, parts in (await wide_plans(db)).items()
        if any("payments" in part or "refunds" in part or "disputes" in part or "cases" in part for part in parts)
    }
    assert not wide, list(wide.values())
