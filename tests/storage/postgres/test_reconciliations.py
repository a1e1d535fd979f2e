"""Runs and their rows in Postgres: one at a time, carried on or begun anew, and memory of what was seen."""

import asyncio
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from core.errors import ConflictsExhausted
from core.order import CaseReason
from core.reconciliation import Difference, Finding
from storage.postgres.cases import list_cases
from storage.postgres.database import Database
from storage.postgres.reconciliation.candidates import CANDIDATES_MAX, UnknownMoney, find_candidates
from storage.postgres.reconciliation.differences import (
    DIFFERENCES_MAX,
    RecordedRow,
    add_differences,
    delete_rows,
    find_unlisted_payments,
    list_differences,
    open_cases,
    record_rows,
    resolve_settled_cases,
)
from storage.postgres.reconciliation.runs import (
    Reconciliation,
    begin,
    claim_day,
    claim_file,
    fail,
    find_last_reconciliations,
    finish,
    finished_days,
    list_reconciliations,
    release,
    renew,
    save,
)
from tests.storage.postgres.tools import commit_evidence, count, paid, placed

DAY = date(2026, 11, 22)
SHA = b"s" * 32
OTHER = b"o" * 32


async def claimed(db: Database, day: date = DAY, **more: bool) -> Reconciliation:
    run = await claim_day(db, "alipay", day, dry_run=more.pop("dry_run", False), lease_s=20.0, **more)
    assert run is not None
    return run


async def begun(db: Database, day: date = DAY) -> Reconciliation:
    return await begin(db, await claimed(db, day), SHA)


def recorded(row_no: int, number: str = "alipay-A-1", **more: Any) -> RecordedRow:
    fields: dict[str, Any] = {"is_refund": False, "out_trade_no": number, "refund_no": "", "amount": 8888}
    return RecordedRow(row_no=row_no, **fields | more)


def difference(row_no: int, **more: Any) -> Difference:
    fields: dict[str, Any] = {
        "kind": Finding.AMOUNT,
        "detail": "1 there, 2 here",
        "order_no": "A-1",
        "out_trade_no": "alipay-A-1",
        "case": CaseReason.STATEMENT_AMOUNT,
    }
    return Difference(row_no=row_no, **fields | more)


# -- the run -----------------------------------------------------------------------------------------------------------


async def test_of_many_at_once_one_has_the_run(db: Database) -> None:
    claims = await asyncio.gather(*(claim_day(db, "alipay", DAY, dry_run=False, lease_s=20.0) for _ in range(8)))
    assert sum(run is not None for run in claims) == 1
    assert await count(db, "reconciliations") == 1


async def test_other_days_accounts_and_dry_runs_are_other_runs(db: Database) -> None:
    await claimed(db)
    await claimed(db, DAY - timedelta(days=1))
    await claimed(db, dry_run=True)
    assert await claim_day(db, "wechatpay", DAY, dry_run=False, lease_s=20.0) is not None
    assert await claim_file(db, "alipay", SHA, dry_run=False, lease_s=20.0) is not None
    assert await claim_file(db, "alipay", SHA, dry_run=False, lease_s=20.0) is None
    assert await claim_file(db, "alipay", OTHER, dry_run=False, lease_s=20.0) is not None


async def test_a_run_whose_lease_has_ended_is_carried_on_over_the_same_statement(db: Database) -> None:
    run = await begun(db)
    await save(db, run, 501, {"rows": 500})
    await db.execute("UPDATE reconciliations SET leased_until = now()")

    again = await begin(db, await claimed(db), SHA)

    assert (again.id, again.next_row, again.counts, again.started_at) == (run.id, 501, {"rows": 500}, run.started_at)


async def test_over_another_statement_it_begins_at_the_first_row(db: Database) -> None:
    run = await begun(db)
    await record_rows(db, run.id, [recorded(1)])
    await add_differences(db, run.id, [difference(1)])
    await save(db, run, 501, {"rows": 500})
    await release(db, run)

    again = await begin(db, await claimed(db), OTHER)

    assert (again.id, again.next_row, again.counts) == (run.id, 1, {})
    assert again.started_at > run.started_at
    assert await count(db, "reconciliation_rows") == await count(db, "reconciliation_differences") == 0


