"""Notifications as people look at them: their attempts, their lists, sending them again, and paused endpoints."""

from datetime import UTC, datetime, timedelta

import pytest

from core.deliveries import ATTEMPTS_KEPT, Attempt, NotificationState
from core.errors import InvalidRequest
from core.lifecycle import on_deadline
from storage.postgres import deliveries, endpoints, notifications
from storage.postgres.database import Database
from storage.postgres.deliveries import Choice, Listed, NotificationRow, find_notification, list_notifications
from storage.postgres.endpoints import EndpointRow
from storage.postgres.notifications import Outgoing, claim, claim_overdue, claim_overdue_resent
from tests.storage.postgres.test_notifications import claimed, dead, due_within, to_deliver
from tests.storage.postgres.tools import (
    RULES,
    closed,
    commit_evidence,
    count,
    moved,
    opened,
    paid,
    pass_time,
    placed,
    rows,
)

HOOK = "https://shop.test/hook"
AT = datetime(2026, 11, 23, 12, tzinfo=UTC)


def tried(status: str, no: int = 1, **more: object) -> Attempt:
    return Attempt(no=no, at=AT, latency_ms=12, status=status, **more)  # type: ignore[arg-type]


async def shown(db: Database, notification_id: str) -> NotificationRow:
    found = await find_notification(db, notification_id)
    assert found is not None
    return found


async def delivered(db: Database, order_no: str = "A-1") -> str:
    outgoing = await claimed(db, await to_deliver(db, order_no))
    await notifications.finish(db, outgoing.id, "200", arm_no=1, record=tried("200"))
    return outgoing.id


async def superseded(db: Database) -> str:
    """The notification of a close that was given up before the money came."""
    await placed(db, expires_in_s=0.0)
    await commit_evidence(db, "A-1", closed())
    committed = await moved(db, "A-1", lambda state: on_deadline(state, RULES))
    assert committed.notification_id is not None
    await notifications.give_up(db, await claimed(db, committed.notification_id), "500")
    await commit_evidence(db, "A-1", paid())
    return committed.notification_id


async def resent(db: Database, notification_id: str, *, is_paced: bool = False) -> int:
    """Send it again; return its arm number."""
    [again] = await deliveries.resend(db, [notification_id], is_paced=is_paced)
    return again.arm_no


# -- attempts ----------------------------------------------------------------------------------------------------------


async def test_each_attempt_is_kept_by_the_statement_that_ends_it(db: Database) -> None:
    notification_id = await to_deliver(db)
    attempts = [tried("503", answer="not now"), tried("ConnectError", no=2), tried("200", no=3, answer="ok")]
    for arm_no, attempt in enumerate(attempts, 1):
        outgoing = await claimed(db, notification_id, arm_no=arm_no)
        if attempt.ok:
            await notifications.finish(db, outgoing.id, "200", arm_no=arm_no, record=attempt)
        else:
            await notifications.reschedule(
                db, outgoing, attempt=attempt.no + 1, delay_s=0.0, status=attempt.status, record=attempt
            )
    row = await shown(db, notification_id)
    assert (row.attempts, row.attempts_made, row.last_attempt) == (tuple(attempts), 3, attempts[-1])
    assert (row.state, row.next_at) == (NotificationState.DELIVERED, None)


async def test_a_given_up_one_has_its_last_attempt(db: Database) -> None:
    notification_id = await to_deliver(db)
    assert await notifications.give_up(db, await claimed(db, notification_id), "410", record=tried("410"))
    row = await shown(db, notification_id)
    assert (row.state, row.attempts) == (NotificationState.DEAD, (tried("410"),))


async def test_a_postponed_delivery_is_no_attempt(db: Database) -> None:
    notification_id = await to_deliver(db)
    outgoing = await claimed(db, notification_id)
    await notifications.reschedule(db, outgoing, attempt=1, delay_s=60.0, status="parked")
    row = await shown(db, notification_id)
    assert (row.attempts, row.attempts_made, row.last_attempt) == ((), 0, None)
    assert row.next_at == row.due_at


async def test_the_newest_attempts_are_kept(db: Database) -> None:
    notification_id = await to_deliver(db)
    for n in range(1, ATTEMPTS_KEPT + 3):
        outgoing = await claimed(db, notification_id, arm_no=n)
        await notifications.reschedule(db, outgoing, attempt=2, delay_s=0.0, status="500", record=tried("500", no=n))
    row = await shown(db, notification_id)
    assert [attempt.no for attempt in row.attempts] == list(range(3, ATTEMPTS_KEPT + 3))


