"""Rows that are still open, as the demo names them, and that it is not content with them."""

from msgspec.structs import replace

from demo.open_work import OpenWork, count_open_work, list_open_work
from demo.report import Report, lines
from storage.postgres import pending
from tests.storage.postgres.tools import closed, commit_evidence, number, opened, placed

CLEAN = Report(
    seed=1,
    placed=2,
    paid_at_channel=2,
    repaired_by={"query": 2},
    repair_p50_s=0.5,
    repair_p99_s=1.0,
    callback_only_lost=0,
    lost=0,
    false=0,
    closed=0,
    cases={},
    untrue_pages=0,
    channel_calls=4,
    busiest_second=2,
    duration_s=40.0,
    chaos=(),
    violations=(),
)
DEADLINE = OpenWork(
    work="deadline", number="D-7", attempt=6, due_in_s=8.2, leased_for_s=0.0, reason="unclear_seen, http 500"
)


def test_a_row_that_is_still_open_is_not_definite() -> None:
    """The exit code of the demo is 1 then."""
    assert CLEAN.is_good
    assert not replace(CLEAN, still_open=(DEADLINE,)).is_good


def test_the_report_says_what_is_open_and_why() -> None:
    text = lines(replace(CLEAN, still_open=(DEADLINE,)))
    assert "STILL OPEN deadline D-7: attempt 6, due in 8 s, last: unclear_seen, http 500" in text
    assert "not definite 1" in text
    assert "not definite 0" in lines(CLEAN)


async def test_open_rows_are_listed_with_their_work_and_its_state(database_url: str) -> None:
    async with opened(database_url) as db:
        await placed(db, "A-1")
        assert await pending.claim(db, number("A-1"), 20.0) is not None
        rows = await list_open_work(db, 20.0)
        assert await count_open_work(db, 20.0) == len(rows) == 2
        query = next(row for row in rows if row.work == "query")
        deadline = next(row for row in rows if row.work == "deadline")
        assert (query.number, query.attempt, query.reason) == (number("A-1").out_trade_no, 1, "nothing yet")
        assert "under way, its lease ends in" in query.sentence
        assert (deadline.number, deadline.leased_for_s) == ("A-1", 0.0)
        assert "due in" in deadline.sentence


async def test_the_question_about_a_closed_payment_a_day_later_is_not_waited_for(database_url: str) -> None:
    async with opened(database_url) as db:
        await placed(db, "A-1")
        await commit_evidence(db, "A-1", closed())
        assert [row.work for row in await list_open_work(db, 20.0)] == ["deadline"]
        assert {row.work for row in await list_open_work(db, 90_000.0)} == {"deadline", "query"}
