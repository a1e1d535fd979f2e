"""Alerts in Postgres: moved once, paged by time, and what their messages are."""

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from core.alerts import Condition, Judgement, Move, OpenAlert, Rule, judge
from core.errors import InvalidRequest
from storage.postgres import alerts
from storage.postgres.database import Database

NOW = datetime(2026, 11, 23, 4, 33, 33, tzinfo=UTC)


def condition(subject: str) -> Condition:
    return Condition(rule=Rule.OVERDUE, subject=subject, text=f"{subject} is late")


async def begin(db: Database, *subjects: str, raises: bool = True, now: datetime = NOW) -> list[alerts.MovedAlert]:
    begun = {
        f"alr_{index:04x}{subject.encode(errors='replace').hex()}": condition(subject)
        for index, subject in enumerate(subjects)
    }
    judgement = Judgement(begun=tuple(begun.values()), moves=(), raises=raises)
    return await alerts.apply(db, judgement, begun, [(f"{id_}_raised", id_, b"{}") for id_ in begun], now=now)


async def move(db: Database, alert: OpenAlert, what: str) -> list[alerts.MovedAlert]:
    moved = Move(alert=replace(alert, looks=alert.looks + 1), from_looks=alert.looks, what=what)  # type: ignore[arg-type]
    return await alerts.apply(db, Judgement(begun=(), moves=(moved,), raises=False), {}, [], now=NOW)


async def test_an_alert_of_one_key_is_open_once(db: Database) -> None:
    assert [told.subject for told in await begin(db, "a", "b")] == ["a", "b"]
    assert await begin(db, "b") == []
    assert len(await alerts.find_open(db)) == 2
    assert await db.fetchval("SELECT count(*) FROM alert_messages") == 2


async def test_what_is_not_raised_yet_has_no_message_and_is_not_listed(db: Database) -> None:
    assert await begin(db, "a", raises=False) == []
    assert await db.fetchval("SELECT count(*) FROM alert_messages") == 0
    assert await alerts.list_alerts(db, is_open=None) == ([], None)
    assert await alerts.count_open(db) == {}
    (alert,) = await alerts.find_open(db)
    assert (alert.looks, alert.raised_at) == (1, None)


@pytest.mark.parametrize("what", ["raise", "drop", "keep"])
async def test_a_move_from_what_is_not_so_any_more_does_nothing(db: Database, what: str) -> None:
    await begin(db, "a", raises=False)
    (alert,) = await alerts.find_open(db)
    assert len(await move(db, alert, what)) == (what == "raise")
    after = await alerts.find_open(db)
    assert await move(db, alert, what) == []
    assert await alerts.find_open(db) == after


async def test_a_cleared_alert_may_begin_anew(db: Database) -> None:
    await begin(db, "a")
    (alert,) = await alerts.find_open(db)
    assert [told.is_raised for told in await move(db, alert, "clear")] == [False]
    assert await alerts.find_open(db) == []
    later = {"alr_ff": condition("a")}
    judgement = judge([], [condition("a")], looks=1)
    assert [told.id for told in await alerts.apply(db, judgement, later, [], now=NOW)] == ["alr_ff"]


async def test_texts_that_postgres_cannot_hold_are_stored_all_the_same(db: Database) -> None:
    await begin(db, "a\0b\ud800")
    ((row,), _) = await alerts.list_alerts(db)
    assert row.subject == "a\ufffdb?"


async def test_alerts_are_listed_page_by_page_newest_first(db: Database) -> None:
    for number in range(5):
        await begin(db, f"s-{number}", now=NOW + timedelta(seconds=number // 2))
    seen, cursor = [], None
    while True:
        rows, cursor = await alerts.list_alerts(db, cursor=cursor, limit=2)
        seen += [row.subject for row in rows]
        if cursor is None:
            break
    assert seen == ["s-4", "s-3", "s-2", "s-1", "s-0"]
    assert await alerts.count_open(db) == {"overdue": 5}
    assert (await alerts.list_alerts(db, is_open=False))[0] == []


@pytest.mark.parametrize("cursor", ["x", "bm8", "WyIyMDI2LTExLTIzVDA0OjMzOjMzWiIsIngiXQ"])
async def test_a_cursor_that_is_none_of_ours_is_refused(db: Database, cursor: str) -> None:
    with pytest.raises(InvalidRequest, match="cursor"):
        await alerts.list_alerts(db, cursor=cursor)