async def test_deliveries_that_end_together_keep_their_own_attempts(database_url: str) -> None:
    """Callers share one statement; a repeated end adds nothing."""
    async with opened(database_url) as db:
        ids = [await to_deliver(db, f"A-{n}") for n in range(3)]
        for notification_id in ids:
            await claimed(db, notification_id)
        records = [notifications._encoded(tried("200", no=n)) for n in range(3)]
        ends = [notifications._End(one, "200", 1, record) for one, record in zip(ids, records, strict=True)]
        assert await notifications._finish_many(db, ends) == [True] * 3
        assert await notifications._finish_many(db, ends) == [False] * 3
        assert [(await shown(db, one)).attempts for one in ids] == [(tried("200", no=n),) for n in range(3)]


async def test_the_notifications_of_an_order_come_by_version(db: Database) -> None:
    notification_id = await superseded(db)
    first, second = await deliveries.notifications_of_order(db, "A-1")
    assert (first.id, first.type, first.state) == (notification_id, "order.closed", NotificationState.SUPERSEDED)
    assert (second.type, second.state) == ("order.paid", NotificationState.UNDELIVERED)
    assert await deliveries.notifications_of_order(db, "A-2") == []
    assert await find_notification(db, "msg_unknown") is None
    assert await deliveries.find_body(db, "msg_unknown") == b""
    assert b'"order.closed"' in await deliveries.find_body(db, notification_id)


async def test_one_that_is_being_sent_is_under_way(db: Database) -> None:
    notification_id = await to_deliver(db)
    await claimed(db, notification_id)
    row = await shown(db, notification_id)
    assert (row.standing.is_under_way, row.next_at, row.state) == (True, None, NotificationState.UNDELIVERED)


# -- sending again -----------------------------------------------------------------------------------------------------


async def test_a_delivered_one_is_sent_again_with_the_same_bytes_and_stays_delivered(db: Database) -> None:
    notification_id = await delivered(db)
    before = await shown(db, notification_id)
    arm_no = await resent(db, notification_id)
    assert await count(db, "notifications", "delivered_at IS NULL") == 0
    outgoing = await claimed(db, notification_id, arm_no=arm_no)
    assert (outgoing.attempt, outgoing.is_manual, outgoing.body) == (
        1,
        True,
        await deliveries.find_body(db, notification_id),
    )
    again = tried("200", is_manual=True)
    assert await notifications.finish(db, notification_id, "200", arm_no=arm_no, record=again)
    row = await shown(db, notification_id)
    assert row.attempts == (tried("200"), again)
    assert (row.standing, row.state) == (before.standing, NotificationState.DELIVERED)
    assert await claim(db, notification_id, 30.0, arm_no=arm_no) is None


async def test_a_delivered_one_that_is_not_heard_again_is_tried_and_then_left(db: Database) -> None:
    """It is no dead letter: the merchant had it."""
    notification_id = await delivered(db)
    outgoing = await claimed(db, notification_id, arm_no=await resent(db, notification_id))
    arm_no = await notifications.reschedule(db, outgoing, attempt=2, delay_s=0.0, status="500", record=tried("500"))
    assert arm_no is not None
    outgoing = await claimed(db, notification_id, arm_no=arm_no)
    assert not await notifications.give_up(db, outgoing, "500", record=tried("500", no=2))
    row = await shown(db, notification_id)
    assert (row.state, row.standing.resending_since, row.attempts_made) == (NotificationState.DELIVERED, None, 3)
    assert await notifications.list_dead_letters(db) == []
    assert await claim(db, notification_id, 30.0, arm_no=arm_no) is None


async def test_an_answer_that_comes_late_does_not_end_a_resending(db: Database) -> None:
    """The end of the first delivery is written twice: its outcome was unknown."""
    notification_id = await delivered(db)
    arm_no = await resent(db, notification_id)
    assert not await notifications.finish(db, notification_id, "200", arm_no=1, record=tried("200"))
    assert (await shown(db, notification_id)).standing.resending_since is not None
    assert await claim(db, notification_id, 30.0, arm_no=arm_no) is not None


async def test_a_superseded_one_is_sent_when_somebody_asks_for_it(db: Database) -> None:
    notification_id = await superseded(db)
    arm_no = await resent(db, notification_id)
    assert (await claimed(db, notification_id, arm_no=arm_no)).type == "order.closed"
    await notifications.finish(db, notification_id, "200", arm_no=arm_no)
    assert (await shown(db, notification_id)).state is NotificationState.DELIVERED