async def test_who_has_lost_the_lease_writes_nothing(db: Database) -> None:
    late = await begun(db)
    await db.execute("UPDATE reconciliations SET leased_until = now()")
    await begun(db)
    assert not await renew(db, late, 20.0)
    await fail(db, late, "late", 60.0)
    await release(db, late)
    for write in (begin(db, late, OTHER), save(db, late, 9, {}), finish(db, late, {})):
        with pytest.raises(ConflictsExhausted):
            await write
    [run] = await list_reconciliations(db)
    assert (run.status, run.next_row, run.attempt) == ("running", 1, 1)


async def test_a_renewed_lease_goes_on(db: Database) -> None:
    run = await begun(db)
    await db.execute("UPDATE reconciliations SET leased_until = now()")
    assert await renew(db, run, 20.0)
    assert await claim_day(db, "alipay", DAY, dry_run=False, lease_s=20.0) is None


async def test_a_failed_run_is_due_again_later_and_an_operator_need_not_wait(db: Database) -> None:
    run = await begun(db)
    await fail(db, run, "ChannelUnavailable: \0timed_out", 60.0)
    assert await claim_day(db, "alipay", DAY, dry_run=False, lease_s=20.0, only_due=True) is None
    [failed] = await list_reconciliations(db)
    assert (failed.status, failed.attempt, failed.finished_at) == ("failed", 2, None)
    assert (await claimed(db)).id == run.id


async def test_a_finished_run_is_kept_and_the_next_one_is_another(db: Database) -> None:
    first = await finish(db, await begun(db), {"rows": 3, "agrees": 3})
    assert (first.status, first.counts) == ("finished", {"rows": 3, "agrees": 3})
    second = await claimed(db)
    assert second.id != first.id
    assert [run.id for run in await list_reconciliations(db)] == [second.id, first.id]
    assert await list_reconciliations(db, account="stripe") == []


async def test_finished_days_are_the_last_runs_that_were_not_dry(db: Database) -> None:
    await finish(db, await begin(db, await claimed(db, dry_run=True), SHA), {})
    assert await finished_days(db, "alipay", [DAY]) == {}
    await finish(db, await begun(db), {})
    last = await finish(db, await begun(db), {})
    days = await finished_days(db, "alipay", [DAY, DAY + timedelta(days=1)])
    assert {day: each.id for day, each in days.items()} == {DAY: last.id}


async def test_metrics_tell_of_accounts_that_are_there(db: Database) -> None:
    await finish(db, await begun(db), {"amount": 2})
    assert await find_last_reconciliations(db) == []
    await db.execute("INSERT INTO accounts (name, channel, sealed) VALUES ('alipay', 'alipay', '')")
    [last] = await find_last_reconciliations(db)
    assert (last.account, last.counts) == ("alipay", {"amount": 2})
    assert 0 <= last.age_s < 60


# -- its rows ----------------------------------------------------------------------------------------------------------


async def test_what_came_before_a_row_is_known_across_batches(db: Database) -> None:
    run = await begun(db)
    back: dict[str, Any] = {"is_refund": True, "amount": 100}
    first = await record_rows(
        db,
        run.id,
        [recorded(1), recorded(2), recorded(3, **back), recorded(4, **back), recorded(5, refund_no="r", **back)],
    )
    assert [(row_no, each.repeats, each.refunded) for row_no, each in sorted(first.items())] == [
        (1, False, 0),
        (2, True, 0),
        (3, False, 300),
        (4, False, 300),
        (5, False, 300),
    ]
    second = await record_rows(db, run.id, [recorded(6), recorded(7, refund_no="r", **back), recorded(8, "alipay-A-2")])
    assert {row_no: each.repeats for row_no, each in second.items()} == {6: True, 7: True, 8: False}
    assert second[7].refunded == 300, "the same refund twice is one"