async def test_one_that_is_superseded_after_it_was_sent_again_is_not_sent(db: Database) -> None:
    await placed(db, expires_in_s=0.0)
    await commit_evidence(db, "A-1", closed())
    committed = await moved(db, "A-1", lambda state: on_deadline(state, RULES))
    assert committed.notification_id is not None
    arm_no = await resent(db, committed.notification_id)
    await commit_evidence(db, "A-1", paid())
    assert await claim(db, committed.notification_id, 30.0, arm_no=arm_no) is None
    assert await claim_overdue_resent(db, grace_s=-1.0, limit=10, lease_s=30.0) == []


async def test_an_undelivered_one_is_sent_again_from_its_first_attempt(db: Database) -> None:
    notification_id = await to_deliver(db)
    outgoing = await claimed(db, notification_id)
    await notifications.reschedule(db, outgoing, attempt=9, delay_s=4860.0, status="503", record=tried("503"))
    arm_no = await resent(db, notification_id)
    assert (await claimed(db, notification_id, arm_no=arm_no)).attempt == 1


async def test_what_is_under_way_or_erased_is_not_sent_again(db: Database) -> None:
    under_way, erased = await to_deliver(db, "A-1"), await delivered(db, "A-2")
    await claimed(db, under_way)
    await db.execute("UPDATE notifications SET body = '' WHERE id = $1", erased)
    assert await deliveries.resend(db, [under_way, erased, "msg_unknown"], is_paced=False) == []
    assert (await shown(db, erased)).standing.is_erased


async def test_the_sweep_finds_delivered_ones_that_were_sent_again(db: Database) -> None:
    """Redis may have lost the job."""
    notification_id = await delivered(db)
    await resent(db, notification_id)
    await pass_time(db, "notifications", 60.0)
    assert await claim_overdue(db, grace_s=15.0, limit=10, lease_s=30.0) == []
    [outgoing] = await claim_overdue_resent(db, grace_s=15.0, limit=10, lease_s=30.0)
    assert (outgoing.id, outgoing.is_manual, outgoing.grace_s) == (notification_id, True, 15.0)
    assert await claim_overdue_resent(db, grace_s=15.0, limit=10, lease_s=30.0) == []


# -- lists -------------------------------------------------------------------------------------------------------------


async def listed(db: Database, which: Listed, **more: object) -> list[str]:
    """The order numbers of a whole list, read in pages of two."""
    found, cursor = list[str](), None
    while True:
        choice = Choice(listed=which, **more)  # type: ignore[arg-type]
        page, cursor = await list_notifications(db, choice, cursor=cursor, limit=2)
        found += [row.order_no for row in page]
        if cursor is None:
            return found


async def test_each_list_has_its_own_in_its_order(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(3):
        await delivered(db, f"D-{n}")
        await dead(db, f"X-{n}")
        await to_deliver(db, f"U-{n}")
    assert await listed(db, Listed.DELIVERED) == ["D-2", "D-1", "D-0"]
    assert await listed(db, Listed.DEAD) == ["X-2", "X-1", "X-0"]
    assert await listed(db, Listed.UNDELIVERED) == ["U-0", "U-1", "U-2"]
    assert await listed(db, Listed.PAUSED) == []
    await endpoints.pause(db, HOOK, by="kim", reason="")
    assert await listed(db, Listed.PAUSED) == ["U-0", "U-1", "U-2"]


@pytest.mark.parametrize("read_max", [1, 2, 3, 100])
async def test_a_page_reads_a_bounded_number_and_the_next_one_goes_on(
    db: Database, monkeypatch: pytest.MonkeyPatch, read_max: int
) -> None:
    monkeypatch.setattr(deliveries, "READ_MAX", read_max)
    for n in range(7):
        await delivered(db, f"A-{n}")
    await db.execute("UPDATE notifications SET url = 'https://other.test/?n=1' WHERE order_no IN ('A-0', 'A-5')")
    assert await listed(db, Listed.DELIVERED, endpoint="https://other.test/") == ["A-5", "A-0"]
    assert await listed(db, Listed.DELIVERED, endpoint="https://nobody.test/") == []
    await db.execute("UPDATE notifications SET created_at = now() - interval '1 hour' WHERE order_no < 'A-4'")
    now = await db.fetchval("SELECT now()")
    assert await listed(db, Listed.DELIVERED, since=now - timedelta(minutes=5)) == ["A-6", "A-5", "A-4"]


async def test_a_list_has_the_newest_attempt_of_each(db: Database) -> None:
    notification_id = await to_deliver(db)
    for arm_no in (1, 2):
        outgoing = await claimed(db, notification_id, arm_no=arm_no)
        await notifications.reschedule(
            db, outgoing, attempt=arm_no + 1, delay_s=0.0, status="500", record=tried("500", no=arm_no)
        )
    [row], _ = await list_notifications(db, Choice())
    assert (row.attempts, row.attempts_made) == ((tried("500", no=2),), 2)


async def test_a_cursor_that_is_not_ours_is_refused(db: Database) -> None:
    with pytest.raises(InvalidRequest, match="cursor"):
        await list_notifications(db, Choice(), cursor="nonsense")


# -- paused endpoints --------------------------------------------------------------------------------------------------


async def of_endpoint(db: Database, endpoint: str = HOOK) -> EndpointRow:
    [row] = [row for row in await endpoints.list_endpoints(db) if row.endpoint == endpoint]
    return row


async def held(db: Database, order_no: str = "A-1") -> Outgoing:
    """A notification that came due while its endpoint was paused."""
    outgoing = await claimed(db, await to_deliver(db, order_no))
    assert outgoing.is_paused
    await notifications.hold(db, outgoing)
    return outgoing


async def test_a_claim_tells_that_the_endpoint_is_paused(db: Database) -> None:
    """Alone, among many and from the sweep; the query of the URL does not matter."""
    await endpoints.pause(db, HOOK, by="kim", reason="they move")
    first, second, third = [await to_deliver(db, f"A-{n}") for n in range(3)]
    await db.execute("UPDATE notifications SET url = url || '?order=' || order_no")
    assert (await claimed(db, first)).is_paused
    many = await db.fetch(notifications._CLAIM_MANY, [second, "msg_unknown"], [1, 1], [30.0, 30.0], "here")
    assert [(row["id"], row["is_paused"]) for row in many] == [(second, True), (None, False)]
    await pass_time(db, "notifications", 60.0, f"id = '{third}'")
    [overdue] = await claim_overdue(db, grace_s=15.0, limit=10, lease_s=30.0)
    assert (overdue.id, overdue.is_paused) == (third, True)


async def test_what_is_held_is_not_due_and_uses_no_attempt(db: Database) -> None:
    await endpoints.pause(db, HOOK, by="kim", reason="they move")
    outgoing = await held(db)
    row = await shown(db, outgoing.id)
    assert (row.state, row.attempt, row.attempts, row.next_at) == (NotificationState.PAUSED, 1, (), None)
    assert await due_within(db, 3600.0) == []
    assert await claim_overdue(db, grace_s=-3600.0, limit=10, lease_s=30.0) == []
    assert await endpoints.let_go(db, limit=10, gap_s=0.0) == []


async def test_what_is_held_is_due_in_a_day_should_all_forget_it(db: Database) -> None:
    await endpoints.pause(db, HOOK, by="kim", reason="")
    outgoing = await held(db)
    await pass_time(db, "notifications", notifications.HELD_S)
    again = await claimed(db, outgoing.id, arm_no=2)
    assert again.is_paused
    assert await count(db, "notifications", "held_at IS NOT NULL") == 0


async def test_a_resumed_endpoint_gets_what_was_held_one_after_another_oldest_first(db: Database) -> None:
    await endpoints.pause(db, HOOK, by="kim", reason="")
    ids = [(await held(db, f"A-{n}")).id for n in range(5)]
    assert await endpoints.resume(db, HOOK)
    assert (await shown(db, ids[0])).state is NotificationState.QUEUED
    gone = await endpoints.let_go(db, limit=3, gap_s=0.5)
    assert sorted(gone, key=lambda row: row[2]) == [(ids[0], 3, 0.0), (ids[1], 3, 0.5), (ids[2], 3, 1.0)]
    assert (await shown(db, ids[0])).state is NotificationState.UNDELIVERED
    assert [row[0] for row in await endpoints.let_go(db, limit=3, gap_s=0.5)] == ids[3:]
    assert await endpoints.let_go(db, limit=3, gap_s=0.5) == []


async def test_endpoints_get_their_turns_side_by_side_and_paused_ones_none(db: Database) -> None:
    for n in range(4):
        await to_deliver(db, f"A-{n}")
    for endpoint, order_nos in (("one", ["A-0", "A-1"]), ("paused", ["A-2"]), ("two", ["A-3"])):
        url = f"https://{endpoint}.test/hook"
        await db.execute("UPDATE notifications SET url = $1, held_at = now() WHERE order_no = ANY($2)", url, order_nos)
    await endpoints.pause(db, "https://paused.test/hook", by="kim", reason="")
    ids = {row["id"]: row["order_no"] for row in await rows(db, "notifications", "id, order_no")}
    assert {ids[row[0]] for row in await endpoints.let_go(db, limit=2, gap_s=0.0)} == {"A-0", "A-3"}
    assert [ids[row[0]] for row in await endpoints.let_go(db, limit=2, gap_s=0.0)] == ["A-1"]


async def test_many_that_are_sent_again_wait_for_their_turn(db: Database) -> None:
    ids = [await dead(db, f"A-{n}") for n in range(3)]
    resent = await deliveries.resend(db, ids, is_paced=True)
    assert sorted(row.id for row in resent) == sorted(ids)
    assert all(row.is_held for row in resent)
    assert await due_within(db, 3600.0) == []
    assert (await shown(db, ids[0])).state is NotificationState.QUEUED
    gone = await endpoints.let_go(db, limit=2, gap_s=0.1)
    assert {row[0] for row in gone} == set(ids[:2])
    assert (await claimed(db, gone[0][0], arm_no=gone[0][1])).is_manual


async def test_an_endpoint_is_paused_once_and_resumed_once(db: Database) -> None:
    assert await endpoints.find_pause(db, HOOK) is None
    assert await endpoints.pause(db, HOOK, by="kim", reason="they move")
    assert not await endpoints.pause(db, HOOK, by="lee", reason="again")
    pause = await endpoints.find_pause(db, HOOK)
    assert pause is not None
    assert (pause.endpoint, pause.paused_by, pause.reason) == (HOOK, "kim", "they move")
    assert await endpoints.resume(db, HOOK)
    assert not await endpoints.resume(db, HOOK)


async def test_endpoints_with_the_oldest_undelivered_notification_come_first_and_each_is_found(db: Database) -> None:
    urls = ("https://newer.test/hook?x=1", "https://older.test/", "https://dead.test/")
    for n, url in enumerate(urls):
        await db.execute("UPDATE notifications SET url = $2 WHERE id = $1", await to_deliver(db, f"A-{n}"), url)
    await db.execute("UPDATE notifications SET created_at = created_at - interval '1 h' WHERE order_no = 'A-1'")
    await db.execute("UPDATE notifications SET dead_at = now() WHERE order_no = 'A-2'")
    await endpoints.pause(db, "https://paused.test/", by="kim", reason="they move")
    listed = await endpoints.list_endpoints(db)
    assert [(row.endpoint, row.undelivered, row.dead) for row in listed] == [
        ("https://older.test/", 1, 0),
        ("https://newer.test/hook", 1, 0),
        ("https://paused.test/", 0, 0),
        ("https://dead.test/", 0, 1),
    ]
    assert [await endpoints.find_endpoint(db, row.endpoint) for row in listed] == listed
    assert await endpoints.find_endpoint(db, "https://none.test/") is None
    first = await endpoints.list_endpoints(db, limit=1)
    assert [row.endpoint for row in first] == ["https://older.test/", "https://paused.test/"]


async def test_endpoints_are_listed_with_what_waits_for_them(db: Database) -> None:
    assert await endpoints.list_endpoints(db) == []
    await endpoints.pause(db, "https://quiet.test/", by="kim", reason="")
    first = await claimed(db, await to_deliver(db, "A-0"))
    await notifications.reschedule(db, first, attempt=2, delay_s=240.0, status="500", record=tried("500"))
    await to_deliver(db, "A-1")
    await dead(db, "A-2")
    row = await of_endpoint(db)
    assert (row.undelivered, row.held, row.dead, row.pause, row.last_failure) == (2, 0, 1, None, tried("500"))
    assert row.oldest_at == (await shown(db, first.id)).created_at
    quiet = await of_endpoint(db, "https://quiet.test/")
    assert (quiet.undelivered, quiet.dead, quiet.pause is not None, quiet.last_failure) == (0, 0, True, None)
    await endpoints.pause(db, HOOK, by="kim", reason="")
    await held(db, "A-3")
    assert ((await of_endpoint(db)).held, (await of_endpoint(db)).undelivered) == (1, 3)