async def test_seeing_a_batch_again_makes_no_row_a_duplicate_of_itself(db: Database) -> None:
    run = await begun(db)
    rows = [
        recorded(1),
        recorded(2, "alipay-A-2"),
        recorded(3, is_refund=True, amount=5),
        recorded(4, is_refund=True, amount=7),
    ]
    once = await record_rows(db, run.id, rows)
    assert await record_rows(db, run.id, rows) == once
    assert not any(each.repeats for each in once.values())
    assert [once[row_no].refunded for row_no in (1, 2, 3, 4)] == [0, 0, 12, 12]


async def test_another_run_has_seen_nothing(db: Database) -> None:
    await record_rows(db, (await begun(db)).id, [recorded(1)])
    other = await begun(db, DAY - timedelta(days=1))
    assert not (await record_rows(db, other.id, [recorded(2)]))[2].repeats


async def test_what_was_paid_here_and_not_seen_is_found_page_by_page(db: Database) -> None:
    noon = datetime(2026, 11, 22, 12, tzinfo=UTC)
    for number in range(5):
        await placed(db, f"A-{number}")
        await commit_evidence(db, f"A-{number}", paid(f"A-{number}", at=noon + timedelta(minutes=number // 2)))
    run = await begun(db)
    await record_rows(db, run.id, [recorded(1, "alipay-A-3")])
    found: list[str] = []
    after: tuple[datetime, str] | None = (noon, "")
    while after is not None:
        page, after = await find_unlisted_payments(
            db, "alipay", after=after, until=noon + timedelta(minutes=2), run_ids=[run.id], limit=1
        )
        found += [each.order_no for each in page]
    assert found == ["A-0", "A-1", "A-2"], "A-3 was seen, A-4 was paid at the end of the span"


async def test_unpaid_orders_with_the_amount_of_a_row_are_its_candidates(db: Database) -> None:
    """Not those of other amounts, currencies, accounts or times, and none that is paid by now; a few at most."""
    for order_no in ("A-1", "A-2", "A-3"):
        await placed(db, order_no)
    await commit_evidence(db, "A-2", paid("A-2"))
    times = await db.fetchrow("SELECT created_at, payable_until FROM payments WHERE order_no = 'A-1'")
    assert times is not None
    created, payable_until = times
    day = timedelta(days=1)

    def money(row_no: int, **changes: Any) -> UnknownMoney:
        fields = {"amount": 8888, "currency": "CNY", "since": created - day, "until": created + day}
        return UnknownMoney(row_no=row_no, **fields | changes)

    rows = [
        money(1),
        money(2, amount=8887),
        money(3, currency="USD"),
        money(4, since=payable_until + 30 * day, until=payable_until + 31 * day),
        money(5, since=created - 2 * day, until=created),
    ]
    assert await find_candidates(db, "alipay", rows) == {1: ["A-1", "A-3"]}
    assert await find_candidates(db, "stripe", rows) == {}
    assert await find_candidates(db, "alipay", []) == {}
    for number in range(CANDIDATES_MAX):
        await placed(db, f"B-{number}")
    assert len((await find_candidates(db, "alipay", rows[:1]))[1]) == CANDIDATES_MAX


async def test_candidates_are_found_without_reading_the_table(db: Database) -> None:
    await placed(db, "A-1")
    await db.execute(
        """SET LOCAL session_replication_role = replica;
           INSERT INTO payments
           SELECT copy.* FROM (SELECT * FROM payments LIMIT 1) AS t, generate_series(1, 20000) AS i,
                  LATERAL jsonb_populate_record(t::payments, jsonb_build_object(
                      'order_no', 'copy-' || i, 'out_trade_no', 'n-' || i, 'amount', i)) AS copy;
           ANALYZE payments"""
    )
    sql = """EXPLAIN SELECT p.order_no FROM payments p
              WHERE p.channel_account = 'alipay' AND p.status <> 'paid' AND p.amount = 8888 AND p.created_at < now()"""
    plan = "\n".join(row[0] for row in await db.fetch(sql))
    assert "payments_unpaid_by_amount" in plan


async def test_rows_near_midnight_stay_and_the_others_go(db: Database) -> None:
    start = datetime(2026, 11, 22, tzinfo=UTC)
    for order_no, hours in (("A-1", 12.0), ("A-2", 0.5), ("A-3", 25.0)):
        await placed(db, order_no)
        await commit_evidence(db, order_no, paid(order_no, at=start + timedelta(hours=hours)))
    run = await begun(db)
    await record_rows(db, run.id, [recorded(row_no, f"alipay-A-{row_no}") for row_no in (1, 2, 3)])
    finished = await finish(db, run, {})
    await delete_rows(db, finished.id, "alipay", (start + timedelta(hours=1), start + timedelta(hours=23)))
    assert await count(db, "reconciliation_rows") == 2
    await delete_rows(db, finished.id, "alipay", None)
    assert await count(db, "reconciliation_rows") == 0


async def test_a_later_run_of_the_day_deletes_the_rows_of_an_earlier_one(db: Database) -> None:
    first = await begun(db)
    await record_rows(db, first.id, [recorded(1)])
    await finish(db, first, {})
    beside = await begun(db, DAY - timedelta(days=1))
    await record_rows(db, beside.id, [recorded(1)])
    await finish(db, beside, {})
    await finish(db, await begun(db), {})
    kept = await db.fetch("SELECT reconciliation_id AS id FROM reconciliation_rows")
    assert [row["id"] for row in kept] == [beside.id]


# -- differences and cases ---------------------------------------------------------------------------------------------


async def test_differences_are_kept_once_in_the_order_of_the_statement(db: Database) -> None:
    run = await begun(db)
    found = [difference(0, kind=Finding.PAID_HERE_ONLY), difference(7), difference(3, detail="nul \0")]
    await add_differences(db, run.id, found)
    await add_differences(db, run.id, found)
    listed = await list_differences(db, run.id)
    assert [each.row_no for each in listed] == [3, 7, 0]
    assert (listed[0].detail, listed[1].order_no) == ("nul \ufffd", "A-1")
    assert len(await list_differences(db, run.id, 2)) == 2


async def test_no_more_differences_are_kept_than_anybody_reads(db: Database) -> None:
    run = await begun(db)
    for start in range(0, DIFFERENCES_MAX + 2000, 1000):
        await add_differences(db, run.id, [difference(start + number) for number in range(1, 1001)])
    assert await count(db, "reconciliation_differences") == DIFFERENCES_MAX


async def test_a_question_is_open_once_and_not_differences_again_when_answered(db: Database) -> None:
    malformed = difference(
        0, kind=Finding.MALFORMED, order_no=None, out_trade_no="", case=CaseReason.STATEMENT_MALFORMED, detail="3 rows"
    )
    differences = [difference(1), difference(9), malformed, difference(2, case=None)]
    assert await open_cases(db, "alipay", differences) == 2
    assert await open_cases(db, "alipay", differences) == 0
    await db.execute("UPDATE cases SET resolved_at = now(), resolution = 'seen', by = 'alice'")
    assert await open_cases(db, "alipay", differences) == 0
    assert await open_cases(db, "alipay", [difference(1, detail="3 there, 2 here")]) == 1
    rows, _ = await list_cases(db)
    assert [(row.reason, row.out_trade_no, row.account) for row in rows] == [
        ("statement_amount", "alipay-A-1", "alipay")
    ]


async def test_questions_that_a_run_answers_are_closed(db: Database) -> None:
    for order_no in ("A-1", "A-2"):
        await placed(db, order_no)
    await commit_evidence(db, "A-1", paid())
    here_only, unconfirmed = CaseReason.STATEMENT_PAID_HERE_ONLY, CaseReason.STATEMENT_UNCONFIRMED
    differences = [
        difference(0, out_trade_no=number, case=case)
        for number in ("alipay-A-1", "alipay-A-2")
        for case in (here_only, unconfirmed)
    ]
    await open_cases(db, "alipay", differences)
    run = await begun(db)
    await record_rows(db, run.id, [recorded(1), recorded(2, "alipay-A-2", is_refund=True)])

    assert await resolve_settled_cases(db, run.id, "alipay", "2026-11-22") == 2

    rows, _ = await list_cases(db)
    assert {row.out_trade_no for row in rows} == {"alipay-A-2"}
    rows, _ = await list_cases(db, open_only=False)
    assert {(row.resolution, row.by) for row in rows if row.resolved_at} == {
        ("the statement of 2026-11-22 settles it", "reconciliation")
    }
